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

"""What is in use is told as busy, and stays usable."""

import random
import threading

from cinder import exception
import ddt

from acme_appliance.engines.memory import engine as memory
from tests.unit.driver import base
from tests.unit.driver import chains
from tests.unit.driver import cinderdb

SECONDS = 60


class Hold:
    """Stops the appliance's changes half-way."""

    def __init__(self) -> None:
        self.wanted = False
        self.reached = threading.Event()
        self.released = threading.Event()

    def on_step(self, job: str, step: str) -> None:
        if self.wanted:
            self.reached.set()
            self.released.wait(SECONDS)


class BusyShareTest(base.DriverTestCase):
    """Another change has the share for longer than a call may take."""

    def start_appliance(self):
        self.hold = Hold()
        self.appliance_options = {"on_step": self.hold.on_step}
        running = super().start_appliance()
        self.addCleanup(self.hold.released.set)
        return running

    def setUp(self):
        super().setUp()
        self.volume = self.create()
        self.taken = self.snapshot(self.volume)
        self.change = threading.Thread(
            target=self.driver.extend_volume, args=(self.volume, 2)
        )
        self.hurried = self.new_driver(acme_api_deadline_seconds=1)
        self.hold.wanted = True
        self.change.start()
        self.assertTrue(self.hold.reached.wait(SECONDS))
        self.hold.wanted = False

    def end_change(self):
        self.hold.released.set()
        self.change.join(SECONDS)
        self.assert_file(self.volume, 2)

    def test_volume(self):
        with self.assertRaisesRegex(exception.VolumeIsBusy, "share.busy"):
            self.hurried.delete_volume(self.volume)
        self.end_change()
        self.driver.delete_snapshot(self.taken)
        self.driver.delete_volume(self.volume)
        self.assertIsNone(self.find_share(self.volume.name_id))

    def test_snapshot(self):
        with self.assertRaisesRegex(exception.SnapshotIsBusy, "share.busy"):
            self.hurried.delete_snapshot(self.taken)
        self.end_change()
        self.driver.delete_snapshot(self.taken)


class BusyVolumeTest(base.DriverTestCase):
    def assert_usable(self, volume):
        """All that can be done with a volume can be done."""
        row = self.attach(volume, base.connector("cmp-1"))
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))
        self.detach(row)
        found = cinderdb.reloaded(volume)
        self.driver.extend_volume(found, 2)
        clone = cinderdb.volume(size=2, source_volid=volume.id)
        self.driver.create_cloned_volume(clone, found)
        self.assert_file(clone, 2)
        self.driver.delete_volume(clone)

    def test_with_snapshots(self):
        volume = self.create()
        snapshot = self.snapshot(volume)
        with self.assertRaisesRegex(exception.VolumeIsBusy, "has_snapshots"):
            self.driver.delete_volume(volume)
        self.assert_usable(volume)
        self.driver.delete_snapshot(snapshot)
        self.driver.delete_volume(cinderdb.reloaded(volume))
        self.assertIsNone(self.find_share(volume.name_id))

    def test_with_a_rule_of_somebody_else(self):
        volume = self.create()
        self.driver._api.grant_access(
            volume.name_id, "backup-box", ["192.0.2.99"], "rw"
        )
        with self.assertRaisesRegex(
            exception.VolumeIsBusy, "backup-box: .*remove these rules"
        ):
            self.driver.delete_volume(volume)
        self.driver._api.revoke_access(volume.name_id, "backup-box")
        self.assert_usable(volume)
        self.driver.delete_volume(cinderdb.reloaded(volume))
        self.assertIsNone(self.find_share(volume.name_id))


@ddt.ddt
class ChainTest(chains.ChainCase):
    def mark(self, volume, number):
        self.entries(volume)[volume.name].write(
            number * memory.BLOCK_BYTES, b"m" * memory.BLOCK_BYTES
        )

    def marks(self, volume):
        return sorted(self.entries(volume)[volume.name].blocks)

    @ddt.data(None, 1, 2)
    def test_any_order(self, seed):
        self.make_chain()
        self.delete_chain(None if seed is None else random.Random(seed))
