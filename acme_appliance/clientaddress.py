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

"""Normalize the addresses of clients, as sockets report them."""

import ipaddress


def normalize(address: str) -> str:
    """An address without its zone; IPv4-mapped ones as IPv4."""
    address = address.partition("%")[0]
    if not address.startswith("::ffff:"):
        return address
    mapped = ipaddress.IPv6Address(address).ipv4_mapped
    return str(mapped) if mapped else address


def network(address: str) -> str:
    """The network of one client: an IPv6 client owns a whole /64."""
    address = normalize(address)
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))
