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

"""Quotas of namespaces.

The transaction that writes a change's intent checks the quota. Writers take
turns, and an intent counts from then on, so two changes cannot both use the
rest of a quota.
"""

import dataclasses
import json

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.changes import jobrows
from acme_appliance.db import models

#: The kind of job that extends a share; see operations.UpdateShare.
_UPDATE = "share.update"


@dataclasses.dataclass(frozen=True)
class Usage:
    """A namespace's usage, including changes in progress; or what a change
    adds."""

    size_bytes: int = 0
    shares: int = 0
    snapshots: int = 0


def check(
    session: orm.Session,
    settings: types.ServiceSettings,
    namespace: str,
    added: Usage,
    *,
    job_id: str | None = None,
) -> None:
    """Check a change against its namespace's quota.

    :param job_id: the change's own job, which is not counted.
    :raises problems.Problem: ``limit.bytes``, ``limit.shares`` or
        ``limit.snapshots``; only limits that the change affects are checked.
    """
    quota = settings.quotas.get(namespace)
    if quota is None:
        return
    usage = used(session, namespace, job_id=job_id)
    for code, limit, has, more, what in (
        (
            "limit.bytes",
            quota.max_bytes,
            usage.size_bytes,
            added.size_bytes,
            "bytes in shares",
        ),
        (
            "limit.shares",
            quota.max_shares,
            usage.shares,
            added.shares,
            "shares",
        ),
        (
            "limit.snapshots",
            quota.max_snapshots,
            usage.snapshots,
            added.snapshots,
            "snapshots",
        ),
    ):
        if more > 0 and limit is not None and has + more > limit:
            raise problems.Problem(
                code,
                f"The namespace {namespace} has {limit} {what} at most. It"
                f" has {has}, and this would add {more}.",
            )


def used(
    session: orm.Session, namespace: str, *, job_id: str | None = None
) -> Usage:
    """A namespace's usage, including its open jobs."""
    share, snapshot = models.Share, models.Snapshot
    count, size = session.execute(
        sa.select(
            sa.func.count(), sa.func.coalesce(sa.func.sum(share.size_bytes), 0)
        ).where(share.namespace == namespace)
    ).one()
    snapshots = session.scalar(
        sa.select(sa.func.count())
        .select_from(snapshot)
        .where(snapshot.namespace == namespace)
    )
    growing = _growing(session, namespace, job_id)
    return Usage(int(size) + growing, count, snapshots or 0)


def _growing(session: orm.Session, namespace: str, job_id: str | None) -> int:
    """The bytes of unfinished extends, which the rows do not contain yet."""
    job, share = models.Job, models.Share
    arguments = sa.cast(job.arguments, sa.Text).label("arguments")
    statement = (
        sa.select(job.id, arguments, share.size_bytes)
        .join(share, share.id == job.share_id)
        .where(
            jobrows.IS_OPEN,
            job.namespace == namespace,
            job.kind == _UPDATE,
        )
    )
    return sum(
        max(0, _wanted_bytes(row.arguments) - row.size_bytes)
        for row in session.execute(statement)
        if row.id != job_id
    )


def _wanted_bytes(arguments: str) -> int:
    """The new size of an extend; 0: the row is unreadable and set aside (see
    ``entries``)."""
    try:
        return int(json.loads(arguments)["size_bytes"])
    except (KeyError, TypeError, ValueError):
        return 0


def body(
    session: orm.Session, settings: types.ServiceSettings, namespace: str
) -> types.Body:
    """The schema NamespaceUsage."""
    quota = settings.quotas.get(namespace, types.Quota())
    usage = used(session, namespace)
    return {
        "name": namespace,
        **dataclasses.asdict(quota),
        "provisioned_bytes": usage.size_bytes,
        "share_count": usage.shares,
        "snapshot_count": usage.snapshots,
    }
