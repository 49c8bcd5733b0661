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

"""Volumes and snapshots against a real appliance, with and without its
knowing about volume files."""

import os
from unittest import mock

from cinder import exception
from oslo_concurrency import processutils

from acme_appliance.engines.memory import engine as memory
from acme_cinder import errors
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb


class VolumesCase(base.DriverTestCase):
    """Each assertion about requests is the table of the API's design."""

    def assert_cost(self, requests: dict[str, int], mounts: int) -> None:
        """In requests, with the feature; and without it in mounts."""
        if self.volume_file:
            self.assertEqual(requests, dict(self.log.counts))
            self.assertEqual(0, self.host.count("mount"))
        else:
            expected = dict(requests)
            if mounts:
                expected["PUT /v1/shares/{id}/access/" + self.own] = 1
                expected["DELETE /v1/shares/{id}/access/" + self.own] = 1
            self.assertEqual(expected, dict(self.log.counts))
            self.assertEqual(mounts, self.host.count("mount"))
            self.assertEqual(mounts, self.host.count("umount"))
        self.assert_unmounted()

    def setUp(self) -> None:
        super().setUp()
        host = base.own_connector()["host"]
        self.own = f"cinder-mount%3A{host}"

    def fresh(self) -> None:
        self.log.clear()
        self.host.forget()

    def test_create(self):
        volume = cinderdb.volume(size=2)
        self.fresh()
        update = self.driver.create_volume(volume)
        self.assert_cost({"PUT /v1/shares/{id}": 1}, 1)
        self.assertEqual(
            {
                "provider_id": volume.id,
                "provider_location": f"127.0.0.1:/gold/shares/{volume.id}",
            },
            update,
        )
        entry = self.assert_file(volume, 2)
        self.assertEqual(0o660, entry.mode)
        share = self.share(volume)
        self.assertEqual(volume.name, share.name)
        self.assertEqual(
            {
                "cinder.volume_id": volume.id,
                "cinder.project_id": volume.project_id,
            },
            dict(share.labels),
        )
        self.assertEqual({}, dict(share.access))

    def test_create_twice_is_the_same(self):
        volume = cinderdb.volume()
        first = self.driver.create_volume(volume)
        self.assertEqual(first, self.driver.create_volume(volume))
        self.assert_file(volume, 1)

    def test_extend(self):
        volume = self.create()
        self.fresh()
        self.driver.extend_volume(volume, 3)
        self.assert_cost({"PATCH /v1/shares/{id}": 1}, 1)
        self.assert_file(volume, 3)
        self.assertEqual(3 * base.GIB, self.share(volume).size_bytes)

    def test_extend_with_the_size_as_text(self):
        volume = self.create()
        self.driver.extend_volume(volume, "2")
        self.assert_file(volume, 2)

    def test_extend_attached(self):
        volume = self.create()
        self.attach(volume, base.connector("cmp-1"))
        self.driver.extend_volume(cinderdb.reloaded(volume), 2)
        self.assert_file(volume, 2)
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))

    def test_extend_of_what_was_never_made(self):
        """Cinder extends after a failed create, too: a VolumeNotFound would
        hide why it failed, and keep it from being tried elsewhere."""
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.driver.extend_volume(cinderdb.volume(), 2)

    def test_shrinking_is_refused(self):
        volume = self.create(size=2)
        with self.assertRaises(exception.InvalidVolume):
            self.driver.extend_volume(volume, 1)
        self.assert_file(volume, 2)

    def test_delete(self):
        volume = self.create()
        self.fresh()
        self.driver.remove_export(self.context, volume)
        self.driver.delete_volume(volume)
        self.assert_cost({"DELETE /v1/shares/{id}": 1}, 0)
        self.assertIsNone(self.find_share(volume.name_id))

    def test_delete_of_what_is_gone(self):
        volume = self.create()
        self.driver.delete_volume(volume)
        self.driver.remove_export(self.context, volume)
        self.driver.delete_volume(volume)

    def test_delete_without_provider_id(self):
        """The reply to the create was lost: the share is found by its id."""
        volume = cinderdb.volume()
        self.driver.create_volume(volume)
        found = cinderdb.reloaded(volume)
        self.assertIsNone(found.provider_id)
        self.driver.remove_export(self.context, found)
        self.driver.delete_volume(found)
        self.assertIsNone(self.find_share(volume.name_id))

    def test_delete_with_snapshots_is_busy(self):
        volume = self.create()
        self.snapshot(volume)
        with self.assertRaises(exception.VolumeIsBusy):
            self.driver.delete_volume(volume)
        self.assertIsNotNone(self.find_share(volume.name_id))

    def test_delete_while_attached_is_busy(self):
        volume = self.create()
        self.attach(volume, base.connector("cmp-1"))
        with self.assertRaises(exception.VolumeIsBusy):
            self.driver.delete_volume(cinderdb.reloaded(volume))
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))

    def test_delete_with_a_rule_of_somebody_else_is_busy(self):
        volume = self.create()
        self.grant(volume, "backup-box")
        with self.assertRaises(exception.VolumeIsBusy) as caught:
            self.driver.delete_volume(volume)
        self.assertIn("backup-box", str(caught.exception))
        self.assertEqual(["backup-box"], list(self.share(volume).access))

    def test_delete_takes_a_left_over_rule_of_ours_away(self):
        volume = self.create()
        self.grant(volume, "cinder:cmp-9")
        self.driver.delete_volume(volume)
        self.assertIsNone(self.find_share(volume.name_id))

    def grant(self, volume, holder):
        self.driver._api.grant_access(
            volume.name_id, holder, ["192.0.2.99"], "rw"
        )

    def test_snapshot_and_delete_it(self):
        volume = self.create()
        snapshot = cinderdb.snapshot(volume)
        self.fresh()
        update = self.driver.create_snapshot(snapshot)
        self.assert_cost({"PUT /v1/snapshots/{id}": 1}, 0)
        self.assertEqual({"provider_id": snapshot.id}, update)
        self.fresh()
        self.driver.delete_snapshot(snapshot)
        self.assert_cost({"DELETE /v1/snapshots/{id}": 1}, 0)
        self.driver.delete_snapshot(snapshot)

    def test_create_from_snapshot_grown(self):
        source = self.create()
        self.write(source, 7, b"before")
        snapshot = self.snapshot(source)
        self.write(source, 7, b"after!")
        volume = cinderdb.volume(size=3, snapshot_id=snapshot.id)
        self.fresh()
        update = self.driver.create_volume_from_snapshot(volume, snapshot)
        self.assert_cost({"PUT /v1/shares/{id}": 1}, 1)
        self.assertEqual(volume.id, update["provider_id"])
        self.assertTrue(update["provider_location"].endswith(volume.id))
        entry = self.assert_file(volume, 3)
        self.assertEqual(b"before", entry.blocks[7][:6])
        self.assertEqual({}, self.exported(volume))

    def test_clone_grown(self):
        source = self.create()
        self.write(source, 3, b"cloned")
        self.attach(source, base.connector("cmp-1"))
        volume = cinderdb.volume(size=2, source_volid=source.id)
        source = cinderdb.reloaded(source)
        self.fresh()
        self.driver.create_cloned_volume(volume, source)
        self.assert_cost({"PUT /v1/shares/{id}": 1}, 1)
        entry = self.assert_file(volume, 2)
        self.assertEqual(b"cloned", entry.blocks[3][:6])
        self.assertEqual({}, dict(self.share(volume).access))

    def test_two_clones_at_once_and_again(self):
        """Temporary snapshots named after the source would collide."""
        source = self.create()
        for _ in range(2):
            volume = cinderdb.volume(source_volid=source.id)
            self.driver.create_cloned_volume(volume, source)
            self.assert_file(volume, 1)
        self.driver.delete_volume(source)

    def test_delete_a_source_with_clones_of_its_snapshots(self):
        source = self.create()
        snapshot = self.snapshot(source)
        volume = cinderdb.volume(snapshot_id=snapshot.id)
        self.driver.create_volume_from_snapshot(volume, snapshot)
        self.driver.delete_snapshot(snapshot)
        self.fresh()
        self.driver.delete_volume(source)
        self.assert_cost({"DELETE /v1/shares/{id}": 1}, 0)
        self.assert_file(volume, 1)

    def test_an_absent_snapshot_is_told_as_such(self):
        source = self.create()
        snapshot = cinderdb.snapshot(source)
        volume = cinderdb.volume(snapshot_id=snapshot.id)
        with self.assertRaises(exception.SnapshotNotFound):
            self.driver.create_volume_from_snapshot(volume, snapshot)
        self.assertIsNone(self.find_share(volume.id))

    def test_snapshot_of_an_absent_volume(self):
        volume = cinderdb.volume()
        with self.assertRaises(exception.VolumeNotFound):
            self.driver.create_snapshot(cinderdb.snapshot(volume))

    def test_a_full_pool(self):
        """An error that lets the scheduler try elsewhere; nothing stays."""
        engine = self.appliance.engines["gold"]
        engine.reasons.append("the disk is on fire")
        volume = cinderdb.volume()
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.driver.create_volume(volume)
        engine.reasons.clear()
        self.assertIsNone(self.find_share(volume.id))

    def test_a_taken_id_is_left_alone(self):
        volume = self.create(size=2)
        twin = cinderdb.reloaded(volume)
        twin.size = 1
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.driver.create_volume(twin)
        self.assert_file(volume, 2)

    def test_every_reply_lost_once(self):
        """One lost reply never changes the outcome."""
        self.driver = self.new_driver(
            [transports.ReplyLost(), transports.Fault()] * 50
        )
        volume = self.create()
        snapshot = self.snapshot(volume)
        clone = cinderdb.volume(size=2, snapshot_id=snapshot.id)
        self.driver.create_volume_from_snapshot(clone, snapshot)
        self.assert_file(clone, 2)
        self.driver.extend_volume(volume, 2)
        self.assert_file(volume, 2)
        self.driver.delete_snapshot(snapshot)
        self.driver.delete_volume(volume)
        volume.destroy()
        self.driver.delete_volume(clone)
        self.assertIsNone(self.find_share(volume.id))
        self.assertIsNone(self.find_share(clone.id))
        self.assert_unmounted()

    def test_migrated_volume_keeps_its_share(self):
        volume = self.create()
        moved = self.create(migration_status=f"target:{volume.id}")
        update = self.driver.update_migrated_volume(
            self.context, volume, moved, "available"
        )
        self.assertEqual(
            {
                "_name_id": moved.id,
                "provider_location": moved.provider_location,
            },
            update,
        )
        volume.update(update)
        volume.save()
        after = cinderdb.reloaded(volume)
        self.assertEqual(moved.id, after.name_id)
        self.driver.extend_volume(after, 2)
        self.assert_file(after, 2)
        clone = cinderdb.volume(size=2, source_volid=after.id)
        self.driver.create_cloned_volume(clone, after)
        self.assert_file(clone, 2)
        self.driver.delete_volume(after)
        self.assertIsNone(self.find_share(moved.id))

    def write(self, volume, block, data):
        """As a guest does."""
        entry = self.entries(volume)[volume.name]
        entry.write(
            block * memory.BLOCK_BYTES, data.ljust(memory.BLOCK_BYTES, b".")
        )


