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

"""Access rules of snapshots: as those of shares, and read-only."""

import dataclasses

import ddt

from acme_appliance import references
from acme_appliance import types
from acme_appliance.exporters import base as exporters
from acme_appliance.service import Limits
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

#: Of a share and of a snapshot.
ID = "11111111-1111-4111-8111-111111111111"
SHARE, SNAPSHOT = references.share(ID), references.snapshot(ID)
HOLDER = "cinder:bak-1"
ONE, TWO = "192.0.2.61", "192.0.2.62"


class SnapshotCase(case.ServiceCase):
    """A share that is exported, and a snapshot of it with the same id."""

    def setUp(self):
        super().setUp()
        self.fixture.put_share(ID)
        self.fixture.put_access(ID)
        self.fixture.put_snapshot(ID, ID)

    def exported(self):
        return self.fixture.exporter.exported().get(SNAPSHOT, {})

    def snapshot(self):
        return self.fixture.service.snapshots.get(fixtures.ADMIN, ID)

    def check_share_as_before(self):
        self.assertEqual(
            {"192.0.2.51": "rw"}, self.fixture.exporter.exported()[SHARE]
        )
        self.assertEqual({"cmp-1"}, self.share(ID)["access"].keys())


@ddt.ddt
class TestSnapshotAccess(SnapshotCase):
    settings = {
        "limits": Limits(max_access_rules_per_share=2, max_clients_per_rule=2)
    }

    def test_grant_tells_where_to_mount(self):
        done = self.fixture.put_snapshot_access(ID, HOLDER, (TWO, ONE))
        self.assertTrue(done.created)
        rule = {"clients": [ONE, TWO], "level": "ro"}
        self.assertEqual(
            {
                "snapshot_id": ID,
                "holder": HOLDER,
                **rule,
                "file": self.share(ID)["file"],
                "export_locations": [
                    {
                        "address": address,
                        "path": f"/gold/snapshots/{ID}",
                        "preferred": preferred,
                        "nfs_versions": ["4.2", "4.1"],
                    }
                    for address, preferred in (
                        ("192.0.2.10", True),
                        ("192.0.2.11", False),
                    )
                ],
                "access": {HOLDER: rule},
            },
            done.body,
        )
        service = self.fixture.service
        self.assertEqual(
            done.body, service.snapshot_access.get(fixtures.CALLER, ID, HOLDER)
        )
        self.assertEqual({ONE: "ro", TWO: "ro"}, self.exported())
        self.assertEqual({HOLDER: rule}, self.snapshot()["access"])
        self.assertEqual(
            done.body["export_locations"], self.snapshot()["export_locations"]
        )
        (listed,) = service.snapshots.page(fixtures.CALLER, {}, 9, None).items
        self.assertEqual(self.snapshot(), listed)
        self.check_share_as_before()

    def test_revoke_tells_what_is_left(self):
        self.fixture.put_snapshot_access(ID)
        self.fixture.put_snapshot_access(ID, "cinder:bak-2", (TWO,))
        for _ in range(2):
            done = self.fixture.delete_snapshot_access(ID)
            self.assertEqual(
                {
                    "snapshot_id": ID,
                    "access": {
                        "cinder:bak-2": {"clients": [TWO], "level": "ro"}
                    },
                },
                done.body,
            )
        self.assertEqual({TWO: "ro"}, self.exported())
        self.fixture.delete_snapshot_access(ID, "cinder:bak-2")
        self.assertEqual({}, self.exported())
        self.check_share_as_before()
        self.assertTrue(
            self.fixture.delete_snapshot_access(fixtures.new_id()).absent
        )

    def test_events_name_the_snapshot(self):
        self.fixture.put_snapshot_access(ID)
        self.fixture.delete_snapshot_access(ID)
        found = self.fixture.service.events.read(fixtures.ADMIN, 0, 0, 99)
        self.assertEqual(
            [("access.granted", ID, ID), ("access.revoked", ID, ID)],
            [
                (each["type"], each["share_id"], each["snapshot_id"])
                for each in found["events"][-2:]
            ],
        )

    def test_every_change_has_a_generation(self):
        seen = [self.snapshot()["generation"]]
        self.fixture.put_snapshot_access(ID)
        seen.append(self.snapshot()["generation"])
        self.fixture.delete_snapshot_access(ID)
        seen.append(self.snapshot()["generation"])
        self.assertEqual(sorted(set(seen)), seen)

    def test_write_access_is_refused(self):
        self.check_as_before(
            lambda: self.check_problem(
                "request.invalid",
                lambda: self.fixture.put_snapshot_access(ID, level="rw"),
                "/level",
            )
        )

    def test_pool_that_exports_no_snapshots(self):
        engine = self.fixture.engine
        engine.capabilities = dataclasses.replace(
            engine.capabilities, snapshot_export=False
        )
        pool = self.fixture.service.pools.get("gold")
        self.assertNotIn(types.FEATURE_SNAPSHOT_EXPORT, pool["features"])
        problem = self.check_problem(
            "request.invalid", lambda: self.fixture.put_snapshot_access(ID)
        )
        self.assertIn("gold", problem.detail)
        self.assertEqual([], self.snapshot()["export_locations"])

    def test_the_pool_announces_it(self):
        pool = self.fixture.service.pools.get("gold")
        self.assertIn(types.FEATURE_SNAPSHOT_EXPORT, pool["features"])

    def test_it_is_not_deleted_while_it_has_rules(self):
        self.fixture.put_snapshot_access(ID)
        self.fixture.delete_access(ID)
        for request in (
            lambda: self.fixture.delete_snapshot(ID),
            lambda: self.fixture.delete_share(ID, "cascade"),
        ):
            self.check_as_before(
                lambda request=request: self.check_problem(
                    "snapshot.in_use", request
                )
            )
        self.fixture.delete_snapshot_access(ID)
        self.fixture.delete_share(ID, "cascade")
        self.assertEqual({}, self.fixture.exporter.exported())

    def test_rules_of_a_share_do_not_keep_its_snapshot(self):
        self.fixture.delete_snapshot(ID)
        self.check_share_as_before()

    def test_a_new_snapshot_with_the_id_has_no_rules(self):
        self.fixture.put_snapshot_access(ID)
        self.fixture.delete_snapshot_access(ID)
        self.fixture.delete_snapshot(ID)
        self.fixture.put_snapshot(ID, ID)
        self.assertEqual({}, self.snapshot()["access"])
        self.assertEqual({}, self.exported())

    def test_limit(self):
        self.fixture.put_snapshot_access(ID, "a")
        self.fixture.put_snapshot_access(ID, "b")
        problem = self.check_problem(
            "limit.access_rules",
            lambda: self.fixture.put_snapshot_access(ID, "c"),
        )
        self.assertIn("snapshot", problem.detail)

    def test_of_others_and_of_what_is_not_there(self):
        access = self.fixture.service.snapshot_access
        for id_, caller in (
            (ID, fixtures.OTHER),
            (fixtures.new_id(), fixtures.CALLER),
        ):
            for request in (
                lambda i=id_, c=caller: self.fixture.put_snapshot_access(
                    i, caller=c
                ),
                lambda i=id_, c=caller: access.get(c, i, HOLDER),
            ):
                self.check_problem("snapshot.not_found", request)
        self.check_problem(
            "access.not_found", lambda: access.get(fixtures.CALLER, ID, HOLDER)
        )

    def test_snapshot_whose_data_is_gone(self):
        self.fixture.engine.delete_snapshot(ID)
        self.fixture.restart()
        self.check_problem(
            "snapshot.wrong_state",
            lambda: self.fixture.put_snapshot_access(ID),
        )
        self.fixture.delete_snapshot(ID)

    def test_revoke_of_a_snapshot_whose_data_is_gone(self):
        self.fixture.put_snapshot_access(ID)
        self.fixture.engine.delete_snapshot(ID)
        self.fixture.restart()
        self.fixture.delete_snapshot_access(ID)
        self.assertEqual({}, self.exported())
        self.fixture.delete_snapshot(ID)

    def test_asking_again_repairs(self):
        self.fixture.put_snapshot_access(ID)
        self.fixture.exporter.withdraw(SNAPSHOT)
        self.assertFalse(self.fixture.put_snapshot_access(ID).created)
        self.assertEqual({ONE: "ro"}, self.exported())

    def test_file_of_the_share_is_left_alone(self):
        """A share's grant grows a file that was cut off; none of these."""
        root = self.fixture.engine.root_of(fixtures.share(ID))
        root.entries["volume"].size_bytes = 1
        self.fixture.put_snapshot_access(ID)
        self.assertEqual(1, self.fixture.engine.file_size(ID, "volume"))

    @ddt.data("e", "f")
    def test_share_with_an_id_that_only_exports_of_snapshots_have(self, digit):
        id_ = f"{ID[:19]}{digit}{ID[20:]}"
        self.check_problem(
            "request.invalid",
            lambda: self.fixture.put_share(id_),
            "/path/share_id",
        )


