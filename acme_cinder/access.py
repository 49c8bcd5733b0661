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

"""Decides who can mount a volume's share.

The rules of a share follow only from Cinder's attachments, see
:class:`Wanted`. Every change holds the volume's cluster-wide lock, and has
this order: the rule of the call, other missing rules, then unneeded rules.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import ipaddress
import itertools
from typing import Any

from cinder import coordination
from cinder import exception
from cinder import objects
from oslo_log import log as logging
from tooz import coordination as tooz

from acme_cinder import errors
from acme_cinder import exports
from acme_cinder import holders
from acme_cinder import identity
from acme_cinder import records
from acme_cinder import settings as options
import acme_client

LOG = logging.getLogger(__name__)

_LOCK_PREFIX = "acme-access-"
#: How long a repair waits for other changes of the same volume.
_REPAIR_SECONDS = 15.0
Rules = Mapping[str, acme_client.AccessRule]


@contextlib.contextmanager
def locked(volume: objects.Volume, seconds: float) -> Iterator[None]:
    """Lock the access of a volume in the whole cluster.

    :param seconds: the maximum time to wait.
    :raises VolumeBackendAPIException: timed out, or the lock service does
        not work.
    """
    seconds = max(acme_client.at_most(seconds), 0.01)
    try:
        lock = coordination.COORDINATOR.get_lock(_LOCK_PREFIX + volume.id)
        acquired = lock.acquire(blocking=seconds)
    except tooz.ToozError as error:
        raise exception.VolumeBackendAPIException(
            data=f"{volume.name}: its access cannot be changed, since there "
            f"is no lock to be had: {error!r}"
        ) from error
    if not acquired:
        raise exception.VolumeBackendAPIException(
            data=f"{volume.name}: another change of its access took longer "
            f"than {seconds:.0f} s; try again"
        )
    try:
        yield
    finally:
        _release(lock, volume)


def _release(lock: Any, volume: objects.Volume) -> None:
    """The change is done, even if releasing the lock fails."""
    try:
        lock.release()
    except tooz.ToozError:
        LOG.exception("The lock of %s was not released", volume.name)


def remove_lock(volume_id: str) -> None:
    """Remove the lock file of a deleted volume."""
    coordination.synchronized_remove(_LOCK_PREFIX + volume_id)


@dataclasses.dataclass(frozen=True)
class Need:
    """What one rule must allow.

    :ivar clients: None if Cinder does not know the host's addresses.
    """

    clients: tuple[str, ...] | None
    level: str

    def is_met(self, rule: acme_client.AccessRule | None) -> bool:
        if rule is None:
            # Without addresses there can be no rule.
            return self.clients is None
        allowed = _networks(rule.clients)
        return rule.level in (self.level, holders.READ_WRITE) and all(
            network in allowed for network in _networks(self.clients or ())
        )

    def is_exceeded(self, rule: acme_client.AccessRule | None) -> bool:
        """Whether the rule allows writing although reading is sufficient.

        Ignores addresses: only a host that runs Cinder knows all of its own.
        """
        return (
            rule is not None
            and self.clients is not None
            and self.level == holders.READ_ONLY != rule.level
        )

    def beside(
        self, rule: acme_client.AccessRule | None, *, keep: bool
    ) -> Need:
        """Add the addresses of a rule; ``keep`` its level."""
        if rule is None or self.clients is None:
            return self
        level = holders.READ_WRITE if keep and rule.level == "rw" else None
        clients = dict.fromkeys([*self.clients, *rule.clients])
        return Need(tuple(clients), level or self.level)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The ``cinder:`` rules that a volume's attachments require.

    :ivar needs: by holder.
    :ivar may_take: whether all other ``cinder:`` rules can be removed. Not
        while a host may have access whose attachment has no host yet.
    """

    needs: Mapping[str, Need]
    may_take: bool

    def unneeded(self, rules: Rules) -> list[str]:
        if not self.may_take:
            return []
        return [
            holder
            for holder in rules
            if holders.is_hosts(holder) and holder not in self.needs
        ]

    def is_met(self, rules: Rules) -> bool:
        return not self.unneeded(rules) and not any(
            self.change(rules, holder) for holder in self.needs
        )

    def change(self, rules: Rules, holder: str) -> Need | None:
        """The required change of a rule; None: it is right."""
        need, rule = self.needs[holder], rules.get(holder)
        if not need.is_met(rule):
            return need.beside(rule, keep=not self.may_take)
        if self.may_take and need.is_exceeded(rule):
            return need.beside(rule, keep=False)
        return None


