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

from collections.abc import Mapping
import time
from typing import Any

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

#: Set while a client may have cut the volume's file off; see Attachments.
_UNSURE = "acme_size_unsure"
#: One call for one of maybe thousands of volumes at the service's start.
_REPAIR_DEADLINE_SECONDS = 15.0
#: After the appliance did not answer, leave it alone for so long.
_REPAIR_PAUSE_SECONDS = 60.0


class Attachments:
    """Access rules and connection information.

    cinder-backup's restore opens the file for writing, which cuts it off
    at nothing, and writes only what is not zero: the file comes back too
    small. So at the end of a restore it is grown to the volume's size
    again. Should that end never come (a service dies), the volume keeps a
    mark in its admin metadata, and the next attachment grows the file.
    """

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
        self._ensure_size_before(volume)
        host = str(connector["host"])
        present = holders.on_host(holders.attachments(volume), host)
        mode = holders.requested_mode(volume, connector)
        try:
            export = self._grant(
                volume, connector, holders.level(present, mode)
            )
            if host == holders.this_host():
                self._mounts.hold(
                    volume.name_id, export.location, holders.of_host(host)
                )
        except errors.BELOW as error:
            if not present and not _nothing_done(error):
                self._withdraw(volume, host)
            raise
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
        try:
            if _restoring(volume):
                self._ensure_size_after(volume)
        finally:
            shared = self._keep_out(volume, connector)
        return shared

    def _keep_out(
        self, volume: objects.Volume, connector: Mapping[str, Any]
    ) -> bool:
        host = str(connector["host"])
        staying = holders.remaining(volume, connector)
        if staying or holders.pending(volume):
            self._lower(volume, host, staying)
            return True
        self._release(volume, host)
        self._api.revoke_access(volume.name_id, holders.of_host(host))
        return False

    def _disconnect_all(self, volume: objects.Volume) -> None:
        share = self._api.find_share(volume.name_id)
        if _restoring(volume):
            self._ensure_size_after(volume)
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
            self._grant(volume, connector, holders.READ_ONLY)

    def ensure(self, volume: objects.Volume) -> None:
        """Repair the rules of an attached volume; for the service's start.

        Adds what is missing, takes nothing away. A fault that may pass is
        logged and no more: an exception would put the volume in error.

        :raises NotFound: the share is gone.
        """
        if time.monotonic() < self._pause_until:
            return
        api = self._api.with_deadline(_REPAIR_DEADLINE_SECONDS)
        try:
            self._ensure(api, volume)
        except client.TransportError as error:
            self._pause_until = time.monotonic() + _REPAIR_PAUSE_SECONDS
            LOG.warning(
                "The appliance does not answer; access rules are not "
                "checked: %s",
                error,
            )
        except client.NotFound:
            raise
        except (*errors.BELOW, ValueError) as error:
            LOG.warning(
                "Could not check the access rules of %(volume)s, share "
                "%(share)s: %(error)s",
                {
                    "volume": volume.name,
                    "share": volume.name_id,
                    "error": error,
                },
            )

    def _ensure(self, api: client.Client, volume: objects.Volume) -> None:
        share = api.get_share(volume.name_id)
        present = holders.attachments(volume)
        for host in dict.fromkeys(item.host for item in present):
            if host is None:
                continue
            mine = holders.on_host(present, host)
            connector = next(
                (item.connector for item in mine if item.connector), None
            )
            rule = share.access.get(holders.of_host(host))
            wanted = holders.level(mine)
            if connector is None or _is_enough(rule, wanted):
                continue
            self._grant(volume, connector, wanted)
            LOG.warning(
                "Restored the access of %(host)s to %(volume)s, share "
                "%(share)s",
                {"host": host, "volume": volume.name, "share": share.id},
            )

    def _grant(
        self,
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
        rule = self._api.grant_access(
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
            self._mounts.release(
                volume.name_id,
                volume.provider_location,
                holders.of_host(host),
            )

    def forget(self, volume: objects.Volume) -> None:
        """Leave no idle mount of a volume behind on this host."""
        if volume.provider_location:
            self._mounts.drop_idle(volume.name_id, volume.provider_location)

    # -- the size after a restore

    def _ensure_size_before(self, volume: objects.Volume) -> None:
        with volume.obj_as_admin():
            if _restoring(volume):
                volume.admin_metadata_update({_UNSURE: "True"}, False)
            elif (volume.admin_metadata or {}).get(_UNSURE):
                self._ensure_size_after(volume)

    def _ensure_size_after(self, volume: objects.Volume) -> None:
        self._shares.ensure_size(volume)
        with volume.obj_as_admin():
            metadata = dict(volume.admin_metadata or {})
            if metadata.pop(_UNSURE, None):
                volume.admin_metadata_update(metadata, True)


def _restoring(volume: objects.Volume) -> bool:
    """Whether a backup is being written into the volume."""
    return volume.status in ("restoring-backup", "creating")


def _is_enough(rule: client.AccessRule | None, level: str) -> bool:
    return rule is not None and rule.level in (level, holders.READ_WRITE)


def _nothing_done(error: Exception) -> bool:
    if not isinstance(error, client.ApiError):
        return False
    return not error.may_have_been_applied
