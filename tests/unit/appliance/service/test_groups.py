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

"""What else happens while and after groups are changed."""

import threading

import ddt
import sqlalchemy as sa

from acme_appliance import types
from acme_appliance.db import models
from acme_appliance.exporters import base as exporters
from tests.unit.appliance import case
from tests.unit.appliance import fixtures
from tests.unit.appliance.service.reconcile import test_restoration

MIB = fixtures.MIB


class GroupCase(case.ServiceCase):
    def setUp(self):
        super().setUp()
        self.group_id = self.fixture.put_group(labels={"a": "b"}).body["id"]
        self.shares = sorted(
            self.make_share(group_id=self.group_id) for _ in range(3)
        )

    def ids(self):
        return {share_id: fixtures.new_id() for share_id in self.shares}

    def group(self, group_id=None):
        return self.fixture.service.groups.get(
            fixtures.CALLER, group_id or self.group_id
        )

    def take(self, **body):
        return self.fixture.put_group_snapshot(
            self.ids(), group_id=self.group_id, **body
        ).body

    def copy(self, type_="group", id_=None, members=None, group_id=None):
        members = members or self.shares
        return self.fixture.put_group(
            group_id,
            source={"type": type_, "id": id_ or self.group_id},
            shares={
                member: {"id": fixtures.new_id(), "name": "copy"}
                for member in members
            },
        ).body


class TestMoment(GroupCase):
    """The engine and the exporter refuse."""

    def setUp(self):
        super().setUp()
        self.fixture.engine.stage_at_once = lambda members, seconds: None

    def test_by_the_exporter(self):
        self.assertEqual("cut", self.take()["moment"]["method"])
        self.assertEqual("cut", self.copy()["moment"]["method"])

    def test_that_cannot_be_had_on_this_machine(self):
        self.fixture.exporter.cannot_cut = "RDMA is on"
        for request in (self.take, self.copy):
            problem = self.check_problem(
                "pool.unsupported",
                lambda request=request: self.check_as_before(request),
            )
            self.assertIn("RDMA is on", problem.detail)
        self.assertEqual([], self.fixture.listed()["snapshots"])
        self.assertEqual(3, len(self.fixture.listed()["shares"]))
        self.fixture.exporter.cannot_cut = None
        self.take()

    def test_that_cannot_be_had_now(self):
        def cut():
            raise exporters.ExporterError("nft failed")

        self.fixture.exporter.cut = cut
        for request in (self.take, self.copy):
            problem = self.check_problem("moment.unavailable", request)
            self.assertTrue(problem.row.retryable)
        state = self.fixture.state()
        self.assertEqual([], state["snapshots"] + state["group_snapshots"])
        self.assertEqual([self.group_id], [g["id"] for g in state["groups"]])
        self.assertEqual([], state["open_jobs"])


class TestMeanwhile(GroupCase):
    """Other requests while the moment is taken."""

    def setUp(self):
        super().setUp()
        self.other = self.make_share()
        self.reached = threading.Event()
        self.goes_on = threading.Event()
        self.addCleanup(self.goes_on.set)
        self.fixture.steps.hooks["take moment:after"] = self.hold
        self.snapshots = self.ids()

    def hold(self):
        self.reached.set()
        assert self.goes_on.wait(fixtures.WAIT)

    def held(self, request):
        thread = threading.Thread(target=request)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.goes_on.set)
        self.assertTrue(self.reached.wait(fixtures.WAIT))

    def check_members_wait(self):
        service, share_id = self.fixture.service, self.shares[1]
        rule = {"clients": ["192.0.2.51"], "level": "rw"}
        for change, arguments in (
            (service.access.put, (share_id, "cmp-1", rule)),
            (service.shares.patch, (share_id, {"size_bytes": 2 * MIB})),
            (service.shares.patch, (share_id, {"group_id": None})),
            (service.shares.delete, (share_id,)),
            (service.groups.delete, (self.group_id,)),
            (
                service.snapshots.put,
                (fixtures.new_id(), {"share_id": share_id, "name": "s"}),
            ),
        ):
            self.check_problem(
                "share.busy",
                lambda change=change, given=arguments: change(
                    fixtures.CALLER, *given, wait_seconds=0
                ),
            )

    def check_others_go_on(self):
        self.fixture.put_access(self.other)
        self.fixture.patch_share(self.other, size_bytes=2 * MIB)
        self.make_snapshot(self.other)
        self.make_share(group_id=self.group_id)

    def test_group_snapshot(self):
        self.held(lambda: self.fixture.put_group_snapshot(self.snapshots))
        self.check_members_wait_without_group()
        self.check_others_go_on()

    def check_members_wait_without_group(self):
        """A group snapshot without a group claims none."""
        service, share_id = self.fixture.service, self.shares[1]
        self.check_problem(
            "share.busy",
            lambda: service.shares.delete(
                fixtures.CALLER, share_id, wait_seconds=0
            ),
        )

    def test_group_snapshot_of_a_group(self):
        self.held(
            lambda: self.fixture.put_group_snapshot(
                self.snapshots, group_id=self.group_id
            )
        )
        self.check_members_wait()
        self.check_others_go_on()

    def test_copy_of_a_group(self):
        self.held(self.copy)
        self.check_members_wait()
        self.check_others_go_on()
        report = self.fixture.service.reconciliation.run(False)
        self.assertEqual([], report["unknown_snapshots"])
        self.assertEqual(1, len(report["open_jobs"]))


