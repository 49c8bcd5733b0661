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

"""Consistent groups."""

from unittest import mock

from cinder import exception

from acme_appliance.storage import pools
import acme_client
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb
from tests.unit.driver import groupcase
from tests.unit.driver import test_qos
from tests.unit.driver import test_retype


class GroupTest(groupcase.GroupCase):
    def test_create(self):
        made = self.new_group()
        self.assertEqual({"PUT /v1/groups/{id}": 1}, dict(self.log.counts))
        self.assertEqual("available", made.status)
        found = self.operator.get_group(made.id)
        self.assertEqual("gold", found.pool)
        self.assertEqual(
            {
                "cinder.group_id": made.id,
                "cinder.project_id": cinderdb.PROJECT,
            },
            dict(found.labels),
        )

    def test_every_new_volume_is_in_it(self):
        source = self.create()
        snapshot = self.snapshot(source)
        for create, *origin in (
            (self.driver.create_volume,),
            (self.driver.create_cloned_volume, source),
            (self.driver.create_volume_from_snapshot, snapshot),
        ):
            volume = cinderdb.volume(group_id=self.group.id)
            self.log.clear()
            create(volume, *origin)
            self.assertEqual(1, self.log.total)
            self.assertEqual(self.group.id, self.share(volume).group_id)
        self.assertIsNone(self.share(source).group_id)

    def test_a_group_that_the_appliance_does_not_have(self):
        """Its type has been changed to a consistent one since."""
        self.operator.delete_group(self.group.id)
        volume = self.create(group_id=self.group.id)
        self.assertEqual({volume.id}, self.shares())

    def test_lost_replies(self):
        self.use_driver(*[transports.ReplyLost()] * 2)
        made = self.new_group()
        self.assertEqual("available", made.status)
        self.assertEqual([], list(self.operator.get_group(made.id).share_ids))

    def test_the_same_message_again(self):
        self.group.name = "renamed by its owner"
        self.group.save()
        self.manager.create_group(self.context, self.group)
        self.assert_status("available", self.group)
        self.assertEqual(2, len(self.shares()))


class PoolsTest(groupcase.GroupCase):
    """The scheduler chooses any pool of the back end for a volume."""

    appliance_options = {"pools": ("gold", "silver")}

    def test_create_is_refused_so_that_cinder_tries_another_pool(self):
        volume = cinderdb.volume(
            group_id=self.group.id, host="ctl-1@acme#silver"
        )
        with self.assertRaises(exception.VolumeBackendAPIException) as caught:
            self.driver.create_volume(volume)
        self.assertIn("group.other_pool", str(caught.exception))
        self.assertIn("in the pool gold", str(caught.exception))
        self.assertIsNone(self.find_share(volume.id))

    def test_add_is_refused(self):
        other = self.create(host="ctl-1@acme#silver")
        with self.assertRaises(exception.VolumeBackendAPIException) as caught:
            self.update(add=[other])
        text = str(caught.exception)
        self.assertIn("group.other_pool", text)
        self.assertIn(f"{other.id} is the share of {other.name}", text)
        self.assert_status("error", self.group)
        self.assertEqual({each.id for each in self.volumes}, self.shares())

    def test_a_group_in_the_second_pool(self):
        made = self.new_group(host="ctl-1@acme#silver")
        volume = self.create(group_id=made.id, host="ctl-1@acme#silver")
        self.assertEqual({volume.id}, self.shares(made))


class OtherTypesTest(groupcase.GroupCase):
    """Cinder's own way, volume by volume."""

    specs = {}

    def test_everything(self):
        with self.assertRaises(acme_client.NotFound):
            self.shares()
        self.assertIsNone(self.share(self.volumes[0]).group_id)
        self.update(add=[self.create()], remove=[self.volumes[1]])
        self.assertEqual(2, len(self.members()))
        made = self.new_snapshot()
        self.assertEqual("available", made.status)
        self.assertEqual(2, self.log.counts["PUT /v1/snapshots/{id}"])
        copy = self.copy_of_snapshot(made)
        self.manager.create_group_from_src(self.context, copy, made)
        self.assert_status("available", copy, *self.members(copy))
        self.delete_snapshot(made)
        self.delete_group(copy)
        self.assert_gone(made, copy)
        groups = [each for each in self.log.counts if "group" in each]
        self.assertEqual([], groups)


