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
"""A pool whose disk does not answer: what goes on, and what is said."""

from concurrent import futures
import contextlib
import threading
import time
from unittest import mock

from acme_appliance import references
from acme_appliance.engines.memory import engine as memory
from acme_appliance.service.reconcile import comparison
from acme_appliance.storage import watch
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

#: How long a request waits for a pool here.
LIMIT_SECONDS = 1
#: Far less than so many requests would wait for one after the other.
MANY = 100
BOUND_SECONDS = 60

GOLD, SILVER = "gold", "silver"


class HangingEngine(memory.MemoryEngine):
    """Every call on it waits while ``answering`` is not set."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.answering = threading.Event()
        self.answering.set()

    def check(self):
        self.answering.wait()
        return super().check()

    def used_bytes(self, share_id, name):
        self.answering.wait()
        return super().used_bytes(share_id, name)

    @contextlib.contextmanager
    def _changing(self):
        self.answering.wait()
        with super()._changing():
            yield


class TestHangingPool(case.ServiceCase):
    settings = {
        "pools": (GOLD, SILVER),
        "engine_class": HangingEngine,
        "answer_seconds": LIMIT_SECONDS,
    }

    def setUp(self):
        super().setUp()
        self.service = self.fixture.service
        self.gold = self.make_share(pool=GOLD)
        self.silver = self.make_share(pool=SILVER)
        self.disk = self.fixture.engines[SILVER].answering
        # Also where a test fails: or its threads would stay.
        self.addCleanup(self.disk.set)

    def pool(self, name):
        return next(
            pool
            for pool in self.service.system.stats()["pools"]
            if pool["name"] == name
        )

    def hang(self):
        """From now on; the figures are known from before."""
        self.fixture.engines[SILVER].entries(fixtures.share(self.silver))[
            "volume"
        ].write(0, bytes(memory.BLOCK_BYTES))
        before = self.pool(SILVER)
        self.seen_at = self.fixture.clock.now
        self.fixture.clock.advance(hours=1)
        self.disk.clear()
        return before

    def test_reads_go_on_with_the_last_figures(self):
        before = self.hang()
        self.assertEqual("up", before["state"])
        self.assertIsNone(before["observed_at"])
        self.assertEqual(memory.BLOCK_BYTES, before["used_bytes"])
        after = self.pool(SILVER)
        self.assertEqual("unavailable", after["state"])
        self.assertEqual(self.seen_at.strftime("%H:%M"), "03:04")
        self.assertEqual("2026-01-02T03:04:05", after["observed_at"][:19])
        for key in before.keys() - {"state", "observed_at"}:
            self.assertEqual(before[key], after[key], key)
        self.assertEqual("up", self.pool(GOLD)["state"])
        self.assertEqual("degraded", self.service.system.describe()["health"])
        self.assertEqual(
            ["pool silver: it does not answer"],
            self.service.system.readiness(),
        )
        self.assertEqual(
            "unavailable", self.service.pools.get(SILVER)["state"]
        )
        self.assertEqual(
            [GOLD, SILVER], [p["name"] for p in self.service.pools.all()]
        )
        self.service.system.status()

    def test_reply_is_the_same_while_nothing_changes(self):
        """Else its ETag would be of no use."""
        self.assertEqual(
            self.service.system.stats(), self.service.system.stats()
        )
        self.hang()
        self.assertEqual(
            self.service.system.stats(), self.service.system.stats()
        )

    def test_only_the_first_requests_wait(self):
        self.hang()
        self.service.system.stats()
        began = time.monotonic()
        for _ in range(MANY):
            self.service.system.stats()
            self.service.system.readiness()
        self.assertLess(time.monotonic() - began, MANY * LIMIT_SECONDS / 2)

    def test_many_requests_take_one_thread(self):
        self.hang()
        before = threading.active_count()
        with futures.ThreadPoolExecutor(MANY) as pool:
            calls = [
                pool.submit(self.service.system.stats) for _ in range(MANY)
            ]
            for call in calls:
                call.result(BOUND_SECONDS)
        self.assertLessEqual(threading.active_count(), before + 2)

    def test_list_over_both_pools(self):
        self.hang()
        page = self.service.shares.page(fixtures.ADMIN, {}, 1000, None)
        used = {body["id"]: body["used_bytes"] for body in page.items}
        self.assertEqual({self.gold: 0, self.silver: None}, used)
        self.assertIsNone(self.share(self.silver)["used_bytes"])
        self.assertEqual(0, self.share(self.gold)["used_bytes"])

    def test_changes_fail_at_once_and_only_there(self):
        snapshot = self.make_snapshot(self.silver)
        self.fixture.put_access(self.silver)
        self.hang()
        before = self.fixture.listed()
        for change in (
            lambda: self.fixture.put_share(pool=SILVER),
            lambda: self.fixture.clone("share", self.silver),
            lambda: self.fixture.patch_share(self.silver, size_bytes=1 << 30),
            lambda: self.fixture.put_snapshot(self.silver),
            lambda: self.fixture.delete_snapshot(snapshot),
            lambda: self.fixture.put_access(self.silver, "cmp-2"),
        ):
            self.check_problem("engine.unavailable", change)
        self.assertEqual(before, self.fixture.listed())
        self.make_snapshot(self.make_share(pool=GOLD))
        self.fixture.put_access(self.gold)

    def test_rules_can_be_taken_away_there(self):
        """No disk is needed, and hosts must not keep what they lost."""
        self.fixture.put_access(self.silver)
        self.hang()
        self.fixture.delete_access(self.silver)
        self.assertEqual({}, self.fixture.exporter.exported())

    def test_names_and_labels_can_be_changed_there(self):
        """They are the database's; the metadata beside them is old until
        the next start. Nothing is held for that."""
        snapshot = self.make_snapshot(self.silver)
        self.hang()
        with futures.ThreadPoolExecutor(2) as pool:
            self.addCleanup(self.disk.set)
            try:
                for number in range(2):
                    labels = {"a": str(number)}
                    pool.submit(
                        self.fixture.patch_share, self.silver, labels=labels
                    ).result(BOUND_SECONDS)
                    pool.submit(
                        self.service.snapshots.patch,
                        fixtures.CALLER,
                        snapshot,
                        {"labels": labels},
                        wait_seconds=fixtures.WAIT,
                    ).result(BOUND_SECONDS)
            finally:
                self.disk.set()
        self.wait_until_up()
        self.assertEqual({"a": "1"}, self.share(self.silver)["labels"])
        report = self.fixture.restart()
        self.assertEqual(2, len(report.old_metadata))

    def test_all_is_well_when_it_answers_again(self):
        self.hang()
        self.check_problem(
            "engine.unavailable", lambda: self.fixture.put_share(pool=SILVER)
        )
        self.disk.set()
        self.wait_until_up()
        self.assertEqual([], self.service.system.readiness())
        self.assertIsNone(self.pool(SILVER)["observed_at"])
        self.assertEqual(
            memory.BLOCK_BYTES, self.share(self.silver)["used_bytes"]
        )
        self.fixture.put_snapshot(self.make_share(pool=SILVER))

    def wait_until_up(self):
        end = time.monotonic() + BOUND_SECONDS
        while self.pool(SILVER)["state"] != "up":
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_start_while_it_hangs(self):
        self.disk.clear()
        self.fixture.service.stop()
        report = self.fixture.restart()
        self.assertEqual([SILVER], list(report.unusable_pools))
        self.service = self.fixture.service
        pool = self.pool(SILVER)
        self.assertEqual("unavailable", pool["state"])
        self.assertIsNone(pool["observed_at"])
        self.assertEqual((0, 1), (pool["free_bytes"], pool["share_count"]))
        self.make_share(pool=GOLD)

    def test_nfs_server_that_hangs(self):
        go = threading.Event()
        self.addCleanup(go.set)
        self.fixture.exporter.check = lambda: [str(go.wait())]
        for _ in range(3):
            self.assertEqual(
                ["the NFS server does not answer"],
                self.service.system.readiness(),
            )
        self.assertEqual("up", self.pool(GOLD)["state"])
        self.assertEqual({}, self.service.system.status()["exports"])


class TestHangingStart(case.ServiceCase):
    """A pool that passes the first look, and hangs at a later one."""

    settings = TestHangingPool.settings

    def setUp(self):
        super().setUp()
        self.gold = self.make_share(pool=GOLD)
        self.silver = self.make_share(pool=SILVER)
        self.fixture.put_access(self.silver)
        self.disk = threading.Event()
        # Also where a test fails: or its threads would stay.
        self.addCleanup(self.disk.set)
        patch = mock.patch.object(comparison, "RETRY_SECONDS", 0.01)
        self.enterContext(patch)

    def hang_at(self, owner, method):
        """The pool's calls of this method wait, and then are made."""
        real = getattr(owner, method)

        def call(*arguments):
            self.disk.wait()
            return real(*arguments)

        self.enterContext(mock.patch.object(owner, method, call))

    def start(self):
        self.fixture.restart(start=False)
        self.service = self.fixture.service
        return self.service.start()

    def wait_for(self, condition):
        end = time.monotonic() + BOUND_SECONDS
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_in_the_middle_of_the_comparison(self):
        silver = self.fixture.engines[SILVER]
        silver.entries(fixtures.share(self.silver)).clear()
        self.hang_at(silver, "file_size")
        self.start()
        self.make_share(pool=GOLD)
        self.assertEqual("available", self.share(self.silver)["state"])
        self.disk.set()
        self.wait_for(lambda: self.share(self.silver)["state"] == "degraded")

    def test_where_it_says_who_it_is(self):
        """Its exports are added when it is back."""
        self.fixture.exporter.withdraw(references.share(self.silver))
        silver = self.fixture.engines[SILVER]
        self.hang_at(silver.metadata, "read_identity")
        report = self.start()
        self.assertEqual([SILVER], list(report.unusable_pools))
        self.make_share(pool=GOLD)
        self.assertEqual({}, self.fixture.exporter.exported())
        self.check_problem(
            "engine.unavailable", lambda: self.fixture.put_share(pool=SILVER)
        )
        self.disk.set()
        self.wait_for(
            lambda: (
                references.share(self.silver)
                in self.fixture.exporter.exported()
            )
        )

    def test_comparison_of_an_operator(self):
        silver = self.fixture.engines[SILVER]
        real = silver.file_size

        def file_size(*arguments):
            silver.answering.clear()
            silver.answering.wait()
            return real(*arguments)

        self.addCleanup(silver.answering.set)
        silver.file_size = file_size
        report = self.fixture.service.reconciliation.run(False)
        self.assertEqual([SILVER], list(report["unusable_pools"]))


