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

"""From which addresses a host reaches the appliance.

Cinder tells the address that a host is known by, which is often not the one
on the storage network.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import ipaddress
import socket
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NFS_PORT = 2049


@dataclasses.dataclass(frozen=True)
class Mapped:
    """``acme_client_networks``, parsed.

    :ivar hosts: by host name or address as text.
    :ivar networks: in the order given, pairs of the same size.
    """

    hosts: Mapping[str, tuple[str, ...]]
    networks: tuple[tuple[Network, Network], ...]


@dataclasses.dataclass(frozen=True)
class ClientAddresses:
    """Whom to let in for a host."""

    mapped: Mapped
    fixed: tuple[str, ...] = ()

    def of(self, host: str, address: str) -> tuple[str, ...]:
        """The clients of an access rule for a host.

        :param address: as Cinder knows the host.
        :raises ValueError: it is no IP address, and no entry of
            ``acme_client_networks`` is for that host or text.
        """
        return self._with_fixed(self._translated(host, address))

    def of_this_host(
        self, host: str, address: str | None, portal: str
    ) -> tuple[str, ...]:
        """Likewise for the host that this runs on, which can look.

        :param address: as Cinder knows it, None where it did not say.
        :param portal: the NFS address, to find the way to.
        """
        found: list[str] = []
        if address:
            found.extend(self._translated(host, address))
        elif host in self.mapped.hosts:
            found.extend(self.mapped.hosts[host])
        found.append(source_address(portal))
        return self._with_fixed(found)

    def _translated(self, host: str, address: str) -> tuple[str, ...]:
        for key in (host, host.split(".", 1)[0], address):
            if key in self.mapped.hosts:
                return self.mapped.hosts[key]
        parsed = ipaddress.ip_address(address)
        for known, reached in self.mapped.networks:
            if parsed in known:
                offset = int(parsed) - int(known.network_address)
                return (str(reached.network_address + offset),)
        return (str(parsed),)

    def _with_fixed(self, found: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*found, *self.fixed]))


def parse_mapping(items: Iterable[str]) -> Mapped:
    """Parse ``acme_client_networks``.

    :raises ValueError: with the entry, and what is expected.
    """
    hosts: dict[str, tuple[str, ...]] = {}
    networks: list[tuple[Network, Network]] = []
    for item in items:
        known, separator, reached = (
            part.strip() for part in item.partition("=")
        )
        if not (known and separator and reached):
            raise ValueError(f"NETWORK=NETWORK or HOST=ADDRESS, not {item!r}")
        if "/" in known:
            networks.append(_network_pair(known, reached, item))
        else:
            hosts.setdefault(known, _addresses(reached, item))
    return Mapped(hosts, tuple(networks))


def parse_client(text: str) -> Address | Network:
    """An address, or a network. :raises ValueError: it is neither."""
    if "/" in text:
        return ipaddress.ip_network(text.strip())
    return ipaddress.ip_address(text.strip())


def _network_pair(
    known_text: str, reached_text: str, item: str
) -> tuple[Network, Network]:
    try:
        known = ipaddress.ip_network(known_text)
        reached = ipaddress.ip_network(reached_text)
    except ValueError as error:
        raise ValueError(f"{error}, in {item!r}") from None
    if known.num_addresses != reached.num_addresses:
        raise ValueError(f"two networks of the same size, not {item!r}")
    return known, reached


def _addresses(text: str, item: str) -> tuple[str, ...]:
    try:
        return tuple(
            str(ipaddress.ip_address(part.strip())) for part in text.split("|")
        )
    except ValueError as error:
        raise ValueError(f"{error}, in {item!r}") from None


def usable(connector: Mapping[str, Any], known: ClientAddresses) -> bool:
    """Whether the connector says enough for an access rule."""
    try:
        known.of(str(connector["host"]), str(connector.get("ip") or ""))
    except (KeyError, ValueError):
        return False
    return bool(connector["host"])


def source_address(portal: str) -> str:
    """The address that packets to a portal leave this host with.

    Asks the routing table only; nothing is sent.

    :raises OSError: there is no route, or no such host.
    """
    family, kind, protocol, _, where = socket.getaddrinfo(
        portal, _NFS_PORT, type=socket.SOCK_DGRAM
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(where)
        return str(probe.getsockname()[0]).partition("%")[0]