class VolumesTest(VolumesCase):
    """With the feature share.volume_file: no mount at all."""

    def test_file_spec(self):
        self.driver = self.new_driver(
            nfs_sparsed_volumes=False,
            nas_secure_file_permissions="false",
            acme_file_uid=64061,
            acme_file_gid=64062,
        )
        volume = self.create()
        file = self.share(volume).file
        self.assertEqual("full", file.allocation)
        self.assertEqual("0666", file.mode)
        self.assertEqual((64061, 64062), (file.uid, file.gid))
        self.assertEqual(
            base.GIB, self.entries(volume)[volume.name].reserved_bytes
        )

    def test_root_leaves_the_owner_to_the_appliance(self):
        with (
            mock.patch("os.geteuid", autospec=True, return_value=0),
            mock.patch("os.getegid", autospec=True, return_value=0),
        ):
            self.driver = self.new_driver()
        file = self.share(self.create()).file
        self.assertEqual((64061, 64061), (file.uid, file.gid))

    def test_no_space_for_a_full_file(self):
        self.appliance.engines["gold"].total_bytes = base.GIB // 2
        self.driver = self.new_driver(nfs_sparsed_volumes=False)
        volume = cinderdb.volume()
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.driver.create_volume(volume)
        self.assertIsNone(self.find_share(volume.id))

    def test_all_replies_lost(self):
        """The create fails, and what it had made is deleted again."""
        self.driver = self.new_driver(
            [transports.ReplyLost()] * 100,
            matches=lambda request: request.method == "PUT",
        )
        volume = cinderdb.volume()
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.driver.create_volume(volume)
        self.assertIsNone(self.find_share(volume.id))


