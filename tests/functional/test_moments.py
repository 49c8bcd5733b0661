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

"""Snapshots of one moment, of subvolumes of a real btrfs."""

import os
import pathlib
import threading
from unittest import mock

from acme_appliance import moments
from acme_appliance.engines import base
from acme_appliance.engines.btrfs import together
from acme_appliance.exporters.memory import exporter as memory
from acme_appliance.host import btrfsutil
from tests.functional import test_btrfs_engine as functional
from tests.unit.appliance import engine_suite as suite


class Killed(BaseException):
    pass


class TestOneTransaction(functional.PoolCase):
    """Whether or not this kernel can do it."""

    def setUp(self):
        super().setUp()
        self.exporter = memory.MemoryExporter()
        self.members = []
        for _ in range(4):
            share_id = suite.new_id()
            self.engine.create_share(share_id, None)
            self.engine.ensure_file(share_id, suite.volume())
            self.members.append((share_id, suite.new_id()))

    def take(self):
        return moments.take(self.engine, self.exporter, self.members)

    def left(self):
        """What is in the pool besides shares and snapshots."""
        root = pathlib.Path(self.pool.directory)
        places = [*(root / together.FOLDER).glob("*")]
        return places + [*(root / "snapshots").glob("moment-*")]

    def check_all(self):
        made = {made for _, made in self.members}
        self.assertEqual(made, self.engine.ids(base.Kind.SNAPSHOT))
        self.assertEqual([], self.left())
        for each in made:
            with self.assertRaisesRegex(OSError, "Read-only"):
                self.client.write(suite.snapshot(each), "volume", 0, b"x")

    def check_none(self):
        self.assertEqual(set(), self.engine.ids(base.Kind.SNAPSHOT))
        self.assertEqual([], self.left())

    def test_all_or_none(self):
        self.take()
        self.check_all()
        # An interrupted call is repeated.
        self.take()
        self.check_all()

    def test_unequal_transactions_are_repeated(self):
        answers = iter([7, 7, 8, 7, *[9] * 4])
        with mock.patch.object(
            btrfsutil,
            "creation_transaction",
            autospec=True,
            side_effect=answers,
        ):
            moment = self.take()
        self.assertEqual(moments.METHOD_ENGINE, moment.method)
        self.assertEqual([], [*answers])
        self.check_all()

    def test_unequal_transactions_end_in_the_other_way(self):
        numbers = iter(range(1000))
        with mock.patch.object(
            btrfsutil,
            "creation_transaction",
            autospec=True,
            side_effect=numbers,
        ):
            self.assertEqual(moments.METHOD_CUT, self.take().method)
            self.assertEqual(40, next(numbers))
            self.check_all()
            # It is tried once more each time.
            self.take()
            self.assertEqual(45, next(numbers))
            self.exporter.cannot_cut = "RDMA"
            self.assertRaises(moments.Unattainable, self.take)
        self.check_none()

    def test_nothing_is_left_if_an_id_is_taken_at_the_end(self):
        rename = together.filesystem.rename_exclusive

        def fail(folder, old, new):
            if new == self.members[-1][1]:
                raise OSError(28, os.strerror(28))
            rename(folder, old, new)

        with mock.patch.object(
            together.filesystem,
            "rename_exclusive",
            autospec=True,
            side_effect=fail,
        ):
            self.assertRaises(base.NoSpace, self.take)
        self.check_none()

    def test_sweep_after_a_kill(self):
        for function in (
            "prepare",
            "make",
            "_publish",
        ):
            with self.subTest(function):
                self.kill_after(function)
                self.assertNotEqual([], self.left())
                self.engine = self.pool.engine()
                moments.sweep({"pool": self.engine}, self.exporter)
                self.assertEqual([], self.left())
                self.take()
                self.check_all()

    def kill_after(self, name):
        """As if the process ended after a step: nothing is undone."""
        kind = together.StagedSubvolumes
        step = getattr(kind, name)

        def die(*arguments):
            step(*arguments)
            raise Killed

        with (
            mock.patch.object(kind, name, die),
            mock.patch.object(kind, "discard", autospec=True),
            mock.patch.object(kind, "_unpublish", autospec=True),
            mock.patch.object(kind, "_remove", autospec=True),
        ):
            self.assertRaises(Killed, self.take)

    def test_a_hung_disk_is_bounded(self):
        """The call returns; when the disk answers, nothing is left."""
        answers = threading.Event()
        create = btrfsutil.create_snapshot

        def hang(*arguments, **options):
            answers.wait(60)
            create(*arguments, **options)

        limits = moments.Limits(engine=0.2, cut=0.5, margin=0.1)
        with mock.patch.object(btrfsutil, "create_snapshot", hang):
            self.assertRaises(
                moments.Busy,
                lambda: moments.take(
                    self.engine, self.exporter, self.members, limits=limits
                ),
            )
            answers.set()
            for _ in range(600):
                if not self.left():
                    break
                threading.Event().wait(0.05)
        self.check_none()
        self.take()
        self.check_all()
