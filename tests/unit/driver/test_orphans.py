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

"""What Cinder and the appliance disagree about, and what may be removed."""

import contextlib
import datetime
import os
import socket
import uuid

from cinder import objects
from cinder.db import api as db
import ddt

from acme_cinder import holders
from acme_cinder import recognition
from acme_cinder.checks import trial
from acme_cinder.orphans import orphan
from acme_cinder.orphans import search
import acme_client
from tests.unit.driver import base
from tests.unit.driver import cinderdb

HOUR = datetime.timedelta(hours=1)


class OrphansCase(base.DriverTestCase):
    def setUp(self):
        super().setUp()
        # The appliance is known by it.
        self.volume = self.create()
        self.api = self.driver._api
        #: How much later than now the search is.
        self.later = 2 * HOUR
        self.host.forget()

    def scene(self):
        def now():
            return datetime.datetime.now(datetime.UTC) + self.later

        return orphan.Scene(
            self.driver._settings,
            self.api,
            self.driver._mounts,
            {"host": "ctl-1@acme"},
            HOUR,
            now,
        )

    def find(self):
        known = recognition.Recognition(self.api, "ctl-1@acme", None)
        return list(search.find(self.scene(), known))

    def one(self, kind):
        [found] = self.find()
        self.assertEqual(kind, found.kind, found)
        return found

    def assert_proven(self, found):
        """And removed, after which there is nothing."""
        self.assertIsNotNone(found.remove, found)
        self.assertTrue(found.remove())
        self.assertEqual([], self.find())

    def assert_shown_only(self, found, *words):
        self.assertIsNone(found.remove, found)
        for word in words:
            self.assertIn(word, f"{found.why} {found.remedy}")

    def deleted_in_cinder(self):
        """A volume that was deleted there, without its share."""
        volume = self.create()
        volume.destroy()
        return volume

    def share_labelled(self, volume_id, **values):
        return self.api.create_share(
            str(uuid.uuid4()),
            name="a share",
            size_bytes=base.GIB,
            labels={"cinder.volume_id": volume_id},
            **values,
        )

    def grant(self, share_id, holder):
        self.api.grant_access(share_id, holder, ["127.0.0.1"], "rw")


@ddt.ddt
class ShareTest(OrphansCase):
    def test_none(self):
        snapshot = self.snapshot(self.volume)
        self.attach(self.volume, base.connector("cmp-1"))
        self.assertEqual([], self.find())
        snapshot.destroy()

    def test_of_a_deleted_volume(self):
        volume = self.deleted_in_cinder()
        found = self.one("share")
        self.assertEqual(volume.id, found.id)
        self.assert_proven(found)
        self.assertIsNone(self.find_share(volume.id))
        self.assertIsNotNone(self.find_share(self.volume.id))

    def test_young(self):
        self.deleted_in_cinder()
        self.later = 0 * HOUR
        self.assert_shown_only(self.one("share"), "short time ago")

    def test_changed_a_short_time_ago(self):
        volume = self.deleted_in_cinder()
        db.volume_update(
            orphan.everything(),
            volume.id,
            {"deleted_at": datetime.datetime(2020, 1, 1)},
        )
        self.later = 0 * HOUR
        self.assert_shown_only(self.one("share"), "changed a short time ago")

    def test_in_use(self):
        volume = self.deleted_in_cinder()
        self.grant(volume.id, "cinder:cmp-1")
        self.assert_shown_only(self.one("share"), "cinder:cmp-1")

    def test_of_another_cinder(self):
        self.share_labelled(str(uuid.uuid4()))
        self.assert_shown_only(self.one("share"), "not in this Cinder")

    def test_without_labels(self):
        self.api.create_share(
            str(uuid.uuid4()), name="by hand", size_bytes=base.GIB
        )
        self.assertEqual([], self.find())

    def test_unmanaged(self):
        self.driver.unmanage(self.volume)
        other = self.create()
        self.volume.destroy()
        self.assertEqual([], self.find())
        self.assertIsNotNone(self.find_share(other.id))

    def test_another_share_of_a_volume_that_is_there(self):
        self.share_labelled(self.volume.id)
        self.assert_shown_only(self.one("share"), "has another share")

    def test_another_share_of_a_deleted_volume(self):
        volume = self.create()
        self.driver.delete_volume(volume)
        volume.destroy()
        self.share_labelled(volume.id)
        self.assert_shown_only(self.one("share"), "had another share")

    @ddt.data("creating", "managing")
    def test_being_made(self, status):
        volume = cinderdb.volume(status=status)
        self.share_labelled(volume.id)
        self.assertEqual([], self.find())

    def test_of_a_migration(self):
        """Two shares, named by different columns of one row."""
        source, target = self.create(), self.create()
        source.update(
            {
                "_name_id": target.id,
                "provider_location": target.provider_location,
            }
        )
        source.save()
        target.destroy()
        self.assertEqual([], self.find())

    def test_another_namespace(self):
        volume = self.deleted_in_cinder()
        token = self.appliance.make_token("driver", "cinder-b")
        driver = self.driver
        self.driver = self.new_driver(acme_api_token=token)
        self.api = self.driver._api
        with self.assertRaisesRegex(search.Foreign, "namespace"):
            self.find()
        self.driver = driver
        self.assertIsNotNone(self.find_share(volume.id))

    def test_what_changes_before_the_removal_stays(self):
        volume = self.deleted_in_cinder()
        found = self.one("share")
        self.grant(volume.id, "cinder:cmp-1")
        self.assertFalse(found.remove())
        self.api.revoke_access(volume.id, "cinder:cmp-1")
        other = self.create(provider_id=volume.id)
        db.volume_update(self.context, other.id, {"provider_id": volume.id})
        self.assertFalse(found.remove())
        self.assertIsNotNone(self.find_share(volume.id))

    def test_gone_before_the_removal(self):
        volume = self.deleted_in_cinder()
        found = self.one("share")
        self.api.delete_share(volume.id)
        self.assertFalse(found.remove())

    def test_with_a_snapshot_that_cinder_has(self):
        volume = self.create()
        self.snapshot(volume)
        volume.destroy()
        [found] = [each for each in self.find() if each.kind == "share"]
        with self.assertRaises(acme_client.HasSnapshots):
            found.remove()
        self.assertIsNotNone(self.find_share(volume.id))


