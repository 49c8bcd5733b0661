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

import contextlib
import threading
import unittest
from unittest import mock
import uuid

from acme_appliance import moments
from acme_appliance.engines import base as engines
from acme_appliance.engines.btrfs import together
from acme_appliance.engines.memory import engine as memory
from acme_appliance.exporters import base as exporters
from acme_appliance.exporters.memory import exporter as memory_exporter
from tests.unit.appliance import fixtures

QUICK = moments.Limits(
    engine=0.05, cut=0.3, margin=0.1, write_back=5.0, publish=5.0
)


class PlainEngine(memory.MemoryEngine):
    """Without a way of its own to one moment."""

    def __init__(self, exporter):
        super().__init__()
        self.exporter = exporter
        #: Whether replies were held back, at each snapshot.
        self.shut = []
        self.written_back = []

    def stage_at_once(self, members, seconds):
        return None

    def write_back(self):
        self.written_back.append(self.exporter.is_shut)

    def create_snapshot(self, share_id, snapshot_id):
        self.shut.append(self.exporter.is_shut)
        super().create_snapshot(share_id, snapshot_id)


class HangingEngine(PlainEngine):
    """Its disk hangs at one snapshot until ``answers`` is set."""

    def __init__(self, exporter, hangs_at):
        super().__init__(exporter)
        self.answers = threading.Event()
        self.removed = threading.Event()
        self._hangs_at = hangs_at

    def create_snapshot(self, share_id, snapshot_id):
        super().create_snapshot(share_id, snapshot_id)
        if len(self.shut) == self._hangs_at:
            assert self.answers.wait(30)

    def delete_snapshot(self, snapshot_id):
        super().delete_snapshot(snapshot_id)
        if self.answers.is_set():
            self.removed.set()


