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

"""Snapshots of consistent groups."""

from cinder import exception

from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb
from tests.unit.driver import groupcase
from tests.unit.driver import test_reverts


class CreateTest(groupcase.GroupCase):
    def test_one_request(self):
        made = self.new_snapshot()
        self.assertEqual(
            {"PUT /v1/group-snapshots/{id}": 1}, dict(self.log.counts)
        )
        self.assertEqual("available", made.status)
        snapshots = self.snapshots(made)
        found = self.log.sent[0].body["snapshots"]
        self.assertEqual({each.id for each in self.volumes}, set(found))
        for each in snapshots:
            self.assertEqual("available", each.status)
            self.assertEqual(each.id, each.provider_id)
            on_appliance = self.operator.get_snapshot(each.id)
            self.assertEqual(each.volume_id, on_appliance.share_id)
            self.assertEqual(each.name, on_appliance.name)
            self.assertEqual(
                each.id, on_appliance.labels["cinder.snapshot_id"]
            )

    def test_attached_volumes(self):
        self.attach(self.volumes[0], base.connector("cmp-1"))
        self.assertEqual("available", self.new_snapshot().status)

    def test_lost_replies(self):
        self.use_driver(*[transports.ReplyLost()] * 2)
        made = self.new_snapshot()
        self.assertEqual("available", made.status)

    def test_the_same_message_again(self):
        made = self.new_snapshot()
        self.manager.create_group_snapshot(self.context, made)
        self.assert_status("available", made, *self.snapshots(made))

    def test_an_unknown_outcome_leaves_nothing(self):
        self.use_driver(*[transports.ReplyLost()] * 1000, method="PUT")
        made = self.new_snapshot()
        self.assert_status("error", made, *self.snapshots(made))
        self.assertEqual([], list(self.operator.list_snapshots()))
        self.delete_snapshot(made)
        self.assert_gone(made)

    def test_a_volume_that_is_gone(self):
        """All or none, and the error says which."""
        lost = self.volumes[1]
        self.operator.delete_share(lost.id)
        made = self.new_snapshot()
        self.assert_status("error", made, *self.snapshots(made))
        self.assertIn("share.not_found", self.error)
        self.assertIn(lost.name, self.error)
        self.assertEqual([], list(self.operator.list_snapshots()))
        self.assert_status("available", *self.volumes)

    def test_the_groups_differ(self):
        """Cinder says what is in it."""
        self.operator.delete_group(self.group.id)
        made = self.new_snapshot()
        self.assertEqual("available", made.status)
        self.assertEqual(2, len(list(self.operator.list_snapshots())))

    def test_two_volumes_with_one_share(self):
        """After a migration that was not finished."""
        first, second = self.volumes
        second.provider_id = first.id
        second.save()
        made = self.new_snapshot()
        self.assertEqual("error", made.status)
        self.assertIn("2 volumes have 1 shares", self.error)
        self.assertEqual([], list(self.operator.list_snapshots()))


class PoolsTest(groupcase.GroupCase):
    appliance_options = {"pools": ("gold", "silver")}

    def test_refused_with_the_reason(self):
        """Cinder's own groups may have volumes in several pools, and the
        type of a group can change."""
        other = self.create(host="ctl-1@acme#silver")
        other.group_id = self.group.id
        other.save()
        made = self.new_snapshot()
        self.assert_status("error", made, *self.snapshots(made))
        self.assertIn("group.other_pool", self.error)
        self.assertIn("take a group snapshot in each", self.error)
        self.assertIn(other.name, self.error)
        self.assert_status("available", *self.volumes, other)


