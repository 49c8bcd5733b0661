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

Declarative: the service says which clients a share or snapshot is to have,
and the exporter makes it so, whatever was there before; saying it again
costs nothing. What has no clients is not exported at all. What is not said to
be granted is denied: no exporter ever exports a parent of shares, or
anything to everybody.

A share and a snapshot may have the same id, and are two exports then.
"""

import abc
from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import ipaddress
import os

from acme_appliance.references import Reference

LEVEL_READ_ONLY = "ro"
LEVEL_READ_WRITE = "rw"

#: The widest networks that a rule may name: wider ones are a mistake.
WIDEST_PREFIX = {4: 8, 6: 32}

#: Client (an address or a network, canonical) to level.
Clients = Mapping[str, str]


class ExporterError(Exception):
    """The NFS server could not be told."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One holder's access rule: its clients, canonical, and their level."""

    clients: tuple[str, ...]
    level: str


#: Holder to rule.
Rules = Mapping[str, Rule]


@dataclasses.dataclass(frozen=True)
class ExportedDirectory:
    """What an exporter must know of a share or snapshot.

    ``uid`` and ``gid`` own its volume file: with squashing, every user of a
    granted host acts as them. ``rules`` is kept beside the export, so that
    a lost database can be rebuilt; the export itself is what ``clients``
    of :meth:`Exporter.apply` say.
    """

    reference: Reference
    directory: str
    uid: int
    gid: int
    rules: Rules = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Difference:
    """A share or snapshot whose exports are not as they should be."""

    reference: Reference
    wanted: Clients
    found: Clients

    @property
    def unexplained(self) -> Clients:
        """What is exported beyond what is wanted."""
        return unexplained(self.wanted, self.found)

    @property
    def is_lacking(self) -> bool:
        """Whether something has to be added or corrected."""
        return self.wanted != self.found and (
            not self.unexplained
            or any(
                self.found.get(client) not in (level, LEVEL_READ_WRITE)
                for client, level in self.wanted.items()
            )
        )


class Exporter(abc.ABC):
    """Methods are thread-safe. All may raise :class:`ExporterError`."""

    @abc.abstractmethod
    def check(self) -> list[str]:
        """Why shares cannot be served, one sentence each; empty: they can."""

    @abc.abstractmethod
    def path(self, directory: str) -> str:
        """The path by which a client mounts a directory."""

    @abc.abstractmethod
    def apply(self, directory: ExportedDirectory, clients: Clients) -> None:
        """Export the directory to these clients and to nobody else.

        Returns when the server knows, and when a restart of the machine
        will know too. Idempotent.
        """

    @abc.abstractmethod
    def withdraw(self, reference: Reference) -> None:
        """As ``apply`` with no clients, for what may be gone."""

    @abc.abstractmethod
    def exported(self) -> dict[Reference, dict[str, str]]:
        """What is exported now, with each client's level."""

    @abc.abstractmethod
    def rules(self) -> dict[Reference, Rules]:
        """The access rules kept with the exports.

        A client that no kept rule explains has a rule of its own, with a
        holder made by :func:`recovered_holder`.
        """

    @abc.abstractmethod
    def reconcile(
        self,
        wanted: Iterable[tuple[ExportedDirectory, Clients]],
        *,
        apply: bool,
        remove: bool = False,
        leave: Container[Reference] = frozenset(),
    ) -> list[Difference]:
        """Compare all exports with what is wanted.

        :param apply: add what is missing. What is found beyond what is
            wanted stays, also over a restart of the machine.
        :param remove: with ``apply``, take that away too.
        :param leave: what is only compared, and not changed: its disk does
            not answer, and the server would look at it; or its rules are
            being changed.

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


def clients_of(rules: Rules) -> Clients:
    """The clients of these rules; see :func:`merge_clients`."""
    return merge_clients((rule.clients, rule.level) for rule in rules.values())


def merge_clients(rules: Iterable[tuple[Iterable[str], str]]) -> Clients:
    """The clients of all rules, each with its strongest level.

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
        if level == LEVEL_READ_WRITE and "/" in client
    ]
    for client in levels if writers else ():
        network = ipaddress.ip_network(client)
        if any(_contains(writer, network) for writer in writers):
            levels[client] = LEVEL_READ_WRITE
    return dict(sorted(levels.items()))


def unexplained(wanted: Clients, found: Clients) -> Clients:
    """Those found that are not wanted, or not with a level that high."""
    return {
        client: level
        for client, level in found.items()
        if client not in wanted
        or (level, wanted[client]) == (LEVEL_READ_WRITE, LEVEL_READ_ONLY)
    }


def strongest(*several: Clients) -> Clients:
    """The clients of all, each with the highest level that it has."""
    levels: dict[str, str] = {}
    for clients in several:
        for client, level in clients.items():
            if levels.get(client) != LEVEL_READ_WRITE:
                levels[client] = level
    return dict(sorted(levels.items()))


def recovered_holder(client: str) -> str:
    """The holder of a rule whose holder nobody knows any more."""
    return f"recovered:{client.replace('/', '-')}"


def with_recovered(rules: Rules, clients: Clients) -> Rules:
    """The rules, and one for each client that they do not explain."""
    explained = clients_of(rules)
    return {
        **rules,
        **{
            recovered_holder(client): Rule((client,), level)
            for client, level in unexplained(explained, clients).items()
        },
    }


def export_path(directory: str, root: str) -> str:
    """``directory`` as seen from ``root``, the server's export root.

    :raises ValueError: the directory is not below the root.
    """
    if (
        directory
        == os.path.normpath(f"{root}/{directory[len(root) :]}")
        != root
    ):
        # Asked for every share at a start; what follows takes ten times as
        # long.
        return directory[len(root) :]
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
