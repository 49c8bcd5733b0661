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

"""Manage and unmanage volumes, by Cinder's own manager code."""

import os
from unittest import mock
import uuid

from cinder import exception
from cinder import quota
from cinder.volume import volume_types
import ddt

from acme_appliance.engines.memory import engine as memory
from acme_cinder import identity
import acme_client
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb
from tests.unit.driver import managing
from tests.unit.driver import test_migration

GET = "GET /v1/shares/{id}"
LIST = "GET /v1/shares"
PATCH = "PATCH /v1/shares/{id}"
INVALID = exception.ManageExistingInvalidReference
MANAGED = exception.ManageExistingAlreadyManaged


class ManageTests:
    """Where the appliance knows about volume files, and where it does not."""

    def test_by_id(self):
        share = self.legacy(3 * base.GIB + managing.MIB)
        volume = self.manage_share(share)
        self.assertEqual(
            ("available", 4, share.id, f"127.0.0.1:/gold/shares/{share.id}"),
            (
                volume.status,
                volume.size,
                volume.provider_id,
                volume.provider_location,
            ),
        )
        entry = self.files(share)[volume.name]
        self.assertEqual([volume.name], list(self.files(share)))
        self.assertEqual(4 * base.GIB, entry.size_bytes)
        self.assert_content(volume)
        after = self.operator.get_share(share.id)
        self.assertEqual("legacy-db", after.name)
        self.assertEqual(4 * base.GIB, after.size_bytes)
        self.assertEqual(volume.id, after.labels["cinder.volume_id"])
        self.assertEqual({}, dict(after.access))
        self.assert_unmounted()

    def test_by_name(self):
        share = self.legacy()
        volume = self.manage({"source-name": "legacy-db"})
        self.assertEqual(share.id, volume.provider_id)

    def test_every_later_call_finds_the_share(self):
        share = self.legacy()
        volume = self.manage_share(share)
        self.driver.extend_volume(volume, 2)
        volume.size = 2
        volume.save()
        self.assertEqual(
            2 * base.GIB, self.files(share)[volume.name].size_bytes
        )
        snapshot = self.snapshot(volume)
        for clone in (
            cinderdb.volume(size=2, source_volid=volume.id),
            cinderdb.volume(size=2, snapshot_id=snapshot.id),
        ):
            if clone.snapshot_id:
                update = self.driver.create_volume_from_snapshot(
                    clone, snapshot
                )
            else:
                update = self.driver.create_cloned_volume(clone, volume)
            cinderdb.save(clone, update)
            self.assert_content(clone)
        row = self.attach(volume, base.connector("cmp-1"))
        granted = self.operator.get_share(share.id).access
        self.assertEqual(["cinder:cmp-1"], list(granted))
        self.operator.revoke_access(share.id, "cinder:cmp-1")
        volume.status = "in-use"
        volume.save()
        self.driver.ensure_export(self.context, cinderdb.reloaded(volume))
        self.assertIn("cinder:cmp-1", self.operator.get_share(share.id).access)
        self.operator.grant_access(
            share.id, "cinder:cmp-9", ["192.0.2.99"], "rw"
        )
        self.driver._sweep.run()
        granted = self.operator.get_share(share.id).access
        self.assertEqual(["cinder:cmp-1"], list(granted))
        self.detach(row)
        self.assertEqual({}, dict(self.operator.get_share(share.id).access))
        self.driver.delete_snapshot(snapshot)
        self.driver.delete_volume(cinderdb.reloaded(volume))
        self.assertIsNone(self.find_share(share.id))

    def test_the_image_of_an_attached_one_is_made_of_a_copy_of_it(self):
        share = self.legacy()
        volume = self.manage_share(share)
        with self.driver._parts.images._copies.made(volume, "image") as path:
            with open(path, "rb") as file:
                self.assertIn(b"what was there before", file.read(4096))

    def test_unmanage(self):
        share = self.legacy(labels={"owner": "dba"})
        volume = self.manage_share(share)
        self.operator.grant_access(
            share.id, "cinder-service:old", ["192.0.2.51"], "rw"
        )
        self.operator.grant_access(share.id, "backup", ["192.0.2.9"], "ro")
        self.log.clear()
        self.unmanage(volume)
        with self.assertRaises(exception.VolumeNotFound):
            cinderdb.reloaded(volume)
        after = self.operator.get_share(share.id)
        self.assertEqual({"owner": "dba"}, dict(after.labels))
        self.assertEqual(["backup"], list(after.access))
        self.assertIn(volume.name, self.files(share))

    def test_unmanage_and_manage_again(self):
        """Also what the driver itself has made."""
        made = self.create()
        share = self.share(made)
        for _ in range(2):
            self.unmanage(made)
            made = self.manage_share(share)
            self.assertEqual(share.id, identity.share_id(made))
            self.assertEqual([made.name], list(self.files(share)))
        self.delete(made)
        self.assertIsNone(self.find_share(share.id))

    def test_unmanage_of_what_is_gone(self):
        share = self.legacy()
        volume = self.manage_share(share)
        self.operator.delete_share(share.id)
        with self.assertLogs("acme_cinder.manage", "WARNING"):
            self.unmanage(volume)
        with self.assertRaises(exception.VolumeNotFound):
            cinderdb.reloaded(volume)

    # -- refused

    def refused(self, share, error, text, reference=None, **values):
        if reference is None:
            reference = {"source-id": share.id}
        volume = self.new_row(**values)
        with self.assertRaisesRegex(error, text):
            self.manager.manage_existing(self.context, volume, reference)
        self.assertEqual("error_managing", cinderdb.reloaded(volume).status)
        self.assert_unmounted()

    def test_qcow2(self):
        share = self.legacy()
        self.write(share, self.qcow2())
        self.refused(share, INVALID, f"{managing.NAME} is a qcow2.*-O raw")
        self.assert_untouched(share)

    def test_a_second_file(self):
        share = self.legacy()
        self.files(share)["notes.txt"] = memory.Entry(size_bytes=1)
        self.refused(share, INVALID, "notes.txt.*leave only")
        self.assert_untouched(share)

    def test_a_missing_file(self):
        share = self.legacy()
        del self.files(share)[managing.NAME]
        self.refused(share, INVALID, "missing.*one raw file")

    def test_a_directory_and_a_link(self):
        share = self.legacy()
        self.files(share)[managing.NAME].size_bytes = 0
        real = self.host.mount

        def mount(export, path):
            real(export, path)
            os.unlink(f"{path}/{managing.NAME}")
            os.symlink("/etc/passwd", f"{path}/{managing.NAME}")

        self.host.mount = mount
        self.refused(share, INVALID, "no regular file")

    def test_a_file_of_others(self):
        share = self.legacy()
        with mock.patch.object(
            self.driver._shares.files, "is_usable", lambda path: False
        ):
            self.refused(share, INVALID, "acme_file_uid.*0660")
        self.assert_untouched(share)

    def test_attached(self):
        share = self.legacy()
        self.operator.grant_access(share.id, "esx-1", ["192.0.2.7"], "ro")
        self.refused(share, INVALID, "in use, esx-1 may mount.*unmount")

    def test_what_a_look_has_left_is_no_attachment(self):
        share = self.legacy()
        own = f"cinder-mount:{base.own_connector()['host']}"
        self.operator.grant_access(share.id, own, ["127.0.0.1"], "rw")
        self.assertEqual("available", self.manage_share(share).status)

    def test_of_another_namespace(self):
        share = self.legacy()
        token = self.appliance.make_token("driver", "cinder-b")
        self.restart(acme_api_token=token)
        self.refused(share, INVALID, "namespace")
        self.assert_untouched(share)

    def test_known_to_another_cinder(self):
        other = str(uuid.uuid4())
        share = self.legacy(labels={"cinder.volume_id": other})
        self.refused(
            share, MANAGED, f"{other} in another Cinder.*cinder.volume_id"
        )
        self.assert_untouched(share)

    def test_known_to_this_cinder(self):
        share = self.legacy()
        volume = self.manage_share(share)
        self.refused(share, MANAGED, f"{volume.id} in this Cinder")
        own = self.create()
        self.refused(self.share(own), MANAGED, own.id)

    def test_known_without_a_label(self):
        share = self.legacy()
        volume = self.manage_share(share)
        self.operator.update_share(share.id, labels={"cinder.volume_id": None})
        self.refused(share, MANAGED, volume.id)

    def test_a_copy_for_an_image(self):
        share = self.legacy(labels={"cinder.copy_of": str(uuid.uuid4())})
        self.refused(share, INVALID, "copy for an image")

    def test_another_pool(self):
        share = self.legacy(pool="silver")
        self.refused(share, INVALID, "pool silver.*ctl-1@acme#silver")
        volume = self.manage_share(share, host="ctl-1@acme#silver")
        self.assertEqual("ctl-1@acme#silver", volume.host)

    def test_without_a_pool_in_the_host(self):
        share = self.legacy(pool="silver")
        volume = self.manage_share(share, host="ctl-1@acme")
        self.assertEqual("ctl-1@acme#silver", volume.host)

    def test_a_pool_that_the_back_end_has_not(self):
        share = self.legacy(pool="silver")
        self.restart(acme_pools=["gold"])
        self.refused(
            share, INVALID, "acme_pools.*only gold", host="ctl-1@acme#silver"
        )

    def test_an_encrypted_type(self):
        share = self.legacy()
        self.refused(
            share,
            exception.ManageExistingVolumeTypeMismatch,
            "without encryption",
            volume_type_id=test_migration.volume_type(256),
        )

    def test_a_type_with_another_provisioning(self):
        share = self.legacy()
        for key, error, text in (
            (
                {"acme:provisioning": "thick"},
                exception.ManageExistingVolumeTypeMismatch
                if self.volume_file
                else exception.InvalidVolumeType,
                "another volume type|allowed there: thin",
            ),
            ({"acme:colour": "red"}, exception.InvalidVolumeType, "colour"),
        ):
            made = volume_types.create(
                self.context, f"type-{uuid.uuid4()}", key
            )
            self.refused(share, error, text, volume_type_id=made["id"])
        self.assert_untouched(share)

    def test_references(self):
        first, second = self.legacy(), self.legacy()
        for reference, text in (
            ({}, "give a source-id or a source-name"),
            ({"source-id": "x"}, "not an id"),
            ({"source-id": str(uuid.uuid4())}, "no such share"),
            ({"source-name": "nobody"}, "none of this name"),
            ({"source-name": "legacy-db"}, f"source-id.*{first.id}"),
        ):
            with self.subTest(reference):
                self.refused(first, INVALID, text, reference=reference)
        self.assert_untouched(first)
        self.assert_untouched(second)