@ddt.ddt
class TestClosedJobs(GroupCase):
    """An operator closes the job of a group that cannot end."""

    def crashed(self, step, request):
        def die():
            raise fixtures.Crash

        self.fixture.steps.hooks[step] = die
        with self.assertRaises(fixtures.Crash):
            request()
        self.fixture.restart(start=False)
        (job,) = self.fixture.service.system.status()["open_jobs"]
        self.fixture.service.reconciliation.run(True, [job["id"]])
        self.fixture.start()

    @ddt.data("take moment:before", "keep moment:after", "settle:before")
    def test_group_snapshot(self, step):
        id_ = fixtures.new_id()
        snapshots = self.ids()
        self.crashed(
            step, lambda: self.fixture.put_group_snapshot(snapshots, id_)
        )
        listed = self.fixture.listed()
        (found,) = listed["group_snapshots"]
        self.assertEqual(("error", None), (found["state"], found["job_id"]))
        self.assertEqual(
            {"error"}, {each["state"] for each in listed["snapshots"]}
        )
        self.check_problem(
            "group_snapshot.wrong_state",
            lambda: self.fixture.put_group_snapshot(snapshots, id_),
        )
        self.fixture.delete_group_snapshot(id_)
        self.assertEqual([], self.fixture.listed()["snapshots"])
        self.fixture.put_group_snapshot(snapshots, id_)

    @ddt.data("take moment:before", "settle:before")
    def test_copy(self, step):
        id_ = fixtures.new_id()
        self.crashed(step, lambda: self.copy(group_id=id_))
        found = self.group(id_)
        self.assertEqual("error", found["state"])
        self.assertEqual(3, len(found["share_ids"]))
        for share_id in found["share_ids"]:
            self.assertEqual("error", self.share(share_id)["state"])
        self.fixture.delete_group(id_, shares="delete")
        self.assertEqual(3, len(self.fixture.listed()["shares"]))


class TestQuotas(case.ServiceCase):
    settings = {
        "quotas": {"a": types.Quota(max_snapshots=3, max_shares=4)},
        "limits": types.Limits(max_groups=3),
    }

    def setUp(self):
        super().setUp()
        self.shares = [self.make_share() for _ in range(2)]

    def snapshot(self):
        self.fixture.put_group_snapshot(
            {share_id: fixtures.new_id() for share_id in self.shares}
        )

    def test_snapshots_count_all_or_none(self):
        self.snapshot()
        problem = self.check_problem("limit.snapshots", self.snapshot)
        self.assertIn("3 snapshots", problem.detail)
        self.assertEqual(2, len(self.fixture.listed()["snapshots"]))
        self.assertEqual(1, len(self.fixture.listed()["group_snapshots"]))
        self.make_snapshot(self.shares[0])

    def test_copies_count_all_or_none(self):
        group_id = self.fixture.put_group().body["id"]
        self.fixture.patch_group(group_id, add_share_ids=self.shares)
        self.make_share()

        def copy():
            self.fixture.put_group(
                source={"type": "group", "id": group_id},
                shares={
                    share_id: {"id": fixtures.new_id(), "name": "copy"}
                    for share_id in self.shares
                },
            )

        self.check_problem("limit.shares", lambda: self.check_as_before(copy))

    def test_groups(self):
        for _ in range(3):
            self.fixture.put_group()
        self.check_problem("limit.groups", self.fixture.put_group)


class TestEvents(GroupCase):
    def test_who_did_what(self):
        taken = self.take()
        self.fixture.patch_group(
            self.group_id, remove_share_ids=self.shares[:1]
        )
        self.fixture.delete_group_snapshot(taken["id"])
        self.fixture.delete_group(self.group_id)
        found = self.fixture.service.events.read(fixtures.ADMIN, 0, 0, 1000)
        groups = [
            event
            for event in found["events"]
            if event["type"].startswith("group.")
        ]
        self.assertEqual(
            [
                ("group.created", None),
                ("group.snapshot_created", taken["id"]),
                ("group.updated", None),
                ("group.snapshot_deleted", taken["id"]),
                ("group.deleted", None),
            ],
            [(each["type"], each["group_snapshot_id"]) for each in groups],
        )
        for event in groups:
            self.assertEqual(
                (self.group_id, None), (event["group_id"], event["share_id"])
            )
        self.assertEqual(taken["moment"], groups[1]["detail"]["moment"])
        jobs = self.fixture.service.jobs.page(
            fixtures.CALLER, {}, 1000, None
        ).items
        kinds = {
            job["kind"]: job for job in jobs if job["group_id"] is not None
        }
        self.assertEqual(
            taken["id"], kinds["group.snapshot"]["group_snapshot_id"]
        )


