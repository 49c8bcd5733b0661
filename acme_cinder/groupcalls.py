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

"""The driver's calls for groups whose type asks for consistent snapshots.

For other types all of them raise NotImplementedError, and Cinder works on each
volume by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from cinder import objects
from cinder.volume import volume_utils

from acme_cinder import errors
from acme_cinder import groupdeletion
from acme_cinder import grouping
from acme_cinder import parts


class GroupCalls:
    """Part of the driver class."""

    _parts: parts.Parts
    remove_export: Callable[[Any, objects.Volume], None]

    @volume_utils.trace
    def create_group(
        self, context: Any, group: objects.Group
    ) -> dict[str, Any]:
        grouping.check(group)
        with errors.group_operation("Created", group, []):
            self._parts.groups.create(group)
        return {"status": "available"}

    @volume_utils.trace
    def delete_group(
        self,
        context: Any,
        group: objects.Group,
        volumes: Sequence[objects.Volume],
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Delete exactly these volumes, as far as possible."""
        grouping.check(group)
        with errors.group_operation("Deleted", group, volumes):
            for volume in volumes:
                self.remove_export(context, volume)
            done = self._parts.groups.delete(group, volumes)
        return _updates(group, done)

    @volume_utils.trace
    def update_group(
        self,
        context: Any,
        group: objects.Group,
        add_volumes: Sequence[objects.Volume] | None = None,
        remove_volumes: Sequence[objects.Volume] | None = None,
    ) -> tuple[None, None, None]:
        grouping.check(group)
        added, removed = add_volumes or [], remove_volumes or []
        with errors.group_operation("Changed", group, [*added, *removed]):
            self._parts.groups.update(group, added, removed)
        return None, None, None

    @volume_utils.trace
    def create_group_from_src(
        self,
        context: Any,
        group: objects.Group,
        volumes: Sequence[objects.Volume],
        group_snapshot: objects.GroupSnapshot | None = None,
        snapshots: Sequence[objects.Snapshot] | None = None,
        source_group: objects.Group | None = None,
        source_vols: Sequence[objects.Volume] | None = None,
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Create all volumes, or none."""
        grouping.check(group)
        sources = [each.volume for each in snapshots or []]
        with errors.group_operation(
            "Created", group, [*volumes, *sources, *(source_vols or [])]
        ):
            if group_snapshot is not None:
                updates = self._parts.groups.create_from_snapshots(
                    group, volumes, group_snapshot, snapshots or []
                )
            else:
                assert source_group is not None  # noqa: S101
                updates = self._parts.groups.create_from_group(
                    group, volumes, source_group, source_vols or []
                )
        return {"status": "available"}, updates

    @volume_utils.trace
    def create_group_snapshot(
        self,
        context: Any,
        group_snapshot: objects.GroupSnapshot,
        snapshots: Sequence[objects.Snapshot],
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Take all snapshots at one moment, or none."""
        grouping.check(group_snapshot)
        with errors.group_operation(
            "Took", group_snapshot, [each.volume for each in snapshots]
        ):
            updates = self._parts.group_snapshots.create(
                group_snapshot, snapshots
            )
        return {"status": "available"}, updates

    @volume_utils.trace
    def delete_group_snapshot(
        self,
        context: Any,
        group_snapshot: objects.GroupSnapshot,
        snapshots: Sequence[objects.Snapshot],
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        grouping.check(group_snapshot)
        with errors.group_operation(
            "Deleted", group_snapshot, [each.volume for each in snapshots]
        ):
            done = self._parts.group_snapshots.delete(
                group_snapshot, snapshots
            )
        return _updates(group_snapshot, done)


def _updates(
    thing: objects.Group | objects.GroupSnapshot, done: Mapping[str, str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The model updates after a deletion.

    Anything left must be an error of the whole: Cinder forgets all members of
    a group without one, whatever their status is (volume/manager.py,
    ``delete_group``).
    """
    complete = set(done.values()) <= {groupdeletion.DELETED}
    status = thing.status if complete else "error"
    members = [{"id": id_, "status": each} for id_, each in done.items()]
    return {"status": status}, members
