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

"""Shares that Cinder does not know."""

from __future__ import annotations

from collections.abc import Iterator
import datetime
import functools
from typing import Any
from typing import Final

from acme_cinder import copies
from acme_cinder import identity
from acme_cinder import labels
from acme_cinder import owners
from acme_cinder import shares
from acme_cinder.checks import trial
from acme_cinder.orphans import orphan
import acme_client

_KIND: Final = "share"
_COPY: Final = "copy"
_CHECK: Final = "check's share"
_LONG: Final = datetime.timedelta(days=1)
_BY_HAND: Final = (
    "if nobody needs it, delete it on the appliance, by its own command or API"
)


class Shares:
    """Compares the shares with Cinder's volumes."""

    def __init__(self, scene: orphan.Scene) -> None:
        self._scene = scene
        unused: Any = None
        made = shares.Shares(scene.api, scene.settings, scene.mounts, unused)
        self._shares = made
        self._copies = copies.Copies(made, scene.mounts)

    def find(
        self, listed: list[acme_client.Share], claims: orphan.Claims
    ) -> Iterator[orphan.Orphan]:
        unknown = [each for each in listed if each.id not in claims.volumes]
        rows = owners.find_labelled(unknown)
        for share in unknown:
            found = self._judge(share, rows)
            if found is not None:
                yield found

    def _judge(
        self, share: acme_client.Share, rows: dict[str, Any]
    ) -> orphan.Orphan | None:
        """None: nothing of ours, or something that is being made."""
        if copies.is_copy(share):
            return self._copy(share)
        if trial.LABEL in share.labels:
            return self._trial(share)
        label = share.labels.get(labels.VOLUME)
        if label is None:
            return None
        row = rows.get(label)
        if row is None:
            return self._unproven(
                share,
                f"its volume {label} is not in this Cinder: it is of another "
                "one, or its record was purged",
            )
        if not row.deleted:
            if row.status in ("creating", "managing", "downloading"):
                return None
            return self._unproven(
                share, f"its volume {label} has another share"
            )
        why_not = self._why_not(share, row)
        if why_not:
            return self._unproven(
                share, f"its volume {label} was deleted, but {why_not}"
            )
        when = f"{row.deleted_at:%Y-%m-%d %H:%M}"
        return self._orphan(
            _KIND,
            share,
            f"its volume {label} was deleted at {when}",
            self._remove,
        )

    def _why_not(self, share: acme_client.Share, row: Any) -> str | None:
        """Why the share of a deleted volume is not proven to be that."""
        if identity.share_id(row) != share.id:
            return "that had another share"
        if not self._scene.is_old(row.deleted_at):
            return "only a short time ago"
        return self._scene.obstacle(share)

    def _orphan(
        self, kind: str, share: acme_client.Share, why: str, remove: Any
    ) -> orphan.Orphan:
        return orphan.Orphan(
            kind,
            share.id,
            share.name,
            why,
            remove=functools.partial(remove, share.id),
        )

    def _unproven(
        self, share: acme_client.Share, why: str, kind: str = _KIND
    ) -> orphan.Orphan:
        return orphan.Orphan(kind, share.id, share.name, why, _BY_HAND)

    def _remove(self, share_id: str) -> bool:
        """Delete the share if all is still so; not with snapshots."""
        share = self._scene.api.find_share(share_id)
        if share is None or orphan.is_claimed(share):
            return False
        found = self._judge(share, owners.find_labelled([share]))
        if found is None or found.kind != _KIND or found.remove is None:
            return False
        if not self._scene.mounts.reap(
            share_id, lambda: self._shares.revoke_own(share_id)
        ):
            return False
        return self._scene.api.delete_share(share_id)

    # -- temporary shares, which tell by a lock whether they are in use

    def _copy(self, share: acme_client.Share) -> orphan.Orphan | None:
        if self._copies.is_of_this_host(share):
            if not self._copies.is_idle(share):
                return None
            return self._orphan(
                _COPY,
                share,
                "a copy for an image, whose service died",
                self._remove_copy,
            )
        return self._of_another_host(share, _COPY, copies.maker_of(share))

    def _remove_copy(self, share_id: str) -> bool:
        share = self._scene.api.find_share(share_id)
        return share is not None and self._copies.remove_if_orphaned(share)

    def _trial(self, share: acme_client.Share) -> orphan.Orphan | None:
        maker = share.labels[trial.LABEL]
        if maker == trial.maker(self._scene.mounts):
            with self._scene.mounts.idle(trial.work_on(share.id)) as is_idle:
                if not is_idle:
                    return None
            return self._orphan(
                _CHECK,
                share,
                "of an acme-cinder check that was cut off",
                self._remove_trial,
            )
        return self._of_another_host(share, _CHECK, maker)

    def _remove_trial(self, share_id: str) -> bool:
        share = self._scene.api.find_share(share_id)
        if share is None or trial.LABEL not in share.labels:
            return False
        return trial.remove(self._shares, self._scene.mounts, share_id)

    def _of_another_host(
        self, share: acme_client.Share, kind: str, maker: str
    ) -> orphan.Orphan | None:
        """Whether it is in use there, only that host knows."""
        if self._scene.now() - share.created_at < _LONG:
            return None
        host = maker.partition(":")[0]
        return orphan.Orphan(
            kind,
            share.id,
            share.name,
            f"made on {host} more than a day ago",
            f"run acme-cinder orphans on {host}",
        )
