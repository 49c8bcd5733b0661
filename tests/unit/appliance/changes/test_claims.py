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

"""What is held: by a change that waits, and while storage is asked."""

from concurrent import futures
import itertools
import threading
import time

import sqlalchemy as sa

from acme_appliance.changes import claims
from acme_appliance.changes import queue
from acme_appliance.db import models
from tests.unit.appliance import case
from tests.unit.appliance import fixtures
from tests.unit.appliance.changes import test_queue

SOON = 120.0
SNAPSHOT = "33333333-3333-4333-8333-333333333333"
CLONE = "22222222-2222-4222-8222-222222222222"


class TestClaims(case.ServiceCase):
    def setUp(self):
        super().setUp()
        self.share_id = self.make_share()
        self.queue = self.fixture.service.context.queue
        self.held = None

    def start(self, key, work):
        """A thread, when it has its place in the line of a key."""
        length = test_queue.length(self.queue, key)
        thread = threading.Thread(target=work)
        thread.start()
        self.addCleanup(thread.join, SOON)
        test_queue.wait_until(
            lambda: test_queue.length(self.queue, key) > length
        )
        return thread

    def note_at(self, step, *keys):
        """Note, at a step, which of the keys are held."""

        def note():
            self.held = [not self.is_free(key) for key in keys]

        self.fixture.steps.hooks[step] = note

    def is_free(self, key):
        try:
            ticket = self.queue.hold({key: claims.Claim.EXCLUSIVE}, 0)
        except queue.Busy:
            return False
        self.queue.release(ticket)
        return True

    def test_delete_of_a_snapshot_whose_create_waits(self):
        share = claims.share(self.share_id)
        snapshot = claims.snapshot(SNAPSHOT)
        self.note_at("delete snapshot:before", share, snapshot)
        growing = self.queue.hold({share: claims.Claim.EXCLUSIVE}, 0)
        create = self.start(
            snapshot,
            lambda: self.fixture.put_snapshot(self.share_id, SNAPSHOT),
        )
        delete = self.start(
            snapshot, lambda: self.fixture.delete_snapshot(SNAPSHOT)
        )
        self.queue.release(growing)
        create.join(SOON)
        delete.join(SOON)
        self.assertEqual([True, True], self.held)
        self.assertEqual(
            ["share.created", "snapshot.created", "snapshot.deleted"],
            self.fixture.events(),
        )

    def test_clone_of_a_snapshot_that_is_not_there(self):
        """Who came first is first: it does not come while one looks."""
        snapshot = claims.snapshot(SNAPSHOT)
        clone = claims.share(CLONE)
        ticket = self.queue.hold({clone: claims.Claim.EXCLUSIVE}, 0)
        cloning = self.start(
            clone,
            lambda: self.check_problem(
                "snapshot.not_found",
                lambda: self.fixture.clone("snapshot", SNAPSHOT, CLONE),
            ),
        )
        create = self.start(
            snapshot,
            lambda: self.fixture.put_snapshot(self.share_id, SNAPSHOT),
        )
        self.queue.release(ticket)
        cloning.join(SOON)
        create.join(SOON)
        self.assertEqual(
            ["share.created", "snapshot.created"], self.fixture.events()
        )

    def test_clone_of_a_snapshot_whose_create_is_first(self):
        share = claims.share(self.share_id)
        snapshot = claims.snapshot(SNAPSHOT)
        self.note_at("clone share:before", share, snapshot)
        growing = self.queue.hold({share: claims.Claim.EXCLUSIVE}, 0)
        create = self.start(
            snapshot,
            lambda: self.fixture.put_snapshot(self.share_id, SNAPSHOT),
        )
        cloning = self.start(
            snapshot, lambda: self.fixture.clone("snapshot", SNAPSHOT, CLONE)
        )
        self.queue.release(growing)
        create.join(SOON)
        cloning.join(SOON)
        self.assertEqual([True, True], self.held)

    def test_waiting_again_is_in_the_same_time(self):
        """The share that turned out to be needed is not free in time."""
        share = claims.share(self.share_id)
        snapshot = claims.snapshot(SNAPSHOT)
        busy = self.queue.hold({share: claims.Claim.EXCLUSIVE}, 0)
        self.addCleanup(self.queue.release, busy)
        wanted = itertools.chain(
            [{snapshot: claims.Claim.EXCLUSIVE}],
            itertools.repeat({share: claims.Claim.EXCLUSIVE}),
        )
        self.check_problem(
            "share.busy",
            lambda: self.fixture.service.runner.run(
                lambda: next(wanted), self.fail, 0.05
            ),
        )
        self.assertTrue(self.is_free(snapshot))


