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

"""Volumes whose host names no pool, at the start of Cinder's manager."""

from __future__ import annotations

from cinder import objects
from cinder.volume import volume_utils

from tests.unit.driver import cinderdb
from tests.unit.driver import managing


class PoolTest(managing.ManageCase):
    def count(self, volume: objects.Volume) -> objects.Volume:
        """As ``_init_host`` does for each volume; returns it reloaded."""
        volume.host = volume_utils.extract_host(volume.host)
        volume.save()
        self.manager.stats = {"pools": {}, "allocated_capacity_gb": 0}
        self.log.clear()
        self.manager._count_allocated_capacity(self.context, volume)
        return cinderdb.reloaded(volume)

    def pool_of(self, volume: objects.Volume) -> str | None:
        return volume_utils.extract_host(volume.host, "pool")

    def test_the_host_gets_the_pool(self):
        """Also of a managed volume, whose share has another id."""
        made = self.create(host="ctl-1@acme#silver")
        managed = self.manage_share(self.legacy(pool="gold"))
        for volume, pool in ((made, "silver"), (managed, "gold")):
            counted = self.count(volume)
            self.assertEqual(pool, self.pool_of(counted))
            self.assertEqual(
                {pool: {"allocated_capacity_gb": 1}},
                self.manager.stats["pools"],
            )
            self.assertEqual({"GET /v1/shares/{id}": 1}, dict(self.log.counts))

    def test_a_share_that_is_gone(self):
        """Cinder starts, and leaves the volume as it is."""
        volume = self.create()
        self.operator.delete_share(volume.id)
        with self.assertLogs("cinder.volume.manager", "ERROR") as logs:
            counted = self.count(volume)
        self.assertIn("VolumeNotFound", str(logs.output))
        self.assertIsNone(self.pool_of(counted))
