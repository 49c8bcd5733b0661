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

"""Jobs that could neither be finished nor undone, and how they end."""

import threading
import time
import unittest
import unittest.mock

import ddt
import sqlalchemy as sa

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.changes import openjobs
from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from tests.unit.appliance import case
from tests.unit.appliance import fixtures
from tests.unit.appliance import scenarios
from tests.unit.appliance.changes import test_crashes

MIB = fixtures.MIB
SOON = 120.0
NAMES = sorted(scenarios.SCENARIOS.keys() - set(test_crashes.STEPLESS))


def fail(error):
    def method(*arguments, **keywords):
        raise error

    return method


class FailingSteps(fixtures.Steps):
    """From one step on everything fails, until it is repaired."""

    def __init__(self, fail_at):
        super().__init__()
        self.fail_at = fail_at
        self.repaired = False

    def __call__(self, job_id, name):
        super().__call__(job_id, name)
        if not self.repaired and len(self.names) > self.fail_at:
            raise OSError(5, "for a while")


def by_timer(fixture):
    fixture.clock.advance(seconds=openjobs.MAX_DELAY_SECONDS)
    resume_due(fixture)


def resume_due(fixture):
    """What the timer does, waited for."""
    open_jobs = fixture.service.recovery.open_jobs
    due = [
        job
        for job in fixture.service.journal.entries.open()
        if open_jobs._is_due(job)
    ]
    open_jobs._wait(open_jobs._begin(due), SOON)


WAYS = {
    "timer": by_timer,
    "start": lambda fixture: fixture.restart(),
    "reconcile": lambda fixture: fixture.service.reconciliation.run(True),
    "same request": None,
}


@ddt.ddt
class TestFaultThatPasses(unittest.TestCase):
    """At every step of every change: storage, exports or database fail from
    there on, forward and back, and are well again later."""

    def failed_fixture(self, name, index):
        prepare, request = scenarios.SCENARIOS[name]
        saved = fixtures.saved_after(prepare, scenarios.POOLS)
        fixture = fixtures.ServiceFixture(self, saved=saved, start=False)
        fixture.restart(steps=FailingSteps(index))
        try:
            request(fixture)
        except problems.Problem as problem:
            self.assertTrue(problem.row.retryable, problem)
        return fixture

    @ddt.data(*NAMES)
    def test_ends_well_by_every_way(self, name):
        prepare, request = scenarios.SCENARIOS[name]
        fixture = fixtures.ServiceFixture(self, pools=scenarios.POOLS)
        prepare(fixture)
        before = fixture.state()
        fixture.steps.names.clear()
        request(fixture)
        expected, count = fixture.state(), len(fixture.steps.names)
        ways = list(WAYS)
        for index in range(count):
            way = ways[index % len(ways)]
            with self.subTest(step=index, way=way):
                fixture = self.failed_fixture(name, index)
                self.assertNotIn("error", self.states(fixture))
                fixture.steps.repaired = True
                (WAYS[way] or request)(fixture)
                state = fixture.state()
                self.assertEqual([], state["open_jobs"])
                self.assertIn(state, (before, expected))
                request(fixture)
                self.assertEqual(expected, fixture.state())
                fixture.close()

    @staticmethod
    def states(fixture):
        listed = fixture.listed()
        return [
            body["state"] for body in listed["shares"] + listed["snapshots"]
        ]


