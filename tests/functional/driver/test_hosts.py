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

"""Two hosts of one volume, each with its own address and NFS client.

Cinder's API and manager call the driver, os-brick mounts, and the kernel's
server decides who may read and write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import subprocess
import time
from typing import Any

from os_brick.initiator.connectors import remotefs as brick_remotefs

from acme_cinder import holders
from tests.functional.driver import test_nfs
from tests.harness import nethost
from tests.unit.driver import attachflow
from tests.unit.driver import base

WAIT_SECONDS = 60
#: For a host without access, which may wait for ever.
GIVE_UP_SECONDS = 10


class Execute(test_nfs.Execute):
    """os-brick's, on a host."""

    def __init__(self, host: nethost.NetHost) -> None:
        super().__init__()
        self._prefix = host.prefix

    def __call__(self, *command: str, **kwargs: Any) -> tuple[str, str]:
        return super().__call__(*self._prefix, *command, **kwargs)


class HostsTest(test_nfs.NfsCase):
    portal = nethost.SERVER

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.enterClassContext(nethost.server_address())

    def setUp(self) -> None:
        super().setUp()
        self.nova = attachflow.Nova(self, self.driver)
        self.one, self.two = (self.new_host(number) for number in (1, 2))
        self.volume = self.create(multiattach=True)

    def new_host(self, number: int) -> nethost.NetHost:
        made = nethost.NetHost(number, pathlib.Path(self.directory))
        made.start()
        self.addCleanup(made.stop)
        self.addCleanup(self.unmount_all)
        return made

    def connector(self, host: nethost.NetHost) -> dict[str, Any]:
        found: dict[str, Any] = base.connector(host.name, host.address)
        return found

    def mounted(self, host: nethost.NetHost, attachment_id: str) -> str:
        """As Nova and os-brick do it on the host."""
        info = self.nova.row(attachment_id).connection_info
        connector = brick_remotefs.RemoteFsConnector(
            "nfs",
            "sudo",
            execute=Execute(host),
            nfs_mount_point_base=str(host.mounts),
            conn=info,
        )
        path: str = connector.connect_volume(info)["path"]
        return path

    def unmounted(self, path: str) -> None:
        nethost.run("umount", os.path.dirname(path))
        os.rmdir(os.path.dirname(path))

    def assert_hosts(self, levels: dict[nethost.NetHost, str]) -> None:
        """The rules, the server's exports, and who can mount."""
        self.assertEqual(
            {holders.of_host(host.name): lv for host, lv in levels.items()},
            {
                holder: rule.level
                for holder, rule in self.share(self.volume).access.items()
            },
        )
        self.assertEqual(
            {host.address: level for host, level in levels.items()},
            self.exported(self.volume),
        )
        for host in (self.one, self.two):
            if host in levels:
                with self.asked(host) as path:
                    self.assertTrue(path.exists())
            else:
                with self.assertRaises(subprocess.CalledProcessError):
                    host.mount(self.volume.provider_location, "vers=4.2")

    @contextlib.contextmanager
    def asked(self, host: nethost.NetHost) -> Any:
        """The file through a mount that asks for writing, whatever Cinder
        told the host."""
        folder = host.mount(self.volume.provider_location, "rw,vers=4.2")
        try:
            yield folder / self.volume.name
        finally:
            host.unmount(folder)

    def assert_cannot_write(self, host: nethost.NetHost) -> None:
        with self.asked(host) as path:
            with self.assertRaisesRegex(OSError, "Read-only"):
                path.open("r+b").close()
            with self.assertRaisesRegex(OSError, "Read-only"):
                (path.parent / "new").open("wb").close()

    def test_live_migration(self) -> None:
        """The guest stops at the source before it goes on at the target."""
        server = attachflow.server()
        source = self.nova.attach(
            self.volume, server, self.connector(self.one)
        )
        here = self.mounted(self.one, source)
        self.write(here, "before")
        self.assert_hosts({self.one: "rw"})

        target = self.nova.create(
            self.volume, server, self.connector(self.two)
        )
        self.assert_hosts({self.one: "rw", self.two: "rw"})
        there = self.mounted(self.two, target)
        self.check(there, "before")
        self.write(here, "last", test_nfs.MIB)
        self.check(there, "last", test_nfs.MIB)

        self.unmounted(here)
        self.nova.delete(source)
        self.assert_hosts({self.two: "rw"})
        self.nova.complete(target)
        self.write(there, "after")

        self.unmounted(there)
        self.nova.delete(target)
        self.assert_hosts({})

    def test_evacuation(self) -> None:
        """The old host comes back, with the share mounted."""
        self.volume = self.create()
        server = attachflow.server()
        source = self.nova.attach(
            self.volume, server, self.connector(self.one)
        )
        here = self.mounted(self.one, source)
        self.write(here, "before")
        target = self.nova.create(self.volume, server)
        self.nova.delete(source)
        self.assert_hosts({})
        self.nova.update(target, self.connector(self.two))
        self.nova.complete(target)
        there = self.mounted(self.two, target)
        self.assert_hosts({self.two: "rw"})
        self.write(there, "after")
        self.assert_cannot_write_any_more(here)
        self.check(there, "after")
        self.unmounted(there)
        self.nova.delete(target)
        self.assert_hosts({})

    def assert_cannot_write_any_more(self, path: str) -> None:
        """It fails, or waits: a client whose lease has run out cannot get
        another one from a server that exports nothing to it."""
        done = subprocess.run(
            ["timeout", "-s", "KILL", str(GIVE_UP_SECONDS)]
            + ["dd", "if=/dev/zero", f"of={path}", "bs=4k", "count=1"]
            + ["conv=notrunc,fsync"],
            capture_output=True,
            timeout=WAIT_SECONDS,
        )
        self.assertNotEqual(0, done.returncode)

    def assert_write_fails(self, file: Any, codes: tuple[int, ...]) -> None:
        """On the wire, and not in the client's cache."""
        file.seek(0)
        with self.assertRaises(OSError) as caught:
            file.write(b"from a host that may not")
            os.fsync(file.fileno())
        self.assertIn(caught.exception.errno, codes)

    def test_read_only_beside_a_writer(self) -> None:
        reader = self.nova.attach(
            self.volume,
            attachflow.server(),
            self.connector(self.one),
            mode="ro",
        )
        writer = self.nova.attach(
            self.volume,
            attachflow.server(),
            self.connector(self.two),
            mode="rw",
        )
        self.assert_hosts({self.one: "ro", self.two: "rw"})
        here = self.mounted(self.one, reader)
        there = self.mounted(self.two, writer)
        self.write(there, "by the writer")
        self.check(here, "by the writer")
        self.assert_cannot_write(self.one)
        self.unmounted(here)
        self.nova.delete(reader)
        self.assert_hosts({self.two: "rw"})
        self.unmounted(there)
        self.nova.delete(writer)
        self.assert_hosts({})

    def test_the_same_host_read_only_and_read_write(self) -> None:
        """When the writer has gone, the host cannot write any more, not even
        into a file that it has open."""
        where = self.connector(self.one)
        reader = self.nova.attach(
            self.volume, attachflow.server(), where, mode="ro"
        )
        self.assert_cannot_write(self.one)
        writer = self.nova.attach(
            self.volume, attachflow.server(), where, mode="rw"
        )
        self.assert_hosts({self.one: "rw"})
        path = self.mounted(self.one, writer)
        self.write(path, "allowed")
        with self.asked(self.one) as asked, asked.open("r+b", 0) as kept:
            kept.write(b"allowed")
            os.fsync(kept.fileno())
            self.nova.delete(writer)
            self.wait_for_read_only(asked)
            self.assert_write_fails(kept, (errno.EROFS,))
        self.assert_hosts({self.one: "ro"})
        self.assert_cannot_write(self.one)
        self.unmounted(path)
        self.nova.delete(reader)
        self.assert_hosts({})

    def wait_for_read_only(self, path: pathlib.Path) -> None:
        """Until the client asks the server again whether it may write."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                path.open("r+b").close()
            except OSError:
                return
            time.sleep(0.2)
        self.fail("it can still be opened for writing")