class ManageTest(ManageTests, managing.ManageCase):
    def test_requests(self):
        """Besides those of the one mount: it needs a rule for a moment."""
        share = self.legacy()
        volume = self.new_row()
        reference = {"source-id": share.id}
        self.log.clear()
        self.assertEqual(
            1, self.driver.manage_existing_get_size(volume, reference)
        )
        self.assertEqual(1, self.host.count("mount"))
        self.assertEqual(1, self.log.counts.pop(GET, 0))
        self.log.clear()
        self.host.forget()
        self.driver.manage_existing(volume, reference)
        self.assertEqual({GET: 1, PATCH: 1}, dict(self.log.counts))
        self.assertEqual(0, self.host.count("mount"))
        self.log.clear()
        self.driver.unmanage(volume)
        self.assertEqual({PATCH: 1}, dict(self.log.counts))

    def test_requests_by_name(self):
        self.legacy()
        self.log.clear()
        self.driver.manage_existing(
            self.new_row(), {"source-name": "legacy-db"}
        )
        self.assertEqual({LIST: 1, PATCH: 1}, dict(self.log.counts))

    def test_a_file_that_was_cut_off(self):
        """The appliance has it in full again before anybody mounts it."""
        share = self.legacy()
        self.files(share)[managing.NAME].size_bytes = 4096
        volume = self.manage_share(share)
        entry = self.files(share)[volume.name]
        self.assertEqual(base.GIB, entry.size_bytes)
        self.assert_content(volume)

    def test_a_longer_file(self):
        share = self.legacy()
        self.files(share)[managing.NAME].size_bytes += 1
        self.refused(share, INVALID, "grow the share")

    def test_in_error(self):
        share = self.legacy()
        broken = acme_client.Share(**{**vars(share), "state": "error"})
        with mock.patch.object(
            self.driver._api, "get_share", lambda share_id: broken
        ):
            self.refused(share, INVALID, "state is error.*mend it")

    def test_changed_between_the_look_and_the_change(self):
        share = self.legacy()
        get = self.driver._api.get_share

        def get_and_lose(share_id):
            found = get(share_id)
            self.operator.update_share(share_id, name=str(uuid.uuid4()))
            return found

        with mock.patch.object(self.driver._api, "get_share", get_and_lose):
            self.refused(share, INVALID, "just been changed.*repeat")
        self.assertIn(managing.NAME, self.files(share))

    def test_two_at_once(self):
        """Of two that have seen the same share, one gets it."""
        share = self.legacy()
        winner = self.new_row()
        reference = {"source-id": share.id}
        check = self.driver._parts.managed._check_type

        def check_while_another_one_takes_it(volume, share):
            with mock.patch.object(
                self.driver._parts.managed, "_check_type", check
            ):
                self.driver.manage_existing(winner, reference)

        with mock.patch.object(
            self.driver._parts.managed,
            "_check_type",
            check_while_another_one_takes_it,
        ):
            with self.assertRaisesRegex(INVALID, "just been changed"):
                self.driver.manage_existing(self.new_row(), reference)
        self.assertEqual([winner.name], list(self.files(share)))


