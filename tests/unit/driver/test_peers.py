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

"""A host that mounts is found by a service on another host."""

import unittest.mock

from cinder.db import api as db
from cinder.volume import driver_utils

from acme_cinder import addresses
from acme_cinder import holders
from acme_cinder import peers
from tests.unit.driver import base
from tests.unit.driver import cinderdb


class PeersTest(base.DriverTestCase):
    def data(self, namespace="peers"):
        return driver_utils.VolumeDriverUtils(namespace, db)

    def test_last_one_counts(self):
        host = self.id()
        one = peers.PeerAddresses(self.data())
        other = peers.PeerAddresses(self.data())
        self.assertIsNone(other.of(host))
        for address in ("198.51.100.1", "198.51.100.2", "198.51.100.1"):
            for _ in range(2):
                one.publish(host, address)
            self.assertEqual(address, other.of(host))
        other.publish(host, "198.51.100.1")
        self.assertEqual(3, len(self.data().get_driver_initiator_data(host)))
        self.assertIsNone(peers.PeerAddresses(self.data("other")).of(host))

    def test_a_peer_grants_what_the_host_mounts_from(self):
        """The service on ctl-2 attaches a volume to ctl-1, for a backup."""
        volume = self.create()
        with (
            unittest.mock.patch.object(
                holders, "this_host", return_value="ctl-1"
            ),
            unittest.mock.patch.object(
                addresses, "source_address", return_value="198.51.100.11"
            ),
        ):
            self.new_driver(volume_backend_name="acme-peers")
        self.driver = self.new_driver(volume_backend_name="acme-peers")
        self.driver.initialize_connection(
            cinderdb.reloaded(volume), base.connector("ctl-1", "10.0.0.11")
        )
        self.assertEqual(
            {"10.0.0.11": "rw", "198.51.100.11": "rw"}, self.exported(volume)
        )

    def test_a_host_that_cannot_tell(self):
        data = self.data()
        with (
            unittest.mock.patch.object(
                addresses, "source_address", side_effect=OSError("no route")
            ),
            self.assertLogs("acme_cinder.peers", "WARNING"),
        ):
            peers.PeerAddresses(data).publish_own(["192.0.2.10"])