class Access:
    """Makes the rules of a share match its volume's attachments."""

    def __init__(self, settings: options.DriverSettings) -> None:
        self._settings = settings

    def wanted(self, situation: records.Situation) -> Wanted:
        hosts = dict.fromkeys(
            item.host for item in situation.records if item.host
        )
        somewhere = any(
            item.is_of_first_api and not item.host
            for item in situation.records
        )
        return Wanted(
            {
                holders.of_host(host): self._need_if_known(situation, host)
                for host in hosts
            },
            may_take=not (somewhere or situation.arrival_may_hide),
        )

    def need(self, situation: records.Situation, host: str) -> Need:
        """The combined need of the attachments on one host.

        :raises ValueError, OSError: an address cannot be determined.
        """
        present = situation.on_host(host)
        clients = (
            self._clients(situation.volume, host, item.connector or {})
            for item in present
        )
        return Need(
            tuple(dict.fromkeys(itertools.chain.from_iterable(clients))),
            records.level(situation.volume, [item.mode for item in present]),
        )

    def _need_if_known(self, situation: records.Situation, host: str) -> Need:
        try:
            return self.need(situation, host)
        except (ValueError, OSError):
            # Attached by the first API, or the options have changed since.
            return Need(None, holders.READ_WRITE)

    def _clients(
        self,
        volume: objects.Volume,
        host: str,
        connector: Mapping[str, Any],
    ) -> tuple[str, ...]:
        known = self._settings.client_addresses
        address = str(connector.get("ip") or "")
        if host == holders.this_host() and volume.provider_location:
            return known.of_this_host(
                host, address, exports.address_of(volume.provider_location)
            )
        return known.of(host, address)

    def remembered_clients(self) -> Callable[[str, str], tuple[str, ...]]:
        """The clients for a host and its address in Cinder.

        The returned function caches its results: for many volumes on the same
        hosts, it queries the database once per host.
        """
        return functools.cache(self._settings.client_addresses.of)

    def looks_right(
        self,
        found: Sequence[records.Record],
        rules: Rules,
        clients_of: Callable[[str, str], tuple[str, ...]],
    ) -> bool:
        """A quick check, without reading the volume from the database.

        :param clients_of: from :meth:`remembered_clients`.
        """
        ours = {name for name in rules if holders.is_attachments(name)}
        expected = {holders.of_host(item.host) for item in found if item.host}
        return ours == expected and all(
            _looks_right(item, rules[holders.of_host(item.host)], clients_of)
            for item in found
            if item.host
        )

    def unexplained(
        self, situation: records.Situation, rules: Rules
    ) -> list[str]:
        """Rules of hosts without an attachment at this moment.

        They may belong to a connection in progress.
        """
        wanted = Wanted(self.wanted(situation).needs, may_take=True)
        found = wanted.unneeded(rules)
        if situation.is_idle:
            found += [name for name in rules if holders.is_services(name)]
        return found

    def grant(
        self,
        api: acme_client.Client,
        volume: objects.Volume,
        holder: str,
        need: Need,
    ) -> acme_client.GrantedAccess:
        if need.clients is None:
            raise ValueError(f"the addresses of {holder} are not known")
        return api.grant_access(
            identity.share_id(volume), holder, need.clients, need.level
        )

    def settle(
        self,
        api: acme_client.Client,
        volume: objects.Volume,
        rules: Rules | None,
        wanted: Wanted,
    ) -> None:
        """Correct all ``cinder:`` rules, given the current ones.

        Sends no request if they are right.

        :param rules: None if the appliance did not return them.
        """
        if rules is None:
            return
        for holder in wanted.needs:
            change = wanted.change(rules, holder)
            if change is not None:
                self.grant(api, volume, holder, change)
                _warn("Corrected", holder, volume)
        for holder in wanted.unneeded(rules):
            api.revoke_access(identity.share_id(volume), holder)
            _warn("Removed", holder, volume)

    def settle_others(
        self,
        api: acme_client.Client,
        volume: objects.Volume,
        rules: Rules | None,
        wanted: Wanted,
    ) -> None:
        """Like :meth:`settle`, after the main work of a call.

        The next call or the sweep retries failures.
        """
        try:
            self.settle(api, volume, rules, wanted)
        except errors.BELOW as error:
            warn_unchecked(volume, error)

    def repair(
        self, api: acme_client.Client, volume: objects.Volume, rules: Rules
    ) -> None:
        """Correct the rules if the given ones are wrong.

        Re-reads everything under the lock.
        """
        if self.wanted(records.read(volume)).is_met(rules):
            return
        with locked(volume, _REPAIR_SECONDS):
            situation = records.read(volume)
            volume = situation.volume
            share = api.get_share(identity.share_id(volume))
            wanted = self.wanted(situation)
            self.settle(api, volume, share.access, wanted)

    def remove_unexplained(
        self, api: acme_client.Client, volume: objects.Volume, holder: str
    ) -> None:
        """Remove a rule that has had no attachment for a long time.

        This time is longer than recording a connection can take.
        """
        with locked(volume, _REPAIR_SECONDS):
            situation = records.read(volume)
            volume = situation.volume
            share = api.get_share(identity.share_id(volume))
            if holder not in self.unexplained(situation, share.access):
                return
            rules = api.revoke_access(share.id, holder)
            _warn("Removed", holder, volume)
            # By now, connections in progress have been recorded.
            wanted = self.wanted(records.read(volume))
            self.settle(api, volume, rules, wanted)


def _looks_right(
    item: records.Record,
    rule: acme_client.AccessRule,
    clients_of: Callable[[str, str], tuple[str, ...]],
) -> bool:
    address = str((item.connector or {}).get("ip") or "")
    try:
        clients = clients_of(item.host or "", address)
    except ValueError:
        return False
    return rule.level == (item.mode or holders.READ_WRITE) and Need(
        clients, rule.level
    ).is_met(rule)


def _networks(
    clients: tuple[str, ...],
) -> set[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """The networks of clients, in any notation."""
    return {ipaddress.ip_network(client) for client in clients}


def _warn(done: str, holder: str, volume: objects.Volume) -> None:
    LOG.warning(
        "%(done)s access rule %(holder)s of %(volume)s, share %(share)s: it "
        "was not what the attachments call for",
        {
            "done": done,
            "holder": holder,
            "volume": volume.name,
            "share": identity.share_id(volume),
        },
    )


def warn_unchecked(volume: objects.Volume, error: Exception) -> None:
    LOG.warning(
        "Could not check the access rules of %(volume)s, share %(share)s: "
        "%(error)s",
        {
            "volume": volume.name,
            "share": identity.share_id(volume),
            "error": error,
        },
    )
