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

"""Cinder's calls to attach and detach: one access rule per volume and host.

:mod:`.access` decides who needs access; this module implements the calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import math
import time
from typing import Any

from cinder import exception
from cinder import objects
from oslo_log import log as logging

from acme_cinder import access
from acme_cinder import addresses
from acme_cinder import errors
from acme_cinder import exports
from acme_cinder import holders
from acme_cinder import identity
from acme_cinder import migration
from acme_cinder import mount
from acme_cinder import records
from acme_cinder import settings as options
from acme_cinder import shares
from acme_cinder import specs
from acme_cinder import timelimits
import acme_client

LOG = logging.getLogger(__name__)

#: Limit per volume at the service's start, with up to thousands of volumes.
_REPAIR_DEADLINE_SECONDS = 15.0
#: Pause after the appliance did not answer.
_REPAIR_PAUSE_SECONDS = 60.0
#: Maximum fraction of a call for waiting for other changes of the volume.
_SHARE_OF_LOCK = 0.5
#: Maximum fraction of the rest for a grant, to leave time to revoke it.
SHARE_OF_GRANT = 0.7
#: Maximum fraction of a call for unmounting, to leave time to revoke.
SHARE_OF_UNMOUNT = 0.5
#: These errors have used up the whole deadline.
_NO_ANSWER = (
    acme_client.TransportError,
    acme_client.Unavailable,
    acme_client.Busy,
    acme_client.RateLimited,
)


@contextlib.contextmanager
def _changing(volume: objects.Volume) -> Iterator[None]:
    """Hold the volume's lock, for at most the time of a call."""
    with timelimits.of_call():
        wait = acme_client.at_most(math.inf) * _SHARE_OF_LOCK
        with access.locked(volume, wait):
            yield


@dataclasses.dataclass(frozen=True)
class _Arrival:
    """A connection in progress.

    :ivar record: the attachment's, None if there is none or it is ambiguous.
    :ivar claimed: the driver has written the connector to it.
    """

    connector: Mapping[str, Any]
    holder: str
    record: records.Record | None
    claimed: bool
    before: records.Situation

    @property
    def host(self) -> str:
        return records.host_of(self.connector)


