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

"""Moving shares between the pools of one appliance."""

import contextlib
import threading
from unittest import mock

import ddt

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.engines import base as engines
from acme_appliance.engines import copies
from acme_appliance.service import Accepted
from acme_appliance.service import Done
from acme_appliance.service.shares import moves
from tests.unit.appliance import case
from tests.unit.appliance import fixtures
from tests.unit.appliance.service.reconcile import test_restoration
from tests.unit.appliance.service.shares import test_reverts

SOON = 120.0
SIZE = 8 * 4096
DATA = b"d" * (SIZE // 2)


class MoveCase(case.ServiceCase):
    settings = {"pools": ("gold", "silver")}

    def setUp(self):
        super().setUp()
        self.gold, self.silver = self.fixture.engines.values()
        self.share_id = self.make_share(size_bytes=SIZE)
        self.fixture.write(self.share_id, DATA)
        self.gold.sync()

    def move(self, share_id=None, pool="silver", wait_seconds=SOON, **more):
        return self.fixture.service.shares.patch(
            fixtures.CALLER,
            share_id or self.share_id,
            {"pool": pool},
            wait_seconds=wait_seconds,
            **more,
        )

    def places(self, share_id=None):
        """The pools that hold anything of a share."""
        reference = fixtures.share(share_id or self.share_id)
        return {
            name
            for name, engine in self.fixture.engines.items()
            if engine.exists(reference)
            or engine.metadata.read(reference) is not None
        }

    def check_is_in(self, pool):
        self.assertEqual({pool}, self.places())
        share = self.share(self.share_id)
        self.assertEqual(
            (pool, "available", None),
            (share["pool"], share["state"], share["job_id"]),
        )
        self.assertEqual(
            DATA + bytes(SIZE // 2), self.fixture.read(self.share_id)
        )
        self.check_nothing_is_left()

    def check_nothing_is_left(self):
        report = self.fixture.service.reconciliation.run(False)
        self.assertEqual({}, {k: v for k, v in report.items() if v})


@ddt.ddt
class TestMove(MoveCase):
    def test_all_of_it_and_back(self):
        qos = {"max_iops": 500}
        id_ = self.make_share(
            size_bytes=SIZE,
            labels={"a": "b"},
            qos=qos,
            file={"name": "data", "mode": "0600", "uid": 1001, "gid": 1002},
        )
        entry = self.gold.entries(fixtures.share(id_))["data"]
        entry.write(4096 * 3, b"x" * 4096)
        before = self.share(id_)
        root = self.gold.root_of(fixtures.share(id_))
        for pool in ("silver", "gold"):
            done = self.move(id_, pool)
            self.assertIsInstance(done, Done)
            self.assertEqual({pool}, self.places(id_))
            self.assertEqual("share.moved", self.fixture.events()[-1])
            there = self.fixture.engines[pool].root_of(fixtures.share(id_))
            self.assertEqual(root, there)
            self.assertEqual(done.body, self.share(id_))
            changing = ("pool", "generation", "updated_at")
            expected = {k: v for k, v in before.items() if k not in changing}
            found = {k: v for k, v in done.body.items() if k not in changing}
            if pool == "silver":
                (first, second) = found.pop("export_locations")
                self.assertIn("silver", first["path"])
                expected.pop("export_locations")
            self.assertEqual(expected, found)
            self.assertGreater(done.body["generation"], before["generation"])
        self.check_nothing_is_left()

    def test_figures_of_both_pools(self):
        def figures():
            return [
                (pool["share_count"], pool["provisioned_bytes"], used)
                for pool in self.fixture.service.pools.all()
                for used in [pool["used_bytes"]]
            ]

        self.assertEqual([(1, SIZE, len(DATA)), (0, 0, 0)], figures())
        self.move()
        self.assertEqual([(0, 0, 0), (1, SIZE, len(DATA))], figures())

    def test_every_operation_afterwards(self):
        self.move()
        kept = self.make_snapshot(self.share_id)
        clone = self.fixture.clone("snapshot", kept).body
        self.assertEqual("silver", clone["pool"])
        self.fixture.patch_share(self.share_id, size_bytes=2 * SIZE)
        self.fixture.put_revert(self.share_id, fixtures.new_id(), kept)
        self.fixture.put_access(self.share_id)
        self.fixture.restart()
        self.fixture.delete_access(self.share_id)
        self.fixture.delete_share(self.share_id, "cascade")
        self.fixture.delete_share(clone["id"])
        self.assertEqual(set(), self.places())
        self.check_nothing_is_left()

    def test_the_same_again(self):
        self.move()
        before = self.fixture.state()
        share = self.share(self.share_id)
        self.assertEqual(share, self.move().body)
        created = self.fixture.put_share(self.share_id, size_bytes=SIZE)
        self.assertFalse(created.created)
        self.assertEqual(before, self.fixture.state())
        self.check_is_in("silver")

    def test_its_own_pool_even_if_it_is_attached(self):
        self.fixture.put_access(self.share_id)
        self.make_snapshot(self.share_id)
        self.check_as_before(lambda: self.move(pool="gold"))

    def test_thick(self):
        self.gold.capabilities = self.silver.capabilities = (
            engines.Capabilities(hard_limit=True, copy_file=True)
        )
        id_ = self.make_share(size_bytes=SIZE, file={"allocation": "full"})
        self.fixture.write(id_, DATA)
        self.assertEqual(SIZE, self.move(id_).body["used_bytes"])
        root = self.silver.root_of(fixtures.share(id_))
        self.assertEqual(SIZE, root.entries["volume"].reserved_bytes)
        self.assertEqual(engines.limit_for(0, SIZE), root.limit_bytes)

    def test_file_that_a_client_made_larger(self):
        self.fixture.write(self.share_id, b"x" * 2 * SIZE)
        self.move()
        self.assertEqual(b"x" * 2 * SIZE, self.fixture.read(self.share_id))

    def refuse(self, code, request=None):
        request = request or self.move
        found = []
        self.check_as_before(
            lambda: found.append(self.check_problem(code, request))
        )
        return found[0].detail

    @ddt.data("rw", "ro")
    def test_attached(self, level):
        self.fixture.put_access(self.share_id, level=level)
        self.assertIn("cmp-1", self.refuse("share.in_use"))

    def test_clients_that_no_rule_explains(self):
        self.fixture.service.context.exports.unexplained = {
            fixtures.share(self.share_id): {"192.0.2.99": "rw"}
        }
        self.assertIn("192.0.2.99", self.refuse("share.in_use"))

    def test_snapshots_are_named(self):
        kept = self.make_snapshot(self.share_id)
        self.assertIn(kept, self.refuse("share.has_snapshots"))

    def test_share_in_a_group(self):
        group_id = fixtures.new_id()
        self.fixture.put_group(group_id)
        self.fixture.patch_share(self.share_id, group_id=group_id)
        self.assertIn(group_id, self.refuse("share.in_group"))

    def test_pools(self):
        self.refuse("pool.not_found", lambda: self.move(pool="lead"))
        self.refuse("share.not_found", lambda: self.move(fixtures.new_id()))
        self.refuse(
            "request.invalid",
            lambda: self.fixture.patch_share(
                self.share_id, pool="silver", name="x"
            ),
        )
        self.refuse("precondition.failed", lambda: self.move(if_match=7))
        self.silver.reasons = ["no disk"]
        problem = self.check_problem("engine.unavailable", self.move)
        self.assertIn("silver", problem.detail)
        self.silver.reasons = []
        self.check_is_in("gold")

    def test_pools_that_cannot(self):
        able = self.gold.capabilities
        for engine in (self.gold, self.silver):
            engine.capabilities = engines.Capabilities()
            features = self.fixture.service.pools.get(
                {self.gold: "gold", self.silver: "silver"}[engine]
            )["features"]
            self.assertNotIn("share.move_pool", features)
            self.refuse("pool.unsupported")
            engine.capabilities = able

    def test_limits_that_the_target_cannot_keep(self):
        self.fixture.patch_share(self.share_id, qos={"max_iops": 5})
        self.silver.capabilities = engines.Capabilities(copy_file=True)
        self.assertIn("share.qos_iops", self.refuse("pool.unsupported"))
        self.fixture.patch_share(self.share_id, qos=None)
        self.move()

    def test_damaged(self):
        self.gold.entries(fixtures.share(self.share_id)).pop("volume")
        self.check_problem("share.degraded", self.move)
        self.assertEqual("degraded", self.share(self.share_id)["state"])
        self.check_problem("share.degraded", self.move)
        self.assertEqual({"gold"}, self.places())

    def test_files_beside_the_volume_file(self):
        """Of an earlier release, whose clients owned the directory."""
        entries = self.gold.entries(fixtures.share(self.share_id))
        entries["more"] = entries["volume"]
        self.refuse("pool.unsupported")

    def test_target_that_has_something_of_this_id(self):
        self.silver.create_share(self.share_id, None)
        self.refuse("share.exists_mismatch")

    def test_target_without_room(self):
        self.silver.total_bytes = len(DATA) - 1
        self.refuse("pool.no_space")
        self.silver.total_bytes = SIZE - 1
        id_ = self.make_share(size_bytes=SIZE, file={"allocation": "full"})
        self.refuse("pool.no_space", lambda: self.move(id_))
        self.move()

    def test_target_that_becomes_full_meanwhile(self):
        hooks = self.fixture.steps.hooks
        hooks["copy:before"] = lambda: setattr(
            self.silver, "total_bytes", len(DATA) - 1
        )
        self.refuse("pool.no_space")
        self.check_is_in("gold")
        self.assertEqual("share.move_failed", self.fixture.events()[-1])

    def test_failure_when_there_is_no_way_back(self):
        def fail():
            raise engines.Unavailable("the disk hangs")

        for step in ("describe target:before", "delete source:before"):
            with self.subTest(step):
                self.fixture.steps.hooks[step] = fail
                self.check_problem("engine.unavailable", self.move)
                self.assertEqual("moving", self.share(self.share_id)["state"])
                self.fixture.steps.hooks.clear()
                self.move()
                self.check_is_in("silver")
                self.move(pool="gold")


class TestWithoutFiles(case.ServiceCase):
    settings = {"volume_file": False, "pools": ("gold", "silver")}

    def test_there_is_nothing_to_copy(self):
        id_ = self.make_share(size_bytes=SIZE)
        self.check_problem(
            "pool.unsupported",
            lambda: self.fixture.patch_share(id_, pool="silver"),
        )


class SlowCase(MoveCase):
    """A copy stops in the middle until ``go`` is set."""

    def setUp(self):
        super().setUp()
        self.go = threading.Event()
        self.reached = threading.Event()
        self.addCleanup(self.go.set)
        self.enterContext(mock.patch.object(copies, "CHUNK_BYTES", 4096))
        self.slow_down()

    def slow_down(self):
        opened = type(self.silver).open_file

        @contextlib.contextmanager
        def open_file(share_id, name, *, write=False):
            with opened(self.silver, share_id, name, write=write) as file:
                written = file.write

                def write_one(offset, data):
                    written(offset, data)
                    if offset >= 4096:
                        self.reached.set()
                        self.go.wait(SOON)

                file.write = write_one
                yield file

        self.silver.open_file = open_file

    def begin(self, share_id=None):
        outcome = self.move(share_id, wait_seconds=0)
        self.assertIsInstance(outcome, Accepted)
        self.assertTrue(self.reached.wait(SOON))
        return outcome.job["id"]

    def go_on_after(self, owner, method):
        call = getattr(owner, method)

        def then_go_on(*given):
            answer = call(*given)
            self.go.set()
            return answer

        self.enterContext(mock.patch.object(owner, method, then_go_on))

    def job(self, id_, wait_seconds=SOON):
        return self.fixture.service.jobs.get(
            fixtures.CALLER, id_, wait_seconds
        )

    def cancel(self, id_):
        return self.fixture.service.jobs.cancel(fixtures.CALLER, id_)


class TestJob(SlowCase):
    def test_progress_and_the_same_again(self):
        job_id = self.begin()
        body = self.job(job_id, 0)
        self.assertEqual(
            ("share.move", "running"), (body["kind"], body["state"])
        )
        self.assertEqual(
            {"done_bytes": 4096, "total_bytes": len(DATA)}, body["progress"]
        )
        (listed,) = self.fixture.service.jobs.page(
            fixtures.CALLER, {"state": "running"}, 10, None
        ).items
        self.assertEqual(body, listed)
        again = self.move(wait_seconds=0)
        self.assertEqual(body, again.job)
        self.check_problem(
            "share.busy", lambda: self.move(pool="gold", wait_seconds=0)
        )
        self.check_problem(
            "share.busy",
            lambda: self.fixture.service.access.put(
                fixtures.CALLER,
                self.share_id,
                "cmp-1",
                {"clients": ["192.0.2.51"], "level": "rw"},
                wait_seconds=0,
            ),
        )
        share = self.share(self.share_id)
        self.assertEqual(("moving", "gold"), (share["state"], share["pool"]))
        report = self.fixture.service.reconciliation.run(False)
        self.assertEqual([], report["unknown_shares"])
        self.go.set()
        body = self.job(job_id)
        self.assertEqual(
            ("succeeded", None), (body["state"], body["progress"])
        )
        self.assertIsInstance(self.move(), Done)
        self.check_is_in("silver")

    def test_cancelled(self):
        job_id = self.begin()
        self.go_on_after(self.fixture.service.journal, "cancel")
        self.assertEqual("cancelled", self.cancel(job_id)["state"])
        self.assertEqual("cancelled", self.cancel(job_id)["state"])
        self.assertEqual("share.move_cancelled", self.fixture.events()[-1])
        self.check_is_in("gold")
        self.move()
        self.check_is_in("silver")

    def test_cancelled_while_it_waits_for_its_turn(self):
        others = [self.make_share(size_bytes=SIZE) for _ in range(2)]
        for id_ in others:
            self.fixture.write(id_, DATA)
            self.begin(id_)
        job = self.move(wait_seconds=0).job
        self.assertEqual("queued", job["state"])
        self.assertEqual("cancelled", self.cancel(job["id"])["state"])
        self.go.set()
        for id_ in others:
            self.move(id_)
        self.check_is_in("gold")

    def test_cancelled_and_killed(self):
        """What was answered is true: it is undone."""
        job_id = self.begin()
        service = self.fixture.service
        operation = service.journal._active[job_id]
        self.assertTrue(
            operation.cancel(problems.Problem("job.cancelled", "x"))
        )
        self.fixture.steps.crashed = True
        self.go.set()
        self.fixture.restart()
        self.assertEqual("cancelled", self.job(job_id)["state"])
        self.check_is_in("gold")

    def test_too_late_to_cancel(self):
        self.go.set()
        hooks = self.fixture.steps.hooks
        step = "pass the point of no return:after"
        found = []
        hooks[step] = lambda: found.append(
            self.fixture.service.journal.cancel(
                self.share(self.share_id)["job_id"]
            )
        )
        self.move()
        self.assertEqual([False], found)
        self.check_is_in("silver")

    def test_no_way_back_though_the_reply_of_the_database_is_lost(self):
        """Written or not, it is never undone in part."""
        write = moves.MoveShare._write_job

        def lost(operation, **values):
            if is_written:
                write(operation, **values)
            raise RuntimeError("connection lost")

        self.go.set()
        for is_written in (True, False):
            self.fixture.steps.hooks["undo copy:before"] = mock.Mock(
                side_effect=fixtures.Crash
            )
            with (
                self.subTest(is_written=is_written),
                mock.patch.object(moves.MoveShare, "_write_job", lost),
            ):
                self.check_problem("engine.unavailable", self.move)
            self.fixture.restart()
            self.check_is_in("silver")
            self.move(pool="gold")
            self.gold.sync()

    def test_cancellation_that_may_have_been_written(self):
        """It was refused, so it has no effect later."""
        write = moves.MoveShare._write_job
        job_id = self.begin()

        def lost(operation, **values):
            write(operation, **values)
            raise RuntimeError("connection lost")

        with mock.patch.object(moves.MoveShare, "_write_job", lost):
            with self.assertRaises(problems.Problem):
                self.cancel(job_id)

        def crash():
            self.fixture.steps.crashed = True
            raise fixtures.Crash

        hooks = self.fixture.steps.hooks
        hooks["delete source:after"] = crash
        self.go.set()
        with contextlib.suppress(fixtures.Crash):
            self.move()
        self.fixture.restart()
        self.check_is_in("silver")

    def test_stop_does_not_wait_for_it(self):
        job_id = self.begin()
        journal = self.fixture.service.journal
        self.go_on_after(journal._active[job_id], "interrupt")
        self.fixture.service.stop()
        self.assertEqual({"gold", "silver"}, self.places())
        self.fixture.restart()
        self.assertEqual("succeeded", self.job(job_id)["state"])
        self.check_is_in("silver")

    def test_start_does_not_wait_for_it(self):
        self.begin()
        self.fixture.steps.crashed = True
        self.go.set()
        self.fixture.service.stop()
        self.go.clear()
        self.reached.clear()
        self.fixture.restart(start=False)
        self.fixture.service.recovery.copy_seconds = 0
        self.fixture.service.start()
        self.assertTrue(self.reached.wait(SOON))
        # It is under way again; others do not wait for it.
        job = self.move(wait_seconds=0).job
        self.assertEqual("running", job["state"])
        self.make_share()
        self.go.set()
        self.assertEqual("succeeded", self.job(job["id"])["state"])
        self.check_is_in("silver")

    def test_copies_that_hang_block_neither_pool(self):
        ids = [self.make_share(size_bytes=SIZE) for _ in range(40)]
        for id_ in ids:
            self.fixture.write(id_, DATA)
            self.move(id_, wait_seconds=0)
        self.assertTrue(self.reached.wait(SOON))
        for pool in ("gold", "silver"):
            self.assertEqual(
                pool, self.fixture.put_share(pool=pool).body["pool"]
            )
        self.go.set()
        for id_ in ids:
            self.move(id_)
            self.assertEqual({"silver"}, self.places(id_))


@ddt.ddt
class TestLostDatabase(MoveCase, test_restoration.RestorationCase):
    """The id is never valid in two pools, nor in none."""

    steps = (
        "mark source:after",
        "copy:before",
        "copy:after",
        "pass the point of no return:after",
        "describe target:after",
        "delete source:before",
        "delete source:after",
        "settle:after",
    )

    def cut_off(self, step):
        def crash():
            self.fixture.steps.crashed = True
            raise fixtures.Crash(step)

        self.fixture.steps.hooks[step] = crash
        with contextlib.suppress(fixtures.Crash):
            self.move()

    @ddt.data(*steps)
    def test_it_goes_on(self, step):
        self.cut_off(step)
        self.lose_database()
        report = self.restored(adopt_into="b")
        self.assertEqual({}, report["undescribed"])
        self.assertEqual({}, report["duplicates"])
        self.assertEqual([], report["adopted_shares"])
        self.check_is_in("silver")
        self.assertEqual("a", self.share(self.share_id)["namespace"])

    @ddt.data(*steps)
    def test_power_cut(self, step):
        self.cut_off(step)
        self.fixture.lose_unsynced()
        self.lose_database()
        self.restored(adopt_into="b")
        self.check_is_in("silver")

    def test_half_of_a_copy_and_the_step_is_not_done(self):
        write = self.silver.open_file

        @contextlib.contextmanager
        def open_file(*given, **more):
            with write(*given, **more) as file:
                yield file
                raise fixtures.Crash("killed")

        self.silver.open_file = open_file
        with contextlib.suppress(fixtures.Crash):
            self.move()
        del self.silver.open_file
        self.lose_database()
        self.restored(adopt_into="b")
        self.check_is_in("silver")

    @ddt.data(*steps)
    def test_older_copy(self, step):
        """It knows nothing of the move."""
        older = self.backup()
        self.cut_off(step)
        self.make_later()
        self.restore(older)
        report = self.restored()
        self.assertEqual({}, report["duplicates"])
        self.check_is_in("silver")

    def test_older_copy_of_a_move_that_is_over(self):
        older = self.backup()
        self.move()
        self.fixture.write(self.share_id, DATA)
        self.make_later()
        self.restore(older)
        report = self.restored()
        self.assertEqual([f"gold/{self.share_id}"], report["removed_shares"])
        self.check_is_in("silver")

    def test_copy_that_has_the_job_of_a_move_that_is_over(self):
        older = []
        self.fixture.steps.hooks["copy:after"] = lambda: older.append(
            self.backup()
        )
        self.move()
        self.make_later()
        self.restore(older[0])
        report = self.restored()
        self.assertEqual(1, len(report["closed_jobs"]))
        self.check_is_in("silver")

    def test_target_that_cannot_be_read(self):
        """Nobody can say who has the share: it is left alone."""
        self.cut_off("describe target:after")
        self.lose_database()
        self.silver.reasons = ["no disk"]
        self.fixture.service.stop()
        self.fixture.restart(start=False)
        report = self.fixture.service.reconciliation.restore(
            apply=True, adopt_into="b"
        )
        self.assertIn("silver", report["undescribed"][f"gold/{self.share_id}"])
        self.silver.reasons = []
        self.restored()
        self.check_is_in("silver")

    def test_closed_by_an_operator_in_the_middle(self):
        self.cut_off("copy:after")
        self.fixture.restart(start=False)
        (job,) = self.fixture.service.system.status()["open_jobs"]
        self.fixture.service.reconciliation.run(True, [job["id"]])
        share = self.share(self.share_id)
        self.assertEqual(
            ("gold", types.State.AVAILABLE), (share["pool"], share["state"])
        )
        report = self.fixture.service.reconciliation.run(False)
        self.assertEqual([f"silver/{self.share_id}"], report["unknown_shares"])
        self.silver.delete_share(self.share_id)
        self.silver.metadata.delete(fixtures.share(self.share_id))
        self.fixture.restart()
        self.check_is_in("gold")

    @ddt.data(
        "pass the point of no return:after",
        "describe target:after",
        "delete source:before",
        "delete source:after",
    )
    def test_closed_by_an_operator_when_there_is_no_way_back(self, step):
        """The source may be gone already: the target has the share."""
        self.cut_off(step)
        self.fixture.restart(start=False)
        (job,) = self.fixture.service.system.status()["open_jobs"]
        self.fixture.service.reconciliation.run(True, [job["id"]])
        report = self.fixture.service.reconciliation.run(False)
        self.assertEqual([], report["missing_shares"])
        is_left = self.gold.exists(fixtures.share(self.share_id))
        left = [f"gold/{self.share_id}"] if is_left else []
        self.assertEqual(left, report["unknown_shares"])
        self.gold.delete_share(self.share_id)
        self.gold.metadata.delete(fixtures.share(self.share_id))
        self.fixture.restart()
        self.check_is_in("silver")

    make_later = test_reverts.TestLostDatabase.make_later
