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

"""Snapshots that Cinder does not know."""

from __future__ import annotations

from collections.abc import Iterator
import functools
from typing import Any
from typing import Final

from cinder import exception
from cinder import objects
from cinder.db import api as db

from acme_cinder import identity
from acme_cinder import labels
from acme_cinder.orphans import orphan
import acme_client

_KIND: Final = "snapshot"
_BY_HAND: Final = (
    "if nobody needs it, delete it on the appliance, by its own command or API"
)


class Snapshots:
    """Compares the snapshots with Cinder's."""

    def __init__(self, scene: orphan.Scene) -> None:
        self._scene = scene

    def find(
        self, listed: list[acme_client.Snapshot], claims: orphan.Claims
    ) -> Iterator[orphan.Orphan]:
        for snapshot in listed:
            if snapshot.id not in claims.snapshots:
                found = self._judge(snapshot)
                if found is not None:
                    yield found

    def _judge(self, snapshot: acme_client.Snapshot) -> orphan.Orphan | None:
        """None: nothing of ours, or something that is being made."""
        label = snapshot.labels.get(labels.SNAPSHOT)
        if label is None:
            return None
        row = _row(label)
        if row is None:
            why_not = (
                f"its snapshot {label} is not in this Cinder: it is of "
                "another one, or its record was purged"
            )
        elif not row.deleted:
            if row.status == "creating":
                return None
            why_not = f"Cinder's snapshot {label} is another one"
        else:
            why_not = self._why_not(snapshot, row) or ""
            why_not = why_not and f"{label} was deleted, but {why_not}"
        if row is None or why_not:
            return orphan.Orphan(
                _KIND, snapshot.id, snapshot.name, why_not, _BY_HAND
            )
        return orphan.Orphan(
            _KIND,
            snapshot.id,
            snapshot.name,
            f"{label} was deleted at {row.deleted_at:%Y-%m-%d %H:%M}",
            remove=functools.partial(self._remove, snapshot.id),
        )

    def _why_not(
        self, snapshot: acme_client.Snapshot, row: objects.Snapshot
    ) -> str | None:
        if identity.snapshot_id(row) != snapshot.id:
            return "that was another one"
        if not self._scene.is_old(row.deleted_at):
            return "only a short time ago"
        return self._scene.obstacle(snapshot)

    def _remove(self, snapshot_id: str) -> bool:
        snapshot = self._scene.api.find_snapshot(snapshot_id)
        if snapshot is None or _is_claimed(snapshot_id):
            return False
        found = self._judge(snapshot)
        if found is None or found.remove is None:
            return False
        return self._scene.api.delete_snapshot(snapshot_id)


def _row(label: str) -> objects.Snapshot | None:
    try:
        return objects.Snapshot.get_by_id(orphan.everything(), label)
    except exception.SnapshotNotFound:
        return None


def _is_claimed(snapshot_id: str) -> bool:
    context: Any = orphan.live()
    return any(
        db.snapshot_get_all(context, filters={column: snapshot_id})
        for column in ("id", "provider_id")
    )
