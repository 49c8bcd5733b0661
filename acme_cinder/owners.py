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

"""The owner of a share or snapshot, in this Cinder or another one.

Cinder's database, through :mod:`.identity`, has the owners in this Cinder, the
label has others. A label alone is not sufficient: a service may have died
after it was set, before Cinder recorded it.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
from typing import Any

from cinder import context as cinder_context
from cinder import exception
from cinder import objects
from cinder.db import api as db

from acme_cinder import identity
from acme_cinder import labels
import acme_client

#: Maximum number of ids per query.
_CHUNK = 500
#: Objects in these states may have no ``provider_id`` yet.
_BEING_MADE = frozenset({"creating", "managing"})


@dataclasses.dataclass(frozen=True)
class Owner:
    """:ivar id: of the volume or the snapshot in Cinder.
    :ivar is_here: whether it is in this Cinder.
    :ivar is_being_made: whether Cinder is still creating it."""

    id: str
    is_here: bool = True
    is_being_made: bool = False

    def reason(self, label: str) -> str:
        """Why its share or snapshot cannot be managed, with the solution.

        :param label: the label's key.
        """
        if self.is_being_made:
            return (
                f"it is being managed as {self.id}; where that was cut off, "
                f"reset the state of {self.id} to error and delete it in "
                "Cinder, which leaves the data alone"
            )
        if self.is_here:
            return f"it is {self.id} in this Cinder already"
        return (
            f"by its label it is {self.id} in another Cinder: unmanage it "
            f"there; if that Cinder is no more, remove the label {label} on "
            "the appliance"
        )


def find_volumes(share_id: str) -> dict[str, str]:
    """The volumes that may have a share: share id to volume id."""
    context: Any = cinder_context.get_admin_context()
    found: dict[str, str] = {}
    for column in ("provider_id", "_name_id", "id"):
        rows = db.volume_get_all(context, filters={column: share_id})
        found |= by_share(rows)
    return found


def by_share(volumes: Iterable[Any]) -> dict[str, str]:
    """Share id to volume id, from objects or database rows."""
    return {identity.share_id(each): each.id for each in volumes}


def by_snapshot(
    snapshots: Iterable[objects.Snapshot], *, besides: str | None = None
) -> dict[str, str]:
    """The appliance's snapshot id to Cinder's.

    :param besides: the id of one in Cinder that is ignored.
    """
    return {
        identity.snapshot_id(each): each.id
        for each in snapshots
        if each.id != besides
    }


def find_labelled(
    shares: Iterable[acme_client.Share],
) -> dict[str, Any]:
    """The volumes in labels, including deleted ones, by id: database rows,
    because Cinder queries the attachments of each object."""
    context = _everything()
    named = {each.labels.get(labels.VOLUME) for each in shares}
    found: dict[str, objects.Volume] = {}
    ids = sorted(filter(None, named))
    for start in range(0, len(ids), _CHUNK):
        wanted = ids[start : start + _CHUNK]
        rows = db.volume_get_all(context, filters={"id": wanted})
        found |= {each.id: each for each in rows}
    return found


def of_share(
    share: acme_client.Share,
    known: Mapping[str, str],
    labelled: Mapping[str, Any],
) -> Owner | None:
    """The owner of a share; None: no owner.

    :param known: share id to volume id, for all or some volumes.
    :param labelled: from :func:`find_labelled`.
    """
    if share.id in known:
        return Owner(known[share.id])
    label = share.labels.get(labels.VOLUME)
    if label is None:
        return None
    volume = labelled.get(label)
    if volume is None:
        return Owner(label, is_here=False)
    return _owner(volume, identity.share_id(volume) == share.id)


def of_snapshot(
    snapshot: acme_client.Snapshot, known: Mapping[str, str]
) -> Owner | None:
    """The owner of a snapshot of the appliance; None: no owner.

    :param known: the appliance's id to Cinder's, for those of its volume.
    """
    if snapshot.id in known:
        return Owner(known[snapshot.id])
    label = snapshot.labels.get(labels.SNAPSHOT)
    if label is None:
        return None
    try:
        found = objects.Snapshot.get_by_id(_everything(), label)
    except exception.SnapshotNotFound:
        return Owner(label, is_here=False)
    return _owner(found, identity.snapshot_id(found) == snapshot.id)


def other_than(volume: objects.Volume, api: acme_client.Client) -> str | None:
    """The id of another volume with the same share, if Cinder's database is
    ambiguous."""
    if identity.is_computed(volume) and not identity.is_doubtful(volume):
        return None
    share_id = identity.share_id(volume)
    share = api.find_share(share_id)
    owner = share.labels.get(labels.VOLUME) if share else None
    if owner is None or owner == volume.id:
        return None
    try:
        found = objects.Volume.get_by_id(volume.obj_context.elevated(), owner)
    except exception.VolumeNotFound:
        return None
    return owner if identity.share_id(found) == share_id else None


def _owner(labelled: Any, has_it: bool) -> Owner | None:
    """The owner of a label for an object of this Cinder."""
    being_made = labelled.status in _BEING_MADE
    if labelled.deleted or not (has_it or being_made):
        return None
    return Owner(labelled.id, is_being_made=being_made)


def _everything() -> Any:
    """The database, including deleted rows."""
    return cinder_context.get_admin_context(read_deleted="yes")
