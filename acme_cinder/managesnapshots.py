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

"""Manage existing snapshots, and unmanage them."""

from __future__ import annotations

from cinder import objects
from oslo_log import log as logging

from acme_cinder import holders
from acme_cinder import identity
from acme_cinder import labels
from acme_cinder import manage
from acme_cinder import owners
import acme_client

LOG = logging.getLogger(__name__)


def obstacle(snapshot: acme_client.Snapshot) -> str | None:
    """See :func:`.manage.obstacle`."""
    if snapshot.state != "available":
        return f"its state is {snapshot.state}: wait until it is available"
    return None


class ManagedSnapshots:
    """Manages snapshots of volumes, and unmanages them."""

    def __init__(self, api: acme_client.Client) -> None:
        self._api = api

    def get_size(
        self, snapshot: objects.Snapshot, reference: manage.Reference
    ) -> int:
        """The size of the future snapshot in GiB.

        :raises ManageExistingInvalidReference: there is no such snapshot of
            the volume, or it cannot be used.
        :raises ManageExistingAlreadyManaged: Cinder has it.
        """
        return manage.size_of(self._find(snapshot, reference))

    def adopt(
        self, snapshot: objects.Snapshot, reference: manage.Reference
    ) -> dict[str, str]:
        """Label it as Cinder's; return the model update.

        :raises: see :meth:`get_size`.
        """
        found = self._find(snapshot, reference)
        try:
            self._api.update_snapshot(
                found.id,
                labels=labels.of_snapshot(snapshot),
                if_match=found.generation,
            )
        except (acme_client.PreconditionFailed, acme_client.NotFound):
            manage.refuse(
                reference,
                "it has just been changed by somebody else: look at it "
                "again, and repeat the call",
            )
        LOG.info(
            "Managed snapshot %(id)s, %(name)s, as %(snapshot)s",
            {"id": found.id, "name": found.name, "snapshot": snapshot.name},
        )
        return {"provider_id": found.id}

    def _find(
        self, snapshot: objects.Snapshot, reference: manage.Reference
    ) -> acme_client.Snapshot:
        share_id = identity.share_id(snapshot.volume)
        found = self._get(share_id, reference)
        if found.share_id != share_id:
            manage.refuse(
                reference,
                f"it is a snapshot of share {found.share_id}, and the "
                f"volume's is {share_id}: manage that share, and then its "
                "snapshots as those of the new volume",
            )
        others = objects.SnapshotList.get_all_for_volume(
            snapshot.obj_context.elevated(), snapshot.volume_id
        )
        owner = owners.of_snapshot(
            found, owners.by_snapshot(others, besides=snapshot.id)
        )
        if owner is not None and owner.id != snapshot.id:
            manage.refuse_owned(reference, owner, labels.SNAPSHOT)
        reason = obstacle(found)
        if reason is not None:
            manage.refuse(reference, reason)
        return found

    def _get(
        self, share_id: str, reference: manage.Reference
    ) -> acme_client.Snapshot:
        known_id, name = manage.find_by(reference)
        if known_id is not None:
            try:
                return self._api.get_snapshot(known_id)
            except acme_client.NotFound:
                manage.refuse(
                    reference,
                    "the appliance has no such snapshot, or it is of another "
                    "namespace than the driver's credential",
                )
        found = list(self._api.list_snapshots(share_id=share_id, name=name))
        only: acme_client.Snapshot = manage.the_only_one(reference, found)
        return only

    def release(self, snapshot: objects.Snapshot) -> None:
        """Remove the driver's labels from a snapshot, if it exists."""
        snapshot_id = identity.snapshot_id(snapshot)
        try:
            found = self._api.update_snapshot(
                snapshot_id, labels=labels.REMOVED
            )
        except acme_client.NotFound:
            LOG.warning(
                "The appliance has no snapshot %(id)s of %(snapshot)s",
                {"id": snapshot_id, "snapshot": snapshot.name},
            )
            return
        for holder in found.access:
            if holders.is_ours(holder):
                self._api.revoke_snapshot_access(snapshot_id, holder)
