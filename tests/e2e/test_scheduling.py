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

"""Cinder's scheduler chooses between two pools."""

import os
from typing import Any

from tests.e2e import base
from tests.harness import processes

GIB = 1 << 30
SECONDS = 120


class SchedulingTestCase(base.E2ETestCase):
    more_pools = ("silver",)
    backend_options = "reserved_percentage = 10"
    cinder_options = """\
backend_stats_polling_interval = 3
scheduler_default_filters = CapacityFilter,CapabilitiesFilter,DriverFilter
scheduler_default_weighers = GoodnessWeigher
"""

    def free(self, name: str) -> float:
        (free,) = [
            pool.free_capacity_gb
            for pool in self.cinder.pools.list(detailed=True)
            if pool.name.endswith(f"#{name}")
        ]
        return float(free)

    def fill_gold(self) -> None:
        """Leave half of its eight GiB, without using volumes."""
        path = self.view.pool / "filling"
        self.addCleanup(path.unlink)
        with path.open("wb") as file:
            size = (self.free("gold") - 0.5) * GIB
            os.posix_fallocate(file.fileno(), 0, int(size))
        processes.wait_until(
            lambda: self.free("gold") < 0.7,
            "the scheduler's new figures",
            timeout_seconds=SECONDS,
        )

    def status(self, volume: Any) -> str:
        return str(self.cinder.volumes.get(volume.id).status)

    def test_what_is_nearly_full_gets_nothing(self) -> None:
        self.fill_gold()
        made = [
            self.cinder.volumes.create(size, name=f"of {size} GiB")
            for size in (1, 2, 4)
        ]
        for volume in made:
            processes.wait_until(
                lambda volume=volume: self.status(volume) == "available",
                f"volume {volume.name}",
                timeout_seconds=SECONDS,
            )
            found = self.cinder.volumes.get(volume.id)
            host = getattr(found, "os-vol-host-attr:host")
            self.assertEqual("demo@acme-1#silver", host)
            share = self.view.share(volume.id) or {}
            self.assertEqual("silver", share["pool"])
            self.cinder.volumes.delete(volume.id)
        processes.wait_until(
            lambda: not self.cinder.volumes.list(),
            "the deletes",
            timeout_seconds=SECONDS,
        )
        self.assert_nothing_left()
