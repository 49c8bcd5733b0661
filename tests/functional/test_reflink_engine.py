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

"""The reflink engine on real file systems, in image files."""

import errno
import itertools
import os
import pathlib
import queue
import stat
import subprocess
import tempfile
import threading
from unittest import mock

from acme_appliance.engines import base
from acme_appliance.engines import plugin
from acme_appliance.engines.btrfs import engine as btrfs
from acme_appliance.engines.reflink import engine as reflink
from acme_appliance.engines.reflink.plugin import ReflinkPlugin
from acme_appliance.host import filesystem
from acme_appliance.host import projectquota
from tests.functional import test_btrfs_engine as functional
from tests.functional import test_simple_quota
from tests.harness import machine
from tests.unit.appliance import engine_suite as suite

MIB = 1 << 20
SIZE = suite.SIZE


def cut_off(module, name):
    return mock.patch.object(
        module, name, autospec=True, side_effect=SystemExit
    )


class XfsCase(functional.PoolCase):
    pool_class = machine.XfsPool


class TestReflinkEngine(suite.EngineSuite, XfsCase):
    def names(self, folder):
        return os.listdir(pathlib.Path(self.pool.directory, folder))

    def test_copies_share_their_blocks(self):
        id_ = self.make_share(suite.volume(size_bytes=64 * MIB))
        self.client.write(suite.share(id_), "volume", 0, b"x" * (32 * MIB))
        os.sync()
        before = self.engine.usage().used_bytes
        self.make_snapshot(id_)
        self.clone(suite.share(id_))
        self.engine.sync()
        self.assertLess(self.engine.usage().used_bytes - before, 4 * MIB)

    def test_a_snapshot_is_of_one_moment(self):
        """While a client rewrites the whole file in a loop."""
        id_ = self.make_share()
        reference = suite.share(id_)
        versions = itertools.count(1)
        written = queue.Queue()
        stop = threading.Event()

        def write():
            while not stop.is_set():
                version = next(versions) % 256
                data = bytes([version]) * SIZE
                self.client.write(reference, "volume", 0, data)
                written.put(version)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            kept = []
            for _ in range(20):
                # The next write has begun, or is about to.
                written.get(timeout=60)
                kept.append(self.make_snapshot(id_))
        finally:
            stop.set()
            thread.join()
        found = set()
        for each in kept:
            data = self.client.read(suite.snapshot(each), "volume", 0, SIZE)
            self.assertEqual(1, len(set(data)))
            found.update(data)
        self.assertGreater(len(found), 1)

    def test_what_a_file_takes_is_no_more_than_its_length(self):
        """XFS preallocates more for writes to shared blocks: reconcile would
        report that a client has extended the file."""
        id_ = self.make_share(suite.volume(size_bytes=SIZE, allocation="full"))
        self.client.write(suite.share(id_), "volume", 0, bytes(SIZE))
        os.sync()
        self.make_snapshot(id_)
        for offset in range(0, SIZE, 16 * suite.BLOCK):
            self.client.write(suite.share(id_), "volume", offset, b"x")
            os.sync()
        path = self.client.path(suite.share(id_), "volume")
        self.assertGreater(path.stat().st_blocks * 512, SIZE)
        self.assertEqual(SIZE, self.engine.used_bytes(id_, "volume"))

    def test_only_regular_files_are_copied(self):
        id_ = self.make_share()
        path = self.client.path(suite.share(id_))
        self.client.plant_directory(suite.share(id_), "directory")
        self.client.plant_symlink(suite.share(id_), "link", "volume")
        os.mkfifo(path / "fifo")
        os.mknod(path / "tape", stat.S_IFCHR | 0o666, os.makedev(9, 0))
        os.close(os.open(os.fsencode(path) + b"/\xff", os.O_CREAT, 0o600))
        kept = self.client.path(suite.snapshot(self.make_snapshot(id_)))
        self.assertEqual(
            {b"volume", b"\xff"}, set(os.listdir(os.fsencode(kept)))
        )

    def test_special_files_are_neither_opened_nor_waited_for(self):
        id_ = self.make_share()
        path = self.client.path(suite.share(id_), "volume")
        path.unlink()
        os.mkfifo(path)
        self.check_file_changed(id_)

    def test_a_copy_that_was_cut_off_is_made_anew(self):
        id_ = self.make_share()
        self.client.write(suite.share(id_), "volume", 0, b"1" * suite.BLOCK)
        clone = suite.new_id()
        with (
            cut_off(reflink.reflink, "clone"),
            self.assertRaises(SystemExit),
        ):
            self.engine.clone_share(suite.share(id_), clone)
        self.assertFalse(self.engine.exists(suite.share(clone)))
        self.assertEqual([f"share-{clone}"], self.names("staging"))
        self.engine.clone_share(suite.share(id_), clone)
        self.assertEqual([], self.names("staging"))
        self.assertEqual(
            b"1" * suite.BLOCK,
            self.client.read(suite.share(clone), "volume", 0, suite.BLOCK),
        )

    def test_what_a_copy_has_left_goes_with_its_delete(self):
        id_, kept = self.make_share(), suite.new_id()
        with (
            cut_off(reflink.reflink, "clone"),
            self.assertRaises(SystemExit),
        ):
            self.engine.create_snapshot(id_, kept)
        self.engine.delete_snapshot(kept)
        self.assertEqual([], self.names("staging") + self.names("trash"))

    def test_a_delete_that_was_cut_off_has_deleted(self):
        id_ = self.make_share()
        with (
            cut_off(filesystem, "empty"),
            self.assertRaises(SystemExit),
        ):
            self.engine.delete_share(id_)
        self.assertFalse(self.engine.exists(suite.share(id_)))
        self.assertEqual(1, len(self.names("trash")))
        self.engine.delete_share(id_)
        self.assertEqual([], self.names("trash"))

    def test_directories_deeper_than_a_path_can_be(self):
        id_ = self.make_share()
        fd = os.open(self.client.path(suite.share(id_)), os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)
        self.engine.delete_share(id_)
        self.assertEqual([], self.names("trash"))

    def test_full_that_does_not_fit_takes_nothing_from_others(self):
        """Not even temporarily."""
        id_ = self.make_share()
        free = self.engine.usage().free_bytes
        with mock.patch.object(
            filesystem, "reserve", autospec=True
        ) as reserve:
            self.assertRaises(
                base.NoSpace,
                self.engine.grow_file,
                id_,
                "volume",
                free + 64 * MIB,
                "full",
            )
        reserve.assert_not_called()

    def test_prepare_again_keeps_everything(self):
        id_ = self.make_share()
        reflink.prepare(str(self.pool.directory))
        self.assertTrue(self.engine.file_intact(id_, "volume"))