class OrdinaryTest(groupcase.GroupCase):
    """Afterwards its snapshots are ordinary ones."""

    def setUp(self):
        super().setUp()
        self.write(groupcase.THEN)
        self.made = self.new_snapshot()
        self.write(groupcase.NOW)

    def test_a_volume_from_one(self):
        for snapshot in self.snapshots(self.made):
            volume = cinderdb.volume(snapshot_id=snapshot.id)
            cinderdb.save(
                volume,
                self.driver.create_volume_from_snapshot(volume, snapshot),
            )
            self.assertEqual(groupcase.THEN, self.content(volume))
            self.assertIsNone(self.share(volume).group_id)

    def test_revert(self):
        (snapshot,) = (
            each
            for each in self.snapshots(self.made)
            if each.volume_id == self.volumes[0].id
        )
        volume = self.volumes[0]
        volume.status, snapshot.status = "reverting", "restoring"
        volume.save()
        snapshot.save()
        made = test_reverts.Manager(self.driver)
        made.revert_to_snapshot(cinderdb.context(), volume, snapshot)
        self.assertEqual([], made.generic)
        self.assertEqual(
            [groupcase.THEN, groupcase.NOW],
            [self.content(each) for each in self.volumes],
        )

    def test_delete_one(self):
        first, second = self.snapshots(self.made)
        self.driver.delete_snapshot(first)
        self.operator.get_snapshot(second.id)
        self.delete_snapshot(self.made)
        self.assert_gone(self.made, first, second)
        self.assertEqual([], list(self.operator.list_snapshots()))

    def test_a_copy_outlives_it(self):
        snapshot = self.snapshots(self.made)[0]
        volume = cinderdb.volume(snapshot_id=snapshot.id)
        self.driver.create_volume_from_snapshot(volume, snapshot)
        self.delete_snapshot(self.made)
        self.assert_gone(self.made)
        self.assertEqual(groupcase.THEN, self.content(volume))


class DeleteTest(groupcase.GroupCase):
    def setUp(self):
        super().setUp()
        self.made = self.new_snapshot()
        self.taken = self.snapshots(self.made)
        self.log.clear()

    def check_gone(self):
        self.assert_gone(self.made, *self.taken)
        self.assertEqual([], list(self.operator.list_snapshots()))

    def test_one_request(self):
        self.delete_snapshot(self.made)
        self.assertEqual(
            {"DELETE /v1/group-snapshots/{id}": 1}, dict(self.log.counts)
        )
        self.check_gone()

    def test_lost_replies(self):
        self.use_driver(*[transports.ReplyLost()] * 2)
        self.delete_snapshot(self.made)
        self.check_gone()

    def test_snapshots_of_cinders_own_way(self):
        """The type of the group was changed since."""
        self.operator.delete_group_snapshot(self.made.id)
        for each in self.taken:
            self.driver.create_snapshot(each)
        self.delete_snapshot(self.made)
        self.check_gone()

    def test_in_use(self):
        """None is deleted, and all of them stay available."""
        used = self.taken[0]
        self.operator.grant_snapshot_access(used.id, "somebody", ["192.0.2.7"])
        with (
            self.assertRaises(exception.VolumeDriverException),
            self.assertLogs("acme_cinder.groupsnapshots", "ERROR") as logs,
        ):
            self.delete_snapshot(self.made)
        self.assertIn("somebody", str(logs.output))
        self.assert_status("error", self.made)
        self.assert_status("available", *self.taken)
        self.operator.revoke_snapshot_access(used.id, "somebody")
        self.delete_snapshot(self.made)
        self.check_gone()

    def test_leftover_rules(self):
        """Of a backup that was cut off."""
        used = self.taken[0]
        self.driver.initialize_connection_snapshot(used, base.own_connector())
        self.delete_snapshot(self.made)
        self.check_gone()

    def test_another_appliance(self):
        """Nothing is deleted there, and Cinder keeps the snapshots."""
        namespace = self.appliance.make_token("driver", "cinder-b")
        self.use_driver(acme_api_token=namespace)
        with self.assertRaises(exception.VolumeDriverException):
            self.delete_snapshot(self.made)
        self.assert_status("available", *self.taken)
        self.assertEqual(2, len(list(self.operator.list_snapshots())))
