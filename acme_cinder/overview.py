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

"""All volumes of a back end, with their shares and who has access."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
from typing import Any

from cinder import context as cinder_context
from cinder.db import api as db
from cinder.volume import volume_utils

from acme_cinder import holders
from acme_cinder import identity
from acme_cinder import records
from acme_cinder import shares
import acme_client


@dataclasses.dataclass(frozen=True)
class Entry:
    """One volume.

    :ivar pool: the share's; Cinder's if there is no share.
    :ivar hosts: those with an access rule of the driver.
    :ivar differences: between Cinder and the appliance.
    """

    id: str
    name: str
    size_gib: int
    status: str
    pool: str
    share_id: str
    hosts: tuple[str, ...]
    differences: tuple[str, ...]


def read(api: acme_client.Client, where: dict[str, str]) -> Iterator[Entry]:
    """All volumes, the oldest first: one request per thousand shares.

    :param where: filters for the volumes in Cinder's database.
    """
    listed = {each.id: each for each in api.list_shares()}
    context: Any = cinder_context.get_admin_context()
    attached = records.read_all(context)
    rows = db.volume_get_all(
        context,
        filters=dict(where),
        sort_keys=["created_at", "id"],
        sort_dirs=["asc", "asc"],
    )
    for row in rows:
        share_id = identity.share_id(row)
        share = listed.get(share_id)
        if share is None and row.status in records.QUIET:
            # It may have been made since.
            share = api.find_share(share_id)
        _, found = attached.get(share_id, ("", []))
        yield _entry(row, share_id, share, found)


def _entry(
    row: Any,
    share_id: str,
    share: acme_client.Share | None,
    attached: list[records.Record],
) -> Entry:
    rules = {} if share is None else share.access
    pool = volume_utils.extract_host(row.host or "", level="pool")
    return Entry(
        id=row.id,
        name=row.display_name or "",
        size_gib=row.size,
        status=row.status,
        pool=str(pool or "") if share is None else share.pool,
        share_id=share_id,
        hosts=tuple(
            sorted({holders.host_of(each) for each in rules if _is_ours(each)})
        ),
        differences=tuple(_differences(row, share, attached)),
    )


def _is_ours(holder: str) -> bool:
    return holders.is_attachments(holder)


def _differences(
    row: Any,
    share: acme_client.Share | None,
    attached: list[records.Record],
) -> Iterator[str]:
    if share is None:
        if row.status in records.QUIET:
            yield "the share is gone"
        return
    hosts = {each.host for each in attached if each.host}
    expected = {holders.of_host(host): host for host in hosts}
    ruled = {each for each in share.access if holders.is_hosts(each)}
    for holder in sorted(expected.keys() - ruled):
        yield f"attached to {expected[holder]}, which has no access"
    for holder in sorted(ruled - expected.keys()):
        yield f"{holders.host_of(holder)} has access, but no attachment"
    wanted = shares.bytes_of(row.size)
    if row.status in ("available", "in-use") and share.size_bytes != wanted:
        yield f"the share has {share.size_bytes} bytes"
