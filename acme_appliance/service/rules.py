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

"""The rows of access rules, for shares and snapshots."""

from collections.abc import Iterable
import itertools

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance import views
from acme_appliance.db import models
from acme_appliance.db.rows import table
from acme_appliance.references import Kind
from acme_appliance.references import Reference

_RULE = table(models.AccessRule).c
_IN_USE = {Kind.SHARE: "share.in_use", Kind.SNAPSHOT: "snapshot.in_use"}
_OF_MANY = (
    sa.select(_RULE.object_id, _RULE.holder, _RULE.clients, _RULE.level)
    .where(
        _RULE.kind == sa.bindparam("kind"),
        _RULE.object_id.in_(sa.bindparam("ids", expanding=True)),
    )
    .order_by(_RULE.object_id, _RULE.holder)
)
_DELETE = sa.delete(table(models.AccessRule)).where(
    _RULE.kind == sa.bindparam("of_kind"),
    _RULE.object_id == sa.bindparam("of_id"),
)


def read(
    reader: orm.Session | sa.Connection, kind: Kind, ids: Iterable[str]
) -> dict[str, types.Body]:
    """Access rules by id, as plain rows: there may be very many, and objects
    would need many times the memory."""
    found = reader.execute(_OF_MANY, {"kind": kind.value, "ids": [*ids]})
    by_id = itertools.groupby(found, key=lambda row: row.object_id)
    return {id_: views.rules(rows) for id_, rows in by_id}


def rows(
    session: orm.Session, kind: Kind
) -> dict[str, dict[str, models.AccessRule]]:
    """All rules of one kind, by id and holder, for update."""
    found: dict[str, dict[str, models.AccessRule]] = {}
    rule = models.AccessRule
    for row in session.scalars(sa.select(rule).where(rule.kind == kind.value)):
        found.setdefault(row.object_id, {})[row.holder] = row
    return found


def check_unused(reference: Reference, holders: Iterable[str]) -> None:
    """:raises problems.Problem: ``share.in_use``, ``snapshot.in_use``."""
    if names := ", ".join(holders):
        raise problems.Problem(
            _IN_USE[reference.kind],
            f"The {reference} is exported for {names}.",
        )


def delete(session: orm.Session, *references: Reference) -> None:
    """Delete rules together with their share or snapshot, so that the next
    one with its id has none."""
    session.connection().execute(
        _DELETE,
        [
            {"of_kind": each.kind.value, "of_id": each.id}
            for each in references
        ],
    )
