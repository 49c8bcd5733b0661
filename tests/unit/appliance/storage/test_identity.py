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
from tests.unit.appliance import world as worlds


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
        return snapshot_of(self.world.database)

    def restore(self, rows):
        self.world.service.stop()
        restore(self.world.database, rows)

    def lose_database(self):
        self.restore({})

    def untouched(self):
        world = self.world
        return (
            world.exporter.exported(),
            {kind: world.engine.ids(kind) for kind in engines.Kind},
            {kind: world.engine.metadata.ids(kind) for kind in engines.Kind},
            world.engine.metadata.read_identity(),
        )

    def check_refused(self, text):
        before = self.untouched()
        for _ in range(2):
            with self.assertRaises(problems.Problem) as caught:
                self.world.restart()
            self.assertRegex(caught.exception.detail, text)
            self.check_problem(
                "system.starting", lambda: self.world.put_share()
            )
            with self.assertRaisesRegex(identity.Mismatch, text):
                self.world.service.context.pools.check_identities()
        self.check_problem(
            "engine.unavailable",
            lambda: self.world.service.reconciliation.run(True),
        )
        report = self.world.service.reconciliation.run(False)
        self.assertRegex(report["unusable_pools"]["gold"], text)
        # What acme-appliance status shows as "NOT READY".
        self.assertRegex(
            "\n".join(self.world.service.system.obstacles()), text
        )
        self.assertEqual(before, self.untouched())

    def relation(self):
        return self.world.service.context.pools.identities.relation("gold")


class TestRefusals(IdentityCase):
    def setUp(self):
        super().setUp()
        self.share_id = self.make_share()
        self.world.put_access(self.share_id)

    def test_an_empty_database(self):
        self.lose_database()
        self.check_refused("holds 1 shares .* acme-appliance recover")
        self.assertEqual(identity.Relation.LOST, self.relation())

    def test_an_empty_database_and_a_pool_of_the_first_release(self):
        self.world.engine.metadata = MemoryEngine().metadata
        self.lose_database()
        self.check_refused("holds 1 shares .* acme-appliance recover")

    def test_an_older_copy(self):
        """Whatever happened since: no change is without an event."""

        def create():
            self.make_share()

        def rename():
            self.world.patch_share(self.share_id, name="other")

        def grant():
            self.world.put_access(self.share_id, "cmp-2", ("192.0.2.52",))

        def revoke():
            self.world.delete_access(self.share_id)

        def delete():
            self.world.delete_share(other)

        other = self.make_share()
        for change in (create, rename, grant, revoke, delete):
            with self.subTest(change.__name__):
                older = self.backup()
                change()
                self.world.service.stop()
                newer = self.backup()
                self.restore(older)
                self.check_refused("older copy: .* acme-appliance recover")
                self.assertEqual(identity.Relation.OLDER, self.relation())
                self.restore(newer)
                if change is revoke:
                    self.world.exporter.withdraw(
                        references.share(self.share_id)
                    )
                self.world.restart()

    def test_the_newest_event_is_in_the_pool_soon(self):
        """Also where the process is killed."""
        self.world.patch_share(self.share_id, name="other")
        with self.world.database.read() as session:
            newest = identity.newest_event(session)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = self.world.engine.metadata.read_identity()
            if found["sequence"] == newest:
                return
            time.sleep(0.01)
        self.fail(f"after 60 s the pool says {found}, not {newest}")

    def test_the_database_of_another_pool(self):
        self.world.service.stop()
        self.world.engine.metadata.write_identity(
            {"id": worlds.new_id(), "sequence": 0}
        )
        self.check_refused("knows another pool .* right disk")
        self.assertEqual(identity.Relation.OTHER, self.relation())

    def test_an_empty_disk_in_the_place_of_the_pool(self):
        self.world.service.stop()
        self.world.engines["gold"] = self.world.engine = MemoryEngine()
        self.check_refused("knows another pool .* right disk")

    def test_another_pool_that_comes_later(self):
        """A pool whose disk is missing keeps nobody from starting."""
        self.world.engine.reasons = ["not mounted"]
        self.world.restart()
        self.world.engine.reasons = []
        self.world.engine.metadata.write_identity(
            {"id": worlds.new_id(), "sequence": 0}
        )
        self.check_problem("engine.unavailable", self.world.put_share)

    def test_another_pool_in_the_place_of_one_that_went(self):
        self.make_share()
        self.world.engine.reasons = ["not mounted"]
        self.check_problem("engine.unavailable", self.world.put_share)
        self.world.engine.reasons = []
        known = self.world.engine.metadata.read_identity()
        self.world.engine.metadata.write_identity(
            {"id": worlds.new_id(), "sequence": 0}
        )
        self.check_problem("engine.unavailable", self.world.put_share)
        self.world.engine.metadata.write_identity(known)
        self.make_share()


