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

"""The ids of a volume's share and a snapshot on the appliance. No other module
computes them.

``provider_id`` is preferred: an object that the driver created has the id that
it was created with, a managed one keeps its previous id. Otherwise the id is
computed: Cinder may not have ``provider_id``, for example because the reply to
a create was lost.

A migration swaps ``_name_id`` and ``provider_location`` first, in
``update_migrated_volume`` (volume/manager.py), and ``provider_id`` only
later, with all other columns, in ``finish_volume_migration``
(objects/volume.py). In between, and forever if a service dies there,
``provider_id`` is that of the share that the data was copied from.
"""

from __future__ import annotations

from typing import Any
import uuid

from cinder import objects


def share_id(volume: Any) -> str:
    """The id of a volume's share.

    :param volume: the object, or its row in Cinder's database.
    """
    known = _column(volume, "provider_id")
    if known and is_id(known) and not _is_being_migrated(volume):
        return str(known)
    return str(volume.name_id)


def is_doubtful(volume: objects.Volume) -> bool:
    """Whether the export belongs to another share than :func:`share_id`.

    This is the case for the record of an unfinished migration, whose share
    already belongs to the volume.
    """
    location = _column(volume, "provider_location") or ""
    exported = location.rpartition("/")[2]
    return is_id(exported) and exported != share_id(volume)


def is_computed(volume: objects.Volume) -> bool:
    """Whether :func:`share_id` is the one that only this volume can have."""
    return share_id(volume) == str(volume.name_id)


def has_ids(volume: objects.Volume) -> bool:
    """Whether Cinder has an id or an export for the volume."""
    columns = ("provider_id", "provider_location")
    return any(_column(volume, name) for name in columns)


def named_ids(row: Any) -> set[str]:
    """Every share that a volume's row names in any column: during a migration
    these are two."""
    exported = (row.provider_location or "").rpartition("/")[2]
    named = {row.id, row.name_id, row.provider_id, exported}
    return {str(name) for name in named if name}


def snapshot_id(snapshot: objects.Snapshot) -> str:
    """The snapshot's id on the appliance."""
    known = _column(snapshot, "provider_id")
    return str(known if known and is_id(known) else snapshot.id)


def is_id(text: str) -> bool:
    """Whether a text is an id in the appliance's form."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _is_being_migrated(volume: Any) -> bool:
    """Whether the columns belong to two shares."""
    moved_to = _column(volume, "_name_id")
    location = _column(volume, "provider_location") or ""
    return bool(moved_to) and location.endswith(f"/{moved_to}")


def _column(thing: Any, name: str) -> Any:
    """None also for an object that is not in the database, such as a copy."""
    is_set = getattr(thing, "obj_attr_is_set", lambda name: True)
    return getattr(thing, name, None) if is_set(name) else None
