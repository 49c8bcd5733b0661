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

"""Parse and normalize addresses of hosts and of the appliance.

All addresses from options, connectors and replies are parsed here and have one
canonical form: IPv6 compressed and in lower case, IPv4-mapped ones as IPv4,
host names in lower case, no brackets. Addresses that the API does not accept
as clients of an access rule (``components/schemas/Clients`` in openapi.yaml)
are refused.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import ipaddress
import re
import socket
from typing import Any
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The widest networks and the maximum number of clients of an access rule.
WIDEST_PREFIX: Final = {4: 8, 6: 32}
MAX_CLIENTS: Final = 64
_MAPPED_PREFIX: Final = 96
_NFS_PORT: Final = 2049
_HOST_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,252})")


def parse_address(text: str) -> Address:
    """The address of one host, with or without brackets.

    :raises ValueError: it is not an address, or not one that other hosts can
        use; the message is for the user.
    """
    plain = _without_brackets(text)
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None
    if "%" in plain:
        raise ValueError(f"{text!r} has a zone, which only its host knows")
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"{text!r} is not the address of one host")
    return address


def parse_network(text: str) -> Network:
    """A network in CIDR notation, without host bits.

    :raises ValueError: it is not a network; the message is for the user.
    """
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which only its host knows")
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise ValueError(f"not an IP network: {error}") from None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= _MAPPED_PREFIX:
        prefix = network.prefixlen - _MAPPED_PREFIX
        return ipaddress.IPv4Network((mapped, prefix))
    return network


def parse_client(text: str) -> str:
    """A client of an access rule: an address, or a network.

    :raises ValueError: the appliance would refuse it; the message is for the
        user.
    """
    if "/" not in text:
        return str(parse_address(text))
    network = parse_network(text)
    if network.prefixlen < WIDEST_PREFIX[network.version]:
        raise ValueError(
            f"{text!r} is too wide a network; the widest are "
            f"/{WIDEST_PREFIX[4]} and, of IPv6, /{WIDEST_PREFIX[6]}"
        )
    first = parse_address(str(network.network_address))
    return str(first if network.num_addresses == 1 else network)


def parse_host(text: str) -> str:
    """The canonical form of an address or a host name.

    :raises ValueError: it is neither; the message is for the user.
    """
    plain = _without_brackets(text).lower()
    try:
        return str(parse_address(plain))
    except ValueError:
        numeric = re.fullmatch(r"[0-9.]+", plain)
        if numeric or not _HOST_NAME.fullmatch(plain):
            raise ValueError(f"{text!r} is no address or host name") from None
    return plain


def same_host(one: str, other: str) -> bool:
    """Whether both are the same address, or the same host name."""
    return _comparable(one) == _comparable(other)


def _comparable(text: str) -> str:
    try:
        return parse_host(text)
    except ValueError:
        return text


def _without_brackets(text: str) -> str:
    plain = text.strip()
    if plain.startswith("[") and plain.endswith("]"):
        return plain[1:-1]
    return plain


@dataclasses.dataclass(frozen=True)
class Mapped:
    """The parsed option ``acme_client_networks``.

    :ivar hosts: by canonical host name or address.
    :ivar networks: pairs of the same size, in the configured order.
    """

    hosts: Mapping[str, tuple[str, ...]]
    networks: tuple[tuple[Network, Network], ...]


def _no_peer(host: str) -> str | None:
    return None


@dataclasses.dataclass(frozen=True)
class ClientAddresses:
    """Determines the addresses of a host for an access rule.

    :ivar peer: returns the address that a host itself has recorded, if any.
    """

    mapped: Mapped
    fixed: tuple[str, ...] = ()
    peer: Callable[[str], str | None] = _no_peer

    def of(self, host: str, address: str) -> tuple[str, ...]:
        """The clients of an access rule for a host.

        :param address: the host's address in Cinder.
        :raises ValueError: it is not the IP address of a host, and no entry
            of ``acme_client_networks`` is for that host.
        """
        found = list(self._translated(host, address))
        own = self.peer(host)
        if own is not None:
            found.append(own)
        return self._with_fixed(found)

    def of_this_host(
        self, host: str, address: str | None, portal: str
    ) -> tuple[str, ...]:
        """Like :meth:`of` for this host, whose routes are known.

        :param address: its address in Cinder, None if unknown.
        :param portal: the NFS address, to find the source address.
        """
        found: list[str] = []
        if address:
            found.extend(self._translated(host, address))
        else:
            found.extend(self._by_name(host))
        found.append(source_address(portal))
        return self._with_fixed(found)

    def _by_name(self, host: str) -> tuple[str, ...]:
        name = host.lower()
        for key in (name, name.partition(".")[0]):
            if key in self.mapped.hosts:
                return self.mapped.hosts[key]
        return ()

    def _translated(self, host: str, address: str) -> tuple[str, ...]:
        named = self._by_name(host)
        if named:
            return named
        parsed = parse_address(address)
        if str(parsed) in self.mapped.hosts:
            return self.mapped.hosts[str(parsed)]
        for known, reached in self.mapped.networks:
            if parsed in known:
                offset = int(parsed) - int(known.network_address)
                return (str(reached.network_address + offset),)
        return (str(parsed),)

    def _with_fixed(self, found: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*found, *self.fixed]))


def parse_mapping(items: Iterable[str]) -> Mapped:
    """Parse ``acme_client_networks``.

    :raises ValueError: lists every invalid entry, and what is expected.
    """
    hosts: dict[str, tuple[str, ...]] = {}
    networks: list[tuple[Network, Network]] = []
    complaints = []
    for item in items:
        try:
            known, reached = _sides(item)
            if "/" in known:
                networks.append(_network_pair(known, reached))
            else:
                hosts.setdefault(parse_host(known), _addresses(reached))
        except ValueError as error:
            complaints.append(f"{error}, in {item!r}")
    if complaints:
        raise ValueError("; ".join(complaints))
    return Mapped(hosts, tuple(networks))


def _sides(item: str) -> tuple[str, str]:
    known, _, reached = (part.strip() for part in item.partition("="))
    if not (known and reached):
        raise ValueError("NETWORK=NETWORK or HOST=ADDRESS is expected")
    return known, reached


def _network_pair(
    known_text: str, reached_text: str
) -> tuple[Network, Network]:
    known, reached = parse_network(known_text), parse_network(reached_text)
    if known.num_addresses != reached.num_addresses:
        raise ValueError("two networks of the same size are expected")
    if reached.network_address.is_unspecified or reached.is_multicast:
        raise ValueError(f"{reached_text!r} is no network of hosts")
    return known, reached


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(str(parse_address(part)) for part in text.split("|"))
    )


def usable(connector: Mapping[str, Any], known: ClientAddresses) -> bool:
    """Whether the connector has enough information for an access rule."""
    try:
        known.of(str(connector["host"]), str(connector.get("ip") or ""))
    except (KeyError, ValueError):
        return False
    return bool(connector["host"])


def source_address(portal: str) -> str:
    """The source address of packets from this host to a portal.

    Reads only the routing table; sends nothing.

    :raises OSError: there is no route, or the host does not exist.
    """
    family, kind, protocol, _, where = socket.getaddrinfo(
        portal, _NFS_PORT, type=socket.SOCK_DGRAM
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(where)
        return str(parse_address(probe.getsockname()[0].partition("%")[0]))