class TestQueries(GroupCase):
    """No list and no change reads all shares."""

    def test_no_scans(self):
        taken = self.take()
        seen = set()

        def note(connection, cursor, statement, parameters, *rest):
            if statement.startswith(("SELECT", "UPDATE", "DELETE")):
                seen.add((statement, parameters))

        engine = self.fixture.database.engine
        writers = self.fixture.database.writers
        for each in {engine, writers}:
            sa.event.listen(each, "before_cursor_execute", note)
        service = self.fixture.service
        self.group()
        service.shares.page(
            fixtures.CALLER, {"group_id": self.group_id}, 10, None
        )
        service.snapshots.page(
            fixtures.CALLER, {"group_snapshot_id": taken["id"]}, 10, None
        )
        service.group_snapshots.page(
            fixtures.CALLER, {"group_id": self.group_id}, 10, None
        )
        for name in ("name", "pool"):
            service.groups.page(fixtures.CALLER, {name: "gold"}, 10, None)
        service.group_snapshots.page(
            fixtures.CALLER, {"name": "gold"}, 10, None
        )
        self.fixture.patch_group(
            self.group_id, remove_share_ids=self.shares[:1]
        )
        self.fixture.patch_share(self.shares[0], group_id=self.group_id)
        self.fixture.delete_group_snapshot(taken["id"])
        self.fixture.delete_group(self.group_id, shares="delete")
        for each in {engine, writers}:
            sa.event.remove(each, "before_cursor_execute", note)
        self.assertTrue(seen)
        for statement, parameters in seen:
            with engine.connect() as connection:
                plan = connection.exec_driver_sql(
                    f"EXPLAIN QUERY PLAN {statement}", parameters
                )
                for row in plan:
                    self.assertNotRegex(
                        row.detail, "^SCAN (shares|snapshots|jobs|events)"
                    )


class TestRecovery(test_restoration.RestorationCase):
    def setUp(self):
        super().setUp()
        self.group_id = self.fixture.put_group(labels={"a": "b"}).body["id"]
        self.shares = [
            self.make_share(group_id=self.group_id) for _ in range(2)
        ]
        self.snapshots = {id_: fixtures.new_id() for id_ in self.shares}
        self.taken = self.fixture.put_group_snapshot(
            self.snapshots, group_id=self.group_id
        ).body
        self.copied = self.fixture.put_group(
            source={"type": "group_snapshot", "id": self.taken["id"]},
            shares={
                id_: {"id": fixtures.new_id(), "name": "copy"}
                for id_ in self.snapshots.values()
            },
        ).body

    def test_groups_come_back(self):
        expected = self.fixture.state()
        self.lose_database()
        report = self.restored()
        self.assertEqual(3, len(report["added_groups"]))
        self.assertEqual(expected, self.fixture.state())
        found = self.fixture.service.group_snapshots.get(
            fixtures.CALLER, self.taken["id"]
        )
        self.assertEqual(self.taken["moment"], found["moment"])
        self.check_ours()
        again = self.fixture.put_group(self.group_id, labels={"a": "b"})
        self.assertFalse(again.created)
        again = self.fixture.put_group_snapshot(
            self.snapshots, self.taken["id"], group_id=self.group_id
        )
        self.assertFalse(again.created)

    def test_dry_run(self):
        self.lose_database()
        report = self.restored(apply=False)
        self.assertEqual(3, len(report["added_groups"]))
        with self.fixture.database.read() as session:
            self.assertEqual(0, session.query(models.Group).count())

    def test_older_copy(self):
        backup = self.backup()
        self.fixture.patch_group(
            self.group_id, name="new", remove_share_ids=self.shares[:1]
        )
        self.fixture.delete_group_snapshot(self.taken["id"])
        later = self.fixture.put_group().body["id"]
        self.fixture.delete_group(self.copied["id"])
        expected = self.fixture.state()
        self.restore(backup)
        report = self.restored()
        self.assertEqual([f"gold/{self.group_id}"], report["updated_groups"])
        self.assertEqual([f"gold/{later}"], report["added_groups"])
        self.assertEqual(
            {f"gold/{self.taken['id']}", f"gold/{self.copied['id']}"},
            set(report["removed_groups"]),
        )
        self.assertEqual(expected, self.fixture.state())
        self.check_ours()

    def test_group_without_metadata(self):
        store = self.fixture.engine.metadata
        for reference in fixtures.described(self.fixture.engine):
            if reference.id in (self.group_id, self.taken["id"]):
                store.delete(reference)
        store.sync()
        self.lose_database()
        report = self.restored()
        self.assertEqual(
            [f"gold/{self.taken['id']}"], report["incomplete_groups"]
        )
        self.assertIn(f"gold/{self.group_id}", report["added_groups"])
        group = self.fixture.service.groups.get(fixtures.CALLER, self.group_id)
        self.assertEqual(sorted(self.shares), group["share_ids"])
        for snapshot_id in self.snapshots.values():
            found = self.fixture.service.snapshots.get(
                fixtures.CALLER, snapshot_id
            )
            self.assertIsNone(found["group_snapshot_id"])
        self.check_ours()
