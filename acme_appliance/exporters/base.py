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

It is declarative: the service passes the desired clients of a share or
snapshot, and the exporter changes the exports to match. Repeated calls are
cheap. A share without clients is not exported. The default is to deny: no
exporter exports a parent directory of shares, or anything to everyone.

A share and a snapshot can have the same id; these are two exports.
"""

import abc
from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import dataclasses
import ipaddress
import os

from acme_appliance.references import Reference

LEVEL_READ_ONLY = "ro"
LEVEL_READ_WRITE = "rw"

#: Minimum prefix length of networks in rules: wider ones are a mistake.
WIDEST_PREFIX = {4: 8, 6: 32}

#: Client (an address or a network, canonical) to level.
Clients = Mapping[str, str]


class ExporterError(Exception):
    """The NFS server or its configuration could not be changed."""


class CannotCut(ExporterError):
    """The replies to clients cannot be held back on this machine; the message
    has the reason, and what the operator can do."""


class CutLost(ExporterError):
    """Replies may have reached clients while they had to be held back."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One holder's access rule: its canonical clients and their level."""

    clients: tuple[str, ...]
    level: str


#: Holder to rule.
Rules = Mapping[str, Rule]


@dataclasses.dataclass(frozen=True)
class ExportedDirectory:
    """A share or snapshot to export.

    ``uid`` and ``gid`` own its volume file: with squashing, all users of a
    granted host act as them. ``rules`` are stored with the export, only to
    rebuild a lost database: the ``clients`` of :meth:`Exporter.apply` decide
    who has access.
    """

    reference: Reference
    directory: str
    uid: int
    gid: int
    rules: Rules = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Difference:
    """A share or snapshot whose exports differ from the desired ones."""

    reference: Reference
    wanted: Clients
    found: Clients

    @property
    def unexplained(self) -> Clients:
        """The clients that are exported, but not wanted."""
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


class Cut(abc.ABC):
    """A way to hold back all replies of the server for a moment.

    Requests still arrive and are executed, but no client learns of it. So no
    write that depends on another one can be in a snapshot that was made
    meanwhile, without the other one being in all of them.
    """

    #: How long the replies were held back last, by CLOCK_BOOTTIME.
    pause_seconds: float = 0.0

    @abc.abstractmethod
    def shut(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Hold back all replies within the context.

        :param seconds: then replies pass again, whatever happens to this
            process: also if it hangs or is killed.
        :raises CannotCut: on entry: replies pass nevertheless.
        :raises CutLost: on exit without another error: replies may have
            passed in the meantime.
        """


class Exporter(abc.ABC):
    """Methods are thread-safe. All can raise :class:`ExporterError`."""

    @abc.abstractmethod
    def check(self) -> list[str]:
        """Why shares cannot be served, one sentence per reason; empty: they
        can."""

    @abc.abstractmethod
    def path(self, directory: str) -> str:
        """The path that clients mount a directory from."""

    @abc.abstractmethod
    def apply(self, directory: ExportedDirectory, clients: Clients) -> None:
        """Export the directory to these clients and to no others.

        Returns when the server has the change, and a restart of the machine
        will keep it. Idempotent.
        """

    @abc.abstractmethod
    def withdraw(self, reference: Reference) -> None:
        """Like ``apply`` without clients. The directory may not exist."""

    @abc.abstractmethod
    def exported(self) -> dict[Reference, dict[str, str]]:
        """The current exports: each client's level."""

    @abc.abstractmethod
    def rules(self) -> dict[Reference, Rules]:
        """The access rules stored with the exports.

        A client without a stored rule gets a new rule, whose holder is from
        :func:`recovered_holder`.
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
        """Compare all exports with the desired ones.

        :param apply: add what is missing. What is found beyond what is
            wanted stays, also over a restart of the machine.
        :param remove: with ``apply``, take that away too.
        :param leave: what is only compared, and not changed: its disk does
            not answer, and the server would look at it; or its rules are
            being changed.

        Ignores exports that the appliance did not create.
        """

    def cut(self) -> contextlib.AbstractContextManager[Cut]:
        """Prepare to hold back the replies to all clients; the context
        manager removes all traces. Nothing is held back before
        :meth:`Cut.shut`.

        :raises CannotCut: on entry: it is impossible here.
        """
        raise CannotCut(
            "this exporter cannot hold back the replies of its server"
        )

    def sweep_cuts(self) -> None:
        """Remove what a killed process left of :meth:`cut`."""
        return


def canonical_client(text: str) -> str:
    """The canonical form of a client: ``192.0.2.51``, ``192.0.2.0/24``.

    :raises ValueError: not an address or network, host bits set, or wider
        than ``WIDEST_PREFIX``; the message is for the user.
    """
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which is valid only locally")
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
        raise ValueError(f"{text!r} is not the address of a client")
    if network.num_addresses == 1:
        return str(network.network_address)
    return str(network)


def clients_of(rules: Rules) -> Clients:
    """The clients of these rules; see :func:`merge_clients`."""
    return merge_clients((rule.clients, rule.level) for rule in rules.values())


def merge_clients(rules: Iterable[tuple[Iterable[str], str]]) -> Clients:
    """The clients of all rules, each with its highest level.

    NFS servers prefer a client's own entry to that of its network. So a client
    inside a network with a higher level gets that level, too. Servers differ
    in the choice between two networks: a read-write network inside a read-only
    one may be read-only.
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
    """The found clients that are not wanted, or only at a lower level."""
    return {
        client: level
        for client, level in found.items()
        if client not in wanted
        or (level, wanted[client]) == (LEVEL_READ_WRITE, LEVEL_READ_ONLY)
    }


def strongest(*several: Clients) -> Clients:
    """The clients of all, each with its highest level."""
    levels: dict[str, str] = {}
    for clients in several:
        for client, level in clients.items():
            if levels.get(client) != LEVEL_READ_WRITE:
                levels[client] = level
    return dict(sorted(levels.items()))


def recovered_holder(client: str) -> str:
    """The holder of a rule whose holder is lost."""
    return f"recovered:{client.replace('/', '-')}"


def with_recovered(rules: Rules, clients: Clients) -> Rules:
    """The rules, plus one for each client without a rule."""
    explained = clients_of(rules)
    return {
        **rules,
        **{
            recovered_holder(client): Rule((client,), level)
            for client, level in unexplained(explained, clients).items()
        },
    }


def export_path(directory: str, root: str) -> str:
    """The path of ``directory`` relative to ``root``, the export root.

    :raises ValueError: the directory is not below the root.
    """
    if (
        directory
        == os.path.normpath(f"{root}/{directory[len(root) :]}")
        != root
    ):
        # Runs for every share at a start, and is ten times faster than the
        # code below.
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
