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

"""The start of the service with attached volumes."""

import time

import ddt

from acme_cinder import exportcheck
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb


class SlowAnswer(transports.Fault):
    """Answered after a while, by the clock that the driver looks at."""

    def __init__(self, clock, seconds):
        self._clock = clock
        self._seconds = seconds

    def apply(self, request, send):
        self._clock.now += self._seconds
        return send()


class Clock:
    def __init__(self):
        self.now = time.monotonic()

    def __call__(self):
        return self.now


class StartCase(base.DriverTestCase):
    def setUp(self):
        super().setUp()
        self.volumes = [self.attached() for _ in range(3)]

    def attached(self):
        volume = self.create()
        self.attach(volume, base.connector("cmp-1"))
        volume = cinderdb.reloaded(volume)
        volume.status = "in-use"
        volume.save()
        return volume

    def restart(self, made=None, **changes):
        """As the manager's init_host."""
        self.driver = made or self.new_driver(**changes)
        self.driver._initialized = False
        self.log.clear()
        for volume in self.volumes:
            self.driver.ensure_export(self.context, volume)
        self.driver.set_initialized()

    def stats(self):
        return self.driver.get_volume_stats(refresh=True)

    def statuses(self):
        return {cinderdb.reloaded(each).status for each in self.volumes}

    def with_clock(self, made):
        clock = Clock()
        made._export_check._clock = clock
        made._export_check.begin()
        return clock


@ddt.ddt
class StartTest(StartCase):
    def test_one_request_for_all_volumes(self):
        self.restart()
        self.assertEqual({"GET /v1/shares": 1}, dict(self.log.counts))
        self.log.clear()
        self.assertEqual("up", self.stats()["backend_state"])
        self.assertEqual({"GET /v1/stats": 1}, dict(self.log.counts))

    def test_lost_rules_are_restored(self):
        for volume in self.volumes:
            self.driver._api.revoke_access(volume.name_id, "cinder:cmp-1")
        self.restart()
        for volume in self.volumes:
            self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))

    def test_a_token_of_another_namespace(self):
        token = self.appliance.make_token("driver", "cinder-b")
        with self.assertLogs("acme_cinder", "ERROR") as logs:
            self.restart(acme_api_token=token)
            stats = self.stats()
            self.stats()
        self.assertEqual(1, len(logs.records), logs.output)
        self.assertIn("acme_api_token", logs.output[0])
        self.assertEqual("down", stats["backend_state"])
        self.assertEqual(
            {"down"}, {pool["backend_state"] for pool in stats["pools"]}
        )
        self.assertEqual({"in-use"}, self.statuses())
        for volume in self.volumes:
            self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))

    def test_an_appliance_that_was_replaced(self):
        self.appliance = self.start_appliance()
        with self.assertLogs("acme_cinder", "ERROR") as logs:
            self.restart()
            self.assertEqual("down", self.stats()["backend_state"])
        self.assertEqual(1, len(logs.records), logs.output)
        self.assertEqual({"in-use"}, self.statuses())

    def test_the_way_back(self):
        """The volumes are gone, too, or a share is there again."""
        old, self.appliance = self.appliance, self.start_appliance()
        self.restart()
        self.assertEqual("down", self.stats()["backend_state"])
        for volume in self.volumes[1:]:
            volume.status = "available"
            volume.save()
        self.assertEqual("down", self.stats()["backend_state"])
        for volume in self.volumes:
            volume.destroy()
        self.assertEqual("up", self.stats()["backend_state"])
        self.appliance = old

    def test_one_share_is_gone(self):
        lost = self.volumes[1]
        self.driver.terminate_connection(lost, None)
        self.driver._api.delete_share(lost.name_id)
        with self.assertLogs("acme_cinder", "ERROR") as logs:
            self.restart()
            stats = self.stats()
            self.stats()
        self.assertEqual(1, len(logs.records), logs.output)
        self.assertIn(lost.id, logs.output[0])
        self.assertEqual("up", stats["backend_state"])
        self.assertEqual({"in-use"}, self.statuses())

    def test_what_one_lost_share_costs_from_then_on(self):
        """Not a list of all shares, each minute."""
        lost = self.volumes[1]
        self.driver.terminate_connection(lost, None)
        self.driver._api.delete_share(lost.name_id)
        self.restart()
        self.stats()
        self.log.clear()
        self.stats()
        self.assertEqual(
            {"GET /v1/stats": 1, "GET /v1/shares/{id}": 1},
            dict(self.log.counts),
        )

    @ddt.data(
        transports.unavailable(),
        transports.Refused(),
        transports.garbage(),
        transports.unauthorised(),
        transports.problem(500, "internal"),
        transports.problem(404, "namespace.not_found"),
    )
    def test_a_fault_that_passes(self, fault):
        for volume in self.volumes:
            self.driver._api.revoke_access(volume.name_id, "cinder:cmp-1")
        faults = [fault] * 30
        made = self.new_driver(
            faults, matches=lambda request: "/shares" in request.url
        )
        made._api = made._api.with_deadline(0.5)
        self.restart(made)
        self.assertEqual({"in-use"}, self.statuses())
        self.adapter._faults.clear()
        self.assertEqual("up", self.stats()["backend_state"])
        for volume in self.volumes:
            self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))

    def test_slow_answers_do_not_keep_the_start(self):
        for volume in self.volumes:
            self.driver._api.revoke_access(volume.name_id, "cinder:cmp-1")
        made = self.new_driver(matches=lambda request: True)
        clock = self.with_clock(made)
        self.adapter.add(*[SlowAnswer(clock, 14)] * 99)
        started = clock()
        self.restart(made)
        kept = clock() - started
        self.assertLess(kept, exportcheck.BUDGET_SECONDS + 60)
        self.assertIn({}, [self.exported(volume) for volume in self.volumes])
        for _ in range(3):
            self.stats()
        for volume in self.volumes:
            self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))

    def test_a_list_that_takes_too_long(self):
        made = self.new_driver()
        clock = self.with_clock(made)
        for volume in self.volumes:
            made._api.revoke_access(volume.name_id, "cinder:cmp-1")
        self.adapter.add(SlowAnswer(clock, exportcheck.BUDGET_SECONDS))
        self.restart(made)
        self.assertEqual({"GET /v1/shares": 1}, dict(self.log.counts))
        self.stats()
        for volume in self.volumes:
            self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))
