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

"""Find and repair missing or outdated metadata in a pool.

It is missing for objects of an earlier release, and outdated if a crash came
between a change of the database and the write of its metadata.
"""

from collections.abc import Iterator
import logging
from typing import Any
from typing import Final

import sqlalchemy as sa

from acme_appliance import references
from acme_appliance.changes import claims
from acme_appliance.changes.context import Context
from acme_appliance.changes.runner import Runner
from acme_appliance.service import descriptions
from acme_appliance.service import lookup

LOG = logging.getLogger(__name__)

_PROGRESS: Final = 2_000


def compare(runner: Runner, pool: str, *, apply: bool) -> list[str]:
    """The objects whose metadata differs from the database, as ``pool/id``;
    with ``apply`` it is written.

    Skips those with an open job, which writes the metadata.

    :raises engines.EngineError: the pool cannot be used.
    """
    context = runner.context
    found: list[str] = []
    for reference, row in _differences(context, pool):
        if apply:
            with runner.holding_all(_claims(reference, row)):
                _write(context, pool, reference)
        found.append(f"{pool}/{reference.id}")
        if apply and len(found) % _PROGRESS == 0:
            LOG.info("Pool %s: wrote metadata of %s", pool, len(found))
    if apply and found:
        context.pools.sync(pool)
    return found


def _claims(reference: references.Subject, row: Any) -> claims.Claims:
    """As a change of it has."""
    if isinstance(reference, references.GroupReference):
        return claims.exclusive(
            claims.Resource(reference.kind.value, reference.id)
        )
    return claims.exclusive(claims.share(row.share_id))


def _write(context: Context, pool: str, reference: references.Subject) -> None:
    """Write metadata while the object is held; the row may be gone."""
    for row in _rows(context, pool, reference.kind, reference.id):
        metadata = descriptions.of(row, reference.kind)
        context.pools.engine(pool).metadata.write(reference, metadata)


def _differences(
    context: Context, pool: str
) -> Iterator[tuple[references.Subject, Any]]:
    store = context.pools.engine(pool).metadata
    for kind in references.SUBJECT_KINDS:
        described = store.ids(kind)
        for row in _rows(context, pool, kind):
            reference = references.subject(kind, row.id)
            there = store.read(reference) if row.id in described else None
            if not descriptions.same(there, descriptions.of(row, kind)):
                yield reference, row


def _rows(
    context: Context,
    pool: str,
    kind: references.SubjectKind,
    id_: str | None = None,
) -> list[Any]:
    table: Any = lookup.TABLES[kind]
    columns = [getattr(table, name) for name in descriptions.columns(kind)]
    if kind == references.Kind.SHARE:
        columns.append(table.id.label("share_id"))
    statement = sa.select(*columns).where(
        table.pool == pool, table.job_id.is_(None)
    )
    if id_ is not None:
        statement = statement.where(table.id == id_)
    with context.database.read() as session:
        return list(session.execute(statement).all())
