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

"""Which shares are in a group, and which snapshots in a group snapshot.

Shares and snapshots name what they are in. Every change of this gives the
group or group snapshot a new generation.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from acme_appliance.changes.context import Context
from acme_appliance.db import models
from acme_appliance.db import rows
from acme_appliance.service import descriptions
from acme_appliance.service import lookup


def check_join(
    context: Context,
    session: orm.Session,
    group_id: str,
    *,
    namespace: str,
    pool: str,
    added: int = 1,
) -> None:
    """Check that shares may join a group, in the transaction that writes it.

    :param namespace, pool: of the shares.
    :raises problems.Problem: ``group.not_found``, ``group.other_pool``,
        ``limit.group_shares``.
    """
    row = rows.find(session.connection(), models.Group, group_id)
    if row is None or row.namespace != namespace:
        raise lookup.not_found(references.group(group_id), "/group_id")
    if row.pool != pool:
        raise problems.Problem(
            "group.other_pool",
            f"The group {group_id} is in the pool {row.pool}, not {pool}.",
            pointer="/group_id",
        )
    # A group that is being created with shares takes them in.
    if row.state == types.State.ERROR and added > 0:
        lookup.check_usable(session.get_one(models.Group, group_id))
    limit = context.settings.limits.max_shares_per_group
    count = session.scalar(
        sa.select(sa.func.count())
        .select_from(models.Share)
        .where(models.Share.group_id == group_id)
    )
    if (count or 0) + added > limit:
        raise problems.Problem(
            "limit.group_shares", f"A group has {limit} shares at most."
        )


def touch_group(
    context: Context, session: orm.Session, *group_ids: str | None
) -> None:
    """Shares joined or left these groups, as far as they exist."""
    for group_id in group_ids:
        if group_id is not None:
            _touch(context, session, models.Group, group_id)


def touch_group_snapshot(
    context: Context, session: orm.Session, group_snapshot_id: str | None
) -> None:
    """A snapshot left it, if it exists."""
    if group_snapshot_id is not None:
        _touch(context, session, models.GroupSnapshot, group_snapshot_id)


def touch_group_snapshots_of(
    context: Context, session: orm.Session, share_id: str
) -> None:
    """All snapshots of a share leave their group snapshots."""
    found = session.scalars(
        sa.select(models.Snapshot.group_snapshot_id)
        .where(
            models.Snapshot.share_id == share_id,
            models.Snapshot.group_snapshot_id.is_not(None),
        )
        .distinct()
    )
    for group_snapshot_id in found.all():
        touch_group_snapshot(context, session, group_snapshot_id)


def move(
    context: Context, session: orm.Session, wanted: dict[str, str | None]
) -> dict[references.Subject, types.Body]:
    """Let shares join or leave groups, which the caller has checked.

    :param wanted: the group of each share; None: of no group.
    :return: their new metadata, to be written after the commit.
    """
    moved: dict[references.Subject, types.Body] = {}
    for share_id, group_id in wanted.items():
        row = session.get_one(models.Share, share_id)
        row.group_id = group_id
        context.touch(row)
        moved[references.share(share_id)] = descriptions.of_share(row)
    return moved


def shares(reader: Any, *group_ids: str) -> dict[str, list[str]]:
    """By group, the ids of its shares, in order."""
    found: dict[str, list[str]] = {id_: [] for id_ in group_ids}
    statement = (
        sa.select(models.Share.group_id, models.Share.id)
        .where(models.Share.group_id.in_(group_ids))
        .order_by(models.Share.group_id, models.Share.id)
    )
    for group_id, share_id in reader.execute(statement):
        found[group_id].append(share_id)
    return found


def snapshots(
    reader: Any, *group_snapshot_ids: str
) -> dict[str, dict[str, str]]:
    """By group snapshot and share, the ids of its snapshots."""
    found: dict[str, dict[str, str]] = {id_: {} for id_ in group_snapshot_ids}
    row = models.Snapshot
    statement = (
        sa.select(row.group_snapshot_id, row.share_id, row.id)
        .where(row.group_snapshot_id.in_(group_snapshot_ids))
        .order_by(row.group_snapshot_id, row.id)
    )
    for group_snapshot_id, share_id, snapshot_id in reader.execute(statement):
        found[group_snapshot_id][share_id] = snapshot_id
    return found


def snapshot_rows(
    session: orm.Session, group_snapshot_id: str
) -> list[models.Snapshot]:
    """The snapshots of a group snapshot, in the order of their ids."""
    statement = (
        sa.select(models.Snapshot)
        .where(models.Snapshot.group_snapshot_id == group_snapshot_id)
        .order_by(models.Snapshot.id)
    )
    return list(session.scalars(statement))


def _touch(
    context: Context, session: orm.Session, model: Any, id_: str
) -> None:
    session.execute(
        sa.update(model)
        .where(model.id == id_)
        .values(
            generation=context.generations.next(),
            updated_at=context.clock(),
        )
        .execution_options(synchronize_session=False)
    )