class TestOpenJobs(case.ServiceCase):
    def setUp(self):
        super().setUp()
        self.share_id = self.make_share()

    def job(self):
        (job,) = self.fixture.service.system.status()["open_jobs"]
        return job

    def break_extend(self):
        engine = self.fixture.engine
        engine.grow_file = fail(engines.Unavailable("EIO"))
        engine.drop_excess = fail(engines.Unavailable("EIO"))
        problem = self.check_problem(
            "engine.unavailable",
            lambda: self.fixture.patch_share(
                self.share_id, size_bytes=2 * MIB
            ),
        )
        self.assertGreater(problem.retry_after_seconds, 0)

    def repair(self):
        del self.fixture.engine.grow_file
        del self.fixture.engine.drop_excess

    def test_extend_that_fails_both_ways(self):
        self.break_extend()
        body = self.share(self.share_id)
        self.assertEqual(
            ("extending", self.job()["id"]), (body["state"], body["job_id"])
        )
        self.assertTrue(self.job()["undo"])
        self.assertEqual(1, self.job()["attempts"])
        self.assertIn("EIO", self.job()["last_problem"]["detail"])
        for request in (
            lambda: self.fixture.put_access(self.share_id),
            lambda: self.fixture.put_snapshot(self.share_id),
            lambda: self.fixture.clone("share", self.share_id),
            lambda: self.fixture.delete_share(self.share_id),
        ):
            problem = self.check_problem("engine.unavailable", request)
            self.assertTrue(problem.row.retryable)
        self.assertEqual(5, self.job()["attempts"])
        self.repair()
        body = self.fixture.patch_share(self.share_id, size_bytes=2 * MIB).body
        self.assertEqual(
            ("available", 2 * MIB), (body["state"], body["size_bytes"])
        )

    def test_other_shares_go_on(self):
        self.break_extend()
        self.repair()
        self.fixture.engine.drop_excess = fail(engines.Unavailable("EIO"))
        self.make_share()

    def test_no_space_both_ways(self):
        engine = self.fixture.engine
        engine.create_snapshot = fail(engines.NoSpace("full"))
        engine.delete_snapshot = fail(engines.NoSpace("full"))
        problem = self.check_problem(
            "engine.unavailable",
            lambda: self.fixture.put_snapshot(self.share_id),
        )
        self.assertIn("Full", problem.detail)
        del engine.create_snapshot, engine.delete_snapshot
        by_timer(self.fixture)
        self.assertEqual([], self.fixture.listed()["snapshots"])
        self.make_snapshot(self.share_id)

    def test_share_that_is_gone_when_its_extend_is_undone(self):
        """That is proven, and no further attempt would help."""
        self.break_extend()
        self.repair()
        self.fixture.engine.delete_share(self.share_id)
        by_timer(self.fixture)
        self.assertEqual([], self.fixture.service.system.status()["open_jobs"])
        self.assertEqual("error", self.share(self.share_id)["state"])
        self.check_problem(
            "share.wrong_state", lambda: self.fixture.put_access(self.share_id)
        )
        self.fixture.delete_share(self.share_id)

    def test_delete_goes_on_by_itself(self):
        kept = self.make_snapshot(self.share_id)
        engine = self.fixture.engine
        engine.delete_share = fail(engines.EngineError("stuck"))
        self.check_problem(
            "engine.unavailable",
            lambda: self.fixture.delete_share(self.share_id, "cascade"),
        )
        self.assertEqual("deleting", self.share(self.share_id)["state"])
        self.assertFalse(self.job()["undo"])
        del engine.delete_share
        by_timer(self.fixture)
        state = self.fixture.state()
        self.assertEqual(([], []), (state["shares"], state["snapshots"]))
        self.assertFalse(engine.exists(fixtures.snapshot(kept)))
        self.fixture.delete_share(self.share_id)

    def test_revoke_goes_on_by_itself(self):
        exporter = self.fixture.exporter
        self.fixture.put_access(self.share_id)
        exporter.apply = fail(exporters.ExporterError("no server"))
        self.check_problem(
            "engine.unavailable",
            lambda: self.fixture.delete_access(self.share_id),
        )
        # Also where the pool cannot be used: exports are elsewhere.
        self.fixture.engine.reasons = ["gone"]
        del exporter.apply
        by_timer(self.fixture)
        self.assertEqual({}, exporter.exported())
        self.fixture.engine.reasons = []
        self.fixture.delete_share(self.share_id)

    def test_revoke_on_a_share_that_is_gone(self):
        exporter = self.fixture.exporter
        self.fixture.put_access(self.share_id, "cmp-1")
        self.fixture.put_access(self.share_id, "cmp-2", ("192.0.2.52",))
        self.fixture.engine.delete_share(self.share_id)
        # As the kernel does where a directory is missing.
        exporter.apply = fail(exporters.ExporterError("no such directory"))
        for holder in ("cmp-1", "cmp-2"):
            self.fixture.delete_access(self.share_id, holder)
            self.assertEqual({}, exporter.exported())
        self.fixture.delete_share(self.share_id)

    def test_database_that_is_full_after_the_work(self):
        hooks = self.fixture.steps.hooks
        hooks["result:before"] = fail(
            sa.exc.OperationalError("UPDATE", {}, Exception("full"))
        )
        id_ = fixtures.new_id()
        self.check_problem(
            "system.readonly", lambda: self.fixture.put_share(id_)
        )
        self.assertEqual("creating", self.share(id_)["state"])
        hooks.clear()
        by_timer(self.fixture)
        self.assertEqual("available", self.share(id_)["state"])

    def test_attempts_come_seldom(self):
        self.break_extend()
        begin, attempts = self.fixture.clock.now, []
        for _ in range(400):
            self.fixture.clock.advance(seconds=openjobs.LOOK_SECONDS)
            before = self.job()["attempts"]
            resume_due(self.fixture)
            if self.job()["attempts"] > before:
                passed = self.fixture.clock.now - begin
                attempts.append(passed.total_seconds())
        between = [b - a for a, b in zip(attempts, attempts[1:], strict=False)]
        self.assertLessEqual(max(between), openjobs.MAX_DELAY_SECONDS + 5)
        self.assertGreaterEqual(min(between[-2:]), 200)
        self.assertLess(len(attempts), 20)
        # A clock that was set back does not put the next one off.
        self.fixture.clock.advance(days=-7)
        self.repair()
        resume_due(self.fixture)
        self.assertEqual([], self.fixture.service.system.status()["open_jobs"])

    def test_timer_takes_up_what_is_due(self):
        """The very thread."""
        self.break_extend()
        self.repair()
        self.fixture.service.stop()
        self.enterContext(
            unittest.mock.patch.object(openjobs, "LOOK_SECONDS", 0.01)
        )
        self.fixture.steps.hooks["undo settle:before"] = fail(OSError(5, "?"))
        self.fixture.restart(steps=self.fixture.steps)
        self.assertEqual("extending", self.share(self.share_id)["state"])
        self.fixture.steps.hooks.clear()
        self.fixture.clock.advance(seconds=openjobs.MAX_DELAY_SECONDS)
        end = time.monotonic() + SOON
        while self.share(self.share_id)["state"] != "available":
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_waiting_for_a_job_that_nobody_runs(self):
        self.break_extend()
        reads = []
        sa.event.listen(
            self.fixture.database.engine,
            "before_cursor_execute",
            lambda *given: reads.append(given),
        )
        begin = time.monotonic()
        job = self.fixture.service.jobs.get(
            fixtures.CALLER, self.share(self.share_id)["job_id"], 1.5
        )
        self.assertGreaterEqual(time.monotonic() - begin, 1.5)
        self.assertEqual("running", job["state"])
        self.assertLess(len(reads), 20)

    def test_waiting_ends_with_the_job(self):
        self.break_extend()
        job_id = self.share(self.share_id)["job_id"]
        found = []

        def wait():
            found.append(
                self.fixture.service.jobs.get(fixtures.CALLER, job_id, SOON)
            )

        thread = threading.Thread(target=wait)
        thread.start()
        self.repair()
        by_timer(self.fixture)
        thread.join(SOON)
        self.assertEqual("failed", found[0]["state"])


