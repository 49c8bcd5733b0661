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

"""What the scheduler is told."""

import json
import threading
import unittest.mock

from cinder.scheduler import host_manager
from oslo_utils import timeutils

import acme_client
from tests.unit.driver import base
from tests.unit.driver import cinderdb


class StatsTest(base.DriverTestCase):
    appliance_options = {"pools": ["gold", "silver"], "pool_bytes": 1 << 40}
    driver_options = {
        "max_over_subscription_ratio": "5.0",
        "reserved_percentage": 7,
    }

    def stats(self):
        return self.driver.get_volume_stats(refresh=True)

    def pool(self, name="gold"):
        return next(
            pool for pool in self.stats()["pools"] if pool["pool_name"] == name
        )

    def test_back_end(self):
        stats = self.stats()
        self.assertEqual("NFS", stats["storage_protocol"])
        self.assertEqual("acme", stats["vendor_name"])
        self.assertEqual("up", stats["backend_state"])
        self.assertEqual(self.driver.VERSION, stats["driver_version"])
        self.assertEqual(
            ["gold", "silver"],
            [pool["pool_name"] for pool in stats["pools"]],
        )
        json.dumps(stats)

    def test_pool(self):
        self.create(size=10)
        pool = self.pool()
        expected = {
            "total_capacity_gb": 1024.0,
            "free_capacity_gb": 1024.0,
            "provisioned_capacity_gb": 10.0,
            "max_over_subscription_ratio": "5.0",
            "reserved_percentage": 7,
            "thin_provisioning_support": True,
            "thick_provisioning_support": True,
            "online_extend_support": True,
            "multiattach": True,
            "QoS_support": True,
            "backend_state": "up",
            "total_volumes": 1,
            "consistent_group_snapshot_enabled": True,
            "clone_across_pools": False,
        }
        expected["max_over_subscription_ratio"] = 5.0
        self.assertEqual(expected, {key: pool[key] for key in expected})

    def test_pool_that_does_not_answer_is_down_alone(self):
        hang = threading.Event()
        self.addCleanup(hang.set)
        self.pool()
        self.appliance.engines["gold"].check = hang.wait
        gold, silver = self.pool("gold"), self.pool("silver")
        self.assertEqual("down", gold["backend_state"])
        self.assertEqual(0, gold["free_capacity_gb"])
        self.assertEqual(0, gold["total_capacity_gb"])
        self.assertEqual("up", silver["backend_state"])
        self.assertEqual("up", self.stats()["backend_state"])

    def test_the_scheduler_sees_the_flags(self):
        """They count only inside of pools."""
        state = host_manager.BackendState("ctl-1@acme", None)
        state.update_from_volume_capability(
            {**self.stats(), "timestamp": timeutils.utcnow()}
        )
        pool = state.pools["gold"]
        self.assertTrue(pool.thin_provisioning_support)
        self.assertTrue(pool.multiattach)
        self.assertTrue(pool.capabilities["online_extend_support"])
        self.assertEqual(1024.0, pool.total_capacity_gb)

    def test_what_the_manager_reads_is_at_the_top(self):
        self.driver.init_capabilities()
        found = self.driver.capabilities
        self.assertIs(True, found["sparse_copy_volume"])
        self.assertIs(False, found["clone_across_pools"])
        self.driver = self.new_driver(nfs_sparsed_volumes=False)
        self.assertIs(False, self.stats()["sparse_copy_volume"])

    def test_a_silent_appliance_is_soon_reported(self):
        """And not after the deadline of all other calls, minutes later."""
        seen = []
        real = acme_client.Client.get_stats

        def spy(api):
            seen.append(api._calls.deadline_seconds)
            return real(api)

        with unittest.mock.patch.object(acme_client.Client, "get_stats", spy):
            self.stats()
        self.assertEqual([30.0], seen)

    def test_thick(self):
        self.driver = self.new_driver(nfs_sparsed_volumes=False)
        self.assertFalse(self.pool()["thin_provisioning_support"])
        self.assertTrue(self.pool()["thick_provisioning_support"])

    def test_chosen_pools(self):
        self.driver = self.new_driver(acme_pools=["silver"])
        names = [pool["pool_name"] for pool in self.stats()["pools"]]
        self.assertEqual(["silver"], names)

    def test_volumes_go_to_the_pool_the_scheduler_chose(self):
        volume = self.create(host="ctl-1@acme#silver")
        self.assertEqual("silver", self.share(volume).pool)

    def test_requests(self):
        self.stats()
        self.log.clear()
        self.stats()
        self.assertEqual({"GET /v1/stats": 1}, dict(self.log.counts))
        self.assertEqual(304, self.appliance.requests[-1].status)
        self.driver.get_volume_stats()
        self.assertEqual(1, self.log.total)

    def test_the_appliance_is_down(self):
        """Not an exception; no room, so that volumes go elsewhere."""
        self.stats()
        self.appliance.stop()
        stats = self.stats()
        self.assertEqual("down", stats["backend_state"])
        for pool in stats["pools"]:
            self.assertEqual("down", pool["backend_state"])
            self.assertEqual(0, pool["free_capacity_gb"])
            self.assertEqual(0, pool["total_capacity_gb"])

    def test_down_from_the_start(self):
        self.driver = self.new_driver(acme_pools=["gold"])
        self.driver._stats = {}
        self.appliance.stop()
        stats = self.stats()
        self.assertEqual(
            [("gold", 0)],
            [
                (pool["pool_name"], pool["free_capacity_gb"])
                for pool in stats["pools"]
            ],
        )

    def test_init_capabilities(self):
        self.driver.init_capabilities()
        self.assertIn("pools", self.driver.capabilities)
        self.assertIn("properties", self.driver.capabilities)


class MinimalVendorStatsTest(base.WithoutVolumeFile, base.DriverTestCase):
    def test_volumes_grow_online_through_a_mount(self):
        pool = self.driver.get_volume_stats(refresh=True)["pools"][0]
        self.assertTrue(pool["online_extend_support"])
        self.assertFalse(pool["consistent_group_snapshot_enabled"])
        volume = self.create()
        self.attach(volume, base.connector("cmp-1"))
        self.driver.extend_volume(cinderdb.reloaded(volume), 2)
        self.assert_file(volume, 2)