class UpdateTest(groupcase.GroupCase):
    def setUp(self):
        super().setUp()
        self.other = self.create()
        self.log.clear()

    def check(self, *expected):
        self.assert_status("available", self.group, *self.volumes, self.other)
        ids = {each.id for each in expected}
        self.assertEqual(ids, {each.id for each in self.members()})
        self.assertEqual(ids, self.shares())

    def test_one_request(self):
        kept, removed = self.volumes
        self.update([self.other], [removed])
        self.assertEqual({"PATCH /v1/groups/{id}": 1}, dict(self.log.counts))
        self.check(kept, self.other)

    def test_lost_replies(self):
        self.use_driver(*[transports.ReplyLost()] * 2)
        self.update([self.other], self.volumes[1:])
        self.check(self.volumes[0], self.other)

    def test_a_service_that_died_before_cinder_knew(self):
        """The share is in a group of the appliance, the volume in none."""
        stale = self.new_group()
        self.driver.update_group(self.context, stale, [self.other], [])
        with self.assertLogs("acme_cinder.groups", "WARNING"):
            self.update([self.other])
        self.check(*self.volumes, self.other)
        self.assertEqual(set(), self.shares(stale))

    def test_a_share_that_is_gone(self):
        self.operator.delete_share(self.other.id)
        with self.assertRaises(exception.VolumeBackendAPIException) as caught:
            self.update([self.other])
        self.assertIn("share.not_found", str(caught.exception))
        self.assertIn(self.other.name, str(caught.exception))

    def test_more_than_fit(self):
        many = [cinderdb.volume(status="available") for _ in range(101)]
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.driver.update_group(self.context, self.group, many, [])

    def test_managed(self):
        """Its share has another id."""
        share = self.operator.create_share(
            "3e6f0d8c-3e57-4f3c-9a55-20c7e6a3d1f0",
            name="legacy",
            size_bytes=base.GIB,
            file=acme_client.VolumeFileSpec(name="disk.img"),
        )
        volume = cinderdb.volume(size=0, status="managing")
        cinderdb.save(
            volume,
            self.driver.manage_existing(volume, {"source-id": share.id}),
        )
        volume.size = 1
        volume = self.available(volume)
        self.update([volume])
        self.assertIn(share.id, self.shares())
        made = self.new_snapshot()
        self.assertEqual("available", made.status)
        self.delete_snapshot(made)
        self.delete_group()
        self.assert_gone(self.group, volume, *self.volumes)
        self.assertIsNone(self.find_share(share.id))


class DeleteTest(groupcase.GroupCase):
    def check_gone(self):
        self.assert_gone(self.group, *self.volumes)
        for volume in self.volumes:
            self.assertIsNone(self.find_share(volume.id))
        with self.assertRaises(acme_client.NotFound):
            self.shares()

    def test_two_requests(self):
        self.delete_group()
        self.assertEqual(
            {"GET /v1/groups/{id}": 1, "DELETE /v1/groups/{id}": 1},
            dict(self.log.counts),
        )
        self.check_gone()

    def test_lost_replies(self):
        self.use_driver(*[transports.ReplyLost()] * 2)
        self.delete_group()
        self.check_gone()

    def test_gone_already(self):
        self.operator.delete_group(self.group.id, delete_shares=True)
        self.delete_group()
        self.check_gone()

    def test_shares_that_are_not_in_it(self):
        self.operator.update_group(
            self.group.id, remove_share_ids=[self.volumes[0].id]
        )
        self.delete_group()
        self.check_gone()

    def test_a_share_that_cinder_does_not_have_in_it_stays(self):
        """A service has died between the driver's call and Cinder's
        record."""
        other = self.create()
        self.driver.update_group(self.context, self.group, [other], [])
        with self.assertLogs("acme_cinder.groupdeletion", "WARNING"):
            self.delete_group()
        self.check_gone()
        self.assertIsNone(self.share(other).group_id)

    def test_a_share_that_joins_meanwhile_stays(self):
        other = self.create()
        operator, group_id = self.operator, self.group.id

        class Joins(transports.Fault):
            def apply(self, request, send):
                operator.update_group(group_id, add_share_ids=[other.id])
                return send()

        self.use_driver(Joins())
        self.delete_group()
        self.check_gone()
        self.share(other)

    def test_a_volume_attached_meanwhile(self):
        """The others go; the next try deletes the rest."""
        used, free = self.volumes
        self.operator.grant_access(used.id, "somebody", ["192.0.2.7"], "rw")
        with self.assertRaises(exception.VolumeDriverException):
            self.delete_group()
        self.assert_status("error", self.group)
        self.assert_status("available", used)
        self.assert_status("deleted", free)
        self.share(used)
        self.assertIsNone(self.find_share(free.id))
        self.operator.revoke_access(used.id, "somebody")
        self.delete_group()
        self.check_gone()

    def test_leftover_rules(self):
        """Of a connection that was cut off."""
        volume = self.volumes[0]
        self.driver.initialize_connection(volume, base.own_connector())
        self.delete_group()
        self.check_gone()

    def test_a_volume_with_a_snapshot_of_the_operator(self):
        kept = self.volumes[0]
        self.operator.create_snapshot(
            "5b0e8c1c-0d0e-4a26-8d5a-6b8f1f0a7c11", kept.id
        )
        with self.assertRaises(exception.VolumeDriverException):
            self.delete_group()
        self.assert_status("available", kept)
        self.share(kept)

    def test_a_volume_whose_create_failed(self):
        volume = cinderdb.volume(group_id=self.group.id, status="error")
        self.delete_group()
        self.check_gone()
        self.assert_gone(volume)

    def test_the_appliance_does_not_answer(self):
        self.use_driver(acme_api_deadline_seconds=1)
        self.appliance.stop()
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.delete_group()
        self.assert_status("error", self.group, *self.volumes)


