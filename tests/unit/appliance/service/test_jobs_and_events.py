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

"""Jobs, events, pools; what takes longer than a caller waits."""

import threading
import time
from unittest import mock

from acme_appliance.service import Accepted
from acme_appliance.service import Done
from acme_appliance.service import retention
from acme_appliance.service import service
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

SOON = 120.0


class SlowCase(case.ServiceCase):
    """A share's change stops at a step until ``go`` is set."""

    def setUp(self):
        super().setUp()
        self.go = threading.Event()
        self.reached = threading.Event()
        self.addCleanup(self.go.set)
        self.fixture.steps.hooks["create share:before"] = self.stop

    def stop(self):
        self.reached.set()
        if not self.go.wait(SOON):
            raise AssertionError("nobody let it go on")

    def create(self, id_=None, wait_seconds=0.0):
        return self.fixture.service.shares.put(
            fixtures.CALLER,
            id_ or fixtures.new_id(),
            {"name": "x", "size_bytes": fixtures.MIB},
            wait_seconds=wait_seconds,
        )

    def job(self, id_, wait_seconds=SOON):
        return self.fixture.service.jobs.get(
            fixtures.CALLER, id_, wait_seconds
        )


class TestJobs(SlowCase):
    def test_what_takes_longer_goes_on_as_a_job(self):
        id_ = fixtures.new_id()
        outcome = self.create(id_)
        self.assertIsInstance(outcome, Accepted)
        job = outcome.job
        self.assertEqual(
            {
                "id": job["id"],
                "kind": "share.create",
                "state": "running",
                "namespace": "a",
                "share_id": id_,
                "snapshot_id": None,
                "group_id": None,
                "group_snapshot_id": None,
                "actor": "cinder-a",
                "request_id": "req-a",
                "problem": None,
                "progress": None,
                "attempts": 0,
                "last_problem": None,
                "created_at": "2026-01-02T03:04:05.000000Z",
                "finished_at": None,
            },
            job,
        )
        body = self.share(id_)
        self.assertEqual(
            ("creating", job["id"]), (body["state"], body["job_id"])
        )
        self.assertEqual("running", self.job(job["id"], 0.01)["state"])
        self.go.set()
        job = self.job(job["id"])
        self.assertEqual("succeeded", job["state"])
        self.assertIsNotNone(job["finished_at"])
        self.assertEqual("available", self.share(id_)["state"])
        again = self.create(id_, SOON)
        self.assertEqual((Done, False), (type(again), again.created))

    def test_failed_job_keeps_its_problem(self):
        self.fixture.engine.ensure_file = lambda *given: 1 / 0
        outcome = self.create()
        self.go.set()
        job = self.job(outcome.job["id"])
        self.assertEqual("failed", job["state"])
        self.assertEqual("internal", job["problem"]["code"])
        self.assertEqual("req-a", job["problem"]["request_id"])
        self.assertIn("share.create_failed", self.fixture.events())

    def test_share_at_work_is_busy(self):
        id_ = fixtures.new_id()
        self.create(id_)
        self.assertTrue(self.reached.wait(SOON))
        for request in (
            lambda: self.create(id_),
            lambda: self.fixture.service.shares.delete(
                fixtures.CALLER, id_, wait_seconds=0.05
            ),
        ):
            problem = self.check_problem("share.busy", request)
            self.assertEqual(1, problem.retry_after_seconds)
        # Reads never wait.
        self.assertEqual("creating", self.share(id_)["state"])
        self.fixture.steps.hooks.clear()
        self.assertIsInstance(self.create(wait_seconds=SOON), Done)

    def test_next_in_line_gets_its_turn(self):
        id_ = fixtures.new_id()
        self.create(id_)
        results = []
        thread = threading.Thread(
            target=lambda: results.append(self.create(id_, SOON))
        )
        thread.start()
        self.go.set()
        thread.join(SOON)
        self.assertFalse(results[0].created)

    def test_clones_of_one_source_are_made_side_by_side(self):
        self.fixture.steps.hooks.clear()
        source = self.make_share()
        together = threading.Barrier(3, timeout=SOON)
        self.fixture.steps.hooks["clone share:before"] = together.wait
        outcomes = []

        def clone():
            outcomes.append(self.fixture.clone("share", source))

        threads = [threading.Thread(target=clone) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
        # At the barrier each waited for both of the others.
        self.assertEqual(3, len(outcomes))

    def test_cancel_is_too_late_for_what_is_running(self):
        job = self.create().job
        self.assertTrue(self.reached.wait(SOON))
        self.check_problem(
            "job.not_cancellable",
            lambda: self.fixture.service.jobs.cancel(
                fixtures.CALLER, job["id"]
            ),
        )
        self.go.set()
        self.job(job["id"])
        self.check_problem(
            "job.not_cancellable",
            lambda: self.fixture.service.jobs.cancel(
                fixtures.CALLER, job["id"]
            ),
        )

    def test_absent(self):
        for act in (
            self.fixture.service.jobs.get,
            self.fixture.service.jobs.cancel,
        ):
            self.check_problem(
                "job.not_found",
                lambda a=act: a(fixtures.CALLER, fixtures.new_id()),
            )

    def test_list(self):
        self.fixture.steps.hooks.clear()
        ids = [self.make_share() for _ in range(3)]
        jobs = self.fixture.service.jobs.page(fixtures.CALLER, {}, 2, None)
        rest = self.fixture.service.jobs.page(
            fixtures.CALLER, {}, 2, jobs.next_marker
        )
        found = [job["share_id"] for job in jobs.items + rest.items]
        self.assertEqual(ids, found, "in the order of their making")
        for filters, count in (
            ({"share_id": ids[1]}, 1),
            ({"state": "succeeded"}, 3),
            ({"state": "failed"}, 0),
        ):
            page = self.fixture.service.jobs.page(
                fixtures.CALLER, filters, 10, None
            )
            self.assertEqual(count, len(page.items))


class TestQueuedJobs(SlowCase):
    settings = {"workers": 1}

    def test_waits_for_a_worker(self):
        first = self.create()
        self.assertTrue(self.reached.wait(SOON))
        second = self.create()
        self.assertEqual("running", first.job["state"])
        self.assertEqual("queued", second.job["state"])
        self.go.set()
        self.assertEqual("succeeded", self.job(second.job["id"])["state"])

    def test_cancelled_job_never_was(self):
        self.create()
        self.assertTrue(self.reached.wait(SOON))
        id_ = fixtures.new_id()
        job = self.create(id_).job
        for _ in range(2):
            body = self.fixture.service.jobs.cancel(fixtures.CALLER, job["id"])
            self.assertEqual("cancelled", body["state"])
            self.assertEqual("job.cancelled", body["problem"]["code"])
        self.check_problem("share.not_found", lambda: self.share(id_))
        self.go.set()
        self.assertTrue(self.create(id_, SOON).created)
        self.assertIn("share.create_cancelled", self.fixture.events())

    def test_caller_who_waits_is_told(self):
        self.create()
        self.assertTrue(self.reached.wait(SOON))
        id_ = fixtures.new_id()
        caught = []

        def work():
            caught.append(
                self.check_problem(
                    "job.cancelled", lambda: self.create(id_, SOON)
                )
            )

        thread = threading.Thread(target=work)
        thread.start()
        end = time.monotonic() + SOON
        queued = []
        while not queued and time.monotonic() < end:
            queued = self.fixture.service.jobs.page(
                fixtures.CALLER, {"share_id": id_}, 1, None
            ).items
        self.fixture.service.jobs.cancel(fixtures.CALLER, queued[0]["id"])
        thread.join(SOON)
        self.assertEqual(1, len(caught))

    def test_cancelled_delete_leaves_everything(self):
        self.fixture.steps.hooks.clear()
        id_ = self.make_share()
        self.make_snapshot(id_)
        before = self.fixture.state()
        self.fixture.steps.hooks["create share:before"] = self.stop
        blocking = self.create()
        self.assertTrue(self.reached.wait(SOON))
        job = self.fixture.service.shares.delete(
            fixtures.CALLER, id_, snapshots="cascade", wait_seconds=0
        ).job
        self.assertEqual("deleting", self.share(id_)["state"])
        self.fixture.service.jobs.cancel(fixtures.CALLER, job["id"])
        self.go.set()
        self.job(blocking.job["id"])
        self.fixture.delete_share(blocking.job["share_id"])
        self.assertEqual(before, self.fixture.state())


class TestEvents(case.ServiceCase):
    def read(self, after=0, wait_seconds=0, limit=100):
        return self.fixture.service.events.read(
            fixtures.CALLER, after, wait_seconds, limit
        )

    def test_who_did_what_and_why(self):
        id_ = self.make_share(name="n")
        kept = self.make_snapshot(id_)
        self.fixture.patch_share(id_, name="m")
        first, second, third = self.read()["events"]
        job_id = first.pop("job_id")
        self.assertEqual(
            {
                "seq": 1,
                "type": "share.created",
                "time": "2026-01-02T03:04:05.000000Z",
                "namespace": "a",
                "share_id": id_,
                "snapshot_id": None,
                "group_id": None,
                "group_snapshot_id": None,
                "actor": "cinder-a",
                "request_id": "req-a",
                "detail": {"name": "n", "size_bytes": fixtures.MIB},
            },
            first,
        )
        self.assertEqual(
            "succeeded",
            self.fixture.service.jobs.get(fixtures.CALLER, job_id)["state"],
        )
        self.assertEqual(
            ("snapshot.created", kept), (second["type"], second["snapshot_id"])
        )
        self.assertEqual(
            ("share.updated", None), (third["type"], third["job_id"])
        )

    def test_pages(self):
        for _ in range(5):
            self.make_share()
        after, found = 0, []
        while True:
            part = self.read(after, limit=2)
            if not part["events"]:
                break
            found += [event["seq"] for event in part["events"]]
            after = part["next_after"]
        self.assertEqual([1, 2, 3, 4, 5], found)
        self.assertEqual(5, after)

    def test_waits_for_the_next(self):
        results = []
        thread = threading.Thread(
            target=lambda: results.append(self.read(0, SOON))
        )
        thread.start()
        # Another namespace's event is none, and does not end the wait.
        self.fixture.put_share(caller=fixtures.OTHER)
        id_ = self.make_share()
        thread.join(SOON)
        self.assertEqual(
            [id_], [event["share_id"] for event in results[0]["events"]]
        )

    def test_waits_no_longer_than_asked(self):
        begin = time.monotonic()
        part = self.read(7, 0.05)
        self.assertEqual({"events": [], "next_after": 7}, part)
        self.assertGreaterEqual(time.monotonic() - begin, 0.05)


class TestRetention(case.ServiceCase):
    settings = {"job_retention_days": 30, "event_retention_days": 60}

    def prune(self):
        self.fixture.service.retention.prune()

    def counts(self):
        jobs = self.fixture.service.jobs.page(fixtures.ADMIN, {}, 1000, None)
        return len(jobs.items), len(self.fixture.events())

    def test_old_jobs_go_and_then_old_events(self):
        """But for the newest event, by which the database is known."""
        for _ in range(2):
            self.make_share()
        for days, expected in ((29, (2, 2)), (2, (0, 2)), (30, (0, 1))):
            self.fixture.clock.advance(days=days)
            self.prune()
            self.assertEqual(expected, self.counts())

    def test_open_jobs_stay(self):
        self.fixture.steps.crash_at = 3
        self.assertRaises(fixtures.Crash, self.make_share)
        self.fixture.engine.reasons = ["gone"]
        self.fixture.clock.advance(days=1000)
        self.fixture.restart()
        self.prune()
        self.assertEqual((1, 0), self.counts())

    def test_more_than_a_batch(self):
        self.enterContext(mock.patch.object(retention, "BATCH", 2))
        for _ in range(5):
            self.make_share()
        self.fixture.clock.advance(days=100)
        self.prune()
        self.assertEqual((0, 1), self.counts())

    def test_pruned_while_serving(self):
        self.enterContext(mock.patch.object(service, "INTERVAL_SECONDS", 0.01))
        self.make_share()
        self.fixture.clock.advance(days=100)
        self.fixture.restart()
        end = time.monotonic() + SOON
        while self.counts() != (0, 1):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)