class TestHungPool(case.ServiceCase):
    settings = {"pools": ("gold", "silver"), "workers": 2}

    def setUp(self):
        super().setUp()
        self.go = threading.Event()
        self.addCleanup(self.go.set)

    def hang(self, *given):
        self.go.wait(SOON)
        raise engines.Unavailable("it hung")

    def test_holds_no_other_pools_workers(self):
        self.fixture.engine.create_share = self.hang
        for _ in range(4):
            self.fixture.service.shares.put(
                fixtures.CALLER,
                fixtures.new_id(),
                {"name": "x", "size_bytes": MIB},
                wait_seconds=0,
            )
        self.make_share(pool="silver")
        self.go.set()

    def test_undo_that_hangs_holds_no_request(self):
        id_ = self.make_share()
        engine = self.fixture.engine
        engine.grow_file = fail(engines.Unavailable("EIO"))
        engine.drop_excess = fail(engines.Unavailable("EIO"))
        self.check_problem(
            "engine.unavailable",
            lambda: self.fixture.patch_share(id_, size_bytes=2 * MIB),
        )
        engine.drop_excess = self.hang
        problem = self.check_problem(
            "share.busy",
            lambda: self.fixture.service.shares.patch(
                fixtures.CALLER, id_, {"name": "y"}, wait_seconds=0.1
            ),
        )
        self.assertTrue(problem.row.retryable)
        del engine.grow_file, engine.drop_excess
        self.go.set()
        self.fixture.patch_share(id_, size_bytes=3 * MIB)


