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

"""A lost database is rebuilt, and an older copy brought up to date."""

import dataclasses
from unittest import mock

import ddt

from acme_appliance import references
from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.storage import identity
from tests.unit.appliance import fixtures
from tests.unit.appliance.storage import test_identity

WHAT_IS_THE_SAME = ("shares", "snapshots", "open_jobs", "storage", "metadata")


class RestorationCase(test_identity.IdentityCase):
    def restored(self, *, apply=True, adopt_into=None):
        """In a new process, as the command does it; then started again."""
        self.fixture.service.stop()
        self.fixture.restart(start=False)
        report = self.fixture.service.reconciliation.restore(
            apply=apply, adopt_into=adopt_into
        )
        if apply:
            self.fixture.restart()
        return report

    def found(self, report):
        return {
            name: each
            for name, each in report.items()
            if each and name not in ("pools", "namespaces", "system_id")
        }

    def check_ours(self):
        self.assertEqual(identity.Relation.OURS, self.relation())
        report = self.fixture.service.reconciliation.run(False)
        self.assertEqual({}, {k: v for k, v in report.items() if v})
        self.assertEqual({"applied": True}, self.found(self.restored()))


@ddt.ddt
class TestLostDatabase(RestorationCase):
    def setUp(self):
        super().setUp()
        self.share_id = self.make_share(
            labels={"a": "b", "c": "é"}, size_bytes=3 * fixtures.MIB
        )
        self.kept = self.make_snapshot(self.share_id, labels={"s": "t"})
        self.clone = self.fixture.clone("snapshot", self.kept).body["id"]
        self.fixture.patch_share(self.share_id, name="renamed")
        self.fixture.patch_share(self.share_id, size_bytes=4 * fixtures.MIB)
        self.fixture.put_access(self.share_id)
        self.fixture.put_access(
            self.share_id, "cmp-2", ("192.0.2.52", "2001:db8::/64"), "ro"
        )
        self.fixture.put_snapshot_access(self.kept)
        self.other = self.make_share(caller=fixtures.OTHER)

    def check_all_is_back(self, expected):
        self.assertEqual(expected, self.fixture.state())
        self.check_ours()
        body = {"size_bytes": 3 * fixtures.MIB, "name": "volume"}
        again = self.fixture.put_share(
            self.share_id, labels={"a": "b", "c": "é"}, **body
        )
        self.assertFalse(again.created)
        self.assertEqual(0, self.fixture.put_access(self.share_id).created)

    def test_everything_comes_back(self):
        expected = self.fixture.state()
        self.lose_database()
        report = self.restored()
        self.assertEqual({"gold": "lost"}, report["pools"])
        self.assertEqual(3, len(report["added_shares"]))
        self.assertEqual([f"gold/{self.kept}"], report["added_snapshots"])
        self.assertEqual(
            [
                {
                    "share_id": self.share_id,
                    "granted": ["cmp-1", "cmp-2"],
                    "revoked": [],
                },
                {
                    "snapshot_id": self.kept,
                    "granted": ["cinder:bak-1"],
                    "revoked": [],
                },
            ],
            report["changed_rules"],
        )
        self.assertEqual(["a", "b"], report["namespaces"])
        self.assertEqual(fixtures.SYSTEM_ID, report["system_id"])
        self.check_all_is_back(expected)

    def test_appliance_keeps_its_id_however_often_all_is_lost(self):
        """Drivers would take it for another one, and its volumes for lost."""
        for _ in range(2):
            self.lose_database()
            # The file with the id is lost too: each process makes a new one.
            self.fixture.settings = dataclasses.replace(
                self.fixture.settings, system_id=fixtures.new_id()
            )
            self.assertEqual(fixtures.SYSTEM_ID, self.restored()["system_id"])
        # Killed before the file was written: the database is complete.
        self.assertEqual(identity.Relation.OURS, self.relation())
        self.assertEqual(fixtures.SYSTEM_ID, self.restored()["system_id"])

    @ddt.data({}, {"id": 7}, {"id": "x"}, {"id": "x", "sequence": "y"})
    def test_identity_that_is_of_no_use(self, broken):
        expected = self.fixture.state()
        self.lose_database()
        self.fixture.engine.metadata.write_identity(broken)
        self.assertEqual({"gold": "lost"}, self.restored()["pools"])
        self.assertEqual(expected, self.fixture.state())

    def test_generations_and_events_go_on(self):
        before = self.share(self.share_id)
        seen = self.fixture.service.events.read(fixtures.ADMIN, 0, 0, 1000)
        self.lose_database()
        self.restored()
        self.make_share()
        events = self.fixture.service.events.read(
            fixtures.ADMIN, seen["next_after"], 0, 1000
        )["events"]
        self.assertEqual("database.recovered", events[0]["type"])
        self.assertEqual("share.created", events[-1]["type"])
        self.assertNotEqual(
            before["generation"], self.share(self.share_id)["generation"]
        )

    def test_a_dry_run_changes_nothing(self):
        self.lose_database()
        before = self.untouched()
        report = self.restored(apply=False)
        self.assertEqual(3, len(report["added_shares"]))
        self.assertFalse(report["applied"])
        with self.fixture.database.read() as session:
            for table in (models.Share, models.Pool, models.Event):
                self.assertEqual(0, session.query(table).count())
        self.assertEqual(before, self.untouched())
        self.check_refused("acme-appliance recover")

    def test_no_client_notices(self):
        self.lose_database()
        changes = self.fixture.exporter.change_count
        self.restored()
        self.assertEqual(changes, self.fixture.exporter.change_count)

    def test_cut_off_between_database_and_pool(self):
        expected = self.fixture.state()
        self.lose_database()
        self.fixture.restart(start=False)

        def crash(pool, **given):
            raise fixtures.Crash

        self.fixture.service.context.pools.identities.adopt = crash
        with self.assertRaises(fixtures.Crash):
            self.fixture.service.reconciliation.restore(
                apply=True, adopt_into=None
            )
        self.fixture.restart()
        self.check_all_is_back(expected)

    def test_data_without_metadata_is_listed_or_adopted(self):
        file = engines.VolumeFile(
            "volume-x",
            fixtures.MIB,
            "sparse",
            engines.Owner(1000, 1001),
            0o640,
        )
        good, empty, kept = (fixtures.new_id() for _ in range(3))
        for id_ in (good, empty):
            self.fixture.engine.create_share(id_, file.owner)
        self.fixture.engine.ensure_file(good, file)
        self.fixture.engine.create_snapshot(good, kept)
        self.fixture.engine.sync()
        self.lose_database()
        report = self.restored(apply=False)
        self.assertEqual(
            {f"gold/{id_}" for id_ in (good, empty, kept)},
            set(report["undescribed"]),
        )
        self.assertIn("volume-x", report["undescribed"][f"gold/{good}"])
        report = self.restored(adopt_into="a")
        self.assertEqual([f"gold/{good}"], report["adopted_shares"])
        self.assertEqual(
            {f"gold/{empty}", f"gold/{kept}"}, set(report["undescribed"])
        )
        body = self.share(good, fixtures.CALLER)
        self.assertEqual(
            ("volume-x", fixtures.MIB, "0640", 1000, 1001),
            (
                body["name"],
                body["size_bytes"],
                body["file"]["mode"],
                body["file"]["uid"],
                body["file"]["gid"],
            ),
        )
        self.fixture.put_access(good)
        self.fixture.patch_share(good, size_bytes=2 * fixtures.MIB)
        self.assertEqual([], self.fixture.restart().old_metadata)

    def test_metadata_without_data_or_of_no_use(self):
        store = self.fixture.engine.metadata
        lost, broken = (
            fixtures.share(fixtures.new_id()),
            fixtures.share(self.other),
        )
        store.write(lost, {"id": lost.id})
        store.write(broken, {"id": self.other})
        orphan = store.read(fixtures.snapshot(self.kept))
        store.write(
            fixtures.snapshot(self.kept), {**orphan, "share_id": lost.id}
        )
        self.lose_database()
        report = self.restored()
        self.assertEqual([f"gold/{lost.id}"], report["without_data"])
        self.assertEqual([f"gold/{self.kept}"], report["without_share"])
        self.assertIn(f"gold/{self.other}", report["undescribed"])
        self.assertEqual(2, len(report["added_shares"]))
        self.assertIsNotNone(store.read(lost))

    def test_exports_of_unknown_shares_stay(self):
        unknown = fixtures.new_id()
        self.fixture.exporter.apply(
            exporters.ExportedDirectory(
                references.share(unknown), "/memory/x", 0, 0
            ),
            {"192.0.2.9": "rw"},
        )
        self.lose_database()
        self.restored()
        self.assertIn(
            references.share(unknown), self.fixture.exporter.exported()
        )

    def test_rules_without_holders(self):
        """As the export files of the first release have them."""
        self.fixture.exporter._rules.clear()
        self.lose_database()
        self.restored()
        access = self.share(self.share_id)["access"]
        self.assertEqual(
            {
                "recovered:192.0.2.51",
                "recovered:192.0.2.52",
                "recovered:2001:db8::-64",
            },
            set(access),
        )
        self.fixture.delete_access(self.share_id, "recovered:192.0.2.51")
        self.assertNotIn(
            "192.0.2.51",
            self.fixture.exporter.exported()[references.share(self.share_id)],
        )


