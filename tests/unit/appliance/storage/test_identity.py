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

"""A database that is not the pool's is refused, and nothing is touched."""

import time
import unittest

from acme_appliance import problems
from acme_appliance import references
from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.engines.memory.engine import MemoryEngine
from acme_appliance.storage import identity
from tests.unit.appliance import case
from tests.unit.appliance import fixtures


def snapshot_of(database):
    """All rows, as a backup has them."""
    with database.read() as session:
        return {
            table: [
                dict(row._mapping) for row in session.execute(table.select())
            ]
            for table in models.Base.metadata.sorted_tables
        }


def restore(database, rows):
    with database.write() as session:
        for table in reversed(models.Base.metadata.sorted_tables):
            session.execute(table.delete())
        for table, values in rows.items():
            if values:
                session.execute(table.insert(), values)


class IdentityCase(case.ServiceCase):
    def backup(self):
        return snapshot_of(self.fixture.database)

    def restore(self, rows):
        self.fixture.service.stop()
        restore(self.fixture.database, rows)

    def lose_database(self):
        self.restore({})

    def untouched(self):
        fixture = self.fixture
        return (
            fixture.exporter.exported(),
            {kind: fixture.engine.ids(kind) for kind in engines.Kind},
            {kind: fixture.engine.metadata.ids(kind) for kind in engines.Kind},
            fixture.engine.metadata.read_identity(),
        )

    def check_refused(self, text):
        before = self.untouched()
        for _ in range(2):
            with self.assertRaises(problems.Problem) as caught:
                self.fixture.restart()
            self.assertRegex(caught.exception.detail, text)
            self.check_problem(
                "system.starting", lambda: self.fixture.put_share()
            )
            with self.assertRaisesRegex(identity.Mismatch, text):
                self.fixture.service.context.pools.check_identities()
        self.check_problem(
            "engine.unavailable",
            lambda: self.fixture.service.reconciliation.run(True),
        )
        report = self.fixture.service.reconciliation.run(False)
        self.assertRegex(report["unusable_pools"]["gold"], text)
        # What acme-appliance status shows as "NOT READY".
        self.assertRegex(
            "\n".join(self.fixture.service.system.obstacles()), text
        )
        self.assertEqual(before, self.untouched())

    def relation(self):
        return self.fixture.service.context.pools.identities.relation("gold")


class TestRefusals(IdentityCase):
    def setUp(self):
        super().setUp()
        self.share_id = self.make_share()
        self.fixture.put_access(self.share_id)

    def test_an_empty_database(self):
        self.lose_database()
        self.check_refused("holds 1 shares .* acme-appliance recover")
        self.assertEqual(identity.Relation.LOST, self.relation())

    def test_an_empty_database_and_a_pool_of_the_first_release(self):
        self.fixture.engine.metadata = MemoryEngine().metadata
        self.lose_database()
        self.check_refused("holds 1 shares .* acme-appliance recover")

    def test_an_older_copy(self):
        """Whatever happened since: no change is without an event."""

        def create():
            self.make_share()

        def rename():
            self.fixture.patch_share(self.share_id, name="other")

        def grant():
            self.fixture.put_access(self.share_id, "cmp-2", ("192.0.2.52",))

        def revoke():
            self.fixture.delete_access(self.share_id)

        def delete():
            self.fixture.delete_share(other)

        other = self.make_share()
        for change in (create, rename, grant, revoke, delete):
            with self.subTest(change.__name__):
                older = self.backup()
                change()
                self.fixture.service.stop()
                newer = self.backup()
                self.restore(older)
                self.check_refused("older copy: .* acme-appliance recover")
                self.assertEqual(identity.Relation.OLDER, self.relation())
                self.restore(newer)
                if change is revoke:
                    self.fixture.exporter.withdraw(
                        references.share(self.share_id)
                    )
                self.fixture.restart()

    def test_the_newest_event_is_in_the_pool_soon(self):
        """Also where the process is killed."""
        self.fixture.patch_share(self.share_id, name="other")
        with self.fixture.database.read() as session:
            newest = identity.newest_event(session)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = self.fixture.engine.metadata.read_identity()
            if found["sequence"] == newest:
                return
            time.sleep(0.01)
        self.fail(f"after 60 s the pool says {found}, not {newest}")

    def test_the_database_of_another_pool(self):
        self.fixture.service.stop()
        self.fixture.engine.metadata.write_identity(
            {"id": fixtures.new_id(), "sequence": 0}
        )
        self.check_refused("knows another pool .* right disk")
        self.assertEqual(identity.Relation.OTHER, self.relation())

    def test_an_empty_disk_in_the_place_of_the_pool(self):
        self.fixture.service.stop()
        self.fixture.engines["gold"] = self.fixture.engine = MemoryEngine()
        self.check_refused("knows another pool .* right disk")

    def test_another_pool_that_comes_later(self):
        """A pool whose disk is missing keeps nobody from starting."""
        self.fixture.engine.reasons = ["not mounted"]
        self.fixture.restart()
        self.fixture.engine.reasons = []
        self.fixture.engine.metadata.write_identity(
            {"id": fixtures.new_id(), "sequence": 0}
        )
        self.check_problem("engine.unavailable", self.fixture.put_share)

    def test_another_pool_in_the_place_of_one_that_went(self):
        self.make_share()
        self.fixture.engine.reasons = ["not mounted"]
        self.check_problem("engine.unavailable", self.fixture.put_share)
        self.fixture.engine.reasons = []
        known = self.fixture.engine.metadata.read_identity()
        self.fixture.engine.metadata.write_identity(
            {"id": fixtures.new_id(), "sequence": 0}
        )
        self.check_problem("engine.unavailable", self.fixture.put_share)
        self.fixture.engine.metadata.write_identity(known)
        self.make_share()