class TestRepair(SnapshotCase):
    """A start, ``reconcile`` and ``status`` know them too."""

    def setUp(self):
        super().setUp()
        self.fixture.put_snapshot_access(ID)

    def let_in(self, client):
        """A client without a rule."""
        directory = exporters.ExportedDirectory(SNAPSHOT, "/memory/x", 0, 0)
        self.fixture.exporter.apply(
            directory, {**self.exported(), client: "ro"}
        )

    def test_a_start_adds_what_is_missing(self):
        self.fixture.exporter.withdraw(SNAPSHOT)
        report = self.fixture.restart()
        self.assertEqual(
            [{"snapshot_id": ID, "wanted": {ONE: "ro"}, "found": {}}],
            report.export_differences,
        )
        self.assertEqual({ONE: "ro"}, self.exported())
        self.check_share_as_before()

    def test_a_pool_that_comes_later(self):
        self.fixture.service.stop()
        self.fixture.exporter.withdraw(SNAPSHOT)
        self.fixture.engine.reasons = ["not mounted"]
        self.fixture.restart()
        self.assertEqual({}, self.exported())
        self.fixture.engine.reasons = []
        self.fixture.service.recovery.compare_pool("gold")
        self.assertEqual({ONE: "ro"}, self.exported())

    def test_unexplained_exports(self):
        self.let_in(TWO)
        report = self.fixture.restart()
        self.assertEqual(
            [{"snapshot_id": ID, "clients": {TWO: "ro"}}],
            report.unexplained_exports,
        )
        self.fixture.delete_snapshot_access(ID)
        self.assertEqual({TWO: "ro"}, self.exported())
        self.assertEqual(1, len(self.fixture.service.system.export_warnings()))
        self.fixture.service.reconciliation.run(True)
        self.assertEqual({}, self.exported())
        self.check_share_as_before()

    def test_unexplained_exports_go_with_the_snapshot(self):
        """Or the next snapshot with its id would be exported to them."""
        self.let_in(TWO)
        self.fixture.restart()
        self.fixture.delete_snapshot_access(ID)
        self.fixture.delete_snapshot(ID)
        self.assertEqual({}, self.exported())
        self.assertEqual([], self.fixture.service.system.export_warnings())

    def test_unexplained_exports_go_with_the_share(self):
        self.let_in(TWO)
        self.fixture.restart()
        self.fixture.delete_snapshot_access(ID)
        self.fixture.delete_access(ID)
        self.fixture.delete_share(ID, "cascade")
        self.assertEqual({}, self.fixture.exporter.exported())

    def test_status(self):
        status = self.fixture.service.system.status()
        self.assertEqual({ID: {ONE: "ro"}}, status["snapshot_exports"])
        self.assertEqual({ID: {"192.0.2.51": "rw"}}, status["exports"])


