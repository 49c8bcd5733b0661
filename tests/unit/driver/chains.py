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

"""Clones of clones, and snapshots between them, deleted in any order."""

from __future__ import annotations

import random
from typing import Any

from cinder import exception
from cinder import objects

from tests.unit.driver import base
from tests.unit.driver import cinderdb

LENGTH = 50
#: Each third one is made from a snapshot of the one before.
_FROM_SNAPSHOT = 3


class ChainCase(base.DriverTestCase):
    """Whoever derives from it says how a guest writes and reads."""

    def mark(self, volume: objects.Volume, number: int) -> None:
        """Write something of that number where no other number is."""
        raise NotImplementedError

    def marks(self, volume: objects.Volume) -> list[int]:
        raise NotImplementedError

    def make_chain(self) -> None:
        self.volumes = [self.create()]
        self.snapshots: dict[int, objects.Snapshot] = {}
        self.mark(self.volumes[0], 0)
        for number in range(1, LENGTH + 1):
            volume = self._next(number)
            self.mark(volume, number)
            self.volumes.append(volume)

    def _next(self, number: int) -> objects.Volume:
        origin = self.volumes[-1]
        volume = cinderdb.volume()
        update: Any
        if number % _FROM_SNAPSHOT:
            update = self.driver.create_cloned_volume(volume, origin)
        else:
            snapshot = self.snapshot(origin)
            self.snapshots[number - 1] = snapshot
            update = self.driver.create_volume_from_snapshot(volume, snapshot)
        cinderdb.save(volume, update)
        return self.available(volume)

    def delete_chain(self, order: random.Random | None) -> None:
        """Delete all of it, each with one request.

        :param order: None: the oldest first.
        """
        left = list(range(len(self.volumes)))
        snapshots = list(self.snapshots)
        if order:
            order.shuffle(left)
            order.shuffle(snapshots)
        self.log.clear()
        calls = 0
        while left:
            calls += 1
            if snapshots and (not order or order.random() < 0.3):
                number = snapshots.pop(0)
                self.driver.delete_snapshot(self.snapshots[number])
            elif left[0] in snapshots:
                # The one thing that is in the way of a volume: its own
                # snapshot. Later, then.
                left.append(left.pop(0))
                with self.assertRaises(exception.VolumeIsBusy):
                    self.driver.delete_volume(self.volumes[left[-1]])
            else:
                self.driver.delete_volume(self.volumes[left.pop(0)])
            if calls % 10 == 0:
                self._check(left)
        self.assertEqual(calls, self.log.total)
        for volume in self.volumes:
            self.assertIsNone(self.find_share(volume.name_id))

    def _check(self, left: list[int]) -> None:
        """Those that are left are whole."""
        for number in left:
            self.assertEqual(
                list(range(number + 1)), self.marks(self.volumes[number])
            )
