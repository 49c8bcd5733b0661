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

"""What clients of a share can do over kernel NFS.

If the appliance creates the volume file, clients can write that file, but not
create, rename, remove or replace files. Run by tools/sandbox.sh.
"""

import contextlib
import os
import pathlib
import stat
import struct
import tempfile

from acme_appliance import references
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.exporters.kernel import exporter as kernel
from acme_appliance.host import commands
from tests.functional import test_kernel_exporter as nfs
from tests.unit.appliance import engine_suite as suite

OWNER = engines.Owner(64061, 64062)
STRANGER = engines.Owner(1000, 1000)
ROOT = engines.ROOT
VERSIONS = ("4.2", "3")
BLOCK = b"b" * 4096


_NFS4_ACL = "system.nfs4_acl"


def set_access_list(path):
    """Grant STRANGER everything, as setfacl does over NFS 3.

    linux/posix_acl_xattr.h defines the format: a version, and for each entry
    its tag, permissions and id.
    """
    nobody = 0xFFFFFFFF
    entries = [
        *((0x01, 7, nobody), (0x02, 7, STRANGER.uid), (0x04, 7, nobody)),
        *((0x10, 7, nobody), (0x20, 7, nobody)),
    ]
    packed = [struct.pack("<HHI", *entry) for entry in entries]
    data = struct.pack("<I", 2) + b"".join(packed)
    os.setxattr(path, "system.posix_acl_access", data)


@contextlib.contextmanager
def acting_as(owner):
    """The NFS client sends the thread's user."""
    os.setegid(owner.gid)
    os.seteuid(owner.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


class RightsCase(nfs.NfsCase):
    squash = kernel.SQUASH_ALL

    def restarted(self):
        return kernel.KernelExporter(
            self.root, squash=self.squash, table=self.table
        )

    def make_share(self):
        id_ = suite.new_id()
        self.engine.create_share(id_, None)
        self.engine.ensure_file(id_, suite.volume(owner=OWNER))
        return exporters.ExportedDirectory(
            references.share(id_),
            self.engine.directory(references.share(id_)),
            OWNER.uid,
            OWNER.gid,
        )

    @contextlib.contextmanager
    def mounted(self, share, version):
        path = self.exporter.path(share.directory)
        options = f"vers={version},soft,timeo=50,retrans=1,retry=0,nolock"
        if version == "4.2":
            options = options.removesuffix(",nolock")
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)  # noqa: S103 - for others than root
            commands.run(
                [
                    *("mount", "-t", "nfs", "-o", options),
                    *(f"{nfs.LOOPBACK}:{path}", folder),
                ]
            )
            try:
                yield pathlib.Path(folder)
            finally:
                commands.run(["umount", "-l", folder])

    @contextlib.contextmanager
    def exported(self, version):
        """A share that this machine can write, and its mount point."""
        share = self.make_share()
        self.exporter.apply(share, {nfs.LOOPBACK: nfs.RW})
        with self.mounted(share, version) as folder:
            yield share, folder

    def write(self, path):
        # As qemu-img opens its target: it may be there or not.
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            os.pwrite(fd, BLOCK, 0)
            os.fsync(fd)
        finally:
            os.close(fd)

    def attacks(self, folder):
        """Everything that changes the directory or its list."""
        volume, new = folder / "volume", folder / "new"
        return {
            "create": lambda: new.write_bytes(b"x"),
            "mkdir": new.mkdir,
            "symlink": lambda: new.symlink_to("/etc/passwd"),
            "hard link": lambda: new.hardlink_to(volume),
            "fifo": lambda: os.mkfifo(new),
            "device": lambda: os.mknod(
                new, stat.S_IFCHR | 0o666, os.makedev(1, 3)
            ),
            "rename": lambda: volume.rename(new),
            "remove": volume.unlink,
            "open directory": lambda: folder.chmod(0o777),
            "own directory": lambda: os.chown(folder, OWNER.uid, OWNER.gid),
            "give file away": lambda: os.chown(volume, ROOT.uid, -1),
            "attribute": lambda: os.setxattr(folder, "user.x", b"x"),
            # One of the two is known to each version of NFS.
            "access list, version 3": lambda: set_access_list(folder),
            "access list, version 4": lambda: os.setxattr(
                folder, _NFS4_ACL, os.getxattr(volume, _NFS4_ACL)
            ),
        }

    def check_bound(self, share, folder, who):
        before = self.listing(share)
        for name, attack in self.attacks(folder).items():
            with self.subTest(attack=name, who=who):
                with acting_as(who), self.assertRaises(OSError):
                    attack()
                self.assertEqual(before, self.listing(share))

    def listing(self, share):
        """The content on the server: names, types, owners, modes."""
        top = pathlib.Path(share.directory)
        found = {"": top.lstat(), **{p.name: p.lstat() for p in top.iterdir()}}
        return {
            name: (each.st_mode, each.st_uid, each.st_gid, each.st_nlink)
            for name, each in found.items()
        } | {"attributes": os.listxattr(top)}


