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

"""What an operator is told of a kernel without simple quotas."""

import pathlib
import tempfile
import unittest
from unittest import mock

from acme_appliance.engines import plugin
from acme_appliance.engines.btrfs.plugin import BtrfsPlugin
from acme_appliance.host import btrfsquota


class KernelTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        sysfs = mock.patch.object(btrfsquota, "_SYSFS", self.folder)
        self.enterContext(sysfs)

    def apply(self, quota):
        pool = plugin.Pool(
            name="gold",
            engine="btrfs",
            path=str(self.folder),
            device=None,
            options={"quota": quota},
        )
        BtrfsPlugin().apply_options(pool)

    def test_older_than_6_7(self):
        (self.folder / "commit").mkdir()
        self.apply("none")
        with self.assertRaisesRegex(
            plugin.PoolError, "not support simple quotas: .*quota to none"
        ):
            self.apply("simple")
        self.assertRegex(btrfsquota.advice(), "Linux 6.7 .*quota to none")

    def test_not_on_what_is_below_a_pool_that_is_not_mounted(self):
        with (
            mock.patch.object(btrfsquota, "enable", autospec=True) as enable,
            self.assertRaisesRegex(plugin.PoolError, "is it mounted"),
        ):
            self.apply("simple")
        enable.assert_not_called()

    def test_newer(self):
        (self.folder / "features").mkdir()
        (self.folder / "features" / "simple_quota").touch()
        self.assertRegex(btrfsquota.advice(), "restart the appliance")
