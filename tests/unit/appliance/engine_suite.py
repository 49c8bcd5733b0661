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

"""What every storage engine must do, whatever it stores on.

A test class derives from :class:`EngineSuite` and from ``TestCase`` and says
how to make an engine, and how an NFS client would act on a share.
"""

import os
import threading
import uuid

from acme_appliance.engines import base
from acme_appliance.engines import copies

BLOCK = 4096
SIZE = 1 << 20
OWNER = base.Owner(64061, 64062)
OTHER = base.Owner(1234, 5678)


def new_id():
    return str(uuid.uuid4())


def share(id_):
    return base.Reference(base.Kind.SHARE, id_)


def snapshot(id_):
    return base.Reference(base.Kind.SNAPSHOT, id_)


def volume(name="volume", size_bytes=SIZE, **changes):
    values = {"allocation": "sparse", "owner": OWNER, "mode": 0o660}
    return base.VolumeFile(
        name=name, size_bytes=size_bytes, **{**values, **changes}
    )


class Client:
    """How a client acts on what is below a share's or snapshot's root.

    ``describe`` gives ``(type, size, uid, gid, mode)`` or None; type is
    ``file`` or anything else.
    """

    def write(self, reference, name, offset, data):
        raise NotImplementedError

    def read(self, reference, name, offset, size):
        raise NotImplementedError

    def remove(self, reference, name):
        raise NotImplementedError

    def plant_symlink(self, reference, name, target):
        raise NotImplementedError

    def plant_directory(self, reference, name):
        raise NotImplementedError

    def describe(self, reference, name):
        raise NotImplementedError

    def describe_root(self, reference):
        """``(uid, gid, mode)``."""
        raise NotImplementedError

    def identify(self, reference, name):
        """What stays of a file while it is the same one."""
        raise NotImplementedError


