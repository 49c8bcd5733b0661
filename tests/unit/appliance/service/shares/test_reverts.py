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

"""Reverting shares to their snapshots."""

import contextlib

import ddt

from acme_appliance import types
from acme_appliance.db import models
from acme_appliance.engines import base as engines
from tests.unit.appliance import case
from tests.unit.appliance import fixtures
from tests.unit.appliance.service.reconcile import test_restoration
from tests.unit.appliance.storage import test_identity

SIZE = 4 * 4096
OLD, NEW = b"o" * SIZE, b"n" * SIZE


class RevertCase(case.ServiceCase):
    def setUp(self):
        super().setUp()
        self.share_id = self.make_share(size_bytes=SIZE)
        self.fixture.write(self.share_id, OLD)
        self.snapshot_id = self.make_snapshot(self.share_id)
        self.fixture.write(self.share_id, NEW)
        self.fixture.engine.sync()

    def revert(self, revert_id=None, snapshot_id=None, **caller):
        return self.fixture.put_revert(
            self.share_id,
            revert_id or fixtures.new_id(),
            snapshot_id or self.snapshot_id,
            **caller,
        )

    def content(self):
        return self.fixture.read(self.share_id)

    def check_nothing_is_left(self):
        report = self.fixture.service.reconciliation.run(False)
        self.assertEqual({}, {k: v for k, v in report.items() if v})
        self.assertEqual(
            {self.snapshot_id}, self.fixture.engine.ids(engines.Kind.SNAPSHOT)
        )

    def break_halfway(self, error, times=1):
        """The engine gets through half of the work, then this happens."""
        engine, left = self.fixture.engine, [error] * times
        whole = engine.revert_file

        def revert_file(share_id, file, snapshot_id, snapshot_file):
            if not left:
                return whole(share_id, file, snapshot_id, snapshot_file)
            kept = engine.entries(fixtures.snapshot(snapshot_id))
            half = kept[snapshot_file].read(0, SIZE // 2)
            self.fixture.write(share_id, half, file.name)
            engine.sync()
            raise left.pop()

        engine.revert_file = revert_file


@ddt.ddt
class TestRevert(RevertCase):
    def test_content_comes_back_and_the_size_stays(self):
        later = self.make_snapshot(self.share_id)
        self.fixture.patch_share(self.share_id, size_bytes=2 * SIZE)
        before = self.share(self.share_id)
        done = self.revert()
        self.assertTrue(done.created)
        self.assertEqual("available", done.body["state"])
        self.assertEqual(2 * SIZE, done.body["size_bytes"])
        self.assertEqual(SIZE, done.body["used_bytes"])
        self.assertGreater(done.body["generation"], before["generation"])
        self.assertEqual(OLD + bytes(SIZE), self.content())
        self.assertEqual("share.reverted", self.fixture.events()[-1])
        self.revert(snapshot_id=later)
        self.assertEqual(NEW + bytes(SIZE), self.content())

    def test_the_same_again_reverts_nothing(self):
        """Not over newer writes, and also while it is attached."""
        id_ = fixtures.new_id()
        first = self.revert(id_)
        self.fixture.write(self.share_id, NEW)
        self.fixture.restart()
        again = self.revert(id_)
        self.assertFalse(again.created)
        self.assertEqual(first.body, again.body)
        self.fixture.put_access(self.share_id)
        self.assertFalse(self.revert(id_).created)
        self.assertEqual(NEW, self.content())
        later = self.fixture.put_snapshot(self.share_id).body["id"]
        self.check_problem(
            "revert.exists_mismatch",
            lambda: self.revert(id_, later),
            "/snapshot_id",
        )

    def test_so_many_are_remembered(self):
        first, second = fixtures.new_id(), fixtures.new_id()
        for id_ in (first, second):
            self.revert(id_)
        for _ in range(31):
            self.revert()
        self.assertFalse(self.revert(second).created)
        self.assertTrue(self.revert(first).created)

    @ddt.data("rw", "ro")
    def test_nobody_may_have_access(self, level):
        """Readers would see a part of each content."""
        self.fixture.put_access(self.share_id, level=level)
        self.check_as_before(
            lambda: self.check_problem("share.in_use", self.revert)
        )
        self.fixture.delete_access(self.share_id)
        self.revert()

    def test_clients_that_no_rule_explains_have_access(self):
        self.fixture.service.context.exports.unexplained = {
            fixtures.share(self.share_id): {"192.0.2.99": "rw"}
        }
        problem = self.check_problem("share.in_use", self.revert)
        self.assertIn("192.0.2.99", problem.detail)
        self.assertEqual(NEW, self.content())

    def test_snapshots_of_others(self):
        other = self.make_snapshot(self.make_share())
        strange = self.make_share(caller=fixtures.OTHER)
        for snapshot_id in (
            other,
            self.fixture.put_snapshot(strange, caller=fixtures.OTHER).body[
                "id"
            ],
            fixtures.new_id(),
        ):
            self.check_problem(
                "snapshot.not_found",
                lambda id_=snapshot_id: self.revert(snapshot_id=id_),
                "/snapshot_id",
            )
        self.check_problem(
            "share.not_found", lambda: self.revert(caller=fixtures.OTHER)
        )
        self.assertEqual(NEW, self.content())

    def test_what_is_damaged(self):
        file = self.fixture.engine.entries(fixtures.share(self.share_id)).pop(
            "volume"
        )
        self.check_problem("share.degraded", self.revert)
        self.fixture.service.reconciliation.run(True)
        self.check_problem("share.degraded", self.revert)
        self.fixture.engine.entries(fixtures.share(self.share_id))[
            "volume"
        ] = file
        self.fixture.service.reconciliation.run(True)
        self.fixture.engine.delete_snapshot(self.snapshot_id)
        self.fixture.service.reconciliation.run(True)
        self.check_problem("snapshot.wrong_state", self.revert)
        self.assertEqual(NEW, self.content())

    def test_pool_that_cannot(self):
        features = self.fixture.service.pools.get("gold")["features"]
        self.assertIn("share.revert", features)
        able = engines.Capabilities(revert=False)
        self.fixture.engine.capabilities = able
        self.check_problem("pool.unsupported", self.revert)
        features = self.fixture.service.pools.get("gold")["features"]
        self.assertNotIn("share.revert", features)

    def test_full_allocation_and_limit(self):
        self.fixture.engine.capabilities = engines.Capabilities(
            hard_limit=True
        )
        self.share_id = self.make_share(
            size_bytes=SIZE, file={"allocation": "full"}
        )
        self.snapshot_id = self.make_snapshot(self.share_id)
        self.fixture.patch_share(self.share_id, size_bytes=3 * SIZE)
        root = self.fixture.engine.root_of(fixtures.share(self.share_id))
        root.limit_bytes = 0
        self.assertEqual(3 * SIZE, self.revert().body["used_bytes"])
        self.assertEqual(
            engines.limit_for(3 * SIZE, 3 * SIZE), root.limit_bytes
        )


class TestWithoutFiles(case.ServiceCase):
    settings = {"volume_file": False}

    def test_there_is_nothing_to_revert(self):
        id_ = self.make_share(size_bytes=SIZE)
        kept = self.make_snapshot(id_)
        self.check_problem(
            "pool.unsupported",
            lambda: self.fixture.put_revert(id_, fixtures.new_id(), kept),
        )


@ddt.ddt
class TestHalfway(RevertCase):
    """One step of the engine is many of the file system."""

    def test_killed(self):
        self.break_halfway(fixtures.Crash("killed"))
        id_ = fixtures.new_id()
        self.assertRaises(fixtures.Crash, self.revert, id_)
        self.assertEqual(OLD[: SIZE // 2] + NEW[SIZE // 2 :], self.content())
        self.fixture.engine.lose_unsynced()
        self.fixture.restart()
        self.assertEqual(OLD, self.content())
        self.assertFalse(self.revert(id_).created)
        self.check_nothing_is_left()

    def test_failed(self):
        self.break_halfway(engines.NoSpace("full"))
        self.check_as_before(
            lambda: self.check_problem("pool.no_space", self.revert)
        )
        self.assertEqual(NEW, self.content())
        self.check_nothing_is_left()

    @ddt.data(True, False)
    def test_failed_and_so_did_the_way_back(self, is_restarted):
        """Nobody gets access to a part of each; the next change waits for
        the old content."""
        self.break_halfway(engines.NoSpace("full"), times=3)
        self.check_problem("engine.unavailable", self.revert)
        self.assertEqual("reverting", self.share(self.share_id)["state"])
        report = self.fixture.service.reconciliation.run(False)
        self.assertEqual([], report["unknown_snapshots"])
        self.check_problem(
            "engine.unavailable",
            lambda: self.fixture.put_access(self.share_id),
        )
        self.assertEqual({}, self.fixture.exporter.exported())
        if is_restarted:
            self.fixture.restart()
        self.fixture.put_access(self.share_id)
        self.assertEqual(NEW, self.content())
        self.check_nothing_is_left()

    @ddt.data("drop old content:before", "settle:before", "result:before")
    def test_failed_when_the_new_content_is_on_disk(self, step):
        """There is no way back: it stays open, and goes forward."""

        def fail():
            raise engines.Unavailable("the disk hangs")

        id_ = fixtures.new_id()
        self.fixture.steps.hooks[step] = fail
        self.check_problem("engine.unavailable", lambda: self.revert(id_))
        self.assertEqual("reverting", self.share(self.share_id)["state"])
        self.assertEqual(OLD, self.content())
        self.fixture.steps.hooks.clear()
        self.assertFalse(self.revert(id_).created)
        self.assertEqual(OLD, self.content())
        self.check_nothing_is_left()

    def test_closed_by_an_operator(self):
        """What may be a part of each is never called available again."""
        self.break_halfway(engines.NoSpace("full"), times=2)
        self.check_problem("engine.unavailable", self.revert)
        (job,) = self.fixture.service.system.status()["open_jobs"]
        self.fixture.service.recovery.open_jobs.close(job["id"])
        for _ in range(2):
            self.fixture.restart()
            self.assertEqual("error", self.share(self.share_id)["state"])
        report = self.fixture.service.reconciliation.run(False)
        self.assertEqual([f"gold/{job['id']}"], report["unknown_snapshots"])
        clone = self.fixture.clone("snapshot", self.snapshot_id).body["id"]
        self.assertEqual(OLD, self.fixture.read(clone))
        self.fixture.delete_share(self.share_id, "cascade")


class TestLostDatabase(RevertCase, test_restoration.RestorationCase):
    def cut_off(self):
        self.break_halfway(fixtures.Crash("killed"))
        with contextlib.suppress(fixtures.Crash):
            self.revert()
        self.fixture.engine.lose_unsynced()

    def check_ended(self, report):
        self.assertEqual(1, len(report["reopened_jobs"]))
        self.assertEqual({}, report["undescribed"])
        self.assertEqual(OLD, self.content())
        share = self.share(self.share_id)
        self.assertEqual(types.State.AVAILABLE, share["state"])
        self.check_nothing_is_left()

    def test_it_goes_on(self):
        self.cut_off()
        self.lose_database()
        self.check_ended(self.restored())

    def test_it_goes_on_where_an_older_copy_knows_nothing_of_it(self):
        older = self.backup()
        self.cut_off()
        self.make_later()
        self.restore(older)
        self.check_ended(self.restored())

    def test_it_goes_on_where_the_copy_has_it_open(self):
        copies = []
        self.fixture.steps.hooks["keep old content:after"] = lambda: (
            copies.append(self.backup())
        )
        self.cut_off()
        self.fixture.steps.hooks.clear()
        self.make_later()
        self.restore(copies[0])
        report = self.restored()
        self.assertEqual([], report["closed_jobs"])
        self.check_ended(report)

    def make_later(self):
        """The pool has seen more than the copy."""
        self.fixture.restart(start=False)
        with self.fixture.database.write() as session:
            session.add(
                models.Event(
                    seq=10_000,
                    time=self.fixture.clock(),
                    type="share.created",
                    namespace="a",
                    share_id=self.share_id,
                    snapshot_id=None,
                    actor="x",
                    request_id="",
                    job_id=None,
                    detail={},
                )
            )
        identities = self.fixture.service.context.pools.identities
        identities.adopt("gold", system_id=fixtures.SYSTEM_ID)

    def test_the_reverts_are_remembered(self):
        id_ = fixtures.new_id()
        self.revert(id_)
        self.fixture.write(self.share_id, NEW)
        self.lose_database()
        self.restored()
        self.assertFalse(self.revert(id_).created)
        self.assertEqual(NEW, self.content())
        self.assertEqual(test_identity.identity.Relation.OURS, self.relation())