class TestAdoption(IdentityCase):
    def test_a_new_pool(self):
        found = self.fixture.engine.metadata.read_identity()
        self.assertEqual(fixtures.SYSTEM_ID, found["system_id"])
        self.assertEqual("gold", found["name"])
        with self.fixture.database.read() as session:
            known = session.get_one(models.Pool, "gold").id
        self.assertEqual(known, found["id"])
        self.fixture.restart()
        self.assertEqual(identity.Relation.OURS, self.relation())

    def test_a_pool_of_the_first_release(self):
        """The database knows its shares; each gets its metadata."""
        id_ = self.make_share()
        kept = self.make_snapshot(id_)
        expected = self.fixture.state()
        self.fixture.service.stop()
        self.fixture.engine.metadata = MemoryEngine().metadata
        with self.fixture.database.write() as session:
            session.delete(session.get_one(models.Pool, "gold"))
        report = self.fixture.restart()
        self.assertEqual([f"gold/{id_}", f"gold/{kept}"], report.old_metadata)
        self.assertEqual(expected, self.fixture.state())
        self.assertEqual([], self.fixture.restart().old_metadata)
        self.fixture.engine.lose_unsynced()
        self.assertEqual(expected, self.fixture.state())

    def test_cut_off_before_the_database_knows(self):
        for make in (lambda: None, self.make_share):
            make()
            self.fixture.service.stop()
            with self.fixture.database.write() as session:
                session.delete(session.get_one(models.Pool, "gold"))
            self.fixture.restart()
            self.assertEqual(identity.Relation.OURS, self.relation())

    def test_an_empty_pool_and_an_empty_database(self):
        """Whatever id the pool has: there is nothing to lose."""
        self.fixture.delete_share(self.make_share())
        self.lose_database()
        for _ in range(2):
            self.fixture.restart()
            self.assertEqual(identity.Relation.OURS, self.relation())

    def test_looking_adopts_nothing(self):
        fixture = fixtures.ServiceFixture(self, start=False)
        report = fixture.service.reconciliation.run(False)
        self.assertEqual({}, report["unusable_pools"])
        self.assertIsNone(fixture.engine.metadata.read_identity())

    def test_a_pool_that_is_lost_at_the_end_has_no_identity(self):
        self.fixture.service.stop()
        self.fixture.engines["gold"] = MemoryEngine(durable=False)
        self.fixture.restart()
        self.make_share()
        self.assertIsNone(
            self.fixture.engines["gold"].metadata.read_identity()
        )