class MinimalVendorTest(base.WithoutVolumeFile, VolumesCase):
    """Without it: one mount and one unmount for each create and extend."""

    def test_a_mount_that_fails_leaves_nothing(self):
        volume = cinderdb.volume()
        self.host.failures["mount"] = [
            processutils.ProcessExecutionError(exit_code=32, stderr="no")
        ] * 3
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.driver.create_volume(volume)
        self.assertIsNone(self.find_share(volume.id))
        self.assert_unmounted()

    def test_a_file_that_cannot_be_made_leaves_nothing(self):
        volume = cinderdb.volume()
        self.host.failures["truncate"] = [
            processutils.ProcessExecutionError(exit_code=1, stderr="no")
        ]
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.driver.create_volume(volume)
        self.assertIsNone(self.find_share(volume.id))
        self.assert_unmounted()

    def test_nothing_is_done_through_a_symbolic_link(self):
        source = self.create()
        target = f"{self.directory}/secret"
        with open(target, "w") as file:
            file.write("secret")
        with self.driver._shares.mounted(source) as path:
            os.unlink(path)
            os.symlink(target, path)
            with self.assertRaisesRegex(errors.FileError, "no regular file"):
                self.driver._shares.files.ensure_size(path, base.GIB)
            os.unlink(path)
        self.assertEqual(6, os.path.getsize(target))


del VolumesCase
