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

"""The btrfs engine on a real btrfs in an image file."""

import os
import pathlib
import shutil
import stat
import unittest

from acme_appliance.engines import base
from acme_appliance.engines.btrfs import engine as btrfs
from tests.harness import machine
from tests.unit.appliance import engine_suite as suite

_FOLDERS = {base.Kind.SHARE: "shares", base.Kind.SNAPSHOT: "snapshots"}


class FileClient(suite.Client):
    def __init__(self, root):
        self.root = pathlib.Path(root)

    def path(self, reference, name=""):
        return self.root / _FOLDERS[reference.kind] / reference.id / name

    def write(self, reference, name, offset, data):
        fd = os.open(self.path(reference, name), os.O_RDWR | os.O_CREAT)
        try:
            os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    def read(self, reference, name, offset, size):
        with open(self.path(reference, name), "rb") as file:
            file.seek(offset)
            return file.read(size)

    def remove(self, reference, name):
        self.path(reference, name).unlink()

    def plant_symlink(self, reference, name, target):
        self.path(reference, name).symlink_to(target)

    def plant_directory(self, reference, name):
        folder = self.path(reference, name)
        folder.mkdir()
        (folder / "file").write_text("content")

    def describe(self, reference, name):
        try:
            found = self.path(reference, name).lstat()
        except FileNotFoundError:
            return None
        type_ = "file" if stat.S_ISREG(found.st_mode) else "other"
        mode = stat.S_IMODE(found.st_mode)
        return type_, found.st_size, found.st_uid, found.st_gid, mode

    def identify(self, reference, name):
        return self.path(reference, name).lstat().st_ino

    def describe_root(self, reference):
        found = self.path(reference).lstat()
        return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


class PoolCase(unittest.TestCase):
    """One file system for a class, emptied after each test."""

    pool_class = machine.Pool
    size_bytes = 1 << 30

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pool = cls.pool_class(cls.size_bytes)
        cls.addClassCleanup(cls.pool.close)

    def setUp(self):
        super().setUp()
        self.engine = self.pool.engine()
        self.client = FileClient(self.pool.directory)
        self.addCleanup(self.empty)

    def empty(self):
        for id_ in self.engine.ids(base.Kind.SHARE):
            self.engine.delete_share(id_)
        for id_ in self.engine.ids(base.Kind.SNAPSHOT):
            self.engine.delete_snapshot(id_)
        self.engine.sync()


class TestBtrfsEngine(suite.EngineSuite, PoolCase):
    def test_share_is_a_subvolume_of_its_own(self):
        one, two = self.make_share(), self.make_share()
        devices = {
            os.stat(self.engine.directory(suite.share(id_))).st_dev
            for id_ in (one, two)
        }
        self.assertEqual(2, len(devices))
        self.assertEqual(
            256, os.stat(self.engine.directory(suite.share(one))).st_ino
        )

    def test_snapshot_is_read_only_even_for_root(self):
        id_ = self.make_share()
        kept = suite.snapshot(self.make_snapshot(id_))
        with self.assertRaisesRegex(OSError, "Read-only"):
            self.client.write(kept, "volume", 0, b"x")

    def test_special_files_are_neither_opened_nor_waited_for(self):
        id_ = self.make_share()
        path = self.client.path(suite.share(id_), "volume")
        path.unlink()
        os.mkfifo(path)
        self.check_file_changed(id_)
        path.unlink()
        # An old tape drive: opening it would rewind it.
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(9, 0))
        self.check_file_changed(id_)

    def test_stray_things_in_the_pool_are_not_ours(self):
        stray = pathlib.Path(self.pool.directory, "shares", "lost+found")
        stray.mkdir()
        self.addCleanup(stray.rmdir)
        self.assertEqual(set(), self.engine.ids(base.Kind.SHARE))

    def test_plain_directory_in_the_way_is_refused_not_adopted(self):
        id_ = suite.new_id()
        path = self.client.path(suite.share(id_))
        path.mkdir()
        self.addCleanup(path.rmdir)
        self.assertTrue(self.engine.exists(suite.share(id_)))
        self.assertRaises(
            base.EngineError, self.engine.create_share, id_, suite.OWNER
        )
        self.assertRaises(base.EngineError, self.engine.delete_share, id_)
        self.assertTrue(path.exists())

    def test_share_replaced_by_a_link_is_not_followed(self):
        victim = self.make_share()
        id_ = suite.new_id()
        path = self.client.path(suite.share(id_))
        path.symlink_to(self.client.path(suite.share(victim)))
        self.addCleanup(path.unlink)
        self.assertRaises(
            base.EngineError, self.engine.ensure_file, id_, suite.volume("x")
        )

    def test_prepare_again_keeps_everything(self):
        id_ = self.make_share()
        btrfs.prepare(str(self.pool.directory))
        self.assertTrue(self.engine.file_intact(id_, "volume"))