class SnapshotTest(OrphansCase):
    def setUp(self):
        super().setUp()
        self.taken = self.snapshot(self.volume)

    def exists(self):
        return self.api.find_snapshot(self.taken.id) is not None

    def test_of_a_deleted_one(self):
        self.taken.destroy()
        found = self.one("snapshot")
        self.assert_proven(found)
        self.assertFalse(self.exists())

    def test_young(self):
        self.taken.destroy()
        self.later = 0 * HOUR
        self.assert_shown_only(self.one("snapshot"), "short time ago")

    def test_of_another_cinder(self):
        self.api.create_snapshot(
            str(uuid.uuid4()),
            self.volume.id,
            labels={"cinder.snapshot_id": str(uuid.uuid4())},
        )
        self.assert_shown_only(self.one("snapshot"), "not in this Cinder")

    def test_without_labels(self):
        self.api.create_snapshot(str(uuid.uuid4()), self.volume.id)
        self.assertEqual([], self.find())

    def test_there_again_before_the_removal(self):
        self.taken.destroy()
        found = self.one("snapshot")
        cinderdb.snapshot(self.volume, provider_id=self.taken.id)
        self.assertFalse(found.remove())
        self.assertTrue(self.exists())


class LostTest(OrphansCase):
    def test_a_volume(self):
        lost = self.create()
        self.api.delete_share(lost.id)
        found = self.one("volume")
        self.assertEqual(lost.id, found.id)
        self.assert_shown_only(found, "is gone", "in Cinder")

    def test_a_volume_that_is_being_made_or_in_error(self):
        cinderdb.volume(status="creating")
        cinderdb.volume(status="error")
        self.assertEqual([], self.find())

    def test_a_volume_of_another_back_end(self):
        other = self.create(host="ctl-1@other#gold")
        self.api.delete_share(other.id)
        self.assertEqual([], self.find())

    def test_a_snapshot(self):
        taken = self.snapshot(self.volume)
        self.api.delete_snapshot(taken.id)
        self.assert_shown_only(self.one("volume snapshot"), "gone")

    def test_a_temporary_volume_of_a_backup(self):
        left = self.create(display_name="backup-vol")
        backup = objects.Backup(
            context=self.context,
            volume_id=self.volume.id,
            temp_volume_id=left.id,
            status="creating",
            user_id=cinderdb.USER,
            project_id=cinderdb.PROJECT,
        )
        backup.create()
        self.addCleanup(backup.destroy)
        self.assertEqual([], self.find())
        backup.status = "error"
        backup.save()
        found = self.one("volume")
        self.assertEqual(left.id, found.id)
        self.assert_shown_only(found, backup.id)


