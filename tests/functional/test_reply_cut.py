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

"""Holding back the replies of a server, by real packet rules, in a network
namespace of its own."""

import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
from unittest import mock

import ddt

from acme_appliance.exporters import base
from acme_appliance.exporters.kernel import cut
from acme_appliance.host import nfsserver
from acme_appliance.host import packetrules

_CLONE_NEWNET = 0x40000000
_LIMIT_SECONDS = 60.0

#: Forms by name.
FORMS = {"nft": packetrules._nft_rule, "ipset": packetrules._ipset_rule}

#: Holds back, tells so, and waits.
HOLD = """
    import pathlib, sys, time
    from acme_appliance.exporters.kernel import cut
    from acme_appliance.host import nfsserver, packetrules
    nfsserver.PORTLIST = pathlib.Path(sys.argv[1])
    form = getattr(packetrules, sys.argv[2])
    packetrules.install = lambda: packetrules._install((form,))
    with cut.prepared() as prepared, prepared.shut(4.0):
        print("shut", flush=True)
        time.sleep(600)
"""


def set_namespace(call, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, call)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), call)


class RuleCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root may change packet rules")
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        cls.addClassCleanup(os.close, before)
        set_namespace("unshare", _CLONE_NEWNET)
        cls.addClassCleanup(set_namespace, "setns", before, _CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    def setUp(self):
        super().setUp()
        self.server = self.enterContext(
            socket.create_server(("127.0.0.1", 0), backlog=1000)
        )
        self.port = self.server.getsockname()[1]
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.portlist = pathlib.Path(folder, "portlist")
        self.portlist.write_text(f"tcp {self.port}\n")
        self.enterContext(
            mock.patch.object(nfsserver, "PORTLIST", self.portlist)
        )

    def use(self, name):
        """Use only one form; skip if this kernel lacks it."""
        form = FORMS[name]
        try:
            with form():
                pass
        except packetrules.RuleError as error:
            self.skipTest(str(error))
        self.enterContext(
            mock.patch.object(
                packetrules, "install", lambda: packetrules._install((form,))
            )
        )
        return form.__name__

    def is_reachable(self):
        endpoints = [("127.0.0.1", self.port)]
        return bool(nfsserver.connected(endpoints, 0.2))

    def wait_until_reachable(self):
        end = time.monotonic() + _LIMIT_SECONDS
        while not self.is_reachable():
            self.assertLess(time.monotonic(), end, "it stays shut")

    def check_nothing_is_left(self):
        for program, argv in (
            ("nft", ["list", "tables"]),
            ("ipset", ["list", "-name"]),
            ("iptables-legacy", ["-S"]),
            ("ip6tables-legacy", ["-S"]),
        ):
            if shutil.which(program):
                found = subprocess.run(
                    [program, *argv], capture_output=True, text=True
                )
                self.assertNotIn(packetrules.NAME, found.stdout, program)

    @contextlib.contextmanager
    def holder(self, form, *prefix):
        """A process that holds back the replies now.

        :param prefix: of its command.
        """
        program = subprocess.Popen(
            [
                *prefix,
                *(sys.executable, "-c", textwrap.dedent(HOLD)),
                *(str(self.portlist), form),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.assertEqual("shut\n", program.stdout.readline())
            yield program
        finally:
            program.kill()
            program.wait()
            program.stdout.close()


@ddt.ddt
class TestForms(RuleCase):
    @ddt.data(*FORMS)
    def test_shut_and_open(self, name):
        self.use(name)
        with cut.prepared() as prepared:
            self.assertTrue(self.is_reachable())
            for _ in range(3):
                with prepared.shut(3.0):
                    self.assertFalse(self.is_reachable())
                self.assertTrue(self.is_reachable())
                self.assertGreater(prepared.pause_seconds, 0.2)
        self.check_nothing_is_left()

    @ddt.data(*FORMS)
    def test_opens_after_an_error(self, name):
        self.use(name)
        with cut.prepared() as prepared:
            with self.assertRaises(ZeroDivisionError), prepared.shut(3.0):
                raise ZeroDivisionError
            self.assertTrue(self.is_reachable())
        self.check_nothing_is_left()

    @ddt.data(*FORMS)
    def test_expires(self, name):
        self.use(name)
        with cut.prepared() as prepared:
            with self.assertRaises(base.CutLost), prepared.shut(1.0):
                self.wait_until_reachable()
            # And once more.
            with prepared.shut(3.0):
                self.assertFalse(self.is_reachable())
        self.check_nothing_is_left()

    @ddt.data(*FORMS)
    def test_a_rule_that_vanishes_is_noticed(self, name):
        self.use(name)
        with cut.prepared() as prepared:
            with self.assertRaises(base.CutLost), prepared.shut(3.0):
                prepared._rule.open([self.port])
        self.check_nothing_is_left()

    @ddt.data(*FORMS)
    def test_a_killed_process_leaves_nothing_shut(self, name):
        form = self.use(name)
        with self.holder(form) as program:
            self.assertFalse(self.is_reachable())
            program.kill()
            self.wait_until_reachable()
        cut.sweep()
        self.check_nothing_is_left()

    @ddt.data(*FORMS)
    def test_a_stopped_process_leaves_nothing_shut(self, name):
        form = self.use(name)
        with self.holder(form) as program:
            program.send_signal(signal.SIGSTOP)
            self.assertFalse(self.is_reachable())
            self.wait_until_reachable()
        cut.sweep()
        self.check_nothing_is_left()

    @ddt.data(*FORMS)
    def test_not_begun_where_another_rule_accepts(self, name):
        self.use(name)
        with mock.patch.object(packetrules._NftRule, "shut", autospec=True):
            with mock.patch.object(
                packetrules._IpsetRule, "shut", autospec=True
            ):
                with cut.prepared() as prepared:
                    with self.assertRaisesRegex(base.CannotCut, "not stop"):
                        with prepared.shut(3.0):
                            self.fail("it is not in force")
        self.check_nothing_is_left()

    def test_nobody_else_can_flush_the_rule(self):
        self.use("nft")
        if shutil.which("nft") is None:
            self.skipTest("the program nft is not installed")
        with cut.prepared() as prepared, prepared.shut(3.0):
            subprocess.run(["nft", "flush", "ruleset"], capture_output=True)
            self.assertFalse(self.is_reachable())

    def test_the_privilege_of_the_unit_is_enough(self):
        form = self.use("nft")
        self.portlist.chmod(0o644)
        self.portlist.parent.chmod(0o755)
        privilege = "-all,+net_admin"
        with self.holder(
            form,
            *("setpriv", "--reuid", "65534", "--regid", "65534"),
            *("--clear-groups", "--no-new-privs", "--inh-caps", privilege),
            *("--ambient-caps", privilege, "--bounding-set", privilege),
        ):
            self.assertFalse(self.is_reachable())
        self.wait_until_reachable()

    def test_refused_without_the_privilege(self):
        program = """
            import pathlib, sys
            from acme_appliance.exporters import base
            from acme_appliance.exporters.kernel import cut
            from acme_appliance.host import nfsserver
            nfsserver.PORTLIST = pathlib.Path(sys.argv[1])
            cut.sweep()
            try:
                with cut.prepared():
                    pass
            except base.CannotCut as error:
                print(error)
        """
        found = subprocess.run(
            [
                *("setpriv", "--bounding-set", "-net_admin"),
                *("--inh-caps", "-net_admin", "--"),
                *(sys.executable, "-c", textwrap.dedent(program)),
                str(self.portlist),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertIn("CAP_NET_ADMIN", found.stdout)