class TestPools(case.ServiceCase):
    settings = {"pools": ("gold", "silver")}

    def test_pools_count_what_is_in_them(self):
        self.assertEqual(
            {
                "name": "silver",
                "state": "up",
                "observed_at": None,
                "engine": "memory",
                "total_bytes": 1 << 40,
                "free_bytes": 1 << 40,
                "used_bytes": 0,
                "provisioned_bytes": 0,
                "share_count": 0,
                "snapshot_count": 0,
                "features": [
                    "share.volume_file",
                    "share.thick",
                    "share.grow_online",
                    "share.revert",
                    "share.move_pool",
                    "share.qos_bandwidth",
                    "share.qos_iops",
                    "snapshot.export",
                    "share.group",
                    "group.snapshot_crash_consistent",
                ],
            },
            self.fixture.service.pools.get("silver"),
        )
        id_ = self.make_share(
            pool="silver", size_bytes=fixtures.MIB, file={"allocation": "full"}
        )
        self.fixture.put_share(
            pool="silver", size_bytes=3 * fixtures.MIB, caller=fixtures.OTHER
        )
        self.make_snapshot(id_)
        pool = self.fixture.service.pools.get("silver")
        self.assertEqual(4 * fixtures.MIB, pool["provisioned_bytes"])
        self.assertEqual(2 * fixtures.MIB, pool["used_bytes"])
        self.assertEqual((2, 1), (pool["share_count"], pool["snapshot_count"]))
        pools = self.fixture.service.pools.all()
        self.assertEqual(["gold", "silver"], [p["name"] for p in pools])
        self.assertEqual(pool, pools[1])
        self.check_problem(
            "pool.not_found", lambda: self.fixture.service.pools.get("iron")
        )

    def test_stats_are_all_a_scheduler_wants(self):
        stats = self.fixture.service.system.stats()
        self.assertEqual(self.fixture.service.pools.all(), stats.pop("pools"))
        self.assertEqual(
            {
                "system_id": fixtures.SYSTEM_ID,
                "system_name": "test",
                "health": "ok",
                "portals": ["192.0.2.10", "192.0.2.11"],
                "nfs_versions": ["4.2", "4.1"],
            },
            stats,
        )

    def test_one_broken_pool_is_not_all(self):
        self.fixture.engines["silver"].reasons = ["no disk"]
        stats = self.fixture.service.system.stats()
        self.assertEqual("degraded", stats["health"])
        self.assertEqual(
            [("up", 1 << 40), ("down", 0)],
            [(p["state"], p["free_bytes"]) for p in stats["pools"]],
        )
        self.make_share()

    def test_pool_that_is_configured_no_more(self):
        id_ = self.make_share(pool="silver")
        del self.fixture.engines["silver"]
        self.fixture.restart()
        body = self.share(id_)
        self.assertEqual([], body["export_locations"])
        self.assertIsNone(body["used_bytes"])
        for request in (
            lambda: self.fixture.delete_share(id_),
            lambda: self.fixture.put_snapshot(id_),
            lambda: self.fixture.put_access(id_),
            lambda: self.fixture.clone("share", id_),
            lambda: self.fixture.patch_share(id_, size_bytes=1 << 30),
        ):
            self.check_problem("engine.unavailable", request)
        self.assertEqual("available", self.share(id_)["state"])
