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

"""The complete service with the reflink engine, and its clients."""

import stat

from tests.functional import test_kernel_exporter
from tests.functional import test_service_on_btrfs
from tests.harness import machine


class TestLifeOfAVolume(test_service_on_btrfs.TestLifeOfAVolume):
    pool_class = machine.XfsPool


class TestLifeOfAVolumeOnBtrfs(test_service_on_btrfs.TestLifeOfAVolume):
    pool_class = machine.ReflinkPool


class TestFullPool(test_service_on_btrfs.TestFullPool):
    pool_class = machine.XfsPool


class TestHostileClients(test_service_on_btrfs.TestHostileClients):
    pool_class = machine.XfsPool

    def test_link_where_a_clones_file_is_to_be(self):
        """Links are not copied, so they do no harm."""
        self.plant("clone", self.outside)
        clone = self.clone(
            "share", self.share_id, file={"name": "clone", "uid": 1001}
        ).body
        self.assertEqual("available", clone["state"])
        path = self.path(clone["id"], "clone")
        self.assertTrue(stat.S_ISREG(path.lstat().st_mode))
        self.assertEqual(0, self.outside.stat().st_uid)


class TestMounts(test_kernel_exporter.TestMounts):
    pool_class = machine.XfsPool