class TestAdoption(IdentityCase):
    def test_a_new_pool(self):
        found = self.world.engine.metadata.read_identity()
        self.assertEqual(worlds.SYSTEM_ID, found["system_id"])
        self.assertEqual("gold", found["name"])
        with self.world.database.read() as session:
            known = session.get_one(models.Pool, "gold").id
        self.assertEqual(known, found["id"])
        self.world.restart()
        self.assertEqual(identity.Relation.OURS, self.relation())

    def test_a_pool_of_the_first_release(self):
        """The database knows its shares; each gets its metadata."""
        id_ = self.make_share()
        kept = self.make_snapshot(id_)
        expected = self.world.state()
        self.world.service.stop()
        self.world.engine.metadata = MemoryEngine().metadata
        with self.world.database.write() as session:
            session.delete(session.get_one(models.Pool, "gold"))
        report = self.world.restart()
        self.assertEqual([f"gold/{id_}", f"gold/{kept}"], report.old_metadata)
        self.assertEqual(expected, self.world.state())
        self.assertEqual([], self.world.restart().old_metadata)
        self.world.engine.lose_unsynced()
        self.assertEqual(expected, self.world.state())

    def test_cut_off_before_the_database_knows(self):
        for make in (lambda: None, self.make_share):
            make()
            self.world.service.stop()
            with self.world.database.write() as session:
                session.delete(session.get_one(models.Pool, "gold"))
            self.world.restart()
            self.assertEqual(identity.Relation.OURS, self.relation())

    def test_an_empty_pool_and_an_empty_database(self):
        """Whatever id the pool has: there is nothing to lose."""
        self.world.delete_share(self.make_share())
        self.lose_database()
        for _ in range(2):
            self.world.restart()
            self.assertEqual(identity.Relation.OURS, self.relation())

    def test_looking_adopts_nothing(self):
        world = worlds.World(self, start=False)
        report = world.service.reconciliation.run(False)
        self.assertEqual({}, report["unusable_pools"])
        self.assertIsNone(world.engine.metadata.read_identity())

    def test_a_pool_that_is_lost_at_the_end_has_no_identity(self):
        self.world.service.stop()
        self.world.engines["gold"] = MemoryEngine(durable=False)
        self.world.restart()
        self.make_share()
        self.assertIsNone(self.world.engines["gold"].metadata.read_identity())


class TestMetadataRepair(IdentityCase):
    def metadata(self, reference):
        return self.world.engine.metadata.read(reference)

    def test_each_change_writes_it(self):
        id_ = self.make_share(labels={"a": "b"}, size_bytes=worlds.MIB)
        kept = self.make_snapshot(id_, labels={"c": "d"})
        for change, name in (
            (lambda: None, "volume"),
            (lambda: self.world.patch_share(id_, name="x"), "x"),
            (
                lambda: self.world.patch_share(
                    id_, name="y", size_bytes=2 * worlds.MIB
                ),
                "y",
            ),
        ):
            change()
            found = self.metadata(worlds.share(id_))
            body = self.share(id_)
            for key in ("id", "namespace", "size_bytes", "file", "labels"):
                self.assertEqual(body[key], found[key])
            self.assertEqual(name, found["name"])
        found = self.metadata(worlds.snapshot(kept))
        self.assertEqual(
            (id_, {"c": "d"}), (found["share_id"], found["labels"])
        )
        self.world.service.snapshots.patch(
            worlds.CALLER, kept, {"labels": {"c": None}}, wait_seconds=9
        )
        self.assertEqual({}, self.metadata(worlds.snapshot(kept))["labels"])
        self.world.delete_share(id_, "cascade")
        self.assertIsNone(self.metadata(worlds.share(id_)))
        self.assertIsNone(self.metadata(worlds.snapshot(kept)))

    def test_old_and_missing_metadata_is_written_at_start(self):
        old, missing, good = (self.make_share() for _ in range(3))
        store = self.world.engine.metadata
        expected = self.world.state()["metadata"]
        metadata = store.read(worlds.share(old))
        store.write(worlds.share(old), {**metadata, "name": "older"})
        store.delete(worlds.share(missing))
        wanted = sorted([f"gold/{old}", f"gold/{missing}"])
        found = self.world.service.reconciliation.run(False)["old_metadata"]
        self.assertEqual(wanted, sorted(found))
        self.assertEqual(wanted, sorted(self.world.restart().old_metadata))
        self.assertEqual(expected, self.world.state()["metadata"])
        self.world.put_access(good)
        self.assertEqual([], self.world.restart().old_metadata)

    def test_a_rename_while_the_pool_cannot_be_written(self):
        """The change is made; the next start writes the metadata."""
        id_ = self.make_share()
        self.world.engine.reasons = ["not mounted"]
        self.world.patch_share(id_, name="new")
        self.world.engine.reasons = []
        self.assertEqual("volume", self.metadata(worlds.share(id_))["name"])
        self.world.restart()
        self.assertEqual("new", self.metadata(worlds.share(id_))["name"])

    def test_the_newest_event_is_never_forgotten(self):
        """Or the database would look older than it is."""
        self.make_share()
        self.world.clock.advance(days=1_000)
        self.world.restart()
        self.world.restart()
        self.assertEqual(1, len(self.world.events()))


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
