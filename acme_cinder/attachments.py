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

"""Letting hosts in and out: one access rule per volume and host."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import time
from typing import Any
from typing import TypeVar

from cinder import coordination
from cinder import exception
from cinder import objects
from oslo_log import log as logging

from acme_cinder import addresses
from acme_cinder import client
from acme_cinder import errors
from acme_cinder import exports
from acme_cinder import holders
from acme_cinder import migration
from acme_cinder import mount
from acme_cinder import settings as options
from acme_cinder import shares

LOG = logging.getLogger(__name__)
_Method = TypeVar("_Method", bound=Callable[..., Any])

#: A mark in a volume's admin metadata, which any service can see: a host
#: may have kept its access for no reason.
_KEPT = "acme_access_kept"
_LOCK_PREFIX = "acme-access-"
#: One call for one of maybe thousands of volumes at the service's start.
_REPAIR_DEADLINE_SECONDS = 15.0
#: After the appliance did not answer, leave it alone for so long.
_REPAIR_PAUSE_SECONDS = 60.0
#: Each of these has taken the whole deadline already.
_NO_ANSWER = (
    client.TransportError,
    client.Unavailable,
    client.Busy,
    client.RateLimited,
)


def _one_at_a_time(method: _Method) -> _Method:
    """One change of a volume's access at a time, in the whole cluster: what
    is decided by the list of attachments must hold until it is done.
    """
    lock = coordination.synchronized(_LOCK_PREFIX + "{volume.id}")
    locked: _Method = lock(method)
    return locked


class Attachments:
    """Access rules and connection information."""

    def __init__(
        self,
        settings: options.Settings,
        volume_shares: shares.Shares,
        mounts: mount.Mounts,
    ) -> None:
        self._settings = settings
        self._shares = volume_shares
        self._api = volume_shares.api
        self._mounts = mounts
        self._pause_until = float("-inf")

    def validate(self, connector: Mapping[str, Any]) -> None:
        """:raises InvalidConnectorException: no rule can be made of it."""
        if not connector.get("host"):
            raise exception.InvalidConnectorException(missing="host")
        if not addresses.usable(connector, self._settings.client_addresses):
            raise exception.InvalidConnectorException(
                missing="ip (an IP address of the host, or an entry for "
                f"the host {connector['host']} in acme_client_networks)"
            )

    def connect(
        self, volume: objects.Volume, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Let a host in; returns what os-brick and Nova need.

        May be called any number of times for one attachment.

        :raises VolumeMigrationFailed: Cinder would destroy the file.
        """
        self.validate(connector)
        migration.check_target(volume)
        return self._connect(volume, connector)

    @_one_at_a_time
    def _connect(
        self, volume: objects.Volume, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        host = str(connector["host"])
        self._shares.ensure_size_before_attach(volume)
        everywhere = holders.attachments(volume)
        present = holders.on_host(everywhere, host)
        mode = holders.requested_mode(volume, connector)
        try:
            with self._unchanged_mounts(volume, host):
                export = self._grant(
                    self._api, volume, connector, holders.level(present, mode)
                )
        except errors.BELOW as error:
            if _others_pending(everywhere):
                # One of them may have been given access to this host.
                _mark(volume, _KEPT)
            elif not present and not _nothing_done(error):
                self._withdraw(volume, host)
            raise
        self._remove_kept(volume, arriving=host)
        return {
            "driver_volume_type": "nfs",
            "mount_point_base": self._settings.mount_point_base,
            "data": {
                "export": export.location,
                "name": volume.name,
                "options": self._settings.connection_options,
                # What we made. Never what a guest has written there.
                "format": "raw",
            },
        }

    @_one_at_a_time
    def disconnect(
        self, volume: objects.Volume, connector: Mapping[str, Any] | None
    ) -> bool:
        """Keep a host out again, unless it has other attachments.

        :param connector: None: end all attachments.
        :returns: whether the host still uses the share.
        """
        if connector is None:
            self._disconnect_all(volume)
            return False
        host = str(connector["host"])
        staying = holders.remaining(volume, connector)
        if staying or holders.pending(volume):
            # What is pending may go elsewhere, and what stays may be
            # leaving by another service: then nobody else would tell.
            _mark(volume, _KEPT)
            self._lower(volume, host, staying)
            return True
        self._release(volume, host)
        self._api.revoke_access(volume.name_id, holders.of_host(host))
        self._remove_kept(volume)
        return False

    def _remove_kept(
        self, volume: objects.Volume, arriving: str | None = None
    ) -> None:
        """Take away what :meth:`_keep_out` had to leave to some host.

        Asks the appliance only if there may be something. What fails stays
        marked for the next time: the call itself has done its work.
        """
        if not _is_marked(volume, _KEPT):
            return
        try:
            if self._revoke_unneeded(self._api, volume, arriving):
                _unmark(volume, _KEPT)
        except errors.BELOW as error:
            _warn_unchecked(volume, error)

    def _revoke_unneeded(
        self,
        api: client.Client,
        volume: objects.Volume,
        arriving: str | None = None,
    ) -> bool:
        """Returns whether it could be told what is needed."""
        share = api.get_share(volume.name_id)
        current = objects.Volume.get_by_id(
            volume.obj_context.elevated(), volume.id
        )
        unneeded = holders.unneeded(share.access, current, arriving)
        for rule in unneeded or ():
            api.revoke_access(share.id, rule)
            LOG.warning(
                "Took access rule %(rule)s away from %(volume)s, share "
                "%(share)s: nothing is attached there any more",
                {"rule": rule, "volume": volume.name, "share": share.id},
            )
        return unneeded is not None

    def _disconnect_all(self, volume: objects.Volume) -> None:
        share = self._api.find_share(volume.name_id)
        self._release(volume, holders.this_host())
        for holder in share.access if share else ():
            if holders.is_hosts(holder):
                self._api.revoke_access(volume.name_id, holder)

    def _lower(
        self,
        volume: objects.Volume,
        host: str,
        staying: list[holders.Attachment],
    ) -> None:
        """Only read-only attachments are left on the host: tell so."""
        if not staying or holders.level(staying) == holders.READ_WRITE:
            return
        connector = staying[0].connector
        if connector is not None:
            self._grant(self._api, volume, connector, holders.READ_ONLY)

    def ensure(self, volume: objects.Volume) -> None:
        """Repair the rules of an attached volume; for the service's start.

        Adds what is missing, and takes away what no attachment needs. A
        fault that may pass is logged and no more: an exception would put
        the volume in error (volume/manager.py, ``init_host``).

        :raises NotFound: the share is gone.
        """
        if time.monotonic() < self._pause_until:
            return
        api = self._api.with_deadline(_REPAIR_DEADLINE_SECONDS)
        try:
            share = api.get_share(volume.name_id)
            self.repair(api, volume, share.access)
        except client.NotFound:
            raise
        except _NO_ANSWER as error:
            self._pause_until = time.monotonic() + _REPAIR_PAUSE_SECONDS
            LOG.warning(
                "The appliance does not answer; access rules are not "
                "checked for %(seconds)d s: %(error)s",
                {"seconds": _REPAIR_PAUSE_SECONDS, "error": error},
            )
        except (*errors.BELOW, ValueError) as error:
            _warn_unchecked(volume, error)

    def repair(
        self,
        api: client.Client,
        volume: objects.Volume,
        rules: Mapping[str, client.AccessRule],
    ) -> None:
        """Make the rules right, where those read before are not."""
        if _missing(rules, volume) or holders.unneeded(rules, volume):
            self._repair(api, volume)

    @_one_at_a_time
    def _repair(self, api: client.Client, volume: objects.Volume) -> None:
        """With the lock in hand all is looked at anew."""
        share = api.get_share(volume.name_id)
        for connector, level in _missing(share.access, volume):
            self._grant(api, volume, connector, level)
            LOG.warning(
                "Restored the access of %(host)s to %(volume)s, share "
                "%(share)s",
                {
                    "host": connector["host"],
                    "volume": volume.name,
                    "share": share.id,
                },
            )
        self._revoke_unneeded(api, volume)

    def _grant(
        self,
        api: client.Client,
        volume: objects.Volume,
        connector: Mapping[str, Any],
        level: str,
    ) -> exports.Export:
        host = str(connector["host"])
        known = self._settings.client_addresses
        address = str(connector.get("ip") or "")
        if host == holders.this_host() and volume.provider_location:
            clients = known.of_this_host(
                host, address, exports.address_of(volume.provider_location)
            )
        else:
            clients = known.of(host, address)
        rule = api.grant_access(
            volume.name_id, holders.of_host(host), clients, level
        )
        return exports.choose(
            rule.export_locations,
            portal=self._settings.portal,
            present=volume.provider_location,
        )

    def _withdraw(self, volume: objects.Volume, host: str) -> None:
        """A grant failed, and may have been made all the same."""
        try:
            self._release(volume, host)
            self._api.revoke_access(volume.name_id, holders.of_host(host))
        except errors.BELOW:
            LOG.exception(
                "The access of %(host)s to %(volume)s, share %(share)s, may "
                "be left; deleting the volume removes it",
                {
                    "host": host,
                    "volume": volume.name,
                    "share": volume.name_id,
                },
            )

    def _release(self, volume: objects.Volume, host: str) -> None:
        """Unmount, before the rule goes: what is unwritten needs it."""
        if host == holders.this_host() and volume.provider_location:
            self._mounts.detach(volume.name_id, volume.provider_location)

    def _unchanged_mounts(
        self, volume: objects.Volume, host: str
    ) -> contextlib.AbstractContextManager[None]:
        """The clean-up must not judge a mount that is about to be needed."""
        if host == holders.this_host():
            return self._mounts.changing(volume.name_id)
        return contextlib.nullcontext()


def remove_lock(volume_id: str) -> None:
    """The volume is gone; a lock in a file would stay for ever."""
    coordination.synchronized_remove(_LOCK_PREFIX + volume_id)


def _is_marked(volume: objects.Volume, mark: str) -> bool:
    with volume.obj_as_admin():
        return mark in (volume.admin_metadata or {})


def _mark(volume: objects.Volume, mark: str) -> None:
    if not _is_marked(volume, mark):
        with volume.obj_as_admin():
            volume.admin_metadata_update({mark: "True"}, False)


def _unmark(volume: objects.Volume, mark: str) -> None:
    with volume.obj_as_admin():
        metadata = dict(volume.admin_metadata or {})
        if metadata.pop(mark, None):
            volume.admin_metadata_update(metadata, True)


def _missing(
    rules: Mapping[str, client.AccessRule], volume: objects.Volume
) -> list[tuple[Mapping[str, Any], str]]:
    """Connectors of attached hosts without enough access, and its level."""
    missing = []
    present = holders.attachments(volume)
    for host in dict.fromkeys(item.host for item in present if item.host):
        mine = holders.on_host(present, host)
        connector = next(
            (item.connector for item in mine if item.connector), None
        )
        level = holders.level(mine)
        rule = rules.get(holders.of_host(host))
        if connector is not None and not _is_enough(rule, level):
            missing.append((connector, level))
    return missing


def _others_pending(present: list[holders.Attachment]) -> bool:
    """Besides the one that a connection is being made for."""
    return sum(item.connector is None for item in present) > 1


def _is_enough(rule: client.AccessRule | None, level: str) -> bool:
    return rule is not None and rule.level in (level, holders.READ_WRITE)


def _nothing_done(error: Exception) -> bool:
    if not isinstance(error, client.ApiError):
        return False
    return not error.may_have_been_applied


def _warn_unchecked(volume: objects.Volume, error: Exception) -> None:
    LOG.warning(
        "Could not check the access rules of %(volume)s, share %(share)s: "
        "%(error)s",
        {"volume": volume.name, "share": volume.name_id, "error": error},
    )