class TestStorageIsAskedOutsideOfTransactions(case.ServiceCase):
    """A disk that hangs must not stop other pools, nor log-ins."""

    def setUp(self):
        super().setUp()
        self.share_id = self.make_share()
        # Their threads read the database whenever they like.
        self.fixture.service._marks.stop()
        self.fixture.service._background.stop()
        self.asked = 0
        used_bytes = self.fixture.engine.used_bytes

        def ask(*given):
            self.asked += 1
            database = self.fixture.database
            for engine in (database.engine, database.writers):
                self.assertEqual(0, engine.pool.checkedout())
            if not self.is_step():
                self.assertEqual({}, self.fixture.service.context.queue._lines)
            return used_bytes(*given)

        self.fixture.engine.used_bytes = ask

    def is_step(self):
        """Whether a change's own step asks: it holds the share anyway."""
        return threading.current_thread().name.startswith("change ")

    def test_create_clone_and_the_same_again(self):
        for _ in range(2):
            self.fixture.put_share(SNAPSHOT)
            self.fixture.clone("share", self.share_id, CLONE)
        self.assertEqual(4, self.asked)

    def test_patch(self):
        for patch in (
            {"size_bytes": 2 << 20},
            {"labels": {"a": "b"}},
            {"name": "volume"},
        ):
            body = self.fixture.patch_share(self.share_id, **patch).body
            self.assertEqual(0, body["used_bytes"])
        self.assertEqual(3, self.asked)

    def test_read_and_list(self):
        self.assertEqual(0, self.share(self.share_id)["used_bytes"])
        self.fixture.listed()
        self.assertEqual(2, self.asked)

    def test_what_cannot_be_asked_is_not_known(self):
        def fail(*given):
            raise OSError(5, "I/O error")

        self.fixture.engine.used_bytes = fail
        body = self.fixture.patch_share(self.share_id, labels={"a": "b"}).body
        self.assertIsNone(body["used_bytes"])


