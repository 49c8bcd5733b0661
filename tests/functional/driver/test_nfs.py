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

"""One suite, against an appliance that knows about volume files and against
one that does not, with kernel NFS in between. Run by tools/sandbox.sh.
"""

from __future__ import annotations

from concurrent import futures
import contextlib
import functools
import hashlib
import multiprocessing
import os
import pathlib
import socket
import subprocess
import sys
import time
from typing import Any

from cinder import exception
from os_brick.initiator.connectors import remotefs as brick_remotefs

from acme_appliance import references
from acme_appliance.exporters.kernel import exporter as kernel
from acme_appliance.host import exportfs
from acme_cinder import commands
from acme_cinder import errors
from acme_cinder import mount
from acme_cinder import settings as options
import acme_client
from tests.harness import inprocess
from tests.harness import machine
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb
from tests.unit.driver import test_images

GIB = base.GIB
MIB = 1 << 20
PORTAL = "127.0.0.1"


@functools.cache
def _starters() -> futures.Executor:
    """Small processes that start the commands, as the privileged daemon does:
    in a sandbox, starting one from this large process takes longer than most
    commands."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([commands.__name__])
    return futures.ProcessPoolExecutor(4, context)


class Execute:
    """The driver's execute, noting what it ran; no privileged daemon."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []

    def __call__(self, *command: str, **kwargs: Any) -> tuple[str, str]:
        self.commands.append(command)
        kwargs.pop("run_as_root", None)
        kwargs.pop("root_helper", None)
        kwargs.setdefault("timeout", 60)
        run = functools.partial(commands.execute, *command, **kwargs)
        return _starters().submit(run).result()

    def count(self, program: str) -> int:
        return sum(command[0] == program for command in self.commands)


class NfsAppliance(inprocess.RunningAppliance):
    """With a real pool and the kernel's NFS server."""

    def __init__(
        self,
        pool: machine.Pool,
        root: str,
        portal: str = PORTAL,
        **given: Any,
    ) -> None:
        super().__init__(portals=[portal], **given)
        self.engines = {"gold": pool.engine()}
        self.exporter = kernel.KernelExporter(root)


class NfsCase(base.DriverTestCase):
    portal = PORTAL
    pool_class = machine.Pool
    pool: machine.Pool

    @classmethod
    def setUpClass(cls) -> None:
        machine.require_nfsd()
        super().setUpClass()
        cls.root = exportfs.configured_root()
        cls.pool = cls.pool_class(4 << 30, parent=cls.root)
        cls.addClassCleanup(cls.pool.close)
        # A file system that came after the server started is not in its
        # pseudo root yet.
        subprocess.run(["exportfs", "-f"], check=True)

    def start_appliance(self) -> inprocess.RunningAppliance:
        running = NfsAppliance(
            self.pool,
            self.root,
            self.portal,
            volume_file=self.volume_file,
        ).start()
        self.addCleanup(running.stop)
        self.addCleanup(self.delete_all, running)
        return running

    def delete_all(self, running: inprocess.RunningAppliance) -> None:
        self.unmount_all()
        with acme_client.Client(
            [running.url],
            acme_client.BearerToken(running.admin_token),
            verify=running.ca_file or True,
        ) as api:
            for share in list(api.list_shares()):
                for holder in share.access:
                    api.revoke_access(share.id, holder)
                api.delete_share(share.id, cascade=True)

    def unmount_all(self) -> None:
        for path in self.mounts():
            subprocess.run(["umount", "-f", "-l", path], check=True)

    def mounts(self) -> dict[str, str]:
        """NFS mounts below the test's folder: mount point to export."""
        found = {}
        for line in pathlib.Path("/proc/mounts").read_text().splitlines():
            export, path, kind, *_ = line.split()
            if kind.startswith("nfs") and path.startswith(self.directory):
                found[path] = export
        return found

    def new_driver(self, faults: Any = (), **changes: Any) -> Any:
        made = self.unready_driver(**changes)
        settings = options.read(made.configuration)
        api = acme_client.Client(
            settings.api_addresses,
            settings.credentials,
            verify=settings.verify,
            adapter_factory=lambda: transports.CountingAdapter(self.log),
        )
        self.addCleanup(api.close)
        self.execute = Execute()
        made.assemble(
            settings,
            api,
            mount.Mounts(
                base=settings.mount_point_base,
                root_helper="sudo",
                timeout_seconds=60,
                execute=self.execute,
            ),
        )
        made.check_for_setup_error()
        made.set_initialized()
        return made

    # -- what a compute host does

    def mounted_by_brick(self, info: dict[str, Any]) -> str:
        connector = brick_remotefs.RemoteFsConnector(
            "nfs", "sudo", execute=Execute(), conn=info
        )
        path: str = connector.connect_volume(info["data"])["path"]
        return path

    def connection(self, volume: Any, where: Any) -> dict[str, Any]:
        found = cinderdb.reloaded(volume)
        self.driver.create_export(self.context, found, where)
        info: dict[str, Any] = self.driver.initialize_connection(found, where)
        return info

    def compute(self) -> Any:
        """A compute host that is this machine, by its address."""
        return base.connector("cmp-1", PORTAL)

    def attached(self, volume: Any) -> str:
        return self.mounted_by_brick(self.connection(volume, self.compute()))

    def end(self, volume: Any, path: str) -> None:
        subprocess.run(["umount", os.path.dirname(path)], check=True)
        os.rmdir(os.path.dirname(path))
        self.driver.terminate_connection(
            cinderdb.reloaded(volume), self.compute()
        )
        self.driver.remove_export(self.context, cinderdb.reloaded(volume))

    def write(self, path: str, seed: str, offset: int = 0) -> None:
        data = hashlib.sha256(seed.encode()).digest() * 4096
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def check(self, path: str, seed: str, offset: int = 0) -> None:
        data = hashlib.sha256(seed.encode()).digest() * 4096
        with open(path, "rb") as file:
            file.seek(offset)
            self.assertEqual(data, file.read(len(data)))

    def assert_nothing_mounted(self) -> None:
        self.assertEqual({}, self.mounts())
        left = [name for name in os.listdir(self.base) if name != ".acme"]
        self.assertEqual([], left)

    def assert_cost(self, mounts: int) -> None:
        wanted = 0 if self.volume_file else mounts
        self.assertEqual(wanted, self.execute.count("mount"))
        self.assertEqual(wanted, self.execute.count("umount"))
        self.assert_nothing_mounted()