class ManageWithoutVolumeFileTest(
    base.WithoutVolumeFile, ManageTests, managing.ManageCase
):
    def test_a_short_file(self):
        share = self.legacy()
        self.files(share)[managing.NAME].size_bytes = 4096
        self.refused(
            share, INVALID, f"4096 bytes.*shorter.*truncate -s {base.GIB}"
        )
        self.assert_untouched(share)


@ddt.ddt
class FaultTest(managing.ManageCase):
    """What was begun and not finished can be repeated, and loses nothing."""

    def crash(self):
        """The service dies before Cinder has written what it returned."""
        volume = self.new_row()
        self.driver.manage_existing(volume, {"source-id": self.left.id})
        self.restart()
        return volume

    def setUp(self):
        super().setUp()
        self.left = self.legacy()

    @ddt.data(
        [transports.ReplyLost()],
        [transports.Refused(), transports.SlowReply()],
        [transports.ResetInTheMiddle()],
    )
    def test_a_reply_is_lost(self, faults):
        self.driver = self.new_driver(
            faults, matches=lambda request: request.method == "PATCH"
        )
        self.manager = managing.Manager(self.driver)
        volume = self.manage_share(self.left)
        self.assertEqual(0, self.adapter.pending)
        self.assertEqual(self.left.id, volume.provider_id)
        self.assert_content(volume)

    def test_no_reply_at_all(self):
        """It is renamed, and Cinder only knows that it has failed."""
        update = self.driver._api.update_share

        def update_and_lose_the_reply(*args, **kwargs):
            update(*args, **kwargs)
            raise acme_client.OutcomeUnknown("no reply within 300 s")

        failed = self.new_row()
        with (
            mock.patch.object(
                self.driver._api, "update_share", update_and_lose_the_reply
            ),
            self.assertRaises(exception.VolumeBackendAPIException),
        ):
            self.manager.manage_existing(
                self.context, failed, {"source-id": self.left.id}
            )
        self.assertEqual([failed.name], list(self.files(self.left)))
        self.restart()
        self.assertEqual("error_managing", cinderdb.reloaded(failed).status)
        volume = self.manage_share(self.left)
        self.assert_content(volume)
        self.delete(failed)
        self.assert_content(volume)

    def test_deleted_in_cinder_after_a_crash(self):
        """The data is the operator's: it was there before."""
        volume = self.crash()
        volume.status = "error_managing"
        volume.save()
        self.delete(volume)
        after = self.operator.get_share(self.left.id)
        self.assertEqual({}, dict(after.labels))
        self.assert_content(self.manage({"source-name": "legacy-db"}))

    def test_reset_and_deleted_after_a_crash(self):
        volume = self.crash()
        volume.status = "error"
        volume.save()
        self.delete(volume)
        self.assertIsNotNone(self.find_share(self.left.id))
        self.assert_content(self.manage_share(self.left))

    def test_repeated_while_cinder_still_is_at_it(self):
        volume = self.crash()
        other = self.new_row()
        with self.assertRaisesRegex(
            MANAGED, f"being managed as {volume.id}.*reset the state"
        ):
            self.manager.manage_existing(
                self.context, other, {"source-id": self.left.id}
            )

    def test_the_same_call_once_more(self):
        volume = self.crash()
        self.manager.manage_existing(
            self.context, volume, {"source-name": "legacy-db"}
        )
        volume = cinderdb.reloaded(volume)
        self.assertEqual(self.left.id, volume.provider_id)
        self.assert_content(volume)

    def test_the_quota_ends_it_after_the_driver(self):
        """Cinder has written all by then, and the volume is in error."""
        failed = self.new_row()
        with mock.patch.object(
            quota.QUOTAS,
            "commit",
            autospec=True,
            side_effect=exception.CinderException("no"),
        ):
            with self.assertRaises(exception.CinderException):
                self.manager.manage_existing(
                    self.context, failed, {"source-id": self.left.id}
                )
        failed = cinderdb.reloaded(failed)
        self.assertEqual("error_managing", failed.status)
        self.delete(failed)
        self.assertIsNotNone(self.find_share(self.left.id))
        self.assert_content(self.manage_share(self.left))

    def test_a_lost_delete(self):
        volume = self.manage_share(self.left)
        self.driver = self.new_driver([transports.ReplyLost()])
        self.manager = managing.Manager(self.driver)
        self.delete(volume)
        self.assertIsNone(self.find_share(self.left.id))

    def test_of_another_namespace_nothing_is_gone(self):
        volume = self.manage_share(self.left)
        self.create()
        token = self.appliance.make_token("driver", "cinder-b")
        self.restart(acme_api_token=token)
        with self.assertRaises(exception.VolumeIsBusy):
            self.driver.delete_volume(volume)


