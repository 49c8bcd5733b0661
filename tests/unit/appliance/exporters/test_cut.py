# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Where the replies of the kernel's NFS server cannot be held back. The rules
themselves are in tests/functional/test_reply_cut.py."""

import contextlib
import pathlib
import socket
import tempfile
import unittest
from unittest import mock

import ddt

from acme_appliance.exporters import base
from acme_appliance.exporters.kernel import cut
from acme_appliance.host import nfsserver
from acme_appliance.host import packetrules


class Server(packetrules.Rule):
    """A server's socket, and a rule that closes it.

    :param works: False: the rule does nothing.
    """

    def __init__(self, *, works=True):
        self.works = works
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.port = self.socket.getsockname()[1]
        self.is_open = True

    def shut(self, ports, seconds):
        assert [*ports] == [self.port]
        self.is_open = False
        if self.works:
            self.socket.close()

    def open(self, ports):
        if self.is_open:
            raise packetrules.RuleError("no such element")
        self.is_open = True
        if self.works:
            self.socket = socket.create_server(
                ("127.0.0.1", self.port), backlog=1000
            )


@ddt.ddt
class TestRefusals(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(
            self.enterContext(tempfile.TemporaryDirectory())
        )
        self.server = Server()
        self.addCleanup(lambda: self.server.socket.close())
        self.portlist = self.folder / "portlist"
        self.portlist.write_text(f"tcp {self.server.port}\n")
        self.localio = self.folder / "localio_enabled"
        for module, name, value in (
            (nfsserver, "PORTLIST", self.portlist),
            (nfsserver, "LOCALIO", self.localio),
            (nfsserver, "may_change_rules", lambda: True),
            (packetrules, "install", lambda: self.installed()),
        ):
            self.enterContext(mock.patch.object(module, name, value))

    @contextlib.contextmanager
    def installed(self):
        yield self.server

    def check_refused(self, reason):
        with self.assertRaisesRegex(base.CannotCut, reason):
            with cut.prepared():
                self.fail("it must be refused")

    def test_held_back_where_nothing_is_in_the_way(self):
        self.localio.write_text("N\n")
        with cut.prepared() as prepared:
            with prepared.shut(3.0):
                self.assertFalse(self.server.is_open)
            self.assertTrue(self.server.is_open)
            self.assertGreater(prepared.pause_seconds, 0)

    def test_rdma(self):
        with self.portlist.open("a") as file:
            file.write("rdma 20049\n")
        self.check_refused("RDMA.*/etc/nfs.conf")

    def test_localio(self):
        self.localio.write_text("Y\n")
        self.check_refused("LOCALIO.*localio_enabled=N")

    def test_localio_that_comes_meanwhile(self):
        with cut.prepared() as prepared:
            self.localio.write_text("Y\n")
            with self.assertRaisesRegex(base.CannotCut, "LOCALIO"):
                with prepared.shut(3.0):
                    self.fail("it must be refused")
        self.assertTrue(self.server.is_open)

    def test_no_server(self):
        self.portlist.unlink()
        self.check_refused("no NFS server")

    def test_a_server_elsewhere(self):
        self.server.socket.close()
        self.check_refused("network namespace")

    def test_a_server_that_cannot_be_tried(self):
        with mock.patch.object(
            nfsserver, "connected", autospec=True, return_value=[]
        ):
            self.check_refused("does not answer on port")

    def test_no_privilege(self):
        with mock.patch.object(
            nfsserver, "may_change_rules", autospec=True, return_value=False
        ):
            self.check_refused("CAP_NET_ADMIN")
            # It could not have left anything, and removes nothing.
            with mock.patch.object(
                packetrules, "sweep", autospec=True
            ) as sweep:
                cut.sweep()
        self.assertFalse(sweep.called)

    def test_no_form_of_rule(self):
        def fail(reason):
            @contextlib.contextmanager
            def form():
                raise packetrules.RuleError(reason)
                yield

            return form

        forms = (fail("no inet"), fail("no ipset"))
        with mock.patch.object(
            packetrules, "install", lambda: packetrules._install(forms)
        ):
            self.check_refused("no inet; no ipset.*libnftables1")

    def test_a_rule_that_does_nothing(self):
        self.server.works = False
        with cut.prepared() as prepared:
            with self.assertRaisesRegex(base.CannotCut, "does not stop"):
                with prepared.shut(3.0):
                    self.fail("it is not in force")
        self.assertTrue(self.server.is_open)

    def test_a_rule_that_has_expired(self):
        with cut.prepared() as prepared:
            with self.assertRaises(base.CutLost), prepared.shut(3.0):
                self.server.open([self.server.port])

    def test_a_deadline_that_has_passed(self):
        """The rule's form does not tell that it has expired."""
        times = iter([100.0, 103.1])
        with cut.prepared() as prepared:
            with mock.patch.object(cut, "_now", lambda: next(times)):
                with self.assertRaises(base.CutLost), prepared.shut(3.0):
                    pass
        self.assertTrue(self.server.is_open)

    @ddt.data(
        ("0100007F", "127.0.0.1"),
        ("00000000000000000000000001000000", "::1"),
        ("B80D0120000000000000000001000000", "2001:db8::1"),
    )
    @ddt.unpack
    def test_addresses_of_sockets(self, text, address):
        self.assertEqual(address, nfsserver._address(text))