class LifeCase(NfsCase):
    def test_a_volumes_life(self) -> None:
        self.execute.commands.clear()
        volume = self.create()
        self.assert_cost(1)
        path = self.attached(volume)
        self.assertEqual(GIB, os.path.getsize(path))
        self.assertEqual(0o660, os.stat(path).st_mode & 0o777)
        self.write(path, "first")
        snapshot = self.snapshot(volume)
        self.write(path, "second")

        self.execute.commands.clear()
        self.driver.extend_volume(cinderdb.reloaded(volume), 2)
        self.assertEqual(
            0 if self.volume_file else 1, self.execute.count("mount")
        )
        volume.size = 2
        volume.save()
        self.assertEqual(2 * GIB, _size(path))
        self.write(path, "third", GIB + 5 * MIB)

        self.execute.commands.clear()
        older = cinderdb.volume(size=3, snapshot_id=snapshot.id)
        update = self.driver.create_volume_from_snapshot(older, snapshot)
        cinderdb.save(older, update)
        twin = cinderdb.volume(size=4, source_volid=volume.id)
        update = self.driver.create_cloned_volume(
            twin, cinderdb.reloaded(volume)
        )
        cinderdb.save(twin, update)
        if self.volume_file:
            self.assertEqual(0, len(self.execute.commands))
        else:
            self.assertEqual(2, self.execute.count("mount"))
            self.assertEqual(2, self.execute.count("umount"))

        self.end(volume, path)
        self.assert_nothing_mounted()
        self.check_content(older, 3, "first")
        self.check_content(twin, 4, "second")
        path = self.attached(twin)
        self.check(path, "third", GIB + 5 * MIB)
        self.end(twin, path)

        with self.assertRaises(exception.VolumeIsBusy):
            self.driver.delete_volume(volume)
        self.driver.delete_snapshot(snapshot)
        for each in (volume, older, twin):
            self.driver.remove_export(self.context, each)
            self.driver.delete_volume(each)
            self.assertIsNone(self.find_share(each.name_id))
        self.assert_nothing_mounted()
        self.assertEqual({}, self.appliance.exporter.exported())

    def check_content(self, volume: Any, size: int, seed: str) -> None:
        path = self.attached(volume)
        self.assertEqual(volume.name, os.path.basename(path))
        self.assertEqual([volume.name], os.listdir(os.path.dirname(path)))
        self.assertEqual(size * GIB, os.path.getsize(path))
        self.check(path, seed)
        # A clone belongs to whoever may mount it: it can be written.
        self.write(path, "written", MIB)
        self.end(volume, path)

    def test_without_access_nobody_can_mount(self) -> None:
        volume = self.create()
        folder = os.path.join(self.directory, "elsewhere")
        os.mkdir(folder)
        done = subprocess.run(
            [
                "mount", "-t", "nfs", "-o", "vers=4.2,retry=0",
                volume.provider_location, folder,
            ],
            capture_output=True,
        )  # fmt: skip
        self.assertNotEqual(0, done.returncode)
        path = self.attached(volume)
        self.write(path, "allowed")
        self.end(volume, path)

    def test_read_only(self) -> None:
        volume = self.create()
        where = {**self.compute(), "mode": "ro"}
        path = self.mounted_by_brick(self.connection(volume, where))
        with self.assertRaises(OSError):
            self.write(path, "no")
        self.end(volume, path)

    def test_full_allocation(self) -> None:
        self.driver = self.new_driver(nfs_sparsed_volumes=False)
        volume = self.create()
        path = self.attached(volume)
        self.assertEqual(GIB, os.path.getsize(path))
        self.assertGreaterEqual(os.stat(path).st_blocks * 512, GIB)
        self.end(volume, path)

    def test_discard(self) -> None:
        """A hole that a client punches is free space of the pool."""
        volume = self.create()
        info = self.connection(volume, self.compute())
        self.assertIs(True, info["data"]["discard"])
        path = self.mounted_by_brick(info)
        with open(path, "r+b") as file:
            file.write(os.urandom(64 * MIB))
            os.fsync(file.fileno())
        self.assertGreaterEqual(self.used_bytes(volume), 64 * MIB)
        subprocess.run(
            ["fallocate", "--punch-hole", "--length", "63M", path], check=True
        )
        with open(path, "rb") as file:
            self.assertEqual(bytes(63 * MIB), file.read(63 * MIB))
            self.assertNotEqual(bytes(MIB), file.read(MIB))
        self.assertLess(self.used_bytes(volume), 2 * MIB)
        self.end(volume, path)

    def used_bytes(self, volume: Any) -> int:
        used: int | None = self.share(volume).used_bytes
        if used is None:  # of a vendor who does not know the file
            engine = self.appliance.engines["gold"]
            folder = engine.directory(references.share(volume.id))
            used = 512 * os.stat(os.path.join(folder, volume.name)).st_blocks
        return used

    def test_image(self) -> None:
        os.makedirs(cinderdb.CONF.image_conversion_dir, exist_ok=True)
        data = os.urandom(MIB) + bytes(3 * MIB)
        glance = test_images.Glance(data, "raw")
        volume = self.create()
        self.execute.commands.clear()
        self.driver.copy_image_to_volume(
            self.context, volume, glance, glance.meta["id"]
        )
        self.assertEqual(1, self.execute.count("mount"))
        self.assertEqual(1, self.execute.count("umount"))
        self.assert_nothing_mounted()
        self.assertEqual({}, self.appliance.exporter.exported())
        back = test_images.Glance(b"", "raw")
        self.driver.copy_volume_to_image(
            self.context, cinderdb.reloaded(volume), back, back.meta
        )
        self.assertEqual(data[:MIB], back.uploaded)
        self.assert_nothing_mounted()

    def test_backup_and_restore(self) -> None:
        """Cinder attaches for itself; os-brick never unmounts."""
        volume = self.create()
        where = base.connector(socket.gethostname(), PORTAL)
        volume.status = "restoring-backup"
        volume.save()
        path = self.mounted_by_brick(self.connection(volume, where))
        with open(path, "wb") as file:
            file.write(b"restored")
        self.driver.terminate_connection(
            cinderdb.reloaded(volume), where, force=True
        )
        self.driver.remove_export(self.context, cinderdb.reloaded(volume))
        self.assert_nothing_mounted()
        self.available(volume)
        path = self.attached(volume)
        self.assertEqual(GIB, os.path.getsize(path))
        with open(path, "rb") as file:
            self.assertEqual(b"restored", file.read(8))
        self.end(volume, path)

    def test_a_snapshot_is_read_and_not_written(self) -> None:
        """As cinder-backup does it; the server refuses, not the client."""
        volume = self.create()
        path = self.attached(volume)
        self.write_start(path, b"then")
        snapshot = self.snapshot(volume)
        self.write_start(path, b"now!")
        where = base.connector(socket.gethostname(), PORTAL)
        self.log.clear()
        self.driver.create_export_snapshot(self.context, snapshot, where)
        info = self.driver.initialize_connection_snapshot(snapshot, where)
        kept = self.mounted_by_brick(info)
        self.assertEqual(b"then", pathlib.Path(kept).read_bytes()[:4])
        self.assertEqual(b"now!", pathlib.Path(path).read_bytes()[:4])
        with self.assertRaisesRegex(OSError, "Read-only"):
            open(kept, "r+b").close()
        self.check_refused_by_the_server(info["data"])
        self.driver.terminate_connection_snapshot(snapshot, where)
        self.driver.remove_export_snapshot(self.context, snapshot)
        self.assertEqual(2, self.log.total, self.log.counts)
        self.assertEqual([volume.provider_location], [*self.mounts().values()])
        self.driver.delete_snapshot(snapshot)
        self.end(volume, path)

    def write_start(self, path: str, data: bytes) -> None:
        """As a guest does: in place, and flushed."""
        with open(path, "r+b", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())

    def check_refused_by_the_server(self, data: dict[str, Any]) -> None:
        folder = f"{self.directory}/writable"
        os.mkdir(folder)
        options = "rw,vers=4.2,nosharecache"
        subprocess.run(
            ["mount", "-t", "nfs", "-o", options, data["export"], folder],
            check=True,
        )
        try:
            with self.assertRaisesRegex(OSError, "Read-only"):
                open(f"{folder}/{data['name']}", "r+b").close()
            with self.assertRaisesRegex(OSError, "Read-only"):
                open(f"{folder}/new", "wb").close()
        finally:
            subprocess.run(["umount", folder], check=True)

    def test_a_stale_mount_is_replaced(self) -> None:
        volume = self.create()
        path = self.attached(volume)
        self.driver._api.revoke_access(volume.name_id, "cinder-service:cmp-1")
        deadline = time.monotonic() + 60
        while _is_readable(path) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.assertFalse(_is_readable(path), "the mount is not stale")
        self.assertTrue(
            self.driver._mounts.is_refused(volume.provider_location)
        )
        self.driver.remove_export(self.context, volume)
        self.assert_nothing_mounted()

    def test_left_over_after_a_crash(self) -> None:
        """A service is killed with a share mounted."""
        volume = self.create()
        with self.driver._shares.mounted(volume) as path:
            folder = os.path.dirname(path)
            self.assertEqual([folder], list(self.mounts()))
            twin = self.new_driver()
            twin._reaper.run()
            self.assertEqual([folder], list(self.mounts()))
            # What the kernel does when the process dies.
            _drop_locks(f"{self.base}/.acme/locks")
            twin._reaper.run()
            self.assertEqual({}, self.mounts())
        self.assert_nothing_mounted()
        self.assertEqual({}, self.share(volume).access)

    def test_attached_here_and_never_detached(self) -> None:
        """As os-brick leaves it on a host of cinder-backup."""
        volume = self.create()
        where = base.connector(socket.gethostname(), PORTAL)
        path = self.mounted_by_brick(self.connection(volume, where))
        self.driver._reaper.run()
        self.assertTrue(os.path.exists(path))
        self.driver._api.revoke_access(
            volume.name_id, f"cinder-service:{socket.gethostname()}"
        )
        self.driver._reaper.run()
        self.assert_nothing_mounted()


