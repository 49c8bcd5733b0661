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

"""Cinder's own scheduler chooses between pools and appliances."""

import dataclasses
import threading
import unittest
import uuid

from cinder import objects
from cinder.common import constants
from cinder.scheduler import filter_scheduler
from cinder.scheduler import host_manager
from cinder.scheduler import scheduler_options
from cinder.scheduler.evaluator import evaluator
from cinder.volume import manager
from oslo_config import cfg
from oslo_utils import timeutils

from acme_cinder import scheduling
import acme_client
from tests.harness import inprocess
from tests.unit.driver import base

GIB = base.GIB
FILTERS = [
    "AvailabilityZoneFilter",
    "CapacityFilter",
    "CapabilitiesFilter",
]


class Scheduler(filter_scheduler.FilterScheduler):
    """Without messages to other services."""

    def __init__(self):
        self.host_manager = host_manager.HostManager()
        self.options = scheduler_options.SchedulerOptions()
        self.max_attempts = 1


class SchedulerCase(base.DriverTestCase):
    """Two appliances: ``one`` with two pools, ``two`` with one.

    Only the figures are what makes them differ.
    """

    appliance_options = {"pools": ["gold", "silver"], "pool_bytes": 100 * GIB}
    driver_options = {
        "max_over_subscription_ratio": "5.0",
        "reserved_percentage": 10,
    }
    filters = [*FILTERS, "DriverFilter"]
    weighers = ["GoodnessWeigher"]

    def setUp(self):
        super().setUp()
        for name, value in (
            ("scheduler_default_filters", self.filters),
            ("scheduler_default_weighers", self.weighers),
        ):
            cfg.CONF.set_override(name, value)
            self.addCleanup(cfg.CONF.clear_override, name)
        self.other = inprocess.RunningAppliance(
            pools=["bronze"], pool_bytes=100 * GIB, portals=["127.0.0.1"]
        ).start()
        self.addCleanup(self.other.stop)
        self.drivers = {
            "ctl-1@one": self.driver,
            "ctl-1@two": self.new_driver(
                acme_api_addresses=[self.other.url],
                acme_api_token=self.other.token,
                acme_api_ca_file=self.other.ca_file,
            ),
        }
        for host in self.drivers:
            service = objects.Service(
                context=self.context,
                host=host,
                binary=constants.VOLUME_BINARY,
                topic=constants.VOLUME_TOPIC,
                availability_zone="nova",
                report_count=1,
            )
            service.create()
            self.addCleanup(service.destroy)
            service.updated_at = timeutils.utcnow()
            service.save()

    def candidates(self, size=1, extra_specs=None):
        """The pools that a volume may go to, the best one first."""
        scheduler = Scheduler()
        for host, driver in self.drivers.items():
            scheduler.host_manager.update_service_capabilities(
                "volume", host, self.report(driver), None, None
            )
        found = scheduler._get_weighted_candidates(
            self.context,
            {
                "volume_type": {"extra_specs": extra_specs or {}},
                "volume_properties": {
                    "size": size,
                    "availability_zone": "nova",
                },
                "volume_id": "a volume",
            },
        )
        return [each.obj.backend_id.partition("#")[2] for each in found]

    def report(self, driver):
        """As the manager sends it, with what it adds itself."""
        stats = driver.get_volume_stats(refresh=True)
        for pool in stats["pools"]:
            pool["allocated_capacity_gb"] = 0
        return manager.VolumeManager._append_filter_goodness_functions(
            type("Manager", (), {"driver": driver})(), stats
        )

    def fill(self, appliance, pool, size_gib):
        """Leave so much of what is free; nothing more is promised."""
        engine = appliance.engines[pool]
        full = dataclasses.replace(
            engine.usage(),
            free_bytes=size_gib * GIB,
            used_bytes=(100 - size_gib) * GIB,
        )
        engine.usage = lambda: full

    def promise(self, appliance, pool, size_gib):
        """With a thin volume; nothing more is used."""
        with acme_client.Client(
            [appliance.url],
            acme_client.BearerToken(appliance.token),
            verify=appliance.ca_file,
        ) as api:
            api.create_share(
                str(uuid.uuid4()),
                name="promised",
                pool=pool,
                size_bytes=size_gib * GIB,
            )


