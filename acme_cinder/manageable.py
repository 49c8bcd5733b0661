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

"""List manageable shares and snapshots, and why others cannot be managed.

Needs one request per thousand, and a few queries of Cinder's database. Files
are checked only when one is managed.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
from typing import Any

from cinder import context as cinder_context
from cinder import objects
from cinder.db import api as db
from cinder.volume import volume_utils

from acme_cinder import labels
from acme_cinder import manage
from acme_cinder import managesnapshots
from acme_cinder import owners
from acme_cinder import settings as options
import acme_client

Entry = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Page:
    """The requested page, as Cinder passes it."""

    marker: Any
    limit: int | None
    offset: int | None
    sort_keys: list[str]
    sort_dirs: list[str]

    def of(self, entries: list[Entry]) -> list[Entry]:
        """:raises InvalidInput: the marker is not the reference of an
        entry."""
        limit = len(entries) if self.limit is None else self.limit
        found: list[Entry] = volume_utils.paginate_entries_list(
            entries,
            self.marker,
            limit,
            self.offset,
            self.sort_keys,
            self.sort_dirs,
        )
        return found


class Manageable:
    """Lists them.

    :param where: filters for the back end's volumes in Cinder's database.
    """

    def __init__(
        self,
        api: acme_client.Client,
        settings: options.DriverSettings,
        where: Mapping[str, str],
    ) -> None:
        self._api = api
        self._pools = settings.pools
        self._where = dict(where)

    def volumes(
        self, cinder_volumes: Iterable[objects.Volume], page: Page
    ) -> list[Entry]:
        """:param cinder_volumes: all of the back end."""
        shares = [
            share
            for share in self._api.list_shares()
            if not self._pools or share.pool in self._pools
        ]
        known = owners.by_share(cinder_volumes)
        labelled = owners.find_labelled(
            share for share in shares if share.id not in known
        )
        return page.of(
            [
                _entry(
                    share,
                    owners.of_share(share, known, labelled),
                    labels.VOLUME,
                    manage.obstacle(share),
                )
                for share in shares
            ]
        )

    def snapshots(
        self, cinder_snapshots: Iterable[objects.Snapshot], page: Page
    ) -> list[Entry]:
        """:param cinder_snapshots: all of the back end."""
        known = owners.by_snapshot(cinder_snapshots)
        volumes = self._volumes()
        return page.of(
            [
                self._snapshot(each, known, volumes)
                for each in self._api.list_snapshots()
                if not self._pools or each.pool in self._pools
            ]
        )

    def _snapshot(
        self,
        snapshot: acme_client.Snapshot,
        known: Mapping[str, str],
        volumes: Mapping[str, str],
    ) -> Entry:
        owner, reason = None, managesnapshots.obstacle(snapshot)
        if snapshot.share_id in volumes:
            owner = owners.of_snapshot(snapshot, known)
        else:
            reason = "manage its share first, as a volume"
        entry = _entry(snapshot, owner, labels.SNAPSHOT, reason)
        return {
            **entry,
            "source_reference": {"source-id": snapshot.share_id},
        }

    def _volumes(self) -> dict[str, str]:
        """The volumes of the back end, by their shares."""
        context: Any = cinder_context.get_admin_context()
        rows = db.volume_get_all(context, filters=dict(self._where))
        return owners.by_share(rows)


def _entry(
    found: acme_client.Share | acme_client.Snapshot,
    owner: owners.Owner | None,
    label: str,
    reason: str | None,
) -> Entry:
    if owner is not None:
        reason = owner.reason(label)
    return {
        "reference": {"source-id": found.id},
        "size": manage.size_of(found),
        "safe_to_manage": reason is None,
        "reason_not_safe": reason,
        "cinder_id": owner.id if owner is not None and owner.is_here else None,
        "extra_info": {"name": found.name, "pool": found.pool},
    }