class TestPoolThatIsNotThere(PoolCase):
    def test_not_btrfs(self):
        engine = btrfs.BtrfsEngine("/proc")
        self.assertRegex(engine.check()[0], "not on btrfs")
        self.assertRaises(base.Unavailable, btrfs.prepare, "/proc")

    def test_unmounted_pool_has_no_missing_shares(self):
        id_ = suite.new_id()
        self.engine.create_share(id_, suite.OWNER)
        self.pool.unmount()
        try:
            self.assertRegex(self.engine.check()[0], "mounted")
            for act in (
                lambda: self.engine.exists(suite.share(id_)),
                lambda: self.engine.delete_share(id_),
                lambda: self.engine.create_share(id_, suite.OWNER),
                lambda: self.engine.ids(base.Kind.SHARE),
                self.engine.sync,
            ):
                self.assertRaises(base.Unavailable, act)
        finally:
            self.pool.mount()
        self.assertTrue(self.engine.exists(suite.share(id_)))

    def test_directory_without_a_pool(self):
        # A subvolume where nobody has run init.
        other = btrfs.BtrfsEngine(str(self.pool.directory / "shares"))
        self.assertEqual(1, len(other.check()))


class TestPowerCut(PoolCase):
    """A copy of the image after a sync is the state after a power cut."""

    size_bytes = 256 << 20

    def test_synced_changes_survive(self):
        kept, deleted = suite.new_id(), suite.new_id()
        for id_ in (kept, deleted):
            self.engine.create_share(id_, suite.OWNER)
            self.engine.ensure_file(id_, suite.volume(allocation="full"))
        self.engine.sync()
        self.engine.delete_share(deleted)
        self.engine.rename_file(kept, "volume", "renamed")
        self.engine.grow_file(kept, "renamed", 3 * suite.SIZE, "sparse")
        snapshot = suite.new_id()
        self.engine.create_snapshot(kept, snapshot)
        self.engine.sync()
        copy = self.pool.folder / "copy.img"
        shutil.copyfile(self.pool.image, copy)
        self.pool.unmount()
        os.rename(copy, self.pool.image)
        self.pool.mount()
        self.assertEqual({kept}, self.engine.ids(base.Kind.SHARE))
        self.assertEqual({snapshot}, self.engine.ids(base.Kind.SNAPSHOT))
        self.assertEqual(
            ("file", 3 * suite.SIZE, *vars(suite.OWNER).values(), 0o660),
            self.client.describe(suite.share(kept), "renamed"),
        )


class TestFullPool(PoolCase):
    size_bytes = 128 << 20

    def test_full_allocation_that_does_not_fit(self):
        id_ = suite.new_id()
        self.engine.create_share(id_, suite.OWNER)
        size_bytes = self.engine.usage().free_bytes * 2
        self.assertRaises(
            base.NoSpace,
            self.engine.ensure_file,
            id_,
            suite.volume(size_bytes=size_bytes, allocation="full"),
        )
        self.engine.delete_share(id_)
        self.engine.sync()
        self.assertEqual(set(), self.engine.ids(base.Kind.SHARE))

    def test_pool_filled_by_a_client_can_still_be_emptied(self):
        id_ = suite.new_id()
        self.engine.create_share(id_, suite.OWNER)
        self.engine.ensure_file(id_, suite.volume())
        path = self.client.path(suite.share(id_), "volume")
        with (
            self.assertRaisesRegex(OSError, "No space"),
            open(path, "wb", buffering=0) as file,
        ):
            while True:
                # Synced: what is only cached may fit, and never land.
                file.write(os.urandom(8 << 20))
                os.fsync(file.fileno())
        self.engine.delete_share(id_)
        self.engine.sync()
        again = suite.new_id()
        self.engine.create_share(again, suite.OWNER)
        self.engine.ensure_file(again, suite.volume())
        self.assertTrue(self.engine.file_intact(again, "volume"))