class LifeTest(LifeCase):
    def test_revert_under_a_mount(self) -> None:
        """A client that never unmounted reads the old content when it opens
        the file; one that never closed it writes into the very file, and
        not into one that was swapped out."""
        volume = self.create()
        path = self.attached(volume)
        self.write(path, "old")
        snapshot = self.snapshot(volume)
        self.write(path, "new")
        self.write(path, "beyond", 5 * MIB)
        self.revert(volume, snapshot)
        self.check(path, "old")
        self.assertEqual(GIB, os.path.getsize(path))
        with open(path, "r+b", buffering=0) as file:
            file.write(b"new again")
            self.revert(volume, snapshot)
            file.seek(MIB)
            file.write(b"written since")
            os.fsync(file.fileno())
        engine = self.appliance.engines["gold"]
        folder = engine.directory(references.share(volume.name_id))
        on_disk = os.path.join(folder, volume.name)
        self.check(on_disk, "old")
        with open(on_disk, "rb") as file:
            file.seek(MIB)
            self.assertEqual(b"written since", file.read(13))
            file.seek(5 * MIB)
            self.assertEqual(bytes(MIB), file.read(MIB))
        self.end(volume, path)

    def revert(self, volume: Any, snapshot: Any) -> None:
        """As Cinder does for a user, between two attachments."""
        self.driver.terminate_connection(
            cinderdb.reloaded(volume), self.compute()
        )
        self.execute.commands.clear()
        self.driver.revert_to_snapshot(cinderdb.context(), volume, snapshot)
        self.assertEqual([], self.execute.commands)
        self.connection(volume, self.compute())

    def test_the_command_on_a_host_without_cinder_volume(self) -> None:
        """os-brick's mounts go, and nobody else's."""
        kept, left = self.create(), self.create()
        where = base.connector(socket.gethostname(), PORTAL)
        paths = [
            self.mounted_by_brick(self.connection(volume, where))
            for volume in (kept, left)
        ]
        other = f"{self.base}/other"
        os.mkdir(other)
        subprocess.run(
            ["mount", "-t", "tmpfs", f"none/{left.id}", other], check=True
        )
        self.addCleanup(self.unmount_all)
        self.addCleanup(subprocess.run, ["umount", other], check=True)
        self.driver._api.revoke_access(
            left.name_id, f"cinder-service:{socket.gethostname()}"
        )
        done = self.run_reap()
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertTrue(os.path.exists(paths[0]))
        self.assertFalse(os.path.exists(paths[1]))
        self.assertEqual([kept.provider_location], [*self.mounts().values()])
        self.assertTrue(os.path.ismount(other))

    def run_reap(self) -> subprocess.CompletedProcess[str]:
        path = f"{self.directory}/cinder.conf"
        helper = f"{os.path.dirname(sys.executable)}/privsep-helper"
        pathlib.Path(path).write_text(
            "[DEFAULT]\nenabled_backends = acme\n"
            f"state_path = {self.directory}\n"
            f"[privsep_osbrick]\nhelper_command = {helper}"
            f" --config-file {path}\n"
            "[acme]\n"
            "volume_driver = acme_cinder.driver.acmeNfsDriver\n"
            f"acme_api_addresses = {self.appliance.url}\n"
            f"acme_api_token = {self.appliance.token}\n"
            f"acme_api_ca_file = {self.appliance.ca_file}\n"
            f"nfs_mount_point_base = {self.base}\n"
        )
        return subprocess.run(
            [
                sys.executable, "-W", "ignore", "-m", "acme_cinder.cmd.main",
                "reap", "--config-file", path,
            ],
            capture_output=True,
            text=True,
            timeout=600,
        )  # fmt: skip


