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

"""The exporter for the kernel's NFS server, with a real server and client.

Fails without a server: run it by tools/sandbox.sh.
"""

from concurrent import futures
import contextlib
import os
import pathlib
import subprocess
import tempfile
import unittest
from unittest import mock
import uuid

from acme_appliance import references
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base
from acme_appliance.exporters.kernel import exporter as kernel
from acme_appliance.host import commands
from acme_appliance.host import exportfs
from tests.harness import machine
from tests.unit.appliance import exporter_suite as suite

LOOPBACK = "127.0.0.1"
RW, RO = suite.RW, suite.RO


class CountingTable(exportfs.ExportTable):
    def __init__(self):
        super().__init__()
        self.count = 0

    def grant(self, exports, options):
        self.count += 1
        super().grant(exports, options)

    def revoke(self, exports):
        self.count += 1
        super().revoke(exports)

    def grant_from_files(self, exports):
        self.count += 1
        super().grant_from_files(exports)


class NfsCase(unittest.TestCase):
    """A pool below the server's root, and an exporter for it."""

    pool_class = machine.Pool

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        machine.require_nfsd()
        cls.root = exportfs.configured_root()
        cls.pool = cls.pool_class(512 << 20, parent=cls.root)
        cls.addClassCleanup(cls.pool.close)

    def setUp(self):
        super().setUp()
        self.engine = self.pool.engine()
        self.table = CountingTable()
        self.exporter = self.restarted()
        self.addCleanup(self.empty)

    def restarted(self):
        return kernel.KernelExporter(self.root, table=self.table)

    def empty(self):
        self.exporter.reconcile([], apply=True, remove=True)
        for id_ in self.engine.ids(engines.Kind.SHARE):
            self.engine.delete_share(id_)
        for id_ in self.engine.ids(engines.Kind.SNAPSHOT):
            self.engine.delete_snapshot(id_)

    def make_share(self):
        id_ = str(uuid.uuid4())
        self.engine.create_share(id_, engines.Owner(64061, 64062))
        self.engine.ensure_file(
            id_,
            engines.VolumeFile(
                "volume", 1 << 20, "sparse", engines.Owner(64061, 64062), 0o660
            ),
        )
        return self.directory(references.share(id_))

    def make_snapshot(self, share):
        """Create a snapshot of a share, with the same id."""
        id_ = share.reference.id
        self.engine.create_snapshot(id_, id_)
        return self.directory(references.snapshot(id_))

    def directory(self, reference):
        return base.ExportedDirectory(
            reference, self.engine.directory(reference), 64061, 64062
        )