class CreateFromTest(groupcase.GroupCase):
    def setUp(self):
        super().setUp()
        self.write(groupcase.THEN)

    def check(self, copy, content=groupcase.THEN):
        self.assert_status("available", copy, *self.members(copy))
        self.assertEqual(
            {each.id for each in self.members(copy)}, self.shares(copy)
        )
        for volume in self.members(copy):
            self.assertEqual(content, self.content(volume))
            self.assert_file(volume, volume.size)
            share = self.share(volume)
            self.assertEqual(share.id, volume.provider_id)
            self.assertEqual(volume.id, share.labels["cinder.volume_id"])
            self.assertTrue(volume.provider_location.endswith(share.id))

    def from_snapshot(self, made, **values):
        copy = self.copy_of_snapshot(made, **values)
        self.log.clear()
        self.manager.create_group_from_src(self.context, copy, made)
        return copy

    def from_group(self):
        copy = self.copy_of_group(self.group)
        self.log.clear()
        self.manager.create_group_from_src(
            self.context, copy, None, self.group
        )
        return copy

    def test_from_a_group_snapshot(self):
        made = self.new_snapshot()
        self.write(groupcase.NOW)
        copy = self.from_snapshot(made)
        self.check_requests()
        self.check(copy)
        self.delete_snapshot(made)
        self.check(copy)

    def check_requests(self):
        self.assertEqual(
            {"PUT /v1/groups/{id}": 1, "GET /v1/shares": 1},
            dict(self.log.counts),
        )

    def test_from_a_group(self):
        copy = self.from_group()
        self.check_requests()
        self.write(groupcase.NOW)
        self.check(copy)
        snapshots = list(self.operator.list_snapshots())
        self.assertEqual([], snapshots)

    def test_lost_replies(self):
        self.use_driver(*[transports.ReplyLost()] * 3)
        self.check(self.from_group())

    def test_the_same_message_again(self):
        copy = self.from_group()
        self.write(groupcase.NOW)
        self.manager.create_group_from_src(
            self.context, copy, None, self.group
        )
        self.check(copy)

    def test_an_unknown_outcome_leaves_nothing(self):
        self.use_driver(*[transports.ReplyLost()] * 1000, method="PUT")
        copy = self.copy_of_group(self.group)
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.manager.create_group_from_src(
                self.context, copy, None, self.group
            )
        self.assert_status("error", copy, *self.members(copy))
        for volume in self.members(copy):
            self.assertIsNone(self.find_share(volume.id))
        self.delete_group(copy)
        self.assert_gone(copy)

    def test_the_source_differs_on_the_appliance(self):
        self.operator.update_group(
            self.group.id, remove_share_ids=[self.volumes[0].id]
        )
        self.check(self.from_group())
        self.operator.delete_group(self.group.id)
        self.check(self.from_group())
        self.assertEqual({each.id for each in self.volumes}, self.shares())

    def test_a_source_that_is_gone(self):
        lost = self.volumes[0]
        self.operator.delete_share(lost.id)
        with self.assertRaises(exception.VolumeBackendAPIException) as caught:
            self.from_group()
        self.assertIn(lost.name, str(caught.exception))

    def test_extended_since(self):
        """The copies have the sizes in Cinder."""
        made = self.new_snapshot()
        self.driver.extend_volume(self.volumes[0], 3)
        copy = self.from_snapshot(made)
        self.check(copy)
        larger = self.copy_of_snapshot(made)
        for volume in self.members(larger):
            volume.size = 2
            volume.save()
        self.manager.create_group_from_src(self.context, larger, made)
        self.check(larger)

    def test_thick(self):
        type_id = test_retype.new_type(acme__provisioning="thick").id
        copy = self.from_snapshot(self.new_snapshot(), volume_type_id=type_id)
        self.check(copy)
        for volume in self.members(copy):
            self.assertEqual("full", self.share(volume).file.allocation)

    def test_the_limits_of_a_type_hold_in_a_group(self):
        made = self.new_snapshot()
        copy = self.copy_of_snapshot(
            made, volume_type_id=test_qos.qos_type(test_qos.LIMITS)
        )
        self.manager.create_group_from_src(self.context, copy, made)
        for volume in self.members(copy):
            self.assertEqual(test_qos.SENT, self.share(volume).qos.to_json())


class WithoutQosTest(groupcase.GroupCase):
    def start_appliance(self):
        real = pools.Pools.features
        patch = mock.patch.object(
            pools.Pools,
            "features",
            lambda of, pool: [
                each for each in real(of, pool) if "qos" not in each
            ],
        )
        patch.start()
        self.addCleanup(patch.stop)
        return super().start_appliance()

    def test_a_type_with_limits_is_refused(self):
        made = self.new_snapshot()
        copy = self.copy_of_snapshot(
            made, volume_type_id=test_qos.qos_type(test_qos.LIMITS)
        )
        self.log.clear()
        with self.assertRaises(exception.InvalidVolumeType):
            self.manager.create_group_from_src(self.context, copy, made)
        self.assertEqual(0, self.log.total)
        self.assert_status("error", copy, *self.members(copy))