class TestAllSquashed(RightsCase):
    """The default: all users of the host act as the file's owner."""

    def test_clients_write_the_file_and_change_nothing_else(self):
        for version in VERSIONS:
            with self.exported(version) as (share, folder):
                for who in (ROOT, OWNER, STRANGER):
                    self.check_bound(share, folder, who)
                    with acting_as(who):
                        self.write(folder / "volume")
                        self.assertEqual(["volume"], os.listdir(folder))
                data = pathlib.Path(share.directory, "volume").read_bytes()
                self.assertEqual(BLOCK, data[: len(BLOCK)])

    def test_a_client_that_closes_its_own_file(self):
        """It can set any mode; the appliance continues, and a clone is new."""
        for version in VERSIONS:
            for mode in (0, 0o4777, 0o2770):
                with (
                    self.subTest(version=version, mode=oct(mode)),
                    self.exported(version) as (share, folder),
                ):
                    (folder / "volume").chmod(mode)
                    self.check_usable(share)

    def test_a_client_with_an_access_list_and_attributes(self):
        with self.exported("4.2") as (share, folder):
            os.setxattr(folder / "volume", "user.x", b"x" * 1000)
            self.check_usable(share)
        with self.exported("3") as (share, folder):
            set_access_list(folder / "volume")
            self.check_usable(share)

    def check_usable(self, share):
        size = 2 * suite.SIZE
        self.engine.grow_file(share.reference.id, "volume", size, "sparse")
        clone, kept = suite.new_id(), suite.new_id()
        self.engine.create_snapshot(share.reference.id, kept)
        self.engine.clone_share(suite.snapshot(kept), clone)
        self.addCleanup(self.engine.delete_snapshot, kept)
        self.engine.adopt(clone, "volume", suite.volume("c", size))
        found = os.stat(f"{self.engine.directory(references.share(clone))}/c")
        self.assertEqual(
            (0o660, size), (found.st_mode & 0o7777, found.st_size)
        )

    def test_share_of_an_earlier_release_becomes_bound_while_attached(self):
        for version in VERSIONS:
            with self.exported(version) as (share, folder):
                self.engine.set_directory(share.reference.id, OWNER)
                (folder / "mine").write_bytes(b"x")
                (folder / "mine").unlink()
                with open(folder / "volume", "r+b", buffering=0) as file:
                    self.engine.set_directory(share.reference.id, None)
                    file.write(BLOCK)
                    os.fsync(file.fileno())
                    file.seek(0)
                    self.assertEqual(BLOCK, file.read(len(BLOCK)))
                for who in (ROOT, OWNER, STRANGER):
                    self.check_bound(share, folder, who)

    def test_clients_make_files_where_there_is_no_volume_file(self):
        for version in VERSIONS:
            with self.exported(version) as (share, folder):
                self.engine.set_directory(share.reference.id, OWNER)
                self.write(folder / "theirs")
                (folder / "theirs").rename(folder / "renamed")
                self.assertTrue(os.path.exists(f"{share.directory}/renamed"))


class TestRootSquashed(RightsCase):
    """Users keep their ids; only the owner can write the file."""

    squash = kernel.SQUASH_ROOT

    def test_an_access_list_of_an_earlier_release_gives_nothing(self):
        share = self.make_share()
        self.engine.set_directory(share.reference.id, OWNER)
        self.exporter.apply(share, {nfs.LOOPBACK: nfs.RW})
        with self.mounted(share, "3") as folder:
            with acting_as(OWNER):
                set_access_list(folder)
            with acting_as(STRANGER):
                (folder / "mine").write_bytes(b"x")
                (folder / "mine").unlink()
            self.engine.set_directory(share.reference.id, None)
            self.check_bound(share, folder, STRANGER)

    def test_owner_writes_and_nobody_changes_anything_else(self):
        for version in VERSIONS:
            with self.exported(version) as (share, folder):
                for who in (ROOT, OWNER, STRANGER):
                    self.check_bound(share, folder, who)
                with acting_as(OWNER):
                    self.write(folder / "volume")
                for who in (ROOT, STRANGER):
                    with acting_as(who), self.assertRaises(PermissionError):
                        self.write(folder / "volume")


class TestNotSquashed(RightsCase):
    """A granted host's root is root in its share, as configured."""

    squash = kernel.SQUASH_NONE

    def test_users_are_bound_and_root_is_not(self):
        for version in VERSIONS:
            with self.exported(version) as (share, folder):
                for who in (OWNER, STRANGER):
                    self.check_bound(share, folder, who)
                (folder / "new").write_bytes(b"x")
                (folder / "volume").rename(folder / "other")
                # What the appliance then says, and it follows nothing.
                (folder / "volume").symlink_to("/etc/passwd")
                self.assertRaises(
                    engines.FileChanged,
                    self.engine.grow_file,
                    *(share.reference.id, "volume", 2 * suite.SIZE, "sparse"),
                )
