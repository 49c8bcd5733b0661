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

"""The demonstration's messages arrive as they do from a broker."""

import datetime
import unittest

from cinder import objects

objects.register_all()  # or its modules cannot be imported

from cinder.scheduler import host_manager  # noqa: E402

from tests.harness import wire  # noqa: E402


class WireTest(unittest.TestCase):
    def test_pools_with_their_details(self):
        capabilities = host_manager.ReadOnlyDict(
            {"free_capacity_gb": 1.5, "timestamp": datetime.datetime.now()}
        )
        pools = [{"name": "demo@acme-1#gold", "capabilities": capabilities}]
        received = wire.WireSerializer(None).serialize_entity(None, pools)
        shown = received[0]["capabilities"].copy()
        self.assertEqual(1.5, shown["free_capacity_gb"])
        self.assertNotIsInstance(pools[0]["capabilities"], dict)
