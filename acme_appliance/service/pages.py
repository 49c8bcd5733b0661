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

"""Lists in pages, by the key of the last row: no page scans what it skips."""

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

#: A page ends early with the first entry that makes it this large: one
#: share's access rules may be 600 KB, and a page has a thousand shares. The
#: contract has this number, in ``limit``.
MAX_PAGE_BYTES: Final = 4 << 20
#: So many rows are in memory before the size of what they show is known.
_BATCH: Final = 25

_NO_FILTERS: Final[Mapping[str, Any]] = {}
#: What has these in common is in one namespace anyway.
_NARROW: Final = frozenset({"share_id", "origin_id"})

#: Rows to what clients see of them.
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
            "The marker is not one that a list gave.",
            pointer="/query/marker",
        ) from error


def visible(
    model: Any,
    caller: types.Caller,
    filters: Mapping[str, Any] = _NO_FILTERS,
) -> sa.Select[Any]:
    """The rows of a table that a caller may see, and wants.

    :param filters: values by column.
    """
    statement = sa.select(model).filter_by(**filters)
    if caller.namespace is None:
        return statement
    namespace = model.namespace
    if filters.keys() & _NARROW:
        # SQLite cannot tell which of two indices has fewer rows, and would
        # take the namespace's: this one is not to be found by an index.
        namespace = namespace.concat("")
    return statement.where(namespace == caller.namespace)


def each(show: Callable[[Any], types.Body]) -> Show:
    """For rows that show nothing of other tables."""
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

    Rows that come and go between pages never make others appear twice.
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
    # One more than asked for tells whether there are more.
    statement = statement.limit(limit + 1)
    items: list[types.Body] = []
    size_bytes = 0
    # Whatever a row shows, most of it is not yet in memory.
    found = session.scalars(statement.execution_options(yield_per=_BATCH))
    for rows in found.partitions():
        for item in show(session, rows):
            if len(items) == limit or size_bytes >= MAX_PAGE_BYTES:
                found.close()
                return items, True
            items.append(item)
            size_bytes += len(json.dumps(item))
    return items, False
