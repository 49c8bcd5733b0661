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

"""The driver's calls to manage and unmanage volumes and snapshots."""

from __future__ import annotations

from typing import Any

from cinder import objects
from cinder.volume import driver
from cinder.volume import volume_utils

from acme_cinder import errors
from acme_cinder import manageable
from acme_cinder import parts


class ManageCalls(driver.ManageableSnapshotsVD, driver.ManageableVD):
    """Part of the driver class."""

    _parts: parts.Parts

    @volume_utils.trace
    def manage_existing(
        self, volume: objects.Volume, existing_ref: dict[str, Any]
    ) -> dict[str, Any]:
        with errors.translated(volume=volume):
            return self._parts.managed.adopt(volume, existing_ref)

    @volume_utils.trace
    def manage_existing_get_size(
        self, volume: objects.Volume, existing_ref: dict[str, Any]
    ) -> int:
        with errors.translated(volume=volume):
            return self._parts.managed.get_size(volume, existing_ref)

    @volume_utils.trace
    def get_manageable_volumes(
        self,
        cinder_volumes: Any,
        marker: Any,
        limit: int | None,
        offset: int | None,
        sort_keys: list[str],
        sort_dirs: list[str],
    ) -> list[dict[str, Any]]:
        with errors.translated():
            return self._parts.manageable.volumes(
                cinder_volumes,
                manageable.Page(marker, limit, offset, sort_keys, sort_dirs),
            )

    @volume_utils.trace
    def unmanage(self, volume: objects.Volume) -> None:
        with errors.operation("Unmanaged", volume=volume):
            self._parts.managed.release(volume)

    @volume_utils.trace
    def manage_existing_snapshot(
        self, snapshot: objects.Snapshot, existing_ref: dict[str, Any]
    ) -> dict[str, Any]:
        with errors.translated(snapshot=snapshot):
            return self._parts.managed_snapshots.adopt(snapshot, existing_ref)

    @volume_utils.trace
    def manage_existing_snapshot_get_size(
        self, snapshot: objects.Snapshot, existing_ref: dict[str, Any]
    ) -> int:
        with errors.translated(snapshot=snapshot):
            return self._parts.managed_snapshots.get_size(
                snapshot, existing_ref
            )

    @volume_utils.trace
    def get_manageable_snapshots(
        self,
        cinder_snapshots: Any,
        marker: Any,
        limit: int | None,
        offset: int | None,
        sort_keys: list[str],
        sort_dirs: list[str],
    ) -> list[dict[str, Any]]:
        with errors.translated():
            return self._parts.manageable.snapshots(
                cinder_snapshots,
                manageable.Page(marker, limit, offset, sort_keys, sort_dirs),
            )

    @volume_utils.trace
    def unmanage_snapshot(self, snapshot: objects.Snapshot) -> None:
        with errors.operation("Unmanaged", snapshot=snapshot):
            self._parts.managed_snapshots.release(snapshot)