class TestReflinkEngineOnBtrfs(suite.EngineSuite, functional.PoolCase):
    pool_class = machine.ReflinkPool

    def test_no_other_engine_takes_the_pool(self):
        other = btrfs.BtrfsEngine(str(self.pool.directory))
        self.assertRegex(other.check()[0], "commit: No such file")
        with self.assertRaisesRegex(base.Unavailable, "another engine"):
            btrfs.prepare(str(self.pool.directory))
        self.assertEqual([], self.engine.check())

    def test_it_has_no_projects(self):
        self.assertEqual([], self.engine.check())
        limited = self.pool.engine(hard_limit=True)
        self.assertRegex(limited.check()[0], "an XFS only for the pool")


class TestPoolOfAnotherEngine(functional.PoolCase):
    def test_it_is_refused(self):
        directory = str(self.pool.directory)
        before = set(os.listdir(directory))
        with self.assertRaisesRegex(base.Unavailable, "another engine"):
            reflink.prepare(directory)
        self.assertEqual(before, set(os.listdir(directory)))
        other = reflink.ReflinkEngine(directory)
        self.assertRegex(other.check()[0], "staging: No such file")


class TestPoolThatIsNotThere(functional.TestPoolThatIsNotThere):
    pool_class = machine.XfsPool

    def test_not_btrfs(self):
        engine = reflink.ReflinkEngine("/proc")
        self.assertRegex(engine.check()[0], "not on XFS or btrfs")
        self.assertRaises(base.Unavailable, reflink.prepare, "/proc")

    def test_directory_without_a_pool(self):
        other = reflink.ReflinkEngine(str(self.pool.directory / "shares"))
        self.assertEqual(1, len(other.check()))


class TestPowerCut(functional.TestPowerCut):
    pool_class = machine.XfsPool


class TestPowerCutOnBtrfs(functional.TestPowerCut):
    pool_class = machine.ReflinkPool


class TestFullPool(functional.TestFullPool):
    pool_class = machine.XfsPool


class QuotaCase(test_simple_quota.QuotaCase):
    pool_class = machine.XfsPool
    #: What XFS says of a project, not of a user.
    beyond = errno.ENOSPC

    @classmethod
    def enable(cls):
        """The mount has enabled it."""
        cls.skip = None
        if not projectquota.is_supported():
            cls.skip = "this kernel's XFS has no quotas"


class TestEngineWithLimits(QuotaCase, test_simple_quota.TestEngine):
    """The engine suite with limits enabled."""


