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

"""Access to snapshots, to back them up without a clone.

Only Cinder's own services connect snapshots, and Cinder does not record these
attachments. So a rule of a snapshot has the holder of a service, and is needed
while the snapshot, or its volume, is in the state of a backup.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cinder import exception
from cinder import objects
from oslo_log import log as logging

from acme_cinder import attachments
from acme_cinder import errors
from acme_cinder import exports
from acme_cinder import features
from acme_cinder import holders
from acme_cinder import identity
from acme_cinder import mount
from acme_cinder import records
from acme_cinder import settings as options
from acme_cinder import shares
from acme_cinder import timelimits
import acme_client

LOG = logging.getLogger(__name__)


class SnapshotExports:
    """Access rules and connection information of snapshots."""

    def __init__(
        self,
        settings: options.DriverSettings,
        volume_shares: shares.Shares,
        volume_attachments: attachments.Attachments,
        mounts: mount.Mounts,
    ) -> None:
        self._settings = settings
        self._shares = volume_shares
        self._api = volume_shares.api
        self._attachments = volume_attachments
        self._mounts = mounts

    def are_used_for_backups(self) -> bool:
        """Whether a backup can read snapshots of all volumes.

        Not if Cinder's services chown a file before they read it
        (backup/manager.py, ``continue_backup``): a snapshot is read-only.
        """
        return self._settings.secure_operations and all(
            self._shares.features.has(pool, features.SNAPSHOT_EXPORT)
            for pool in self._settings.pools or (None,)
        )

    def connect(
        self, snapshot: objects.Snapshot, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Grant a host access to a snapshot; return the connection for
        os-brick. Idempotent.
        """
        self._attachments.validate(connector)
        with timelimits.of_call():
            try:
                with acme_client.limited_to_share(attachments.SHARE_OF_GRANT):
                    return self._connect(snapshot, connector)
            except Exception as error:
                if not attachments.nothing_done(error):
                    self._take_back(snapshot, connector)
                raise

    def _connect(
        self, snapshot: objects.Snapshot, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        host = records.host_of(connector)
        alone = records.Situation(snapshot.volume, ()).beside(connector)
        need = self._attachments.access.need(alone, host)
        # The clean-up must not judge a mount that is about to be needed.
        snapshot_id = identity.snapshot_id(snapshot)
        with self._attachments.unchanged_mounts(snapshot_id, host):
            rule = self._api.grant_snapshot_access(
                snapshot_id, holders.of_service(host), need.clients or ()
            )
        if rule.file is None:
            raise exception.VolumeBackendAPIException(
                data=f"{snapshot.name} holds no volume file"
            )
        export = exports.choose(
            rule.export_locations,
            portal=self._settings.portal,
            present=snapshot.provider_location,
        )
        if snapshot.provider_location != export.location:
            snapshot.provider_location = export.location
            snapshot.save()
        return attachments.connection(
            self._settings,
            export,
            rule.file.name,
            self._settings.read_only_options,
        )

    def _take_back(
        self, snapshot: objects.Snapshot, connector: Mapping[str, Any]
    ) -> None:
        try:
            self._disconnect(snapshot, records.host_of(connector))
        except (*errors.BELOW, exception.CinderException):
            LOG.exception(
                "The access to %s may be left; it is looked at again every "
                "few minutes",
                snapshot.name,
            )

    def disconnect(
        self, snapshot: objects.Snapshot, connector: Mapping[str, Any] | None
    ) -> None:
        """Revoke a host's access.

        :param connector: None: the access of all hosts.
        """
        with timelimits.of_call():
            if connector is not None:
                self._disconnect(snapshot, records.host_of(connector))
                return
            snapshot_id = identity.snapshot_id(snapshot)
            found = self._api.find_snapshot(snapshot_id)
            self._release(snapshot, holders.this_host())
            for holder in found.access if found else ():
                if holders.is_services(holder):
                    self._api.revoke_snapshot_access(snapshot_id, holder)

    def _disconnect(self, snapshot: objects.Snapshot, host: str) -> None:
        self._release(snapshot, host)
        rules = self._api.revoke_snapshot_access(
            identity.snapshot_id(snapshot), holders.of_service(host)
        )
        if rules is None:
            self._shares.check_gone(snapshot.volume)

    def _release(self, snapshot: objects.Snapshot, host: str) -> None:
        """Unmount while the server still answers."""
        if host == holders.this_host() and snapshot.provider_location:
            with acme_client.limited_to_share(attachments.SHARE_OF_UNMOUNT):
                self._mounts.detach(
                    identity.snapshot_id(snapshot), snapshot.provider_location
                )
