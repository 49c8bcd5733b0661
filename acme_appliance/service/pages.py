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

"""Keyset pagination: pages begin after the key of the last row."""

import base64
import binascii
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import json
from typing import Any
from typing import Final

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.db.session import Database

#: A page ends early when it reaches this size: the access rules of one share
#: may have 600 KB, and a page has up to a thousand shares. The contract has
#: this number, in ``limit``.
MAX_PAGE_BYTES: Final = 4 << 20
#: Number of rows to load before their size is known.
_BATCH: Final = 25

_NO_FILTERS: Final[Mapping[str, Any]] = {}
#: Rows with the same value of these are in one namespace anyway.
_NARROW: Final = frozenset(
    {"share_id", "origin_id", "group_id", "group_snapshot_id"}
)

#: Converts rows to bodies for clients.
Show = Callable[[orm.Session, Sequence[Any]], Iterable[types.Body]]


def encode_marker(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def decode_marker(marker: str) -> str:
    """:raises problems.Problem: ``request.invalid``, not a marker of ours."""
    try:
        return base64.b64decode(marker, altchars=b"-_", validate=True).decode(
            "ascii"
        )
    except (binascii.Error, ValueError) as error:
        raise problems.Problem(
            "request.invalid",
            "The marker does not come from a list of this API.",
            pointer="/query/marker",
        ) from error


def visible(
    model: Any,
    caller: types.Caller,
    filters: Mapping[str, Any] = _NO_FILTERS,
    *,
    narrow: bool = False,
) -> sa.Select[Any]:
    """The rows of a table that match and that a caller may see.

    :param filters: values by column.
    :param narrow: the caller adds a condition that few rows meet.
    """
    statement = sa.select(model).filter_by(**filters)
    if caller.namespace is None:
        return statement
    namespace = model.namespace
    if narrow or filters.keys() & _NARROW:
        # SQLite cannot estimate which of two indices is better and would use
        # the namespace's: prevent that.
        namespace = namespace.concat("")
    return statement.where(namespace == caller.namespace)


def each(show: Callable[[Any], types.Body]) -> Show:
    """For rows whose bodies need no other tables."""
    return lambda session, rows: map(show, rows)


def read_page(
    database: Database,
    statement: sa.Select[Any],
    key: Any,
    *,
    limit: int,
    marker: str | None,
    show: Show,
) -> types.Page:
    """One page of a statement's rows, in the order of ``key``, a column.

    Rows that are created or deleted between pages never repeat others.
    """
    if marker is not None:
        statement = statement.where(key > decode_marker(marker))
    with database.read() as session:
        items, more = read_part(
            session, statement.order_by(key), limit=limit, show=show
        )
    last = encode_marker(items[-1][key.key]) if more else None
    return types.Page(items, last)


def read_part(
    session: orm.Session, statement: sa.Select[Any], *, limit: int, show: Show
) -> tuple[list[types.Body], bool]:
    """The first of a statement's rows, and whether there are more: at most
    ``limit``, and none past MAX_PAGE_BYTES of JSON."""
    # One more row than requested shows whether there are more.
    statement = statement.limit(limit + 1)
    items: list[types.Body] = []
    size_bytes = 0
    # Most of a body is not yet in memory.
    found = session.scalars(statement.execution_options(yield_per=_BATCH))
    for rows in found.partitions():
        for item in show(session, rows):
            if len(items) == limit or size_bytes >= MAX_PAGE_BYTES:
                found.close()
                return items, True
            items.append(item)
            size_bytes += len(json.dumps(item))
    return items, False