class Attachments:
    """Access rules and connection information."""

    def __init__(
        self,
        settings: options.DriverSettings,
        volume_shares: shares.Shares,
        mounts: mount.Mounts,
    ) -> None:
        self._settings = settings
        self._shares = volume_shares
        self._api = volume_shares.api
        self._mounts = mounts
        self.access = access.Access(settings)
        self._pause_until = float("-inf")

    def validate(self, connector: Mapping[str, Any]) -> None:
        """:raises InvalidConnectorException: it is insufficient for a rule."""
        if not _is_text(connector.get("host")):
            raise exception.InvalidConnectorException(missing="host")
        if not addresses.usable(connector, self._settings.client_addresses):
            raise exception.InvalidConnectorException(
                missing="ip (an IP address of the host, or an entry for "
                f"the host {connector['host']} in acme_client_networks)"
            )

    # -- attach

    def connect(
        self, volume: objects.Volume, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Grant access to a host; return the connection for os-brick and Nova.

        Can be repeated for the same attachment.

        :raises VolumeMigrationFailed: Cinder would destroy the file.
        :raises VolumeBackendAPIException: the attachment was deleted
            meanwhile, or it timed out; this call did not grant access.
        """
        self.validate(connector)
        migration.check_target(volume)
        with _changing(volume):
            with acme_client.limited_to_share(SHARE_OF_GRANT):
                self._shares.ensure_size_before_attach(volume)
            arrival = self._arrive(records.read(volume), connector)
            try:
                with acme_client.limited_to_share(SHARE_OF_GRANT):
                    return self._connect(arrival)
            except Exception as error:
                self._take_back(arrival, error)
                raise

    def _arrive(
        self, situation: records.Situation, connector: Mapping[str, Any]
    ) -> _Arrival:
        """Find the record of the connection, and record its host."""
        host = records.host_of(connector)
        candidates = situation.candidates(connector)
        if situation.cinder_works or not candidates:
            return _Arrival(
                connector, holders.of_service(host), None, False, situation
            )
        record = candidates[0] if len(candidates) == 1 else None
        claimed = record is not None and record.is_pending
        if record is not None and claimed:
            records.claim(situation.volume, record, connector)
        return _Arrival(
            connector, holders.of_host(host), record, claimed, situation
        )

    def _connect(self, arrival: _Arrival) -> dict[str, Any]:
        volume = arrival.before.volume
        with self.unchanged_mounts(identity.share_id(volume), arrival.host):
            rule = self.access.grant(
                self._api, volume, arrival.holder, self._need(arrival)
            )
        export = exports.choose(
            rule.export_locations,
            portal=self._settings.portal,
            present=volume.provider_location,
        )
        now = records.read(volume)
        _check_still_there(arrival, now)
        self.access.settle_others(
            self._api, volume, rule.access, self.access.wanted(now)
        )
        _keep_location(volume, export)
        words = self._settings.connection_options
        info = connection(self._settings, export, volume.name, words)
        if self._can_discard(volume, export):
            info["data"]["discard"] = True
        return info

    def _can_discard(
        self, volume: objects.Volume, export: exports.Export
    ) -> bool:
        """A thick volume would lose the space that is reserved for it."""
        wanted = self._shares.provisioning.of(specs.provisioning_of(volume))
        return wanted == specs.THIN and self._settings.can_discard(
            export.nfs_versions
        )

    def _need(self, arrival: _Arrival) -> access.Need:
        """The need of the new connection and others with the same rule."""
        others = arrival.before.without(arrival.record)
        if holders.is_services(arrival.holder):
            others = records.Situation(arrival.before.volume, ())
        return self.access.need(others.beside(arrival.connector), arrival.host)

    def _take_back(self, arrival: _Arrival, error: Exception) -> None:
        """Revoke access after a failed attach, which may have granted it.

        If this fails, too, the attachment keeps its connector, so Cinder
        calls the driver to detach when it deletes the attachment.
        """
        volume = arrival.before.volume
        try:
            if not nothing_done(error):
                before = records.read(volume).without(
                    arrival.record if arrival.claimed else None
                )
                self._leave(before, arrival.host, arrival.holder)
            if arrival.claimed and arrival.record is not None:
                records.unclaim(volume, arrival.record)
        except exception.VolumeAttachmentNotFound:
            return
        except (*errors.BELOW, exception.CinderException):
            LOG.exception(
                "The access of %(host)s to %(volume)s, share %(share)s, may "
                "be left; it is looked at again every few minutes",
                {
                    "host": arrival.host,
                    "volume": volume.name,
                    "share": identity.share_id(volume),
                },
            )

    # -- detach

    def disconnect(
        self, volume: objects.Volume, connector: Mapping[str, Any] | None
    ) -> bool:
        """Revoke a host's access, unless it has other attachments.

        :param connector: None: end all attachments.
        :returns: whether the host still uses the share.
        """
        with _changing(volume):
            return self._disconnect(records.read(volume), connector)

    def _disconnect(
        self,
        situation: records.Situation,
        connector: Mapping[str, Any] | None,
    ) -> bool:
        if connector is None:
            self._disconnect_all(situation.volume)
            return False
        host = records.host_of(connector)
        departing = situation.departing(connector)
        holder = holders.of_service(host)
        if departing is not None and departing.connector is not None:
            holder = holders.of_host(host)
        return self._leave(situation.without(departing), host, holder)

    def _leave(
        self, situation: records.Situation, host: str, holder: str
    ) -> bool:
        """Correct the rules for the remaining attachments.

        :param situation: without the departing one.
        :returns: whether the host still uses the share.
        """
        volume, api = situation.volume, self._api
        wanted = self.access.wanted(situation)
        need = wanted.needs.get(holders.of_host(host))
        stays = need is not None or not wanted.may_take
        if holders.is_services(holder) or not stays:
            if need is None:
                self._release(volume, host)
            rules = api.revoke_access(identity.share_id(volume), holder)
            if rules is None:
                self._shares.check_gone(volume)
        elif need is not None and need.clients and wanted.may_take:
            rules = self.access.grant(api, volume, holder, need).access
        else:
            share = api.find_share(identity.share_id(volume))
            rules = share.access if share else None
            if share is None:
                self._shares.check_gone(volume)
        self.access.settle_others(api, volume, rules, wanted)
        return stays

    def _disconnect_all(self, volume: objects.Volume) -> None:
        share = self._api.find_share(identity.share_id(volume))
        self._release(volume, holders.this_host())
        if share is None:
            self._shares.check_gone(volume)
        for holder in share.access if share else ():
            if holders.is_attachments(holder):
                self._api.revoke_access(identity.share_id(volume), holder)

    # -- repair

    def ensure(self, volume: objects.Volume) -> None:
        """Repair the rules of an attached volume when the service starts.

        Adds missing rules and removes unneeded ones. Logs temporary errors:
        an exception would put the volume in error (volume/manager.py,
        ``init_host``).

        :raises NotFound: the share does not exist.
        """
        if time.monotonic() < self._pause_until:
            return
        try:
            with acme_client.limited(_REPAIR_DEADLINE_SECONDS):
                share = self._api.get_share(identity.share_id(volume))
                self.repair(self._api, volume, share.access)
        except acme_client.NotFound:
            raise
        except _NO_ANSWER as error:
            self._pause_until = time.monotonic() + _REPAIR_PAUSE_SECONDS
            LOG.warning(
                "The appliance does not answer; access rules are not "
                "checked for %(seconds)d s: %(error)s",
                {"seconds": _REPAIR_PAUSE_SECONDS, "error": error},
            )
        except (*errors.BELOW, exception.CinderException) as error:
            access.warn_unchecked(volume, error)

    def repair(
        self,
        api: acme_client.Client,
        volume: objects.Volume,
        rules: access.Rules,
    ) -> None:
        """Correct the rules if the given ones are wrong."""
        self.access.repair(api, volume, rules)

    def _release(self, volume: objects.Volume, host: str) -> None:
        """Unmount before the rule is removed: unwritten data needs it."""
        if host == holders.this_host() and volume.provider_location:
            with acme_client.limited_to_share(SHARE_OF_UNMOUNT):
                self._mounts.detach(
                    identity.share_id(volume), volume.provider_location
                )

    def unchanged_mounts(
        self, share_id: str, host: str
    ) -> contextlib.AbstractContextManager[None]:
        """The clean-up must not judge a mount that is about to be needed."""
        if host == holders.this_host():
            return self._mounts.changing(share_id)
        return contextlib.nullcontext()


def _is_text(host: object) -> bool:
    """Whether Cinder's database can store it."""
    if not isinstance(host, str):
        return False
    try:
        return bool(host.encode())
    except UnicodeEncodeError:
        return False


def connection(
    settings: options.DriverSettings,
    export: exports.Export,
    file_name: str,
    mount_words: str,
) -> dict[str, Any]:
    """The information for os-brick and Nova to mount an export and find the
    file.

    :param mount_words: arguments of a mount command.
    """
    return {
        "driver_volume_type": "nfs",
        "mount_point_base": settings.mount_point_base,
        "data": {
            "export": export.location,
            "name": file_name,
            "options": mount_words,
            # As the driver created it, whatever a guest has written.
            "format": "raw",
        },
    }


def _check_still_there(arrival: _Arrival, now: records.Situation) -> None:
    """Check that the attachment was not deleted or reset meanwhile.

    If several attachments can be meant, each missing one may be it.

    :raises VolumeBackendAPIException: it does not exist.
    """
    if holders.is_services(arrival.holder):
        return
    expected = (
        [arrival.record]
        if arrival.record is not None
        else arrival.before.candidates(arrival.connector)
    )
    present = {item.id for item in now.records}
    if not present.issuperset(item.id for item in expected):
        raise exception.VolumeBackendAPIException(
            data=f"{arrival.before.volume.name} was not attached to "
            f"{arrival.host}: its attachment was deleted meanwhile. Attach "
            "it again"
        )


def _keep_location(volume: objects.Volume, export: exports.Export) -> None:
    """Update the location: the appliance's addresses may have changed."""
    if volume.provider_location != export.location:
        volume.provider_location = export.location
        volume.save()


def nothing_done(error: Exception) -> bool:
    if not isinstance(error, acme_client.ApiError):
        return False
    return not error.may_have_been_applied