class MigrationTest(managing.ManageCase):
    """A managed volume, copied to a new one by Cinder."""

    def setUp(self):
        super().setUp()
        self.old = self.legacy()
        self.volume = self.manage_share(self.old)
        self.temporary = self.create(
            migration_status=f"target:{self.volume.id}",
            host="ctl-1@acme#silver",
        )
        self.target = self.temporary.id

    def complete(self, half=False):
        self.manager.update_migrated_volume(
            self.context, self.volume, self.temporary, "available"
        )
        if not half:
            self.volume.refresh()
            self.temporary.refresh()
            self.volume.finish_volume_migration(self.temporary)
        self.volume = cinderdb.reloaded(self.volume)
        self.temporary = cinderdb.reloaded(self.temporary)

    def test_out_of_the_old_share(self):
        self.complete()
        self.assertEqual(self.target, identity.share_id(self.volume))
        self.assertEqual(self.old.id, identity.share_id(self.temporary))
        self.driver.extend_volume(self.volume, 2)
        self.assert_file(self.volume, 2)
        self.driver.delete_volume(self.temporary)
        self.assertIsNone(self.find_share(self.old.id))
        self.unmanage(self.volume)
        share = self.operator.get_share(self.target)
        self.assertEqual({}, dict(share.labels))
        again = self.manage_share(share, host="ctl-1@acme#silver")
        self.assertEqual(self.target, identity.share_id(again))

    def test_nobody_finishes_it(self):
        """The record that is left is given up without the share."""
        self.complete(half=True)
        self.assertEqual(self.target, identity.share_id(self.volume))
        self.temporary.migration_status = None
        self.temporary.save()
        self.unmanage(self.temporary)
        share = self.operator.get_share(self.target)
        self.assertEqual(self.volume.id, share.labels["cinder.volume_id"])
        with self.assertRaises(exception.VolumeNotFound):
            cinderdb.reloaded(self.temporary)
        with self.assertRaises(MANAGED):
            self.manage_share(share, host="ctl-1@acme#silver")
        self.assertEqual("available", self.manage_share(self.old).status)