class TestOlderCopy(RestorationCase):
    """A day passes between the copy and its return."""

    def setUp(self):
        super().setUp()
        fixture = self.fixture
        self.deleted, self.renamed, self.grown, self.same, self.granted = (
            self.make_share() for _ in range(5)
        )
        self.gone = self.make_snapshot(self.same)
        self.gone_too = self.make_snapshot(self.deleted)
        fixture.put_access(self.same, "revoked", ("192.0.2.60",))
        fixture.put_access(self.same, "kept", ("192.0.2.61",))
        fixture.put_access(self.granted, "changed", ("192.0.2.62",), "rw")
        fixture.put_access(self.deleted, "away", ("192.0.2.63",))
        for _ in range(20):
            fixture.put_access(self.renamed, "x", ("192.0.2.64",))
            fixture.delete_access(self.renamed, "x")

    def day(self):
        fixture = self.fixture
        fixture.delete_access(self.deleted, "away")
        fixture.delete_share(self.deleted, "cascade")
        fixture.delete_snapshot(self.gone)
        fixture.patch_share(self.renamed, name="new", labels={"a": "b"})
        fixture.patch_share(self.grown, size_bytes=5 * fixtures.MIB)
        fixture.delete_access(self.same, "revoked")
        fixture.put_access(self.granted, "granted", ("192.0.2.70",))
        fixture.put_access(self.granted, "changed", ("192.0.2.62",), "ro")
        self.created = self.make_share()
        self.new_snapshot = self.make_snapshot(self.created)
        self.short_lived = self.make_share()
        fixture.delete_share(self.short_lived)

    def test_a_day_later(self):
        older = self.backup()
        self.day()
        expected = self.fixture.state()
        self.restore(older)
        self.check_refused("older copy")
        dry = self.restored(apply=False)
        report = self.restored()
        self.assertEqual(dry | {"applied": True}, report)
        self.assertEqual({"gold": "older"}, report["pools"])
        for name, ids in (
            ("added_shares", [self.created]),
            ("added_snapshots", [self.new_snapshot]),
            ("removed_shares", [self.deleted]),
            ("removed_snapshots", sorted([self.gone, self.gone_too])),
            ("updated_shares", sorted([self.renamed, self.grown])),
        ):
            self.assertEqual(
                [f"gold/{id_}" for id_ in ids], sorted(report[name]), name
            )
        self.assertEqual(expected, self.fixture.state())
        self.check_ours()

    def test_changes_that_the_copy_shows_at_work(self):
        """They came to their end; nothing of them is done again."""
        fixture, copies = self.fixture, []

        def copy(name):
            fixture.steps.hooks[name] = lambda: copies.append(self.backup())

        for step, change in (
            ("create share:before", lambda: self.make_share()),
            (
                "grow file:before",
                lambda: fixture.patch_share(
                    self.grown, size_bytes=9 * fixtures.MIB
                ),
            ),
            ("delete share:before", lambda: self.make_and_delete()),
            (
                "export:before",
                lambda: fixture.put_access(self.grown, "y", ("192.0.2.80",)),
            ),
            ("create snapshot:before", lambda: self.make_snapshot(self.same)),
        ):
            with self.subTest(step):
                copies.clear()
                copy(step)
                change()
                fixture.steps.hooks.clear()
                fixture.service.stop()
                expected = fixture.state()
                self.restore(copies[0])
                report = self.restored()
                self.assertEqual(1, len(report["closed_jobs"]))
                self.assertEqual(expected, fixture.state())
                self.check_ours()

    def make_and_delete(self):
        self.fixture.delete_share(self.make_share())

    def test_exports_files_that_are_lost_too(self):
        """Nobody gets access by what a copy says."""
        older = self.backup()
        self.day()
        for id_ in list(self.fixture.exporter.exported()):
            self.fixture.exporter.withdraw(id_)
        self.restore(older)
        self.restored()
        self.assertEqual({}, self.fixture.exporter.exported())

    def test_the_database_of_another_pool_is_left_alone(self):
        self.fixture.service.stop()
        self.fixture.engine.metadata.write_identity(
            {"id": fixtures.new_id(), "sequence": 0}
        )
        before = self.fixture.state()
        self.fixture.restart(start=False)
        report = self.fixture.service.reconciliation.restore(
            apply=True, adopt_into=None
        )
        self.assertIn("another pool", report["skipped_pools"]["gold"])
        self.assertEqual(before["shares"], self.fixture.state()["shares"])
        self.check_refused("knows another pool")