class TestBesideChanges(case.ServiceCase):
    """The comparison after a start, and what clients do meanwhile."""

    def compare_while(self, change):
        """Look at a share that is changed at that moment."""
        engine = self.fixture.engine
        real, calls = engine.file_size, []

        def file_size(*arguments):
            if not calls:
                calls.append(arguments)
                change()
            return real(*arguments)

        engine.file_size = file_size
        report = self.fixture.restart()
        self.assertTrue(calls)
        return report.lines()

    def test_deleted(self):
        id_ = self.make_share()
        found = self.compare_while(lambda: self.fixture.delete_share(id_))
        self.assertEqual([], found)

    def test_renamed(self):
        id_ = self.make_share()
        found = self.compare_while(
            lambda: self.fixture.patch_share(id_, name="other")
        )
        self.assertEqual([], found)
        self.assertEqual("other", self.share(id_)["name"])


class TestWatch(case.unittest.TestCase):
    def test_error_is_the_askers(self):
        asked = watch.Watch("it", BOUND_SECONDS)
        self.addCleanup(asked.stop)
        with self.assertRaises(ZeroDivisionError):
            asked.ask(lambda: 1 // 0)
        self.assertEqual(3, asked.ask(lambda: 3))

    def test_time_out_of_the_question_itself_is_no_silence(self):
        asked = watch.Watch("it", BOUND_SECONDS)
        self.addCleanup(asked.stop)

        def question():
            raise TimeoutError("its own")

        with self.assertRaisesRegex(TimeoutError, "its own"):
            asked.ask(question)

    def test_what_was_given_up_is_not_asked_later(self):
        go, asked = threading.Event(), []
        it = watch.Watch("it", 0.2)
        self.addCleanup(it.stop)
        first = it.start(go.wait)
        second = it.start(lambda: asked.append("second"))
        for answer in (first, second):
            self.assertRaises(watch.NotAnswering, answer.get)
        go.set()
        end = time.monotonic() + BOUND_SECONDS
        while it.hangs():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.001)
        it.ask(lambda: asked.append("third"))
        self.assertEqual(["third"], asked)

    def test_stopped_one_answers_again(self):
        it = watch.Watch("it", BOUND_SECONDS)
        for number in range(3):
            self.assertEqual(number, it.ask(lambda number=number: number))
            it.stop()