class TestOpenJobs(SnapshotCase):
    def setUp(self):
        super().setUp()
        self.fixture.steps.hooks["export:before"] = self.end_the_process

    def end_the_process(self):
        self.fixture.steps.crashed = True
        raise fixtures.Crash("export")

    def test_a_job_of_an_earlier_release_is_of_the_share(self):
        """It names no snapshot."""
        with self.assertRaises(fixtures.Crash):
            self.fixture.put_access(ID, "cmp-2", ("192.0.2.52",))
        (job,) = self.fixture.service.journal.entries.open()
        self.assertIsNone(job.snapshot_id)
        self.fixture.restart()
        self.assertEqual(
            {"192.0.2.51": "rw", "192.0.2.52": "rw"},
            self.fixture.exporter.exported()[SHARE],
        )
        self.assertEqual({}, self.exported())

    def test_an_open_grant_holds_share_and_snapshot(self):
        with self.assertRaises(fixtures.Crash):
            self.fixture.put_snapshot_access(ID)
        entries = self.fixture.service.journal.entries
        (job,) = entries.open()
        self.assertEqual(
            {("share", ID), ("snapshot", ID)},
            {(thing.kind, thing.id) for thing in entries.claims(job)},
        )
        self.fixture.restart()
        self.assertEqual({ONE: "ro"}, self.exported())
        self.check_share_as_before()