@ddt.ddt
class TestUnreadableJobs(case.ServiceCase):
    """Of a later release, or broken."""

    # What open jobs are going to make counts for a quota.
    settings = {"quotas": {"a": types.Quota(max_bytes=1 << 40)}}
    BROKEN = (
        {"kind": "share.levitate"},
        {"arguments": {}},
        {"arguments": {"pool": 7}},
        {"arguments": [1]},
        {"undo": True, "problem": {"code": "no.such_code"}},
    )

    def setUp(self):
        super().setUp()
        self.share_id = self.make_share()
        self.other_id = self.make_share()
        self.fixture.steps.hooks["grow file:before"] = self.die
        with self.assertRaises(fixtures.Crash):
            self.fixture.patch_share(self.share_id, size_bytes=2 * MIB)
        self.job_id = self.share(self.share_id)["job_id"]

    def die(self):
        raise fixtures.Crash

    def spoil(self, **values):
        with self.fixture.database.write() as session:
            session.execute(
                sa.update(models.Job)
                .where(models.Job.id == self.job_id)
                .values(**values)
            )

    @ddt.data(*BROKEN)
    def test_is_set_aside_and_stops_nothing_else(self, values):
        self.spoil(**values)
        # Another share has one too, which can be finished.
        with self.assertRaises(fixtures.Crash):
            self.fixture.patch_share(self.other_id, size_bytes=2 * MIB)
        report = self.fixture.restart()
        self.assertEqual([self.job_id], list(report.unreadable_jobs))
        self.assertEqual([], report.open_jobs)
        self.assertEqual(2 * MIB, self.share(self.other_id)["size_bytes"])
        self.fixture.patch_share(self.other_id, size_bytes=3 * MIB)
        self.make_share()
        self.fixture.service.system.describe(fixtures.CALLER)
        problem = self.check_problem(
            "job.unreadable",
            lambda: self.fixture.patch_share(self.share_id, name="x"),
        )
        self.assertIn(f"--close-job {self.job_id}", problem.detail)
        (job,) = self.fixture.service.system.status()["open_jobs"]
        self.assertEqual("job.unreadable", job["last_problem"]["code"])
        by_timer(self.fixture)

    def test_arguments_that_are_no_json(self):
        with self.fixture.database.write() as session:
            session.execute(sa.text("UPDATE jobs SET arguments = '{'"))
        self.fixture.restart()
        self.make_share()
        self.check_problem(
            "job.unreadable", lambda: self.fixture.delete_share(self.share_id)
        )
        jobs = self.fixture.service.jobs.page(fixtures.CALLER, {}, 10, None)
        self.assertIn(self.job_id, [job["id"] for job in jobs.items])

    @ddt.data(*BROKEN)
    def test_operator_closes_it(self, values):
        self.spoil(**values)
        self.fixture.restart()
        self.check_problem(
            "job.not_found",
            lambda: self.fixture.service.reconciliation.run(
                True, [fixtures.new_id()]
            ),
        )
        report = self.fixture.service.reconciliation.run(True, [self.job_id])
        self.assertEqual({}, report["unreadable_jobs"])
        body = self.share(self.share_id)
        self.assertEqual(("available", None), (body["state"], body["job_id"]))
        self.fixture.patch_share(self.share_id, size_bytes=4 * MIB)
        self.fixture.delete_share(self.share_id)

    def test_pool_of_a_closed_job_cannot_be_used(self):
        self.spoil(kind="share.levitate")
        self.fixture.restart()
        self.fixture.engine.reasons = ["gone"]
        self.fixture.service.reconciliation.run(True, [self.job_id])
        self.assertEqual("extending", self.share(self.share_id)["state"])
        self.check_problem(
            "engine.unavailable",
            lambda: self.fixture.patch_share(self.share_id, name="x"),
        )
        self.fixture.engine.reasons = []
        self.fixture.patch_share(self.share_id, name="x")
        self.assertEqual("available", self.share(self.share_id)["state"])


