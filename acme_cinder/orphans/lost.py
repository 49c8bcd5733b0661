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

"""Volumes and snapshots of Cinder that the appliance does not have, and
temporary ones that Cinder forgot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from typing import Final

from cinder.db import api as db

from acme_cinder import identity
from acme_cinder import records
from acme_cinder.orphans import orphan

_REMEDY: Final = (
    "restore it on the appliance, or delete it in Cinder, which succeeds "
    "although its data is gone"
)


class Lost:
    """Compares Cinder's records of a back end with the appliance."""

    def __init__(self, scene: orphan.Scene) -> None:
        self._scene = scene

    def find(
        self, share_ids: set[str], snapshot_ids: set[str]
    ) -> Iterator[orphan.Orphan]:
        context: Any = orphan.live()
        filters = dict(self._scene.where)
        api = self._scene.api
        for row in db.volume_get_all(context, filters=dict(filters)):
            share_id = identity.share_id(row)
            if (
                row.status in records.QUIET
                and row.provider_location
                and share_id not in share_ids
                # It may have been made since the list was read.
                and api.find_share(share_id) is None
            ):
                yield _lost("volume", row, f"its share {share_id} is gone")
        for row in db.snapshot_get_all(context, filters=dict(filters)):
            known_id = identity.snapshot_id(row)
            if (
                row.status == orphan.STABLE
                and known_id not in snapshot_ids
                and api.find_snapshot(known_id) is None
            ):
                yield _lost(
                    "volume snapshot",
                    row,
                    f"it is gone from the appliance, {known_id} there",
                )

    def find_forgotten(self) -> Iterator[orphan.Orphan]:
        """Temporary volumes and snapshots of backups that have ended."""
        context: Any = orphan.live()
        names = {
            each.id: each
            for each in db.volume_get_all(
                context, filters=dict(self._scene.where)
            )
        }
        snapshots = {
            each.id: each
            for each in db.snapshot_get_all(
                context, filters=dict(self._scene.where)
            )
        }
        for backup in db.backup_get_all(context):
            if backup.status in ("creating", "restoring", "deleting"):
                continue
            for kind, known, id_ in (
                ("volume", names, backup.temp_volume_id),
                ("volume snapshot", snapshots, backup.temp_snapshot_id),
            ):
                if id_ in known:
                    yield orphan.Orphan(
                        kind,
                        id_,
                        known[id_].display_name or "",
                        f"temporary, of backup {backup.id}, which is "
                        f"{backup.status}",
                        "delete it in Cinder",
                    )


def _lost(kind: str, row: Any, why: str) -> orphan.Orphan:
    return orphan.Orphan(kind, row.id, row.display_name or "", why, _REMEDY)