class MinimalVendorLifeTest(base.WithoutVolumeFile, LifeCase):
    # It has no snapshot.export: backups are made of a clone there.
    test_a_snapshot_is_read_and_not_written = None


class DeadServerTest(NfsCase):
    """The server goes; nothing hangs."""

    def test_operations_end(self) -> None:
        volume = self.create()
        self.driver._mounts.commands.timeout_seconds = 5
        context = self.driver._shares.mounted(volume)
        path = context.__enter__()
        self.assertTrue(os.path.exists(path))
        threads = pathlib.Path("/proc/fs/nfsd/threads")
        count = threads.read_text().strip()
        subprocess.run(["rpc.nfsd", "0"], check=True)
        started = time.monotonic()
        try:
            with self.assertRaises(exception.VolumeBackendAPIException):
                with errors.operation("Looked at", volume=volume):
                    self.driver._shares.files.ensure_size(path, 2 * GIB)
            context.__exit__(None, None, None)
            self.assertLess(time.monotonic() - started, 60)
            self.assertEqual({}, self.mounts())
        finally:
            subprocess.run(["rpc.nfsd", count], check=True)
            pathlib.Path("/proc/fs/nfsd/v4_end_grace").write_text("Y")


def _size(path: str) -> int:
    """Past the client's cache of attributes."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_size


def _drop_locks(path: str) -> None:
    """The numbers stay taken: their owner closes them later."""
    with open(os.devnull) as other:
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/self/fd/{name}") == path:
                    os.dup2(other.fileno(), int(name))


def _is_readable(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return False
    try:
        os.preadv(descriptor, [memoryview(bytearray(4096))], 0)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


del LifeCase