class TestHardLimit(QuotaCase, test_simple_quota.TestHardLimit):
    def test_shares_of_other_pools_get_none(self):
        """Without a project, a share does not claim to have a limit."""
        id_ = suite.new_id()
        with mock.patch.object(
            filesystem, "is_mount_point", autospec=True, return_value=False
        ):
            self.engine.create_share(id_, None)
        self.assertFalse(self.engine.has_limit(id_))
        with self.assertRaisesRegex(
            base.EngineError, "have an XFS of its own"
        ):
            self.engine.set_limit(id_, MIB)

    def project(self, share_id):
        fd = os.open(self.engine.directory(suite.share(share_id)), os.O_RDONLY)
        try:
            return projectquota.project(fd)
        finally:
            os.close(fd)

    def test_no_two_shares_have_one_project(self):
        projects = []
        for _ in range(3):
            id_ = self.make_limited(MIB)
            clone = suite.new_id()
            self.engine.clone_share(suite.share(id_), clone)
            projects += [self.project(id_), self.project(clone)]
            self.engine.delete_share(id_)
        self.assertEqual(projects, sorted(set(projects)))
        self.assertGreater(projects[0], 0)

    def test_a_snapshot_is_charged_to_no_share(self):
        id_ = self.make_limited(MIB)
        self.write(id_, 0, MIB)
        kept = suite.new_id()
        self.engine.create_snapshot(id_, kept)
        path = self.client.path(suite.snapshot(kept))
        fd = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        self.assertEqual(0, projectquota.project(fd))


class PoolWithoutQuotas(machine.XfsPool):
    options = ""


class TestPoolWithoutQuotas(functional.PoolCase):
    pool_class = PoolWithoutQuotas

    def test_it_is_down_until_they_are_on(self):
        engine = self.pool.engine(hard_limit=True)
        self.assertRegex(engine.check()[0], "mounted with prjquota")
        self.assertEqual([], self.engine.check())


class TestMadePools(functional.PoolCase):
    """The pools of ``init --engine reflink``."""

    pool_class = machine.XfsPool

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.path = self.folder / "pool"

    def plan(self, **given):
        return plugin.Plan(
            name="a-name-that-xfs-has-no-room-for",
            path=str(self.path),
            **given,
        )

    def test_an_image(self):
        plan = self.plan(
            image=str(self.folder / "image"), image_bytes=320 * MIB
        )
        self.addCleanup(filesystem.unmount, str(self.path))
        made = ReflinkPlugin().make_pool(plan)
        self.assertRegex(
            "\n".join(made), "(?s)created xfs with label acme-.*ready in"
        )
        engine = ReflinkPlugin().open(
            plugin.Pool(
                name="gold",
                engine="reflink",
                path=str(self.path),
                device=None,
                options={"quota": "project"},
            )
        )
        self.assertEqual([], engine.warnings())
        self.assert_usable(engine)
        # Again, and after the next boot.
        self.assertEqual(2, len(ReflinkPlugin().make_pool(plan)))
        filesystem.unmount(str(self.path))
        again = "\n".join(ReflinkPlugin().make_pool(plan))
        self.assertNotIn("made xfs", again)
        self.assertIn("mounted", again)
        self.assert_usable(engine)

    def assert_usable(self, engine):
        """As ``init`` reports it: with limits, if supported."""
        limited = projectquota.is_supported()
        text = ReflinkPlugin().new_pool_options(self.plan(image="/x"))
        self.assertEqual(limited, "quota = project" in text)
        self.assertEqual(limited, not engine.check())

    def test_an_image_that_is_too_small(self):
        plan = self.plan(image=str(self.folder / "i"), image_bytes=256 * MIB)
        with self.assertRaisesRegex(plugin.PoolError, "at least 300 MiB"):
            ReflinkPlugin().make_pool(plan)

    def test_xfs_without_reflinks(self):
        image = self.folder / "image"
        self.path.mkdir()
        filesystem.create_image(str(image), 320 * MIB)
        subprocess.run(
            ["mkfs.xfs", "-q", "-m", "reflink=0", str(image)], check=True
        )
        filesystem.mount(str(image), str(self.path), "xfs", loop=True)
        self.addCleanup(filesystem.unmount, str(self.path))
        with self.assertRaisesRegex(plugin.PoolError, "reflink=0"):
            ReflinkPlugin().make_pool(self.plan())
        self.assertEqual([], os.listdir(self.path))

    def test_other_file_systems(self):
        for path in ("/dev/shm", "/proc"):
            self.path = pathlib.Path(path, "pool")
            with self.assertRaisesRegex(plugin.PoolError, "not on XFS"):
                ReflinkPlugin().make_pool(self.plan())

    def test_a_directory(self):
        self.path = self.pool.directory / "below"
        made = ReflinkPlugin().make_pool(self.plan())
        self.assertEqual(1, len([line for line in made if "ready" in line]))
        engine = reflink.ReflinkEngine(str(self.path))
        self.assertEqual([], engine.check())
        # Others' projects there may be the same.
        engine = reflink.ReflinkEngine(str(self.path), hard_limit=True)
        self.assertRegex(engine.check()[0], "XFS only for the pool")
