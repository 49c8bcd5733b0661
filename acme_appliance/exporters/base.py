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

"""The interface of an exporter.

Declarative: the service says which clients a share is to have, and the
exporter makes it so, whatever was there before; saying it again costs
nothing. A share without clients is not exported at all. What is not said to
be granted is denied: no exporter ever exports a parent of shares, or
anything to everybody.
"""

import abc
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import ipaddress
import os

LEVEL_READ_ONLY = "ro"
LEVEL_READ_WRITE = "rw"

#: The widest networks that a rule may name: wider ones are a mistake.
WIDEST_PREFIX = {4: 8, 6: 32}

#: Client (an address or a network, canonical) to level.
Clients = Mapping[str, str]


class ExporterError(Exception):
    """The NFS server could not be told."""


@dataclasses.dataclass(frozen=True)
class ExportedShare:
    """What an exporter must know of a share.

    ``uid`` and ``gid`` own its volume file: with squashing, every user of a
    granted host acts as them.
    """

    id: str
    directory: str
    uid: int
    gid: int


@dataclasses.dataclass(frozen=True)
class Difference:
    """One share whose exports are not as they should be."""

    share_id: str
    wanted: Clients
    found: Clients


class Exporter(abc.ABC):
    """Methods are thread-safe. All may raise :class:`ExporterError`."""

    @abc.abstractmethod
    def check(self) -> list[str]:
        """Why shares cannot be served, one sentence each; empty: they can."""

    @abc.abstractmethod
    def path(self, directory: str) -> str:
        """The path by which a client mounts a share's directory."""

    @abc.abstractmethod
    def apply(self, share: ExportedShare, clients: Clients) -> None:
        """Export the share to these clients and to nobody else.

        Returns when the server knows, and when a restart of the machine
        will know too. Idempotent.
        """

    @abc.abstractmethod
    def withdraw(self, share_id: str) -> None:
        """As ``apply`` with no clients, for a share that may be gone."""

    @abc.abstractmethod
    def exported(self) -> dict[str, dict[str, str]]:
        """What is exported now: share id to client to level."""

    @abc.abstractmethod
    def reconcile(
        self, wanted: Iterable[tuple[ExportedShare, Clients]], *, apply: bool
    ) -> list[Difference]:
        """Compare all exports with what is wanted; with ``apply``, repair.

        Exports that are not ours are not looked at.
        """


def canonical_client(text: str) -> str:
    """One spelling for one client: ``192.0.2.51``, ``192.0.2.0/24``.

    :raises ValueError: not an address or network, host bits set, or wider
        than ``WIDEST_PREFIX``; the message is fit for the user.
    """
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which only its host knows")
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is not an IP address or network: {error}"
        ) from error
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None:
        raise ValueError(f"{text!r} must be written as an IPv4 address")
    if network.prefixlen < WIDEST_PREFIX[network.version]:
        raise ValueError(f"{text!r} is too wide a network")
    if network.network_address.is_unspecified:
        raise ValueError(f"{text!r} is no client")
    if network.num_addresses == 1:
        return str(network.network_address)
    return str(network)


def merge_clients(rules: Iterable[tuple[Iterable[str], str]]) -> Clients:
    """The clients of all rules of a share, each with its strongest level.

    NFS servers take a client's own entry before that of its network, so a
    member of a network that has more than the member gets it as well. Which
    of two networks a server takes is its own affair: where a writing one is
    inside of a reading one, its members may only read.
    """
    levels: dict[str, str] = {}
    for clients, level in rules:
        for client in clients:
            if levels.get(client) != LEVEL_READ_WRITE:
                levels[client] = level
    writers = [
        ipaddress.ip_network(client)
        for client, level in levels.items()
        if level == LEVEL_READ_WRITE
    ]
    for client in levels:
        network = ipaddress.ip_network(client)
        if any(_contains(writer, network) for writer in writers):
            levels[client] = LEVEL_READ_WRITE
    return dict(sorted(levels.items()))


def export_path(directory: str, root: str) -> str:
    """``directory`` as seen from ``root``, the server's export root.

    :raises ValueError: the directory is not below the root.
    """
    relative = os.path.relpath(directory, root)
    if relative == "." or relative.split("/")[0] == "..":
        raise ValueError(f"{directory} is not below {root}")
    return "/" + relative


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _contains(outer: _Network, inner: _Network) -> bool:
    if isinstance(outer, ipaddress.IPv4Network):
        return isinstance(inner, ipaddress.IPv4Network) and inner.subnet_of(
            outer
        )
    return isinstance(inner, ipaddress.IPv6Network) and inner.subnet_of(outer)