class TestOlderCopyOfTwoPools(RestorationCase):
    """Each id has one place."""

    settings = {"pools": ("gold", "silver")}

    def setUp(self):
        super().setUp()
        self.there = self.make_share(pool="gold")
        self.back = self.make_share(pool="silver")
        for id_ in (self.there, self.back):
            self.make_snapshot(id_)
            self.fixture.put_access(id_, "before", ("192.0.2.60",))

    def swap(self):
        """Delete both, and make them again, each in the other pool."""
        for id_, pool in ((self.there, "silver"), (self.back, "gold")):
            self.fixture.delete_access(id_, "before")
            self.fixture.delete_share(id_, "cascade")
            self.fixture.put_share(id_, pool=pool)
            self.fixture.put_access(id_, "after", ("192.0.2.61",))

    def test_shares_that_are_in_the_other_pool_now(self):
        older = self.backup()
        self.swap()
        expected = self.fixture.state()
        self.restore(older)
        dry = self.restored(apply=False)
        report = self.restored()
        self.assertEqual(dry | {"applied": True}, report)
        self.assertEqual(
            [f"gold/{self.back}", f"silver/{self.there}"],
            sorted(report["added_shares"]),
        )
        self.assertEqual(
            [f"gold/{self.there}", f"silver/{self.back}"],
            sorted(report["removed_shares"]),
        )
        self.assertEqual(expected, self.fixture.state())

    def test_a_pool_that_cannot_be_read(self):
        """What happened in it since would not be known any more."""
        older = self.backup()
        self.swap()
        expected = self.fixture.state()
        self.restore(older)
        with mock.patch.object(
            self.fixture.engines["gold"],
            "check",
            autospec=True,
            return_value=["is not mounted"],
        ):
            report = self.restored(apply=False)
            self.check_problem(
                "engine.unavailable", lambda: self.restored(apply=True)
            )
        self.assertEqual({"gold": "is not mounted"}, report["skipped_pools"])
        self.assertEqual(
            {f"silver/{self.there}": "pool gold has a share of this id"},
            report["duplicates"],
        )
        self.restored()
        self.assertEqual(expected, self.fixture.state())

    def test_only_jobs_of_older_pools_are_closed(self):
        """Gold was away since the copy was made: its job is still open."""

        def die():
            raise fixtures.Crash

        def crash_in_both_pools():
            for id_ in (self.there, self.back):
                with self.assertRaises(fixtures.Crash):
                    self.fixture.patch_share(id_, size_bytes=9 * fixtures.MIB)

        self.fixture.steps.hooks["grow file:before"] = die
        crash_in_both_pools()
        older = self.backup()
        gold = self.fixture.engines["gold"].metadata
        identity_then = gold.read_identity()
        jobs = {
            row["object_id"]: row["job_id"]
            for row in older[models.Base.metadata.tables["job_claims"]]
        }
        self.fixture.steps.hooks.clear()
        self.make_share(pool="silver")
        self.restore(older)
        gold.write_identity(identity_then)
        report = self.restored()
        self.assertEqual({"gold": "ours", "silver": "older"}, report["pools"])
        self.assertEqual([jobs[self.back]], report["closed_jobs"])
        self.assertEqual(
            9 * fixtures.MIB, self.share(self.there)["size_bytes"]
        )
        self.check_ours()