class TestOpenJobs(case.ServiceCase):
    """What a job that was left open touches, by what is written of it."""

    def setUp(self):
        super().setUp()
        self.share_id = self.make_share()
        self.other_id = self.make_share()

    def claimed(self):
        with self.fixture.database.read() as session:
            return {
                (row.kind, row.object_id, row.claim)
                for row in session.scalars(sa.select(models.JobClaim))
            }

    def leave_clone_open(self, source_id, type_="share"):
        self.fixture.steps.hooks |= dict.fromkeys(
            ("clone share:before", "undo clone share:before"), self.fail
        )
        self.check_problem(
            "engine.unavailable",
            lambda: self.fixture.clone(type_, source_id, CLONE),
        )

    def fail(self):
        raise OSError(5, "for a while")

    def test_nothing_is_claimed_when_all_has_ended(self):
        snapshot_id = self.make_snapshot(self.share_id)
        clone_id = self.fixture.clone("snapshot", snapshot_id).body["id"]
        self.fixture.patch_share(clone_id, size_bytes=2 * fixtures.MIB)
        self.fixture.put_access(clone_id)
        self.fixture.delete_access(clone_id)
        self.fixture.engine.free_bytes = 0
        self.fixture.steps.hooks["create file:before"] = self.fail
        self.check_problem("engine.unavailable", self.make_share)
        self.fixture.delete_share(self.share_id, "cascade")
        self.assertEqual(set(), self.claimed())

    def test_clone_claims_its_source(self):
        snapshot_id = self.make_snapshot(self.share_id)
        self.leave_clone_open(snapshot_id, "snapshot")
        self.assertEqual(
            {
                ("share", CLONE, "exclusive"),
                ("snapshot", snapshot_id, "shared"),
                ("share", self.share_id, "shared"),
            },
            self.claimed(),
        )

    def test_change_of_the_source_of_an_open_clone(self):
        """It would take away what the clone is made of."""
        self.leave_clone_open(self.share_id)
        self.check_problem(
            "engine.unavailable",
            lambda: self.fixture.delete_share(self.share_id),
        )
        # Others may be cloned from it, too, and other shares do not wait.
        self.fixture.steps.hooks.clear()
        second = self.fixture.clone("share", self.share_id).body["id"]
        self.fixture.delete_share(self.other_id)
        self.assertIn(("share", CLONE, "exclusive"), self.claimed())
        self.fixture.delete_share(self.share_id)
        self.assertEqual(set(), self.claimed())
        self.check_problem("share.not_found", lambda: self.share(CLONE))
        self.assertEqual("available", self.share(second)["state"])

    def test_job_of_a_later_release_holds_all_that_it_touches(self):
        self.leave_clone_open(self.share_id)
        self.fixture.steps.hooks.clear()
        (job,) = self.fixture.service.system.status()["open_jobs"]
        with self.fixture.database.write() as session:
            session.execute(
                sa.update(models.Job).values(kind="group.snapshot")
            )
            session.execute(
                sa.update(models.JobClaim).values(claim="exclusive")
            )
        for _ in range(2):
            for share_id in (self.share_id, CLONE):
                self.check_problem(
                    "job.unreadable",
                    lambda id_=share_id: self.fixture.put_share(id_),
                )
            self.fixture.patch_share(self.other_id, name="x")
            self.fixture.restart()
        self.fixture.service.reconciliation.run(True, [job["id"]])
        self.assertEqual(set(), self.claimed())
        self.fixture.delete_share(CLONE)
        self.fixture.delete_share(self.share_id)

    def test_job_of_which_no_claims_are_written(self):
        self.leave_clone_open(self.share_id)
        self.fixture.steps.hooks.clear()
        with self.fixture.database.write() as session:
            session.execute(sa.delete(models.JobClaim))
        self.fixture.put_share(CLONE)
        self.assertEqual([], self.fixture.service.system.status()["open_jobs"])

    def test_snapshot_that_names_a_job_which_is_not_there(self):
        """Of the source of a clone, which is not claimed alone."""
        snapshot_id = self.make_snapshot(self.share_id)
        with self.fixture.database.write() as session:
            for table in (models.Share, models.Snapshot):
                session.execute(
                    sa.update(table)
                    .where(table.id.in_([self.share_id, snapshot_id]))
                    .values(job_id=fixtures.new_id())
                )
        self.fixture.clone("snapshot", snapshot_id)
        self.assertIsNone(self.share(self.share_id)["job_id"])


class TestManyAtOnce(case.ServiceCase):
    def test_change_that_ends_while_another_begins(self):
        """What is at work is counted while it may end: neither change may
        fail by that, and no share may stay held."""
        first, second = self.make_share(), self.make_share()
        begun, go = threading.Event(), threading.Event()
        self.addCleanup(go.set)

        def hold():
            begun.set()
            go.wait(SOON)

        self.fixture.steps.hooks["export:before"] = hold
        with futures.ThreadPoolExecutor(1) as pool:
            ending = pool.submit(self.fixture.put_access, first)
            self.assertTrue(begun.wait(SOON))
            self.fixture.steps.hooks.clear()
            runs = self.fixture.service.journal._runs
            (run,) = runs.values()
            run.operation = _EndsWhenAsked(run.operation, go, runs)
            self.fixture.put_access(second)
            ending.result(SOON)
        for id_ in (first, second):
            self.fixture.delete_access(id_)
            self.fixture.delete_share(id_)


class _EndsWhenAsked:
    """An operation that lets its run end while it is looked at."""

    def __init__(self, operation, go, runs):
        self.intent = operation.intent
        self._lane = operation.lane
        self._go = go
        self._runs = runs

    @property
    def lane(self):
        self._go.set()
        # It may not end before the look is over: so much is waited here.
        end = time.monotonic() + 1
        while self.intent.id in self._runs and time.monotonic() < end:
            time.sleep(0.001)
        return self._lane
