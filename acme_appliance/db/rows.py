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

"""Plain rows without ORM objects, for the hot path of changes.

Creating, tracking and flushing an object takes several times as long as
writing its row, and all other writers wait meanwhile.
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
    """The connection of a session from :meth:`.session.Database.write`. Its
    transaction is open; the session would have to join it first."""
    return cast(sa.Connection, session.bind)


def _by_id(model: type[models.Base]) -> sa.ColumnElement[bool]:
    return table(model).c.id == sa.bindparam("this_id")


def find(
    connection: sa.Connection, model: type[models.Base], id_: str
) -> Any | None:
    """One row, with the model's column names; None: not found."""
    found = connection.execute(_select(model), {"this_id": id_})
    return found.one_or_none()


def get(connection: sa.Connection, model: type[models.Base], id_: str) -> Any:
    """Like :func:`find`.

    :raises sqlalchemy.exc.NoResultFound: there is no such row.
    """
    return connection.execute(_select(model), {"this_id": id_}).one()


def insert(
    session: orm.Session, model: type[models.Base], *rows: Mapping[str, Any]
) -> None:
    """Insert rows immediately, all with the same columns."""
    if rows:
        _connection(session).execute(_insert(model), list(rows))


def delete(session: orm.Session, model: type[models.Base], id_: str) -> Any:
    """Delete and return one row immediately, with the database's cascades.

    :raises sqlalchemy.exc.NoResultFound: there is no such row.
    """
    return _connection(session).execute(_delete(model), {"this_id": id_}).one()


def update(
    session: orm.Session,
    model: type[models.Base],
    id_: str,
    **values: Any,
) -> Any:
    """Update one row immediately; does not refresh the session's objects.

    Returns the updated row, with the model's column names.

    :raises sqlalchemy.exc.NoResultFound: there is no such row.
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
    """Like :func:`update`, without returning the row."""
    statement = _update(model, tuple(values), False)
    found = _connection(session).execute(statement, {"this_id": id_, **values})
    if not found.rowcount:
        raise exc.NoResultFound(f"there is no {model.__name__} {id_}")
