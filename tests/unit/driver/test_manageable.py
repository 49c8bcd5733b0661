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

"""Lists of what could be managed, and snapshots, by Cinder's manager."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import json
from typing import Any
import uuid

from cinder import exception
from cinder import objects
from cinder.db import api as db
import ddt
import sqlalchemy as sa

from acme_appliance.db import models
import acme_client
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb
from tests.unit.driver import managing

INVALID = exception.ManageExistingInvalidReference
MANAGED = exception.ManageExistingAlreadyManaged
SHARES = "GET /v1/shares"
SNAPSHOTS = "GET /v1/snapshots"


class ListCase(managing.ManageCase):
    def listed(self, kind="volumes", **given: Any) -> list[dict[str, Any]]:
        page = {
            "marker": None,
            "limit": 1000,
            "offset": None,
            "sort_keys": ["reference"],
            "sort_dirs": ["asc"],
        }
        call = getattr(self.manager, f"get_manageable_{kind}")
        # As cinder-api asks: it gets objects, whose fields have their types.
        found = call(self.context, **{**page, **given}, want_objects=True)
        return [
            {name: each[name] for name in each.fields if name in each}
            for each in found
        ]

    def entry(self, thing: Any, kind="volumes") -> dict[str, Any]:
        (found,) = [
            each
            for each in self.listed(kind)
            if each["reference"] == {"source-id": thing.id}
        ]
        return found

    def taken(self, share: acme_client.Share, **given) -> acme_client.Snapshot:
        """A snapshot of which Cinder knows nothing."""
        return self.operator.create_snapshot(
            str(uuid.uuid4()), share.id, **{"name": "nightly", **given}
        )


class VolumesTest(ListCase):
    def test_one_that_is_free(self):
        share = self.legacy(2 * base.GIB + 1)
        self.assertEqual(
            {
                "reference": {"source-id": share.id},
                "size": 3,
                "safe_to_manage": True,
                "reason_not_safe": None,
                "cinder_id": None,
                "extra_info": {"name": "legacy-db", "pool": "gold"},
            },
            self.entry(share),
        )

    def refused(self, share, reason, cinder_id=None):
        found = self.entry(share)
        self.assertIs(False, found["safe_to_manage"])
        self.assertRegex(found["reason_not_safe"], reason)
        self.assertEqual(cinder_id, found["cinder_id"])

    def test_managed(self):
        made = self.create()
        self.refused(self.share(made), made.id, made.id)
        share = self.legacy()
        volume = self.manage_share(share)
        self.refused(share, "in this Cinder already", volume.id)
        self.unmanage(volume)
        self.assertIs(True, self.entry(share)["safe_to_manage"])

    def test_of_another_back_end_of_this_cinder(self):
        share = self.legacy()
        volume = self.manage_share(share)
        volume.host = "ctl-1@other#gold"
        volume.save()
        self.refused(share, "in this Cinder already", volume.id)

    def test_of_another_cinder(self):
        other = str(uuid.uuid4())
        share = self.legacy(labels={"cinder.volume_id": other})
        self.refused(share, f"{other} in another Cinder: unmanage it there")

    def test_being_managed(self):
        volume = self.new_row()
        share = self.legacy(labels={"cinder.volume_id": volume.id})
        self.refused(share, "being managed", volume.id)
        volume.status = "error_managing"
        volume.save()
        self.assertIs(True, self.entry(share)["safe_to_manage"])

    def test_in_use(self):
        share = self.legacy()
        self.operator.grant_access(share.id, "esx-1", ["192.0.2.7"], "ro")
        self.refused(share, "esx-1 may mount it: unmount")

    def test_what_is_listed_as_safe_can_be_managed(self):
        """But for what is in the file, which is looked at only then."""
        self.legacy()
        self.legacy(labels={"cinder.volume_id": str(uuid.uuid4())})
        self.create()
        for each in self.listed():
            if each["safe_to_manage"]:
                self.manage(each["reference"])
            else:
                with self.assertRaises(MANAGED):
                    self.manage(each["reference"])

    def test_pools_of_the_back_end(self):
        gold, silver = self.legacy(), self.legacy(pool="silver")
        self.assertEqual(2, len(self.listed()))
        self.restart(acme_pools=["silver"])
        self.assertEqual(
            [{"source-id": silver.id}],
            [each["reference"] for each in self.listed()],
        )
        self.assertNotEqual(gold.id, silver.id)

    def test_pages_and_order(self):
        sizes = {self.legacy(size * base.GIB).id: size for size in (3, 1, 2)}
        ids = sorted(sizes)

        def found(**given):
            return [
                each["reference"]["source-id"] for each in self.listed(**given)
            ]

        self.assertEqual(ids, found())
        self.assertEqual(ids[::-1], found(sort_dirs=["desc"]))
        self.assertEqual(
            sorted(ids, key=sizes.__getitem__), found(sort_keys=["size"])
        )
        self.assertEqual(ids[:2], found(limit=2))
        marker = {"source-id": ids[0]}
        self.assertEqual(ids[1:], found(marker=marker))
        self.assertEqual(ids[1:2], found(marker=json.dumps(marker), limit=1))
        self.assertEqual(ids[2:], found(marker=marker, offset=1))
        self.assertEqual(ids, found(limit=None))
        with self.assertRaises(exception.InvalidInput):
            found(marker={"source-id": str(uuid.uuid4())})

    def test_no_answer(self):
        """Not an empty list."""
        self.driver = self.new_driver(
            [transports.Answer(403, b"{}")],
            matches=lambda request: (
                request.method == "GET" and "/v1/shares" in request.url
            ),
        )
        self.manager = managing.Manager(self.driver)
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.listed()


class ManyTest(ListCase):
    """A request for each thousand, and no more queries than a few."""

    def multiply(self, model: Any, known_id: str, total: int) -> None:
        """Copies of a row of the appliance's database."""
        table = model.__table__
        with self.appliance.database.write() as session:
            found = session.execute(
                sa.select(table).where(table.c.id == known_id)
            )
            row = found.mappings().one()
            session.execute(
                sa.insert(table),
                [{**row, "id": str(uuid.uuid4())} for _ in range(total - 1)],
            )

    @contextlib.contextmanager
    def queries(self) -> Iterator[list[str]]:
        """What Cinder's database is asked meanwhile."""
        asked: list[str] = []

        def note(connection, cursor, statement, *rest) -> None:
            if statement.startswith("SELECT"):
                asked.append(statement)

        engine = db.get_engine()
        sa.event.listen(engine, "before_cursor_execute", note)
        try:
            yield asked
        finally:
            sa.event.remove(engine, "before_cursor_execute", note)

    def test_volumes(self):
        self.multiply(models.Share, self.legacy().id, 3000)
        self.log.clear()
        with self.queries() as asked:
            found = self.listed(limit=10, offset=2990)
        self.assertEqual(10, len(found))
        self.assertTrue(all(each["safe_to_manage"] for each in found))
        self.assertEqual({SHARES: 3}, dict(self.log.counts))
        self.assertLessEqual(len(asked), 10)

    def test_snapshots(self):
        volume = self.manage_share(self.legacy())
        snapshot = self.taken(self.operator.get_share(volume.provider_id))
        self.multiply(models.Snapshot, snapshot.id, 3000)
        self.log.clear()
        with self.queries() as asked:
            found = self.listed("snapshots", limit=10, offset=2990)
        self.assertEqual(10, len(found))
        self.assertTrue(all(each["safe_to_manage"] for each in found))
        self.assertEqual({SNAPSHOTS: 3}, dict(self.log.counts))
        self.assertLessEqual(len(asked), 10)


