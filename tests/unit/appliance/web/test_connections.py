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

"""Which connections give way to which."""

import unittest

import ddt

from acme_appliance import clientaddress
from acme_appliance.web import connections


class Case(unittest.TestCase):
    MOST = 6
    MOST_STRANGERS = 3

    def setUp(self) -> None:
        self.now = 100.0
        self.open = connections.Connections(
            self.MOST, self.MOST_STRANGERS, clock=lambda: self.now
        )
        self.ended: list[str] = []
        self.names: dict[str, connections.Connection] = {}

    def admit(self, name: str, address: str = "192.0.2.1") -> bool:
        connection = connections.Connection(
            address, lambda: self.ended.append(name)
        )
        self.names[name] = connection
        return self.open.admit(connection)

    def trust(self, name: str) -> None:
        self.open.trust(self.names[name])


class ConnectionsTest(Case):
    def test_the_oldest_stranger_of_an_address_gives_way(self):
        for name in "abcde":
            self.assertTrue(self.admit(name))
        self.assertEqual(["a", "b"], self.ended)
        self.assertEqual(3, len(self.open))

    def test_other_addresses_are_not_touched(self):
        self.admit("other", "192.0.2.2")
        for name in "abcde":
            self.admit(name)
        self.assertEqual(["a", "b"], self.ended)

    def test_who_has_shown_a_token_stays(self):
        self.admit("a")
        self.trust("a")
        for name in "bcdef":
            self.assertTrue(self.admit(name))
        self.assertEqual(["b", "c"], self.ended)

    def test_in_all_the_oldest_stranger_gives_way(self):
        for number, name in enumerate("abcdefg"):
            self.assertTrue(self.admit(name, f"192.0.2.{number}"))
        self.assertEqual(["a"], self.ended)
        self.assertEqual(self.MOST, len(self.open))

    def test_none_gives_way_where_all_have_a_token(self):
        for name in "abcdef":
            self.assertTrue(self.admit(name))
            self.trust(name)
        self.assertFalse(self.admit("g"))
        self.assertEqual([], self.ended)
        self.open.remove(self.names["a"])
        self.assertTrue(self.admit("g"))

    def test_a_stranger_again_is_the_newest(self):
        for name in "abc":
            self.admit(name)
        self.trust("a")
        self.open.distrust(self.names["a"])
        self.admit("d")
        self.assertEqual(["b"], self.ended)

    def test_one_that_has_ended_leaves_nothing(self):
        self.admit("a")
        self.trust("a")
        self.open.remove(self.names["a"])
        # Its request was still being served.
        self.open.distrust(self.names["a"])
        self.assertEqual(0, len(self.open))
        self.assertFalse(self.open.make_room())

    def test_the_log_is_not_filled(self):
        with self.assertLogs(connections.LOG, "WARNING") as logs:
            for number in range(50):
                self.admit(str(number))
            self.now += 3600
            self.admit("last")
        self.assertEqual(2, len(logs.output))


@ddt.ddt
class AddressesTest(Case):
    @ddt.data(
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::1", "fe80::/64"),
        ("::1", "::1", "::/64"),
        ("", "", ""),
    )
    @ddt.unpack
    def test_network(self, address, plain, network):
        self.assertEqual(plain, clientaddress.normalize(address))
        self.assertEqual(network, clientaddress.network(address))

    def test_a_whole_network_has_one_limit(self):
        for number in range(5):
            self.admit(str(number), f"2001:db8::{number}")
        self.assertEqual(["0", "1"], self.ended)
