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

"""Snapshots of all volumes of a group at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Final

from cinder import exception
from cinder import objects
from oslo_log import log as logging

from acme_cinder import errors
from acme_cinder import identity
from acme_cinder import labels
from acme_cinder import shares
from acme_cinder import undo
import acme_client

LOG = logging.getLogger(__name__)

DELETED: Final = "deleted"


class GroupSnapshots:
    """The operations on group snapshots.

    Afterwards their snapshots are ordinary ones. All methods raise the errors
    in :data:`acme_cinder.errors.BELOW`.
    """

    def __init__(self, volume_shares: shares.Shares) -> None:
        self._shares = volume_shares
        self._api = volume_shares.api

    def create(
        self,
        group_snapshot: objects.GroupSnapshot,
        snapshots: Sequence[objects.Snapshot],
    ) -> list[dict[str, Any]]:
        """Take all snapshots, or none; return the model updates.

        Without the group: Cinder says which volumes are in it, and a group of
        the appliance that differs must not prevent it.

        :raises InvalidGroupSnapshot: two volumes have the same share, which
            happens only by a migration that was not finished.
        """
        wanted = {
            identity.share_id(each.volume): acme_client.SnapshotSpec(
                identity.snapshot_id(each),
                name=each.name,
                labels=labels.of_snapshot(each),
            )
            for each in snapshots
        }
        if len(wanted) < len(snapshots):
            raise exception.InvalidGroupSnapshot(
                reason=f"{len(snapshots)} volumes have {len(wanted)} shares; "
                "see the volumes whose migration was not finished"
            )
        with undo.if_unsure(lambda: self._discard(group_snapshot)):
            done = self._api.create_group_snapshot(
                group_snapshot.id,
                wanted,
                name=f"group-snapshot-{group_snapshot.id}",
                labels=labels.of_group_snapshot(group_snapshot),
            )
        if done.moment is not None:
            LOG.info(
                "Group snapshot %(id)s: %(count)s snapshots at one moment, by "
                "%(method)s; clients waited %(pause)s ms",
                {
                    "id": group_snapshot.id,
                    "count": len(wanted),
                    "method": done.moment.method,
                    "pause": done.moment.pause_ms,
                },
            )
        return [
            {
                "id": each.id,
                "status": "available",
                "provider_id": identity.snapshot_id(each),
            }
            for each in snapshots
        ]

    def _discard(self, group_snapshot: objects.GroupSnapshot) -> None:
        with undo.left_on_error("A group snapshot", group_snapshot.id):
            self._api.delete_group_snapshot(group_snapshot.id)

    def delete(
        self,
        group_snapshot: objects.GroupSnapshot,
        snapshots: Sequence[objects.Snapshot],
    ) -> dict[str, str]:
        """Delete a group snapshot; gone already is fine.

        :returns: by the id of each snapshot, its status: ``deleted``;
            ``available`` if it, or another one of them, is in use; or
            ``error_deleting``.
        """
        try:
            was_there = self._delete_whole(group_snapshot, snapshots)
        except exception.SnapshotIsBusy as error:
            LOG.error(
                "Group snapshot %s is not deleted: %s",
                group_snapshot.id,
                error,
            )
            return {each.id: "available" for each in snapshots}
        if was_there:
            return {each.id: DELETED for each in snapshots}
        return {each.id: self._delete_one(each) for each in snapshots}

    def _delete_whole(
        self,
        group_snapshot: objects.GroupSnapshot,
        snapshots: Sequence[objects.Snapshot],
    ) -> bool:
        try:
            return self._api.delete_group_snapshot(group_snapshot.id)
        except acme_client.InUse as error:
            used = {each.pointer.rpartition("/")[2] for each in error.errors}
            for each in snapshots:
                if identity.snapshot_id(each) in used:
                    self._shares.revoke_snapshot_leftovers(each)
            try:
                return self._api.delete_group_snapshot(group_snapshot.id)
            except acme_client.InUse as again:
                raise exception.SnapshotIsBusy(
                    message=str(again), snapshot_name=group_snapshot.id
                ) from again

    def _delete_one(self, snapshot: objects.Snapshot) -> str:
        """Delete a snapshot that is not, or no longer, in a group
        snapshot."""
        try:
            with errors.operation("Deleted", snapshot=snapshot):
                self._shares.delete_snapshot(snapshot)
        except exception.SnapshotIsBusy as error:
            LOG.error("%s is not deleted: %s", snapshot.name, error)
            return "available"
        except exception.CinderException:
            LOG.exception("%s is not deleted", snapshot.name)
            return "error_deleting"
        return DELETED
