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

"""Groups on real pools: group snapshots and copies hold what was there."""

import os

from tests.functional import test_service_on_btrfs
from tests.harness import machine
from tests.unit.appliance import fixtures
from tests.unit.appliance.storage import test_identity

MIB = fixtures.MIB
#: As many as a group can have.
COUNT = 100


class TestGroups(test_service_on_btrfs.RealCase):
    def setUp(self):
        super().setUp()
        self.group_id = self.put_group().body["id"]

    def make_shares(self, count):
        """Shares of the group with something different in each."""
        made = {}
        for _ in range(count):
            share_id = self.put_share(group_id=self.group_id).body["id"]
            self.write(share_id, 64 << 10)
            made[share_id] = self.path(share_id).read_bytes()
        return made

    def read_snapshot(self, snapshot_id):
        folder = self.engine.directory(fixtures.snapshot(snapshot_id))
        with open(os.path.join(folder, "volume"), "rb") as file:
            return file.read()

    def copy(self, type_, id_, members):
        new = {
            member: {
                "id": fixtures.new_id(),
                "name": "copy",
                "size_bytes": 2 * MIB,
            }
            for member in members
        }
        made = self.put_group(
            source={"type": type_, "id": id_}, shares=new
        ).body
        self.assertEqual(
            sorted(each["id"] for each in new.values()), made["share_ids"]
        )
        return {member: each["id"] for member, each in new.items()}

    def check_copies(self, copies, content):
        for member, share_id in copies.items():
            data = self.path(share_id).read_bytes()
            self.assertEqual(2 * MIB, len(data))
            self.assertEqual(content[member], data[:MIB])

    def test_snapshots_and_copies_of_a_full_group(self):
        content = self.make_shares(COUNT)
        snapshots = {share_id: fixtures.new_id() for share_id in content}
        taken = self.put_group_snapshot(snapshots, group_id=self.group_id).body
        self.assertIn(taken["moment"]["method"], ("engine", "cut"))
        for share_id in content:
            self.write(share_id, 64 << 10)
        now = {
            share_id: self.path(share_id).read_bytes() for share_id in content
        }
        for share_id, snapshot_id in snapshots.items():
            self.assertEqual(
                content[share_id], self.read_snapshot(snapshot_id)
            )
        old = self.copy("group_snapshot", taken["id"], snapshots.values())
        new = self.copy("group", self.group_id, content)
        self.delete_group_snapshot(taken["id"])
        self.check_copies(
            old, {snapshots[each]: content[each] for each in content}
        )
        self.check_copies(new, now)
        self.check_nothing_else([*content, *old.values(), *new.values()])
        for group in self.listed()["groups"]:
            self.delete_group(group["id"], shares="delete")
        self.check_nothing_else([])

    def test_database_is_lost(self):
        content = self.make_shares(2)
        snapshots = {share_id: fixtures.new_id() for share_id in content}
        taken = self.put_group_snapshot(snapshots).body
        before = self.listed()
        self.service.stop()
        test_identity.restore(self.database, {})
        self.service = self.new_service()
        report = self.service.reconciliation.restore(
            apply=True, adopt_into=None
        )
        self.assertEqual(
            {f"gold/{self.group_id}", f"gold/{taken['id']}"},
            set(report["added_groups"]),
        )
        self.service.start()
        self.assertEqual(before, self.listed())
        again = self.put_group_snapshot(snapshots, taken["id"])
        self.assertFalse(again.created)


class TestGroupsOnXfs(TestGroups):
    pool_class = machine.XfsPool