@ddt.ddt
class SnapshotsTest(ListCase):
    def setUp(self):
        super().setUp()
        self.old = self.legacy(base.GIB + managing.MIB)
        self.before = self.taken(self.old)
        self.volume = self.manage_share(self.old)
        self.after = self.taken(self.old, labels={"by": "cron"})

    def row(self, volume=None) -> objects.Snapshot:
        return cinderdb.snapshot(volume or self.volume)

    def adopt(self, taken, **reference: Any) -> objects.Snapshot:
        row = self.row()
        self.manager.manage_existing_snapshot(
            self.context, row, reference or {"source-id": taken.id}
        )
        return objects.Snapshot.get_by_id(self.context, row.id)

    def refused(self, taken, error, text, volume=None, **reference):
        row = self.row(volume)
        with self.assertRaisesRegex(error, text):
            self.manager.manage_existing_snapshot(
                self.context, row, reference or {"source-id": taken.id}
            )
        after = objects.Snapshot.get_by_id(self.context, row.id)
        self.assertEqual("error", after.status)

    def labels(self, taken) -> dict[str, str]:
        return dict(self.operator.get_snapshot(taken.id).labels)

    def test_manage(self):
        snapshot = self.adopt(self.after)
        self.assertEqual(
            ("available", 2, self.after.id),
            (snapshot.status, snapshot.volume_size, snapshot.provider_id),
        )
        labels = self.labels(self.after)
        self.assertEqual("cron", labels["by"])
        self.assertEqual(snapshot.id, labels["cinder.snapshot_id"])

    def test_requests(self):
        row, reference = self.row(), {"source-id": self.after.id}
        self.log.clear()
        self.assertEqual(
            2, self.driver.manage_existing_snapshot_get_size(row, reference)
        )
        get = "GET /v1/snapshots/{id}"
        patch = "PATCH /v1/snapshots/{id}"
        self.assertEqual({get: 1}, dict(self.log.counts))
        self.log.clear()
        row.update(self.driver.manage_existing_snapshot(row, reference))
        self.assertEqual({get: 1, patch: 1}, dict(self.log.counts))
        self.log.clear()
        self.driver.unmanage_snapshot(row)
        self.assertEqual({patch: 1}, dict(self.log.counts))

    def test_by_name(self):
        self.refused(None, INVALID, "several", **{"source-name": "nightly"})
        self.refused(None, INVALID, "none", **{"source-name": "weekly"})
        self.operator.update_snapshot(self.after.id, name="weekly")
        snapshot = self.adopt(None, **{"source-name": "weekly"})
        self.assertEqual(self.after.id, snapshot.provider_id)

    def test_a_volume_of_one_from_before_the_file_was_renamed(self):
        self.assert_volume_from(self.before)

    def test_a_volume_of_a_later_one(self):
        self.assert_volume_from(self.after)

    def assert_volume_from(self, taken):
        snapshot = self.adopt(taken)
        volume = cinderdb.volume(size=2, snapshot_id=snapshot.id)
        update = self.driver.create_volume_from_snapshot(volume, snapshot)
        cinderdb.save(volume, update)
        self.assert_content(volume)
        self.assert_file(volume, 2)

    def test_delete(self):
        snapshot = self.adopt(self.after)
        self.manager.delete_snapshot(self.context, snapshot)
        with self.assertRaises(acme_client.NotFound):
            self.operator.get_snapshot(self.after.id)
        self.operator.get_snapshot(self.before.id)

    def test_unmanage(self):
        snapshot = self.adopt(self.after)
        self.manager.delete_snapshot(
            self.context, snapshot, unmanage_only=True
        )
        self.assertEqual({"by": "cron"}, self.labels(self.after))
        again = self.adopt(self.after)
        self.assertEqual(self.after.id, again.provider_id)

    def test_unmanage_what_the_driver_has_made(self):
        snapshot = self.snapshot(self.volume)
        made = self.operator.get_snapshot(snapshot.id)
        self.manager.delete_snapshot(
            self.context, snapshot, unmanage_only=True
        )
        self.assertEqual({}, self.labels(made))

    def test_unmanage_what_is_gone(self):
        snapshot = self.adopt(self.after)
        self.operator.delete_snapshot(self.after.id)
        with self.assertLogs("acme_cinder.managesnapshots", "WARNING"):
            self.manager.delete_snapshot(
                self.context, snapshot, unmanage_only=True
            )

    def test_of_another_share(self):
        other = self.manage_share(self.legacy())
        self.refused(self.after, INVALID, f"share {self.old.id}", volume=other)

    def test_managed_already(self):
        snapshot = self.adopt(self.after)
        self.refused(self.after, MANAGED, f"{snapshot.id} in this Cinder")

    def test_of_another_cinder(self):
        other = str(uuid.uuid4())
        taken = self.taken(self.old, labels={"cinder.snapshot_id": other})
        self.refused(taken, MANAGED, f"{other} in another Cinder")

    def test_a_reference_to_nothing(self):
        self.refused(None, INVALID, "give a source-id", **{"id": "x"})
        self.refused(
            None, INVALID, "no such", **{"source-id": str(uuid.uuid4())}
        )

    def test_the_service_dies(self):
        """After the label, and before Cinder's database has the id."""
        row = self.row()
        self.driver.manage_existing_snapshot(row, {"source-id": self.after.id})
        self.restart()
        self.refused(self.after, MANAGED, f"being managed as {row.id}")
        row.status = "error"
        row.save()
        self.manager.delete_snapshot(self.context, row)
        self.assertEqual(self.after.id, self.adopt(self.after).provider_id)

    @ddt.data(
        [transports.ReplyLost()],
        [transports.SlowReply(), transports.ReplyLost()],
    )
    def test_a_reply_is_lost(self, faults):
        self.driver = self.new_driver(
            faults, matches=lambda request: request.method == "PATCH"
        )
        self.manager = managing.Manager(self.driver)
        self.assertEqual(self.after.id, self.adopt(self.after).provider_id)
        self.assertEqual(0, self.adapter.pending)

    def test_list(self):
        managed = self.adopt(self.before)
        foreign = self.taken(self.legacy())
        self.assertEqual(
            {
                "reference": {"source-id": self.after.id},
                "source_reference": {"source-id": self.old.id},
                "size": 2,
                "safe_to_manage": True,
                "reason_not_safe": None,
                "cinder_id": None,
                "extra_info": {"name": "nightly", "pool": "gold"},
            },
            self.entry(self.after, "snapshots"),
        )
        found = self.entry(self.before, "snapshots")
        self.assertEqual(managed.id, found["cinder_id"])
        self.assertIn("already", found["reason_not_safe"])
        found = self.entry(foreign, "snapshots")
        self.assertIsNone(found["cinder_id"])
        self.assertIn("manage its share first", found["reason_not_safe"])


class SnapshotsWithoutVolumeFileTest(base.WithoutVolumeFile, SnapshotsTest):
    """The clone's file has the name that it had when the picture was taken."""