class LeakyExporter(memory_exporter.MemoryExporter):
    """Replies pass too early, so many times."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    @contextlib.contextmanager
    def cut(self):
        yield LeakyCut(self)


class LeakyCut(memory_exporter.MemoryCut):
    @contextlib.contextmanager
    def shut(self, seconds):
        with super().shut(seconds):
            yield
        if self._exporter.times:
            self._exporter.times -= 1
            raise exporters.CutLost("it has expired")


class Case(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.exporter = memory_exporter.MemoryExporter()

    def members(self, engine, count=3):
        made = []
        for _ in range(count):
            share_id = str(uuid.uuid4())
            engine.create_share(share_id, None)
            made.append((share_id, str(uuid.uuid4())))
        return made

    def take(self, engine, members, **options):
        return moments.take(
            engine, self.exporter, members, limits=QUICK, **options
        )

    def found(self, engine):
        return engine.ids(engines.Kind.SNAPSHOT)


class TestEngineAtOnce(Case):
    def test_the_way_of_the_engine_needs_no_exporter(self):
        engine = memory.MemoryEngine()
        self.exporter.cannot_cut = "there is no netfilter"
        members = self.members(engine)
        moment = self.take(engine, members)
        self.assertEqual(moments.METHOD_ENGINE, moment.method)
        self.assertGreaterEqual(moment.pause_seconds, 0)
        self.assertEqual({made for _, made in members}, self.found(engine))

    def test_none_without_a_share(self):
        engine = memory.MemoryEngine()
        members = self.members(engine)
        engine.delete_share(members[-1][0])
        self.assertRaises(engines.NotFound, self.take, engine, members)
        self.assertEqual(set(), self.found(engine))

    def test_an_interrupted_call_is_repeated_from_the_beginning(self):
        engine = memory.MemoryEngine()
        members = self.members(engine)
        engine.create_snapshot(*members[1])
        share = engines.Reference(engines.Kind.SHARE, members[1][0])
        engine.entries(share)["later"] = memory.Entry()
        self.take(engine, members)
        made = engines.Reference(engines.Kind.SNAPSHOT, members[1][1])
        self.assertEqual({"later"}, set(engine.entries(made)))

    def test_an_empty_set_is_a_mistake(self):
        self.assertRaises(ValueError, self.take, memory.MemoryEngine(), [])


class TestCut(Case):
    def test_snapshots_while_replies_are_held_back(self):
        engine = PlainEngine(self.exporter)
        members = self.members(engine)
        moment = self.take(engine, members)
        self.assertEqual(moments.METHOD_CUT, moment.method)
        self.assertEqual([True] * 3, engine.shut)
        self.assertEqual([False] * 2, engine.written_back)
        self.assertFalse(self.exporter.is_shut)
        self.assertEqual({made for _, made in members}, self.found(engine))

    def test_refused_with_the_reason(self):
        engine = PlainEngine(self.exporter)
        self.exporter.cannot_cut = "RDMA is on"
        members = self.members(engine)
        with self.assertRaisesRegex(moments.Unattainable, "RDMA is on"):
            self.take(engine, members)
        self.assertEqual(set(), self.found(engine))

    def test_none_after_an_error(self):
        engine = PlainEngine(self.exporter)
        members = self.members(engine)
        engine.delete_share(members[1][0])
        self.assertRaises(engines.NotFound, self.take, engine, members)
        self.assertFalse(self.exporter.is_shut)
        self.assertEqual(set(), self.found(engine))

    def test_repeated_if_replies_passed(self):
        self.exporter = LeakyExporter(times=2)
        engine = PlainEngine(self.exporter)
        members = self.members(engine)
        self.take(engine, members)
        self.assertEqual(9, len(engine.shut))
        self.assertEqual({made for _, made in members}, self.found(engine))

    def test_repeated_so_often(self):
        self.exporter = LeakyExporter(times=3)
        engine = PlainEngine(self.exporter)
        members = self.members(engine)
        self.assertRaises(moments.Busy, self.take, engine, members)
        self.assertEqual(set(), self.found(engine))


class TestHangingDisk(Case):
    def test_bounded_and_undone_when_the_disk_answers(self):
        engine = HangingEngine(self.exporter, hangs_at=2)
        members = self.members(engine)
        self.assertRaises(moments.Busy, self.take, engine, members)
        self.assertFalse(self.exporter.is_shut)
        with self.assertRaisesRegex(moments.Busy, "earlier call"):
            self.take(engine, members)
        engine.answers.set()
        self.assertTrue(engine.removed.wait(30))
        self.retake(engine, members)
        self.assertEqual({made for _, made in members}, self.found(engine))

    def retake(self, engine, members):
        """Once the earlier call has ended."""
        for _ in range(200):
            try:
                return self.take(engine, members)
            except moments.Busy:
                threading.Event().wait(0.05)
        self.fail("the earlier call does not end")


class BrokenEngine(memory.MemoryEngine):
    def sweep_staged(self):
        raise engines.Unavailable("I/O error")


class TestSweep(Case):
    def test_reports_what_is_left(self):
        engine = memory.MemoryEngine()
        self.assertEqual([], moments.sweep({"a": engine}, self.exporter))
        (line,) = moments.sweep(
            {"a": engine, "b": BrokenEngine()}, self.exporter
        )
        self.assertIn("pool b has unfinished snapshots: I/O error", line)

    def test_a_start_sweeps_and_goes_on(self):
        with self.assertLogs(level="WARNING") as logs:
            fixture = fixtures.ServiceFixture(self, engine_class=BrokenEngine)
        self.assertIn("pool gold has unfinished snapshots", str(logs.output))
        fixture.put_share()


class TestTogether(unittest.TestCase):
    def test_no_thread_is_left_where_the_process_may_have_no_more(self):
        """Those that were started wait for the others."""
        started = []
        start = threading.Thread.start

        def limited(thread):
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
            started.append(thread)
            start(thread)

        calls = []
        with mock.patch.object(threading.Thread, "start", limited):
            with self.assertRaisesRegex(RuntimeError, "new thread"):
                together.run_together([lambda: calls.append(1)] * 3)
        for thread in started:
            thread.join(60)
            self.assertFalse(thread.is_alive())
        self.assertEqual(2, len(started))
        self.assertEqual([], calls)