class GoodnessTest(SchedulerCase):
    def test_the_emptiest_first(self):
        self.fill(self.appliance, "gold", 40)
        self.fill(self.other, "bronze", 60)
        self.assertEqual(["silver", "bronze", "gold"], self.candidates())

    def test_what_is_promised_counts(self):
        self.promise(self.appliance, "silver", 400)
        self.promise(self.other, "bronze", 100)
        self.assertEqual(["gold", "bronze", "silver"], self.candidates())

    def test_the_lesser_of_both(self):
        self.fill(self.appliance, "gold", 30)
        self.promise(self.appliance, "gold", 100)
        self.promise(self.appliance, "silver", 250)
        self.promise(self.other, "bronze", 400)
        self.assertEqual(["silver", "gold", "bronze"], self.candidates())

    def test_nearly_full(self):
        """What is left there is reserved."""
        self.fill(self.appliance, "gold", 9)
        self.fill(self.appliance, "silver", 50)
        self.assertEqual(["bronze", "silver"], self.candidates())

    def test_all_nearly_full(self):
        for appliance, pool in (
            (self.appliance, "gold"),
            (self.appliance, "silver"),
            (self.other, "bronze"),
        ):
            self.fill(appliance, pool, 5)
        self.assertEqual([], self.candidates())

    def test_too_much_promised(self):
        self.promise(self.appliance, "gold", 440)
        self.promise(self.other, "bronze", 440)
        self.assertEqual(["silver"], self.candidates(size=20))
        self.assertEqual([], self.candidates(size=500))

    def test_an_appliance_is_down(self):
        self.candidates()
        self.other.stop()
        self.assertEqual({"gold", "silver"}, set(self.candidates()))

    def test_a_pool_is_down(self):
        self.hang("gold")
        self.assertEqual({"silver", "bronze"}, set(self.candidates()))

    def hang(self, pool):
        hang = threading.Event()
        self.addCleanup(hang.set)
        self.candidates()
        self.appliance.engines[pool].check = hang.wait

    def test_automatic_over_subscription(self):
        for host, appliance in (
            ("ctl-1@one", self.appliance),
            ("ctl-1@two", self.other),
        ):
            self.drivers[host] = self.new_driver(
                acme_api_addresses=[appliance.url],
                acme_api_token=appliance.token,
                acme_api_ca_file=appliance.ca_file,
                max_over_subscription_ratio="auto",
            )
        self.fill(self.appliance, "gold", 30)
        self.fill(self.other, "bronze", 60)
        self.assertEqual(["silver", "bronze", "gold"], self.candidates())

    def test_functions_of_the_configuration(self):
        for host, goodness in (("ctl-1@one", "1"), ("ctl-1@two", "99")):
            group = self.drivers[host].configuration.config_group
            cfg.CONF.set_override("goodness_function", goodness, group)
        self.fill(self.other, "bronze", 20)
        self.assertEqual("bronze", self.candidates()[0])
        cfg.CONF.set_override("filter_function", "1 > 2", group)
        self.assertEqual({"gold", "silver"}, set(self.candidates()))


class DefaultSchedulerTest(SchedulerCase):
    """As Cinder is installed: without the functions."""

    filters = FILTERS
    weighers = ["CapacityWeigher"]

    def test_the_emptiest_first(self):
        self.promise(self.appliance, "silver", 300)
        self.promise(self.other, "bronze", 100)
        self.assertEqual(["gold", "bronze", "silver"], self.candidates())

    def test_down(self):
        """The volumes are thin: that nothing is free would not do."""
        hang = threading.Event()
        self.addCleanup(hang.set)
        self.candidates()
        self.appliance.engines["gold"].check = hang.wait
        self.assertEqual({"silver", "bronze"}, set(self.candidates()))
        self.other.stop()
        self.assertEqual(["silver"], self.candidates())

    def test_capabilities(self):
        self.assertEqual(
            ["silver"],
            self.candidates(extra_specs={"pool_name": "silver"}),
        )
        self.assertEqual(
            ["gold", "silver", "bronze"],
            self.candidates(
                extra_specs={"thick_provisioning_support": "<is> True"}
            ),
        )
        self.assertEqual(
            [],
            self.candidates(extra_specs={"replication_enabled": "<is> True"}),
        )


class FunctionsTest(unittest.TestCase):
    """Of odd figures: both can always be evaluated, by Cinder's code."""

    def evaluated(self, **figures):
        report = {
            "total_capacity_gb": 100.0,
            "free_capacity_gb": 50.0,
            "provisioned_capacity_gb": 100.0,
            "reserved_percentage": 0,
            "max_over_subscription_ratio": 20.0,
            **figures,
        }
        return (
            evaluator.evaluate(scheduling.filter_function(report)),
            evaluator.evaluate(scheduling.goodness_function(report)),
        )

    def test_values(self):
        self.assertEqual((True, 50), self.evaluated())
        self.assertEqual((True, 43), self.evaluated(reserved_percentage=7))
        self.assertEqual(
            (True, 0), self.evaluated(provisioned_capacity_gb=9999.99)
        )
        self.assertEqual((False, 0), self.evaluated(free_capacity_gb=0))
        self.assertEqual((False, 0), self.evaluated(reserved_percentage=100))
        self.assertEqual(
            (False, 0),
            self.evaluated(total_capacity_gb=0, free_capacity_gb=0),
        )
        self.assertEqual(
            (True, 100),
            self.evaluated(
                total_capacity_gb=0.25,
                free_capacity_gb=0.25,
                provisioned_capacity_gb=0,
            ),
        )
        self.assertEqual(
            (True, 50),
            self.evaluated(
                max_over_subscription_ratio="auto",
                provisioned_capacity_gb=5000,
            ),
        )


del SchedulerCase