class RuleTest(OrphansCase):
    def holders(self):
        return set(self.share(self.volume).access)

    def test_without_an_attachment(self):
        self.attach(self.volume, base.connector("cmp-1"))
        self.grant(self.volume.id, "cinder:cmp-2")
        found = self.one("access rule")
        self.assertIn("cmp-2", found.id)
        self.assert_proven(found)
        self.assertEqual({"cinder:cmp-1"}, self.holders())

    def test_young(self):
        self.grant(self.volume.id, "cinder:cmp-2")
        self.later = 0 * HOUR
        self.assertEqual([], self.find())

    def test_of_somebody_else(self):
        self.grant(self.volume.id, "backup-appliance")
        self.assertEqual([], self.find())

    def test_while_an_attachment_may_be_on_its_way(self):
        self.volume.multiattach = True
        self.volume.save()
        cinderdb.attachment(self.volume, None)
        self.grant(self.volume.id, "cinder:cmp-2")
        self.assertEqual([], self.find())

    def test_attached_before_the_removal(self):
        self.grant(self.volume.id, "cinder:cmp-2")
        found = self.one("access rule")
        self.attach(self.volume, base.connector("cmp-2", "127.0.0.1"))
        self.assertFalse(found.remove())
        self.assertEqual({"cinder:cmp-2"}, self.holders())

    def test_of_a_service(self):
        self.grant(self.volume.id, "cinder-service:ctl-2")
        self.volume.status = "backing-up"
        self.volume.save()
        self.assertEqual([], self.find())
        self.volume.status = "available"
        self.volume.save()
        self.assert_proven(self.one("access rule"))

    def test_of_a_snapshot(self):
        taken = self.snapshot(self.volume)
        self.api.grant_snapshot_access(
            taken.id, "cinder-service:ctl-2", ["127.0.0.1"]
        )
        taken.status = "backing-up"
        taken.save()
        self.assertEqual([], self.find())
        taken.status = "available"
        taken.save()
        self.assert_proven(self.one("access rule"))


class LeftTest(OrphansCase):
    """What a crash leaves."""

    def crash_while_mounted(self):
        path = self.driver._mounts.path(self.volume.id)
        with self.driver._shares.mounted(self.volume):
            table = self.host.table()
        # As after the end of a process: everything but its lock.
        self.grant(self.volume.id, holders.of_mounts(socket.gethostname()))
        os.makedirs(path)
        self.host.mount(table[path], path)

    def test_a_mount_of_the_driver(self):
        self.crash_while_mounted()
        found = self.one("mount")
        self.assertEqual(self.volume.id, found.id)
        self.assert_proven(found)
        self.assert_unmounted()
        self.assertEqual({}, dict(self.share(self.volume).access))

    def test_a_mount_in_use(self):
        with self.driver._shares.mounted(self.volume):
            self.assertEqual([], self.find())

    def test_a_mount_of_an_attachment(self):
        export = self.volume.provider_location
        self.grant(self.volume.id, "cinder:cmp-9")
        path = self.driver._mounts.attached_path(export)
        os.mkdir(path)
        self.host.mount(export, path)
        found = [each for each in self.find() if each.kind == "mount"]
        self.assertEqual([export], [each.name for each in found])
        self.assertTrue(found[0].remove())
        self.assert_unmounted()

    def test_a_mount_that_is_attached_here(self):
        here = socket.gethostname()
        self.attach(self.volume, base.own_connector())
        self.assertIn(holders.of_host(here), self.share(self.volume).access)
        export = self.volume.provider_location
        path = self.driver._mounts.attached_path(export)
        os.mkdir(path)
        self.host.mount(export, path)
        self.assertEqual([], self.find())

    def copied(self):
        return self.driver._parts.images._copies.made(self.volume, "image-1")

    def test_a_copy(self):
        with contextlib.ExitStack() as work:
            work.enter_context(self.copied())
            self.assertEqual([], self.find())
            kept = [
                each
                for each in self.api.list_shares()
                if each.id != self.volume.id
            ][0]
        self.share_again(kept)
        self.assert_proven(self.one("copy"))

    def share_again(self, share, **labels):
        """The share as it was, without the process that had it."""
        self.api.create_share(
            share.id,
            name=share.name,
            size_bytes=share.size_bytes,
            labels={**share.labels, **labels},
        )

    def test_a_copy_of_another_host(self):
        with self.copied():
            kept = [
                each
                for each in self.api.list_shares()
                if each.id != self.volume.id
            ][0]
        other = {"cinder.copy_made_by": "ctl-9:/mnt"}
        self.share_again(kept, **other)
        self.assertEqual([], self.find())
        self.later = 25 * HOUR
        self.assert_shown_only(self.one("copy"), "on ctl-9")

    def test_the_share_of_a_check(self):
        made = self.api.create_share(
            str(uuid.uuid4()),
            name=trial.NAME,
            size_bytes=base.GIB,
            labels={trial.LABEL: trial.maker(self.driver._mounts)},
        )
        with self.driver._mounts.at_work(trial.work_on(made.id)):
            self.assertEqual([], self.find())
        self.assert_proven(self.one("check's share"))


class CostTest(OrphansCase):
    def test_requests(self):
        """Two lists, and one request for each mount; not one per volume."""
        for _ in range(5):
            self.create()
        self.log.clear()
        self.find()
        self.assertEqual(
            {"GET /v1/shares": 1, "GET /v1/snapshots": 1},
            dict(self.log.counts),
        )
