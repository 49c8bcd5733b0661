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

"""Check all access rules every few minutes.

Not everything that ends an attachment calls the driver: ``os-reset_status``
only deletes the records, cinder-api can time out while a call continues, a
service can die, and two concurrent detaches see each other's record. Also,
Cinder may write a record after the call, such as the mode of an attachment. So
the rules of all shares are compared with Cinder's database: one request per
thousand shares and one query. Only differences need more requests.

Snapshots have rules only while they are backed up. An interrupted backup
leaves one, which is removed if it was not needed in two passes.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import itertools
import time
from typing import Any

from cinder import context as cinder_context
from cinder import exception
from cinder import objects
from oslo_log import log as logging

from acme_cinder import access
from acme_cinder import copies
from acme_cinder import errors
from acme_cinder import features
from acme_cinder import holders
from acme_cinder import identity
from acme_cinder import labels
from acme_cinder import records
from acme_cinder import shares
import acme_client

LOG = logging.getLogger(__name__)

#: Maximum time of a pass, plus its query and one share; the next pass
#: continues.
_PASS_SECONDS = 10.0
_CALL_SECONDS = 15.0


class Sweep:
    """Runs a pass when one is due; any thread can call it.

    :param interval_seconds: between the starts of two passes.
    """

    def __init__(
        self,
        api: acme_client.Client,
        rights: access.Access,
        volume_shares: shares.Shares,
        image_copies: copies.Copies,
        interval_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api.with_deadline(_CALL_SECONDS)
        self._access = rights
        self._shares = volume_shares
        self._copies = image_copies
        self._interval_seconds = interval_seconds
        self._clock = clock
        # The start of the service checks all attached volumes.
        self._due_at = clock() + interval_seconds
        self._rest: Iterator[acme_client.Share | acme_client.Snapshot]
        self._rest = iter(())
        self._unfinished = False
        #: Rules without an attachment in the previous pass.
        self._suspects: set[tuple[str, str]] = set()
        self._found: set[tuple[str, str]] = set()

    def run_if_due(self) -> None:
        if self._unfinished or self._clock() >= self._due_at:
            self.run()

    def run(self) -> None:
        """Run one pass. Never raises: failures are logged."""
        try:
            self._pass()
        except errors.BELOW as error:
            self._unfinished = False
            LOG.warning("Access rules were not all checked: %s", error)
        except Exception:
            # For example of Cinder's database. It must not fail the report of
            # the statistics, which calls this.
            self._unfinished = False
            LOG.exception("Access rules were not all checked")

    def _pass(self) -> None:
        if not self._unfinished:
            self._begin()
        attached = records.read_all(cinder_context.get_admin_context())
        clients_of = self._access.remembered_clients()
        # After the query, which may take as long.
        deadline = self._clock() + _PASS_SECONDS
        for each in self._rest:
            volume_id, found = attached.get(each.id, ("", []))
            try:
                if isinstance(each, acme_client.Snapshot):
                    self._consider_snapshot(each)
                else:
                    self._consider(each, volume_id, found, clients_of)
            except Exception:
                # A broken record must not prevent the check of others.
                LOG.exception("Could not check the access to %s", each.id)
            if self._clock() >= deadline:
                return
        self._unfinished = False
        self._suspects, self._found = self._found, set()

    def _begin(self) -> None:
        self._due_at = self._clock() + self._interval_seconds
        self._rest = self._api.list_shares()
        if self._shares.features.is_anywhere(features.SNAPSHOT_EXPORT):
            self._rest = itertools.chain(
                self._rest, self._api.list_snapshots()
            )
        self._unfinished = True

    def _consider(
        self,
        share: acme_client.Share,
        volume_id: str,
        found: list[records.Record],
        clients_of: Callable[[str, str], tuple[str, ...]],
    ) -> None:
        if copies.is_copy(share):
            self._copies.remove_if_orphaned(share)
            return
        ours = [name for name in share.access if holders.is_attachments(name)]
        labelled = share.labels.get(labels.VOLUME) == volume_id
        if not (ours or found) or (
            labelled
            and self._access.looks_right(found, share.access, clients_of)
        ):
            return
        volume = _volume(share, volume_id)
        if volume is None:
            return
        if share.labels.get(labels.VOLUME) != volume.id:
            self._label(share, volume)
        self._access.repair(self._api, volume, share.access)
        self._leftovers(share, volume)

    def _label(self, share: acme_client.Share, volume: objects.Volume) -> None:
        """A migration has moved the share to another volume."""
        self._shares.label(share.id, volume.id)

    def _leftovers(
        self, share: acme_client.Share, volume: objects.Volume
    ) -> None:
        """Remove rules that were not needed in two passes."""
        situation = records.read(volume)
        for holder in self._access.unexplained(situation, share.access):
            if (share.id, holder) in self._suspects:
                self._access.remove_unexplained(self._api, volume, holder)
            else:
                self._found.add((share.id, holder))

    def _consider_snapshot(self, found: acme_client.Snapshot) -> None:
        ours = [name for name in found.access if holders.is_services(name)]
        if not ours:
            return
        context: Any = cinder_context.get_admin_context()
        known_id = found.labels.get(labels.SNAPSHOT, found.id)
        try:
            snapshot = objects.Snapshot.get_by_id(context, known_id)
        except exception.SnapshotNotFound:
            # Of another Cinder with the same credential, maybe.
            return
        if identity.snapshot_id(snapshot) != found.id:
            return
        if records.is_backed_up(snapshot):
            return
        for holder in ours:
            suspect = (snapshot.name, holder)
            if suspect not in self._suspects:
                self._found.add(suspect)
                continue
            self._api.revoke_snapshot_access(found.id, holder)
            LOG.warning(
                "Removed access rule %(holder)s of %(snapshot)s: no backup "
                "reads it",
                {"holder": holder, "snapshot": snapshot.name},
            )


def _volume(share: acme_client.Share, volume_id: str) -> objects.Volume | None:
    """The volume of the share; None: Cinder has none."""
    context: Any = cinder_context.get_admin_context()
    named = (volume_id, share.labels.get(labels.VOLUME), share.id)
    for candidate in dict.fromkeys(name for name in named if name):
        try:
            volume = objects.Volume.get_by_id(context, candidate)
        except exception.VolumeNotFound:
            continue
        if identity.share_id(volume) == share.id:
            return volume
    return None
