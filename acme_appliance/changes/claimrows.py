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

"""The table of the claims of open jobs."""

from collections.abc import Iterable
from typing import Any
from typing import Final
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance.changes.claims import Claim
from acme_appliance.changes.claims import Claims
from acme_appliance.changes.claims import conflict
from acme_appliance.changes.claims import Resource
from acme_appliance.db import models
from acme_appliance.db import rows

_CLAIM = rows.table(models.JobClaim).c
#: Marks a row of a share or snapshot that names a job, instead of a claim.
_MARK: Final = "mark"
_IDS: Final = sa.bindparam("ids", None, sa.String, expanding=True)


def _marks(model: type[models.Share | models.Snapshot], share_id: str) -> Any:
    column = rows.table(model).c
    return sa.select(
        column.job_id,
        sa.literal("share"),
        column[share_id],
        sa.literal(_MARK),
    ).where(column.id.in_(_IDS), column.job_id.is_not(None))


#: One query for everything that may have been left open.
_LEFT = sa.union_all(
    sa.select(
        _CLAIM.job_id, _CLAIM.kind, _CLAIM.object_id, _CLAIM.claim
    ).where(_CLAIM.object_id.in_(_IDS)),
    _marks(models.Share, "id"),
    _marks(models.Snapshot, "share_id"),
)
_OF_JOB = sa.select(_CLAIM.kind, _CLAIM.object_id, _CLAIM.claim).where(
    _CLAIM.job_id == sa.bindparam("id")
)
_DELETE = sa.delete(rows.table(models.JobClaim)).where(
    _CLAIM.job_id == sa.bindparam("id")
)


class Left(NamedTuple):
    """What was left open and blocks a change."""

    #: Jobs whose claims conflict with those of the change.
    job_ids: set[str]
    #: By job without claims: the shares that name it, directly or by a
    #: snapshot.
    marked_shares: dict[str, set[str]]


def insert(session: orm.Session, job_id: str, claims: Claims) -> None:
    """Write a job's claims, in the transaction of its intent."""
    rows.insert(
        session,
        models.JobClaim,
        *(
            {
                "job_id": job_id,
                "kind": resource.kind,
                "object_id": resource.id,
                "claim": claim.value,
            }
            for resource, claim in claims.items()
        ),
    )


def delete(session: orm.Session, job_id: str) -> None:
    """Delete a job's claims, in the transaction that ends the job."""
    session.connection().execute(_DELETE, {"id": job_id})


def of_job(connection: sa.Connection, job_id: str) -> Claims:
    return _read(connection.execute(_OF_JOB, {"id": job_id}))


def claimed(connection: sa.Connection, kind: str) -> set[str]:
    """The ids of all claimed objects of a kind."""
    statement = sa.select(_CLAIM.object_id).where(_CLAIM.kind == kind)
    return set(connection.execute(statement).scalars())


def left_open(connection: sa.Connection, claims: Claims) -> Left:
    """Find what blocks a change with these claims."""
    ids = [resource.id for resource in claims]
    claimed: dict[str, list[Any]] = {}
    marked: dict[str, set[str]] = {}
    for row in connection.execute(_LEFT, {"ids": ids}):
        if row.claim == _MARK:
            marked.setdefault(row.job_id, set()).add(row.object_id)
        else:
            claimed.setdefault(row.job_id, []).append(row)
    return Left(
        {id_ for id_, its in claimed.items() if conflict(_read(its), claims)},
        {id_: its for id_, its in marked.items() if id_ not in claimed},
    )


def _read(found: Iterable[Any]) -> Claims:
    """Treats a claim of an unknown kind as exclusive."""
    return {
        Resource(row.kind, row.object_id): (
            Claim.SHARED
            if row.claim == Claim.SHARED.value
            else Claim.EXCLUSIVE
        )
        for row in found
    }