class TestKernelExporter(NfsCase, suite.ExporterSuite):
    def changes(self):
        return self.table.count

    def tamper(self, share, clients):
        path = self.exporter.path(share.directory)
        subprocess.run(["exportfs", "-ua"], check=True)
        for client, level in clients.items():
            options = f"{level},fsid={share.reference.id}"
            self.table.grant([(path, client)], options)

    def test_path_is_below_the_root(self):
        share = self.make_share()
        self.assertEqual(
            "/" + os.path.relpath(share.directory, self.root),
            self.exporter.path(share.directory),
        )

    def test_server_is_ready(self):
        self.assertEqual([], self.exporter.check())

    def test_other_root_is_noticed(self):
        other = kernel.KernelExporter("/elsewhere")
        self.assertRegex(other.check()[0], "rootdir")

    def test_burst_is_few_processes(self):
        shares = [self.make_share() for _ in range(48)]
        with futures.ThreadPoolExecutor(len(shares)) as pool:
            list(
                pool.map(
                    lambda share: self.exporter.apply(share, {suite.ONE: RW}),
                    shares,
                )
            )
        self.assertEqual(
            {share.reference: {suite.ONE: RW} for share in shares},
            self.exporter.exported(),
        )
        self.assertLess(self.table.count, len(shares) // 2)

    def test_one_that_fails_fails_alone(self):
        shares = [self.make_share() for _ in range(16)]
        self.engine.delete_share(shares[5].reference.id)

        def apply(share):
            try:
                self.exporter.apply(share, {suite.ONE: RW})
            except base.ExporterError:
                return share.reference
            return None

        with futures.ThreadPoolExecutor(len(shares)) as pool:
            failed = set(pool.map(apply, shares)) - {None}
        self.assertEqual({shares[5].reference}, failed)
        for share in shares[:5] + shares[6:]:
            self.assertIn(share.reference, self.exporter.exported())

    def test_broken_file_of_somebody_else(self):
        other = pathlib.Path("/etc/exports.d/other.exports")
        other.write_text("/nonexistent 192.0.2.9(rw,nonsense)\n")
        self.addCleanup(other.unlink)
        wanted = [(self.make_share(), {suite.ONE: RW}) for _ in range(8)]
        self.exporter.reconcile(wanted, apply=True)
        self.assertEqual(8, len(self.exporter.exported()))

    def test_one_that_is_not_there_keeps_no_other_from_its_clients(self):
        """Few are repaired by their options, many by their files."""
        for count in (2, 20):
            shares = [self.make_share() for _ in range(count)]
            self.engine.delete_share(shares[0].reference.id)
            wanted = [(share, {suite.ONE: RW}) for share in shares]
            found = self.exporter.reconcile(wanted, apply=True)
            self.assertEqual(count, len(found))
            exported = self.exporter.exported()
            for share in shares[1:]:
                self.assertEqual({suite.ONE: RW}, exported[share.reference])
            self.empty()

    def test_files_make_the_same_table(self):
        share = self.make_share()
        clients = {suite.ONE: RW, suite.NET: RO, suite.SIX: RO}
        self.exporter.apply(share, clients)
        before = self.table.entries([share.reference.id])
        subprocess.run(["exportfs", "-r"], check=True)
        self.assertEqual(
            sorted(map(repr, before)),
            sorted(map(repr, self.table.entries([share.reference.id]))),
        )
        self.assertEqual({share.reference: clients}, self.exporter.exported())


class TestMounts(NfsCase):
    """What a client gets; this machine is the client."""

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.mount_point = pathlib.Path(folder.name)

    def mount(self, share):
        path = self.exporter.path(share.directory)
        commands.run(
            [
                "mount",
                "-t",
                "nfs",
                "-o",
                "vers=4.2,soft,timeo=50,retrans=1,retry=0",
                f"{LOOPBACK}:{path}",
                str(self.mount_point),
            ]
        )
        self.addCleanup(self.unmount, self.mount_point)

    @contextlib.contextmanager
    def written(self):
        """A share and its open file on a mount, with content."""
        share = self.make_share()
        self.exporter.apply(share, {LOOPBACK: RW})
        self.mount(share)
        with open(self.mount_point / "volume", "r+b", buffering=0) as file:
            file.write(b"before")
            os.fsync(file.fileno())
            yield share, file

    def unmount(self, mount_point):
        # Asking first is of no use: a revoked mount answers nothing.
        commands.run(["umount", "-l", str(mount_point)])

    def test_granted_client_reads_and_writes_as_the_owner(self):
        share = self.make_share()
        self.exporter.apply(share, {LOOPBACK: RW})
        self.mount(share)
        volume = self.mount_point / "volume"
        self.assertEqual(1 << 20, volume.stat().st_size)
        with open(volume, "r+b") as file:
            file.write(b"written over NFS")
        (self.mount_point / "new").write_text("x")
        found = os.stat(f"{share.directory}/new")
        self.assertEqual((64061, 64062), (found.st_uid, found.st_gid))
        data = pathlib.Path(share.directory, "volume").read_bytes()
        self.assertEqual(b"written over NFS", data[:16])

    def test_read_only_client_cannot_write(self):
        share = self.make_share()
        self.exporter.apply(share, {LOOPBACK: RO})
        self.mount(share)
        self.assertEqual(["volume"], os.listdir(self.mount_point))
        with self.assertRaisesRegex(OSError, "Read-only"):
            open(self.mount_point / "volume", "r+b").close()

    def test_nobody_mounts_what_is_not_granted(self):
        share, other = self.make_share(), self.make_share()
        for clients in ({}, {suite.ONE: RW}):
            self.exporter.apply(share, clients)
            self.exporter.apply(other, {LOOPBACK: RW})
            self.assertRaises(commands.CommandError, self.mount, share)

    def test_share_is_all_that_a_client_reaches(self):
        share, other = self.make_share(), self.make_share()
        self.exporter.apply(share, {LOOPBACK: RW})
        self.exporter.apply(other, {suite.ONE: RW})
        self.mount(share)
        up = self.mount_point / ".." / other.reference.id
        self.assertFalse(up.exists())

    def written_snapshot(self):
        """Of a share whose file was "then", and is "now"."""
        share = self.make_share()
        volume = pathlib.Path(share.directory, "volume")
        volume.write_bytes(b"then")
        os.chown(volume, 64061, 64062)
        os.chmod(volume, 0o660)
        snapshot = self.make_snapshot(share)
        volume.write_bytes(b"now")
        return share, snapshot

    def test_snapshot_is_read_and_not_written(self):
        """Only by the owner of its file, which all clients act as."""
        share, snapshot = self.written_snapshot()
        self.exporter.apply(share, {suite.ONE: RW})
        self.exporter.apply(snapshot, {LOOPBACK: RO})
        self.mount(snapshot)
        self.assertEqual(["volume"], os.listdir(self.mount_point))
        volume = self.mount_point / "volume"
        self.assertEqual(b"then", volume.read_bytes())
        for write in (
            lambda: open(volume, "r+b").close(),
            lambda: (self.mount_point / "new").write_text("x"),
            lambda: os.chmod(volume, 0o600),
            volume.unlink,
        ):
            with self.assertRaisesRegex(OSError, "Read-only"):
                write()

    def test_snapshot_in_a_pool_of_an_earlier_release(self):
        """Clients could not traverse its folder."""
        _, snapshot = self.written_snapshot()
        folder = os.path.dirname(snapshot.directory)
        os.chmod(folder, 0o700)
        self.engine.ensure_reachable(snapshot.reference.kind)
        self.assertEqual(0o711, os.stat(folder).st_mode & 0o7777)
        self.exporter.apply(snapshot, {LOOPBACK: RO})
        self.mount(snapshot)
        self.assertEqual(b"then", (self.mount_point / "volume").read_bytes())

    def test_share_and_snapshot_of_one_id_are_two_file_systems(self):
        share, snapshot = self.written_snapshot()
        self.exporter.apply(share, {LOOPBACK: RW})
        self.exporter.apply(snapshot, {LOOPBACK: RO})
        self.mount(share)
        first = os.stat(self.mount_point).st_dev
        self.assertEqual(b"now", (self.mount_point / "volume").read_bytes())
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.mount_point = pathlib.Path(folder.name)
        self.mount(snapshot)
        self.assertNotEqual(first, os.stat(self.mount_point).st_dev)
        self.assertEqual(b"then", (self.mount_point / "volume").read_bytes())

    def test_revoked_client_has_an_error_and_no_hang(self):
        share = self.make_share()
        self.exporter.apply(share, {LOOPBACK: RW})
        self.mount(share)
        self.exporter.apply(share, {})
        with self.assertRaises(OSError):
            os.listdir(self.mount_point)
            (self.mount_point / "late").write_text("x")
        self.exporter.apply(share, {LOOPBACK: RW})
        (self.mount_point / "again").write_text("granted again")

    def test_exported_share_can_be_deleted_once_withdrawn(self):
        share = self.make_share()
        self.exporter.apply(share, {LOOPBACK: RW})
        self.mount(share)
        self.exporter.withdraw(share.reference)
        self.engine.delete_share(share.reference.id)
        self.assertFalse(os.path.exists(share.directory))

    def test_open_file_survives_a_restart_of_everything_below(self):
        """The server, its table, the pool and all caches, as after a
        reboot."""
        with self.written() as (share, file):
            with machine.nfs_server_paused():
                subprocess.run(["exportfs", "-ua"], check=True)
                subprocess.run(["exportfs", "-f"], check=True)
                self.pool.unmount()
                pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
                self.pool.mount()
                subprocess.run(["exportfs", "-a"], check=True)
            file.write(b" and after")
            os.fsync(file.fileno())
        data = pathlib.Path(share.directory, "volume").read_bytes()
        self.assertEqual(b"before and after", data[:16])

    def test_open_file_survives_a_rename(self):
        """The appliance renames the file of an attached volume."""
        with self.written() as (share, file):
            self.engine.rename_file(share.reference.id, "volume", "renamed")
            pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
            file.write(b" and after")
            os.fsync(file.fileno())
        data = pathlib.Path(share.directory, "renamed").read_bytes()
        self.assertEqual(b"before and after", data[:16])

    def test_grown_file_is_seen_by_a_mounted_client(self):
        share = self.make_share()
        self.exporter.apply(share, {LOOPBACK: RW})
        self.mount(share)
        with open(self.mount_point / "volume", "r+b") as file:
            file.write(b"before")
            file.flush()
            self.engine.grow_file(
                share.reference.id, "volume", 2 << 20, "sparse"
            )
            os.fsync(file.fileno())
            file.seek(0, os.SEEK_END)
            self.assertEqual(2 << 20, file.tell())
            file.write(b"after")
        data = pathlib.Path(share.directory, "volume").read_bytes()
        self.assertEqual(b"before", data[:6])
        self.assertEqual(b"after", data[2 << 20 :])


class TestCheck(NfsCase):
    def test_stopped_server_is_noticed(self):
        with mock.patch.object(exportfs, "THREADS", "/nonexistent"):
            self.assertEqual(
                ["the NFS server is not running"], self.exporter.check()
            )
