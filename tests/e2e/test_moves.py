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

"""``cinder migrate`` between the pools of one appliance."""

from __future__ import annotations

import pathlib
from typing import Any

from tests.e2e import base
from tests.harness import content
from tests.harness import processes

GOLD, SILVER = "demo@acme-1#gold", "demo@acme-1#silver"
SECONDS = 120


class MoveTestCase(base.E2ETestCase):
    more_pools = ("silver",)
    cinder_options = "backend_stats_polling_interval = 3"

    def found(self, volume: Any) -> Any:
        return self.cinder.volumes.get(volume.id)

    def host_of(self, volume: Any) -> str:
        return str(getattr(self.found(volume), "os-vol-host-attr:host"))

    def create(self) -> Any:
        volume = self.cinder.volumes.create(1, name="moving")
        self.wait_until(
            lambda: self.found(volume).status == "available", "the volume"
        )
        return volume

    def wait_until(self, holds: Any, what: str) -> None:
        processes.wait_until(holds, what, timeout_seconds=SECONDS)

    def migrate(self, volume: Any, host: str) -> None:
        self.cinder.volumes.migrate_volume(volume.id, host, False, False)

        def is_over() -> bool:
            status = self.found(volume).migration_status
            return status in ("success", "error")

        self.wait_until(is_over, f"the migration to {host}")
        self.assertEqual("success", self.found(volume).migration_status)
        self.assertEqual(host, self.host_of(volume))
        self.assertEqual("available", self.found(volume).status)

    def file_in(self, pool: str, volume: Any) -> pathlib.Path:
        folder = self.view.pool.parent / pool / "shares" / volume.id
        return folder / f"volume-{volume.id}"

    def test_there_and_back(self) -> None:
        volume = self.create()
        first, other = "gold", "silver"
        if self.host_of(volume) == SILVER:
            first, other = other, first
        path = str(self.file_in(first, volume))
        content.write_pattern(path, "A")
        digest = content.digest(path)
        for pool, left in ((other, first), (first, other)):
            host = {"gold": GOLD, "silver": SILVER}[pool]
            self.migrate(volume, host)
            share = self.view.share(volume.id) or {}
            self.assertEqual(
                (pool, "available"), (share["pool"], share["state"])
            )
            self.assertFalse(self.file_in(left, volume).parent.exists())
            self.assertEqual(
                digest, content.digest(str(self.file_in(pool, volume)))
            )
            attached = self.host.attach(volume.id)
            self.assertEqual(digest, content.digest(str(attached.path)))
            self.host.detach(attached)
            self.wait_until(
                lambda: self.found(volume).status == "available", "the detach"
            )
        # Only the appliance had the data: Cinder made no second volume.
        self.assertEqual([volume.id], self.view.all_ids("shares"))
        self.cinder.volumes.delete(volume.id)
        self.wait_until(lambda: not self.cinder.volumes.list(), "the delete")
        self.assert_nothing_left()