class TestMetadataRepair(IdentityCase):
    def metadata(self, reference):
        return self.fixture.engine.metadata.read(reference)

    def test_each_change_writes_it(self):
        id_ = self.make_share(labels={"a": "b"}, size_bytes=fixtures.MIB)
        kept = self.make_snapshot(id_, labels={"c": "d"})
        for change, name in (
            (lambda: None, "volume"),
            (lambda: self.fixture.patch_share(id_, name="x"), "x"),
            (
                lambda: self.fixture.patch_share(
                    id_, name="y", size_bytes=2 * fixtures.MIB
                ),
                "y",
            ),
        ):
            change()
            found = self.metadata(fixtures.share(id_))
            body = self.share(id_)
            for key in ("id", "namespace", "size_bytes", "file", "labels"):
                self.assertEqual(body[key], found[key])
            self.assertEqual(name, found["name"])
        found = self.metadata(fixtures.snapshot(kept))
        self.assertEqual(
            (id_, {"c": "d"}), (found["share_id"], found["labels"])
        )
        self.fixture.service.snapshots.patch(
            fixtures.CALLER, kept, {"labels": {"c": None}}, wait_seconds=9
        )
        self.assertEqual({}, self.metadata(fixtures.snapshot(kept))["labels"])
        self.fixture.delete_share(id_, "cascade")
        self.assertIsNone(self.metadata(fixtures.share(id_)))
        self.assertIsNone(self.metadata(fixtures.snapshot(kept)))

    def test_old_and_missing_metadata_is_written_at_start(self):
        old, missing, good = (self.make_share() for _ in range(3))
        store = self.fixture.engine.metadata
        expected = self.fixture.state()["metadata"]
        metadata = store.read(fixtures.share(old))
        store.write(fixtures.share(old), {**metadata, "name": "older"})
        store.delete(fixtures.share(missing))
        wanted = sorted([f"gold/{old}", f"gold/{missing}"])
        found = self.fixture.service.reconciliation.run(False)["old_metadata"]
        self.assertEqual(wanted, sorted(found))
        self.assertEqual(wanted, sorted(self.fixture.restart().old_metadata))
        self.assertEqual(expected, self.fixture.state()["metadata"])
        self.fixture.put_access(good)
        self.assertEqual([], self.fixture.restart().old_metadata)

    def test_a_rename_while_the_pool_cannot_be_written(self):
        """The change is made; the next start writes the metadata."""
        id_ = self.make_share()
        self.fixture.engine.reasons = ["not mounted"]
        self.fixture.patch_share(id_, name="new")
        self.fixture.engine.reasons = []
        self.assertEqual("volume", self.metadata(fixtures.share(id_))["name"])
        self.fixture.restart()
        self.assertEqual("new", self.metadata(fixtures.share(id_))["name"])

    def test_the_newest_event_is_never_forgotten(self):
        """Or the database would look older than it is."""
        self.make_share()
        self.fixture.clock.advance(days=1_000)
        self.fixture.restart()
        self.fixture.restart()
        self.assertEqual(1, len(self.fixture.events()))


class TestRelations(unittest.TestCase):
    """The whole table of decisions."""

    def relation(self, known_id, identity_, held="", rows="", sequence=5):
        if identity_ is not None:
            identity_ = dict(zip(("id", "sequence"), identity_, strict=True))
        view = identity._View(
            known_id, identity_, sequence, frozenset(held), frozenset(rows)
        )
        return view.relation().value

    def test_all(self):
        for expected, known, there, held, rows in (
            ("new", None, None, "", ""),
            ("new", None, None, "", "ab"),
            ("new", None, None, "abc", "ab"),
            ("lost", None, None, "abc", ""),
            ("lost", None, None, "c", "ab"),
            ("other", "x", None, "", ""),
            ("other", "x", None, "a", "a"),
            ("other", "x", ("y", 5), "a", "a"),
            ("ours", "x", ("x", 5), "a", "a"),
            ("ours", "x", ("x", 0), "", ""),
            ("older", "x", ("x", 6), "", "a"),
            ("lost", "x", ("x", 6), "a", ""),
            ("new", None, ("x", 0), "", ""),
            ("new", None, ("x", 0), "a", "ab"),
            ("older", None, ("x", 6), "a", "ab"),
            ("lost", None, ("x", 6), "a", ""),
            ("new", None, ("x", 6), "", ""),
            ("lost", None, ("x", 5), "a", ""),
        ):
            with self.subTest(f"{known} {there} {held} {rows}"):
                self.assertEqual(
                    expected, self.relation(known, there, held, rows)
                )