class TestFormerErrors(case.ServiceCase):
    """What an earlier release left in ``error``, "can only be deleted"."""

    def setUp(self):
        super().setUp()
        self.share_id = self.make_share()
        self.snapshot_id = self.make_snapshot(self.share_id)

    def spoil(self, *ids):
        with self.fixture.database.write() as session:
            for table in (models.Share, models.Snapshot):
                session.execute(
                    sa.update(table)
                    .where(table.id.in_(ids))
                    .values(state="error")
                )

    def states(self):
        kept = self.fixture.service.snapshots.get(
            fixtures.ADMIN, self.snapshot_id
        )
        return self.share(self.share_id)["state"], kept["state"]

    def test_whole_ones_are_available_again(self):
        for look in (
            self.fixture.restart,
            lambda: self.fixture.service.reconciliation.run(True),
        ):
            self.spoil(self.share_id, self.snapshot_id)
            look()
            self.assertEqual(("available", "available"), self.states())
        self.assertIn("share.available", self.fixture.events())
        self.assertIn("snapshot.available", self.fixture.events())

    def test_file_that_an_extend_has_grown(self):
        self.spoil(self.share_id)
        self.fixture.engine.grow_file(
            self.share_id, "volume", 3 * MIB, "sparse"
        )
        self.fixture.restart()
        self.assertEqual(3 * MIB, self.share(self.share_id)["size_bytes"])

    def test_lost_ones_stay_and_can_be_deleted(self):
        self.spoil(self.share_id, self.snapshot_id)
        self.fixture.engine.delete_share(self.share_id)
        self.fixture.engine.delete_snapshot(self.snapshot_id)
        report = self.fixture.restart()
        self.assertEqual(("error", "error"), self.states())
        self.assertEqual([f"gold/{self.share_id}"], report.missing_shares)
        self.assertEqual(
            [f"gold/{self.snapshot_id}"], report.missing_snapshots
        )
        self.fixture.delete_snapshot(self.snapshot_id)
        self.fixture.delete_share(self.share_id)

    def test_short_or_missing_file(self):
        entries = self.fixture.engine.entries(fixtures.share(self.share_id))
        entries["volume"].size_bytes = 1
        self.spoil(self.share_id)
        report = self.fixture.restart()
        self.assertEqual([f"gold/{self.share_id}"], report.damaged_shares)
        self.assertEqual("error", self.states()[0])
        entries.clear()
        self.fixture.restart()
        self.assertEqual("error", self.states()[0])
        self.fixture.delete_share(self.share_id, "cascade")

    def test_parts_of_a_create_are_no_share(self):
        """Its client was told that it failed, and it may not be whole."""
        self.spoil(self.share_id, self.snapshot_id)
        with self.fixture.database.write() as session:
            session.execute(sa.update(models.Job).values(state="failed"))
        report = self.fixture.restart()
        self.assertEqual(("error", "error"), self.states())
        self.assertEqual(
            [f"gold/{self.share_id}", f"gold/{self.snapshot_id}"],
            report.unfinished_creates,
        )
        self.fixture.delete_share(self.share_id, "cascade")
        self.fixture.put_share(self.share_id)

    def test_nothing_is_proven_while_the_pool_is_not_there(self):
        self.spoil(self.share_id)
        self.fixture.engine.reasons = ["gone"]
        self.fixture.restart()
        self.assertEqual(("error", "available"), self.states())

    def test_mark_of_a_job_that_is_not_there(self):
        """Nobody knows how; the pool decides, and nothing spins."""
        with self.fixture.database.write() as session:
            for table in (models.Share, models.Snapshot):
                session.execute(
                    sa.update(table).values(
                        job_id=fixtures.new_id(), state="deleting"
                    )
                )
        self.fixture.patch_share(self.share_id, name="x")
        self.assertEqual(("available", "available"), self.states())
