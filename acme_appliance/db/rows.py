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

"""Rows without objects, for what every change writes.

To make an object, to have it flushed and to keep track of it takes several
times as long as to write its row, and all other writers wait meanwhile.
"""

from collections.abc import Mapping
import functools
from typing import Any
from typing import cast

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy import orm

from acme_appliance.db import models


@functools.cache
def table(model: type[models.Base]) -> sa.Table:
    return cast(sa.Table, model.__table__)


@functools.cache
def _select(model: type[models.Base]) -> sa.Select[Any]:
    return sa.select(table(model)).where(_by_id(model))


@functools.cache
def _insert(model: type[models.Base]) -> sa.Insert:
    return sa.insert(table(model))


@functools.cache
def _update(
    model: type[models.Base], names: tuple[str, ...], returning: bool
) -> Any:
    statement = (
        sa.update(table(model))
        .where(_by_id(model))
        .values({name: sa.bindparam(name) for name in names})
    )
    return statement.returning(*table(model).c) if returning else statement


@functools.cache
def _delete(model: type[models.Base]) -> Any:
    return (
        sa.delete(table(model)).where(_by_id(model)).returning(*table(model).c)
    )


def _connection(session: orm.Session) -> sa.Connection:
    """Of a session of :meth:`.session.Database.write`, whose transaction is
    begun already: the session would have to join it first."""
    return cast(sa.Connection, session.bind)


def _by_id(model: type[models.Base]) -> sa.ColumnElement[bool]:
    return table(model).c.id == sa.bindparam("this_id")


def find(
    connection: sa.Connection, model: type[models.Base], id_: str
) -> Any | None:
    """One row, with the names of the model's columns; None: there is none."""
    found = connection.execute(_select(model), {"this_id": id_})
    return found.one_or_none()


def get(connection: sa.Connection, model: type[models.Base], id_: str) -> Any:
    """As :func:`find`.

    :raises sqlalchemy.exc.NoResultFound: it is not there.
    """
    return connection.execute(_select(model), {"this_id": id_}).one()


def insert(
    session: orm.Session, model: type[models.Base], *rows: Mapping[str, Any]
) -> None:
    """Write new rows at once, all with the same columns."""
    if rows:
        _connection(session).execute(_insert(model), list(rows))


def delete(session: orm.Session, model: type[models.Base], id_: str) -> Any:
    """Delete one row at once, and what the database cascades to.

    Returns the row as it was.

    :raises sqlalchemy.exc.NoResultFound: it is not there.
    """
    return _connection(session).execute(_delete(model), {"this_id": id_}).one()


def update(
    session: orm.Session,
    model: type[models.Base],
    id_: str,
    **values: Any,
) -> Any:
    """Change one row at once; objects of the session do not learn of it.

    Returns the row as it is now, with the names of the model's columns.

    :raises sqlalchemy.exc.NoResultFound: it is not there.
    """
    statement = _update(model, tuple(values), True)
    found = _connection(session).execute(statement, {"this_id": id_, **values})
    return found.one()


def change(
    session: orm.Session,
    model: type[models.Base],
    id_: str,
    **values: Any,
) -> None:
    """As :func:`update`, for whoever does not need the row."""
    statement = _update(model, tuple(values), False)
    found = _connection(session).execute(statement, {"this_id": id_, **values})
    if not found.rowcount:
        raise exc.NoResultFound(f"there is no {model.__name__} {id_}")
