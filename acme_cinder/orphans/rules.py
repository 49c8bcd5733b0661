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

"""Access rules of the driver that nothing in Cinder explains."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import functools
from typing import Any
from typing import Final

from cinder import exception
from cinder import objects

from acme_cinder import access
from acme_cinder import holders
from acme_cinder import identity
from acme_cinder import records
from acme_cinder.orphans import orphan
import acme_client

_KIND: Final = "access rule"
_LOCK_SECONDS: Final = 15.0


class Rules:
    """Compares the rules of shares and snapshots with Cinder's records.

    :param lock: takes the lock of a volume, as the driver does.
    """

    def __init__(
        self,
        scene: orphan.Scene,
        lock: Callable[[objects.Volume, float], Any] = access.locked,
    ) -> None:
        self._scene = scene
        self._access = access.Access(scene.settings)
        self._lock = lock

    def find(
        self, listed: list[acme_client.Share], claims: orphan.Claims
    ) -> Iterator[orphan.Orphan]:
        attached = records.read_all(orphan.live())
        for share in listed:
            row = claims.volumes.get(share.id)
            if row is None or not self._scene.is_old(share.updated_at):
                continue
            _, found = attached.get(share.id, ("", []))
            expected = {
                holders.of_host(each.host) for each in found if each.host
            }
            ours = {
                each for each in share.access if holders.is_attachments(each)
            }
            if ours - expected:
                yield from self._of_volume(share, row.id)

    def _of_volume(
        self, share: acme_client.Share, volume_id: str
    ) -> Iterator[orphan.Orphan]:
        volume = _volume(volume_id)
        if volume is None or identity.share_id(volume) != share.id:
            return
        for holder in self._unexplained(volume, share):
            yield orphan.Orphan(
                _KIND,
                f"{share.id}/{holder}",
                share.name,
                f"{holder} may use the share, and no attachment of volume "
                f"{volume_id} says so",
                remove=functools.partial(self._remove, volume_id, holder),
            )

    def _unexplained(
        self, volume: objects.Volume, share: acme_client.Share
    ) -> list[str]:
        """Nothing, while an attachment may be on its way."""
        situation = records.read(volume)
        found = self._access.wanted(situation).unneeded(share.access)
        if situation.is_idle and not situation.pending:
            found += [
                name for name in share.access if holders.is_services(name)
            ]
        return found

    def _remove(self, volume_id: str, holder: str) -> bool:
        volume = _volume(volume_id)
        if volume is None:
            return False
        with self._lock(volume, _LOCK_SECONDS):
            share = self._scene.api.find_share(identity.share_id(volume))
            if (
                share is None
                or not self._scene.is_old(share.updated_at)
                or holder not in self._unexplained(volume, share)
            ):
                return False
            self._scene.api.revoke_access(share.id, holder)
        return True

    def find_of_snapshots(
        self, listed: list[acme_client.Snapshot], claims: orphan.Claims
    ) -> Iterator[orphan.Orphan]:
        for snapshot in listed:
            row = claims.snapshots.get(snapshot.id)
            if row is None:
                continue
            for holder in self._of_backups(snapshot, row.id):
                yield orphan.Orphan(
                    _KIND,
                    f"{snapshot.id}/{holder}",
                    snapshot.name,
                    f"{holder} may read the snapshot, and no backup does",
                    remove=functools.partial(
                        self._remove_of_snapshot, snapshot.id, row.id, holder
                    ),
                )

    def _of_backups(
        self, snapshot: acme_client.Snapshot, known_id: str
    ) -> list[str]:
        found = [name for name in snapshot.access if holders.is_services(name)]
        if not found or not self._scene.is_old(snapshot.updated_at):
            return []
        try:
            known = objects.Snapshot.get_by_id(orphan.live(), known_id)
            is_used = records.is_backed_up(known)
        except (exception.SnapshotNotFound, exception.VolumeNotFound):
            return []
        return [] if is_used else found

    def _remove_of_snapshot(
        self, snapshot_id: str, known_id: str, holder: str
    ) -> bool:
        snapshot = self._scene.api.find_snapshot(snapshot_id)
        if snapshot is None or holder not in self._of_backups(
            snapshot, known_id
        ):
            return False
        self._scene.api.revoke_snapshot_access(snapshot_id, holder)
        return True


def _volume(volume_id: str) -> objects.Volume | None:
    try:
        return objects.Volume.get_by_id(orphan.live(), volume_id)
    except exception.VolumeNotFound:
        return None