class EngineSuite:
    """The tests. ``self.engine`` is new and empty for each."""

    engine: base.Engine
    client: Client

    def make_share(self, file=None):
        id_ = new_id()
        self.engine.create_share(id_, None)
        self.engine.ensure_file(id_, file or volume())
        return id_

    def make_snapshot(self, share_id):
        id_ = new_id()
        self.engine.create_snapshot(share_id, id_)
        return id_

    def clone(self, source):
        id_ = new_id()
        self.engine.clone_share(source, id_)
        return id_

    # -- several snapshots

    def stage(self):
        """Two shares with the snapshots to make of them, made."""
        members = [(self.make_share(), new_id()) for _ in range(2)]
        for number, (share_id, _) in enumerate(members):
            data = bytes([number + 1]) * BLOCK
            self.client.write(share(share_id), "volume", 0, data)
        return members, self.engine.stage(members, 60.0)

    def test_staged_snapshots_are_published(self):
        self.engine.write_back()
        members, staged = self.stage()
        staged.publish()
        self.engine.sync()
        self.assertEqual(
            {made for _, made in members},
            self.engine.ids(base.Kind.SNAPSHOT),
        )
        for number, (share_id, made) in enumerate(members):
            self.client.write(share(share_id), "volume", 0, bytes(BLOCK))
            self.assertEqual(
                bytes([number + 1]) * BLOCK,
                self.client.read(snapshot(made), "volume", 0, BLOCK),
            )
            self.engine.delete_snapshot(made)
        self.assertEqual(set(), self.engine.ids(base.Kind.SNAPSHOT))

    def test_staged_snapshots_are_discarded(self):
        _, staged = self.stage()
        staged.discard()
        self.assertEqual(set(), self.engine.ids(base.Kind.SNAPSHOT))

    def test_nothing_is_staged_without_a_share(self):
        missing = (new_id(), new_id())
        for members in (
            [(self.make_share(), new_id()), missing],
            [missing, (self.make_share(), new_id())],
        ):
            self.assertRaises(base.NotFound, self.engine.stage, members, 60.0)
            self.assertEqual(set(), self.engine.ids(base.Kind.SNAPSHOT))

    def test_sweep_leaves_alone_what_is_being_staged(self):
        members, staged = self.stage()
        self.engine.sweep_staged()
        staged.publish()
        self.assertEqual(
            {made for _, made in members},
            self.engine.ids(base.Kind.SNAPSHOT),
        )

    # -- pool

    def test_new_pool_is_usable_and_empty(self):
        self.assertEqual([], self.engine.check())
        for kind in base.Kind:
            self.assertEqual(set(), self.engine.ids(kind))
        usage = self.engine.usage()
        self.assertGreater(usage.total_bytes, 0)
        self.assertGreater(usage.free_bytes, 0)
        self.assertLessEqual(usage.free_bytes, usage.total_bytes)

    def test_ids_lists_what_is_there(self):
        share_id = self.make_share()
        snapshot_id = self.make_snapshot(share_id)
        self.assertEqual({share_id}, self.engine.ids(base.Kind.SHARE))
        self.assertEqual({snapshot_id}, self.engine.ids(base.Kind.SNAPSHOT))
        self.assertTrue(self.engine.exists(share(share_id)))
        self.assertTrue(self.engine.exists(snapshot(snapshot_id)))
        self.assertFalse(self.engine.exists(share(snapshot_id)))
        self.assertFalse(self.engine.exists(snapshot(share_id)))

    def test_no_id_names_a_path(self):
        for bad in ("..", "", "a/b", "../" + new_id(), new_id().upper()):
            with self.subTest(bad):
                for act in (
                    lambda id_: self.engine.create_share(id_, OWNER),
                    self.engine.delete_share,
                    self.engine.delete_snapshot,
                    lambda id_: self.engine.directory(share(id_)),
                    lambda id_: self.engine.exists(share(id_)),
                    lambda id_: self.engine.set_directory(id_, None),
                    lambda id_: self.engine.create_snapshot(id_, new_id()),
                    lambda id_: self.engine.clone_share(share(id_), new_id()),
                    lambda id_: self.engine.ensure_file(id_, volume()),
                ):
                    self.assertRaises(ValueError, act, bad)

    def test_no_file_name_names_a_path(self):
        share_id = self.make_share()
        for bad in ("..", ".", "", "a/b", "/etc/passwd", "a\0b", "x" * 256):
            with self.subTest(bad):
                self.assertRaises(
                    ValueError,
                    self.engine.ensure_file,
                    share_id,
                    volume(bad),
                )
                self.assertRaises(
                    ValueError,
                    self.engine.rename_file,
                    share_id,
                    "volume",
                    bad,
                )

    # -- create

    def test_create_share_is_empty_and_owned(self):
        id_ = new_id()
        self.engine.create_share(id_, OWNER)
        self.assertEqual(
            (OWNER.uid, OWNER.gid, 0o770),
            self.client.describe_root(share(id_)),
        )

    def test_directory_is_roots_where_the_appliance_makes_the_file(self):
        id_ = self.make_share()
        self.assertEqual((0, 0, 0o755), self.client.describe_root(share(id_)))
        self.assertEqual(
            ("file", SIZE, OWNER.uid, OWNER.gid, 0o660),
            self.client.describe(share(id_), "volume"),
        )

    def test_directory_goes_to_root_and_back(self):
        id_ = new_id()
        self.engine.create_share(id_, OWNER)
        self.engine.ensure_file(id_, volume())
        self.client.write(share(id_), "volume", 0, b"x" * BLOCK)
        for owner, wanted in (
            (None, (0, 0, 0o755)),
            (OTHER, (OTHER.uid, OTHER.gid, 0o770)),
        ):
            for _ in range(2):
                self.engine.set_directory(id_, owner)
                self.assertEqual(wanted, self.client.describe_root(share(id_)))
        self.assertEqual(
            b"x" * BLOCK, self.client.read(share(id_), "volume", 0, BLOCK)
        )

    def test_directory_of_a_share_that_is_not_there(self):
        self.assertRaises(
            base.NotFound, self.engine.set_directory, new_id(), None
        )

    def test_create_share_again_keeps_content(self):
        id_ = self.make_share()
        self.client.write(share(id_), "volume", 0, b"x" * BLOCK)
        self.engine.create_share(id_, None)
        self.engine.ensure_file(id_, volume())
        self.assertEqual(
            b"x" * BLOCK, self.client.read(share(id_), "volume", 0, BLOCK)
        )

    def test_file_is_as_asked_for(self):
        id_ = self.make_share(volume("data", 3 * BLOCK, mode=0o640))
        self.assertEqual(
            ("file", 3 * BLOCK, OWNER.uid, OWNER.gid, 0o640),
            self.client.describe(share(id_), "data"),
        )
        self.assertTrue(self.engine.file_intact(id_, "data"))

    def test_sparse_file_uses_nothing_full_file_all(self):
        sparse = self.make_share(volume(size_bytes=SIZE))
        full = self.make_share(volume(size_bytes=SIZE, allocation="full"))
        self.engine.sync()
        self.assertEqual(0, self.engine.used_bytes(sparse, "volume"))
        self.assertEqual(SIZE, self.engine.used_bytes(full, "volume"))

    def test_file_cut_off_while_made_is_finished(self):
        id_ = new_id()
        self.engine.create_share(id_, OWNER)
        self.client.write(share(id_), "volume", 0, b"")
        self.engine.ensure_file(id_, volume())
        self.assertEqual(
            ("file", SIZE, OWNER.uid, OWNER.gid, 0o660),
            self.client.describe(share(id_), "volume"),
        )

    def test_file_in_missing_share(self):
        self.assertRaises(
            base.NotFound, self.engine.ensure_file, new_id(), volume()
        )

    # -- grow

    def test_grow_keeps_content_and_never_shrinks(self):
        id_ = self.make_share()
        self.client.write(share(id_), "volume", 0, b"a" * BLOCK)
        for size_bytes, expected in (
            (2 * SIZE, 2 * SIZE),
            (2 * SIZE, 2 * SIZE),
            (SIZE, 2 * SIZE),
        ):
            self.engine.grow_file(id_, "volume", size_bytes, "sparse")
            found = self.client.describe(share(id_), "volume")
            self.assertEqual(expected, found[1])
        self.assertEqual(
            b"a" * BLOCK + bytes(BLOCK),
            self.client.read(share(id_), "volume", 0, 2 * BLOCK),
        )

    def test_grow_full_takes_space(self):
        id_ = self.make_share()
        self.engine.grow_file(id_, "volume", 2 * SIZE, "full")
        self.engine.sync()
        self.assertEqual(2 * SIZE, self.engine.used_bytes(id_, "volume"))

    def test_grow_takes_nothing_where_the_size_is_there(self):
        """Whoever attaches a volume asks for its size again and again."""
        id_ = self.make_share()
        used = self.engine.used_bytes(id_, "volume")
        self.engine.grow_file(id_, "volume", SIZE, "full")
        self.engine.sync()
        self.assertEqual(used, self.engine.used_bytes(id_, "volume"))

    def test_grow_beyond_pool(self):
        id_ = self.make_share()
        used = self.engine.used_bytes(id_, "volume")
        too_much = 2 * self.engine.usage().total_bytes
        self.assertRaises(
            base.NoSpace,
            self.engine.grow_file,
            id_,
            "volume",
            too_much,
            "full",
        )
        found = self.client.describe(share(id_), "volume")
        self.assertEqual(SIZE, found[1])
        self.engine.drop_excess(id_, "volume", SIZE)
        self.engine.sync()
        self.assertEqual(used, self.engine.used_bytes(id_, "volume"))

    # -- exports

    def test_directories_that_are_exported(self):
        """The same id is two directories; nothing need be there."""
        id_ = new_id()
        paths = {
            kind: self.engine.directory(base.Reference(kind, id_))
            for kind in base.Kind
        }
        self.assertEqual(2, len({*paths.values()}))
        for path in paths.values():
            self.assertTrue(os.path.isabs(path))
            self.assertEqual(id_, os.path.basename(path))
        for kind in base.Kind:
            self.engine.ensure_reachable(kind)
            self.assertRaises(
                ValueError,
                self.engine.directory,
                base.Reference(kind, "../x"),
            )

    # -- what clients do to the file

    def test_removed_file_is_noticed(self):
        id_ = self.make_share()
        self.client.remove(share(id_), "volume")
        self.check_file_changed(id_)
        self.assertIsNone(self.client.describe(share(id_), "volume"))

    def test_symlink_instead_of_file_is_not_followed(self):
        victim = self.make_share()
        id_ = self.make_share()
        self.client.remove(share(id_), "volume")
        target = f"{self.engine.directory(share(victim))}/volume"
        self.client.plant_symlink(share(id_), "volume", target)
        self.check_file_changed(id_)
        self.assertEqual(
            ("file", SIZE, OWNER.uid, OWNER.gid, 0o660),
            self.client.describe(share(victim), "volume"),
        )

    def test_dangling_symlink_makes_no_file(self):
        id_ = new_id()
        self.engine.create_share(id_, OWNER)
        other = self.make_share()
        target = f"{self.engine.directory(share(other))}/made-through-link"
        self.client.plant_symlink(share(id_), "volume", target)
        self.assertRaises(
            base.FileChanged, self.engine.ensure_file, id_, volume()
        )
        self.assertIsNone(
            self.client.describe(share(other), "made-through-link")
        )

    def test_directory_instead_of_file_is_noticed(self):
        id_ = self.make_share()
        self.client.remove(share(id_), "volume")
        self.client.plant_directory(share(id_), "volume")
        self.check_file_changed(id_)

    def test_grow_is_undone(self):
        for allocation in ("sparse", "full"):
            with self.subTest(allocation):
                self.check_grow_is_undone(allocation)

    def check_grow_is_undone(self, allocation):
        id_ = self.make_share()
        self.engine.grow_file(id_, "volume", 2 * SIZE, allocation)
        self.engine.drop_excess(id_, "volume", SIZE)
        self.engine.sync()
        self.assertEqual(SIZE, self.engine.file_size(id_, "volume"))
        # What is reserved below the old end may stay so.
        self.assertLessEqual(self.engine.used_bytes(id_, "volume"), SIZE)

    def test_grow_is_not_undone_where_somebody_has_written(self):
        id_ = self.make_share()
        self.engine.grow_file(id_, "volume", 2 * SIZE, "sparse")
        self.client.write(share(id_), "volume", SIZE, b"a" * BLOCK)
        self.engine.drop_excess(id_, "volume", SIZE)
        self.assertEqual(2 * SIZE, self.engine.file_size(id_, "volume"))
        self.assertEqual(
            b"a" * BLOCK, self.client.read(share(id_), "volume", SIZE, BLOCK)
        )

    def check_file_changed(self, id_):
        self.assertFalse(self.engine.file_intact(id_, "volume"))
        self.assertIsNone(self.engine.used_bytes(id_, "volume"))
        self.assertRaises(
            base.FileChanged,
            self.engine.grow_file,
            id_,
            "volume",
            2 * SIZE,
            "sparse",
        )
        self.assertRaises(
            base.FileChanged, self.engine.rename_file, id_, "volume", "new"
        )
        self.engine.drop_excess(id_, "volume", SIZE)

    # -- rename

    def test_rename_twice_is_rename_once(self):
        id_ = self.make_share()
        self.client.write(share(id_), "volume", 0, b"r" * BLOCK)
        for _ in range(2):
            self.engine.rename_file(id_, "volume", "renamed")
            self.assertIsNone(self.client.describe(share(id_), "volume"))
            self.assertEqual(
                b"r" * BLOCK,
                self.client.read(share(id_), "renamed", 0, BLOCK),
            )

    def test_rename_to_itself(self):
        id_ = self.make_share()
        self.engine.rename_file(id_, "volume", "volume")
        self.assertTrue(self.engine.file_intact(id_, "volume"))

    def test_rename_never_replaces(self):
        id_ = self.make_share()
        self.client.write(share(id_), "mine", 0, b"m" * BLOCK)
        self.assertRaises(
            base.FileChanged, self.engine.rename_file, id_, "volume", "mine"
        )
        self.assertEqual(
            b"m" * BLOCK, self.client.read(share(id_), "mine", 0, BLOCK)
        )

    # -- snapshots and clones

    def test_snapshot_keeps_what_was(self):
        id_ = self.make_share()
        self.client.write(share(id_), "volume", 0, b"1" * BLOCK)
        kept = self.make_snapshot(id_)
        self.client.write(share(id_), "volume", 0, b"2" * BLOCK)
        self.engine.create_snapshot(id_, kept)
        self.assertEqual(
            b"1" * BLOCK, self.client.read(snapshot(kept), "volume", 0, BLOCK)
        )
        self.assertEqual(
            b"2" * BLOCK, self.client.read(share(id_), "volume", 0, BLOCK)
        )

    def test_snapshot_of_missing_share(self):
        missing = new_id()
        self.assertRaises(
            base.NotFound, self.engine.create_snapshot, missing, new_id()
        )

    def test_clone_of_missing_source(self):
        for source in (share(new_id()), snapshot(new_id())):
            self.assertRaises(
                base.NotFound, self.engine.clone_share, source, new_id()
            )

    def test_clone_lives_apart(self):
        id_ = self.make_share()
        self.client.write(share(id_), "volume", 0, b"1" * BLOCK)
        kept = self.make_snapshot(id_)
        clones = [self.clone(share(id_)), self.clone(snapshot(kept))]
        for clone in clones:
            self.client.write(share(clone), "volume", BLOCK, b"2" * BLOCK)
        self.assertEqual(
            bytes(BLOCK), self.client.read(share(id_), "volume", BLOCK, BLOCK)
        )
        self.engine.delete_snapshot(kept)
        self.engine.delete_share(id_)
        self.engine.sync()
        for clone in clones:
            self.assertEqual(
                b"1" * BLOCK + b"2" * BLOCK,
                self.client.read(share(clone), "volume", 0, 2 * BLOCK),
            )

    def test_clone_again_keeps_what_was_written(self):
        id_ = self.make_share()
        clone = self.clone(share(id_))
        self.client.write(share(clone), "volume", 0, b"c" * BLOCK)
        self.engine.clone_share(share(id_), clone)
        self.assertEqual(
            b"c" * BLOCK, self.client.read(share(clone), "volume", 0, BLOCK)
        )

    def test_adopt_renames_grows_and_owns_however_often(self):
        id_ = self.make_share()
        self.client.write(share(id_), "volume", 0, b"a" * BLOCK)
        clone = self.clone(share(id_))
        file = volume("clone", 2 * SIZE, owner=OTHER, mode=0o600)
        for _ in range(2):
            self.engine.adopt(clone, "volume", file)
            self.assertEqual(
                ("file", 2 * SIZE, OTHER.uid, OTHER.gid, 0o600),
                self.client.describe(share(clone), "clone"),
            )
            self.assertEqual(
                (0, 0, 0o755),
                self.client.describe_root(share(clone)),
            )
            self.assertIsNone(self.client.describe(share(clone), "volume"))
        self.assertEqual(
            ("file", SIZE, OWNER.uid, OWNER.gid, 0o660),
            self.client.describe(share(id_), "volume"),
        )
        self.assertEqual(
            b"a" * BLOCK, self.client.read(share(clone), "clone", 0, BLOCK)
        )

    def test_adopt_of_removed_file(self):
        id_ = self.make_share()
        self.client.remove(share(id_), "volume")
        clone = self.clone(share(id_))
        self.assertRaises(
            base.FileChanged,
            self.engine.adopt,
            clone,
            "volume",
            volume("clone"),
        )

    # -- copies

    def test_copy_of_a_file_keeps_its_holes(self):
        wanted = volume(size_bytes=SIZE + 2 * BLOCK)
        source, target = self.make_share(wanted), self.make_share(wanted)
        for offset in (2 * BLOCK, SIZE // 2):
            self.client.write(share(source), "volume", offset, b"x" * BLOCK)
        self.engine.sync()
        copy = copies.Copy()
        checks = []
        with (
            self.engine.open_file(source, "volume") as read,
            self.engine.open_file(target, "volume", write=True) as written,
        ):
            self.assertEqual(wanted.size_bytes, read.size_bytes)
            copy.run(read, written, lambda: checks.append(copy.done_bytes))
        self.engine.sync()
        self.assertEqual(checks[0], 0)
        self.assertEqual(copy.total_bytes, copy.done_bytes)
        self.assertEqual(
            self.client.read(share(source), "volume", 0, SIZE),
            self.client.read(share(target), "volume", 0, SIZE),
        )
        self.assertEqual(
            wanted.size_bytes, self.engine.file_size(target, "volume")
        )
        used = self.engine.used_bytes(target, "volume")
        self.assertLess(used, SIZE // 2)

    def test_copy_of_nothing(self):
        source, target = self.make_share(), self.make_share()
        with (
            self.engine.open_file(source, "volume") as read,
            self.engine.open_file(target, "volume", write=True) as written,
        ):
            copies.Copy().run(read, written, self.fail)
        self.assertEqual(0, self.engine.used_bytes(target, "volume"))

    def test_copy_of_what_is_not_there(self):
        id_ = self.make_share()
        self.client.plant_directory(share(id_), "directory")
        for error, given in (
            (base.NotFound, (new_id(), "volume")),
            (base.FileChanged, (id_, "other")),
            (base.FileChanged, (id_, "directory")),
            (ValueError, (id_, "../volume")),
        ):
            with self.assertRaises(error):
                with self.engine.open_file(*given):
                    self.fail("it was opened")

    # -- revert

    def revert(self, id_, kept, file=None, snapshot_file="volume"):
        self.engine.revert_file(id_, file or volume(), kept, snapshot_file)

    def test_revert_in_place_however_often(self):
        id_ = self.make_share()
        self.client.write(share(id_), "volume", 0, b"1" * BLOCK)
        kept = self.make_snapshot(id_)
        self.client.write(share(id_), "volume", 0, b"2" * 3 * BLOCK)
        later = self.make_snapshot(id_)
        identity = self.client.identify(share(id_), "volume")
        for _ in range(2):
            self.revert(id_, kept)
            self.engine.sync()
            self.assertEqual(
                b"1" * BLOCK + bytes(2 * BLOCK),
                self.client.read(share(id_), "volume", 0, 3 * BLOCK),
            )
        self.assertEqual(identity, self.client.identify(share(id_), "volume"))
        self.revert(id_, later)
        for reference in (share(id_), snapshot(later)):
            self.assertEqual(
                b"2" * 3 * BLOCK,
                self.client.read(reference, "volume", 0, 3 * BLOCK),
            )

    def test_revert_to_a_smaller_one_of_another_name(self):
        """Zeros follow, and nothing of what was there; all of it is as the
        share wants its file now."""
        id_ = self.make_share(volume(size_bytes=BLOCK + 1))
        self.client.write(share(id_), "volume", 0, b"1" * BLOCK)
        kept = self.make_snapshot(id_)
        wanted = volume("new", SIZE, owner=OTHER, mode=0o600)
        self.engine.rename_file(id_, "volume", "new")
        self.engine.grow_file(id_, "new", 2 * SIZE, "sparse")
        self.client.write(share(id_), "new", 0, b"2" * 2 * SIZE)
        self.revert(id_, kept, wanted)
        self.assertEqual(
            ("file", SIZE, OTHER.uid, OTHER.gid, 0o600),
            self.client.describe(share(id_), "new"),
        )
        self.assertEqual(
            b"1" * BLOCK + bytes(SIZE - BLOCK),
            self.client.read(share(id_), "new", 0, SIZE),
        )
        self.assertEqual(
            ("file", BLOCK + 1, OWNER.uid, OWNER.gid, 0o660),
            self.client.describe(snapshot(kept), "volume"),
        )

    def test_reverted_share_lives_apart_from_the_snapshot(self):
        id_ = self.make_share()
        kept = self.make_snapshot(id_)
        self.revert(id_, kept)
        self.client.write(share(id_), "volume", 0, b"3" * BLOCK)
        self.assertEqual(
            bytes(BLOCK), self.client.read(snapshot(kept), "volume", 0, BLOCK)
        )
        self.engine.delete_snapshot(kept)
        self.engine.sync()
        self.assertEqual(
            b"3" * BLOCK, self.client.read(share(id_), "volume", 0, BLOCK)
        )

    def test_revert_of_what_is_not_there_changes_nothing(self):
        id_ = self.make_share()
        empty = self.make_share()
        self.client.remove(share(empty), "volume")
        without_file = self.make_snapshot(empty)
        kept = self.make_snapshot(id_)
        self.client.write(share(id_), "volume", 0, b"4" * BLOCK)
        for error, arguments in (
            (base.NotFound, (id_, new_id())),
            (base.NotFound, (new_id(), kept)),
            (base.FileChanged, (id_, without_file)),
            (base.FileChanged, (empty, kept)),
        ):
            self.assertRaises(error, self.revert, *arguments)
        self.assertRaises(
            ValueError, self.revert, id_, kept, None, "../volume"
        )
        self.assertEqual(
            b"4" * BLOCK, self.client.read(share(id_), "volume", 0, BLOCK)
        )

    # -- delete

    def test_delete_of_anything_twice(self):
        id_ = self.make_share()
        self.client.plant_directory(share(id_), "made by a client")
        kept = self.make_snapshot(id_)
        for _ in range(2):
            self.engine.delete_share(id_)
            self.assertFalse(self.engine.exists(share(id_)))
        self.assertTrue(self.engine.exists(snapshot(kept)))
        for _ in range(2):
            self.engine.delete_snapshot(kept)
            self.assertFalse(self.engine.exists(snapshot(kept)))

    def test_questions_about_a_missing_share(self):
        missing = new_id()
        self.assertFalse(self.engine.file_intact(missing, "volume"))
        self.assertIsNone(self.engine.used_bytes(missing, "volume"))

    # -- many at once

    def test_shares_are_changed_side_by_side(self):
        source = self.make_share()
        self.client.write(share(source), "volume", 0, b"s" * BLOCK)
        kept = self.make_snapshot(source)
        clones = [new_id() for _ in range(12)]
        errors = []

        def work(id_):
            try:
                self.engine.clone_share(snapshot(kept), id_)
                self.engine.adopt(id_, "volume", volume(f"v-{id_}"))
                self.engine.sync()
            except Exception as error:
                errors.append(error)

        threads = [
            threading.Thread(target=work, args=(id_,)) for id_ in clones
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual([], errors)
        self.assertEqual({source, *clones}, self.engine.ids(base.Kind.SHARE))
        for id_ in clones:
            self.assertEqual(
                b"s" * BLOCK,
                self.client.read(share(id_), f"v-{id_}", 0, BLOCK),
            )

    # -- metadata

    def test_metadata_is_kept_and_replaced(self):
        store, reference = self.engine.metadata, share(new_id())
        self.assertIsNone(store.read(reference))
        for size in (1, 100, 5_000, 200_000, 10):
            values = {"name": "é" * size, "size_bytes": 1 << 50, "file": None}
            store.write(reference, values)
            store.write(reference, values)
            self.assertEqual(values, store.read(reference))
        self.assertEqual({reference.id}, store.ids(reference.kind))
        self.assertEqual(set(), store.ids(base.Kind.SNAPSHOT))

    def test_metadata_of_shares_and_snapshots_is_apart(self):
        store, id_ = self.engine.metadata, new_id()
        store.write(share(id_), {"a": 1})
        store.write(snapshot(id_), {"a": 2})
        for _ in range(2):
            store.delete(share(id_))
        self.assertIsNone(store.read(share(id_)))
        self.assertEqual({"a": 2}, store.read(snapshot(id_)))
        self.assertEqual({id_}, store.ids(base.Kind.SNAPSHOT))
        store.delete(snapshot(id_))

    def test_metadata_needs_no_share_and_is_none(self):
        store, id_ = self.engine.metadata, new_id()
        store.write(share(id_), {})
        self.assertFalse(self.engine.exists(share(id_)))
        self.assertNotIn(id_, self.engine.ids(base.Kind.SHARE))
        store.delete(share(id_))

    def test_identity(self):
        store = self.engine.metadata
        for values in ({"id": "a"}, {"id": "b", "sequence": 7}):
            store.write_identity(values)
            self.assertEqual(values, store.read_identity())
        store.prepare()
        self.assertEqual(values, store.read_identity())

    def test_bad_ids_name_no_metadata(self):
        for bad in ("", "pool", "../pool", "A" * 36, f"{new_id()}.new"):
            for call in (
                lambda r: self.engine.metadata.write(r, {}),
                self.engine.metadata.read,
                self.engine.metadata.delete,
            ):
                self.assertRaises(ValueError, call, share(bad))

    def test_find_file(self):
        id_ = self.make_share(volume("data"))
        self.assertEqual(volume("data"), self.engine.find_file(id_))
        self.client.plant_directory(share(id_), "more")
        self.assertIsNone(self.engine.find_file(id_))
        self.client.remove(share(id_), "data")
        self.assertIsNone(self.engine.find_file(id_))
        self.assertRaises(base.NotFound, self.engine.find_file, new_id())
