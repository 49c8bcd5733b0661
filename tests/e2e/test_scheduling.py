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

import contextlib
import os
import shutil
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
        """Leave half a GiB, without using volumes."""
        path = self.view.pool / "filling"
        self.addCleanup(path.unlink)
        with path.open("wb") as file:
            processes.wait_until(
                lambda: self.is_filled(file.fileno()),
                "the scheduler's new figures",
                timeout_seconds=SECONDS,
            )

    def is_filled(self, fd: int) -> bool:
        more = shutil.disk_usage(self.view.pool).free - GIB // 2
        if more > 0:
            # Space of deleted shares counts as free before it can be used.
            with contextlib.suppress(OSError):
                os.posix_fallocate(fd, os.fstat(fd).st_size, more)
        return self.free("gold") < 0.7

    def status(self, volume: Any) -> str:
        return str(self.cinder.volumes.get(volume.id).status)

    def test_what_is_nearly_full_gets_nothing(self) -> None:
        self.fill_gold()
        made = [
            self.cinder.volumes.create(size, name=f"of {size} GiB")
            for size in (1, 2, 4)
        ]
        for volume in made:
            self.wait_until_available(volume)
            found = self.cinder.volumes.get(volume.id)
            host = getattr(found, "os-vol-host-attr:host")
            self.assertEqual("demo@acme-1#silver", host)
            share = self.view.share(volume.id) or {}
            self.assertEqual("silver", share["pool"])
        self.delete(*made)
        self.assert_nothing_left()

    def test_thick_volumes_by_their_type(self) -> None:
        kind = self.cinder.volume_types.create("thick")
        self.addCleanup(self.cinder.volume_types.delete, kind.id)
        kind.set_keys(
            {
                "acme:provisioning": "thick",
                "provisioning:type": "thick",
                "thick_provisioning_support": "<is> True",
            }
        )
        thin = self.cinder.volumes.create(1, name="thin")
        thick = self.cinder.volumes.create(
            1, name="thick", volume_type="thick"
        )
        for volume, allocation, least in (
            (thin, "sparse", 0),
            (thick, "full", GIB),
        ):
            self.wait_until_available(volume)
            share = self.view.share(volume.id) or {}
            self.assertEqual(allocation, share["file"]["allocation"])
            self.assertGreaterEqual(share["used_bytes"], least)
        self.delete(thin, thick)
        self.assert_nothing_left()

    def wait_until_available(self, volume: Any) -> None:
        processes.wait_until(
            lambda: self.status(volume) == "available",
            f"volume {volume.name}",
            timeout_seconds=SECONDS,
        )

    def delete(self, *volumes: Any) -> None:
        for volume in volumes:
            self.cinder.volumes.delete(volume.id)
        processes.wait_until(
            lambda: not self.cinder.volumes.list(),
            "the deletes",
            timeout_seconds=SECONDS,
        )
