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
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from acme_appliance import problems
from acme_appliance.db.session import Database
from acme_appliance.service import types


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


def visible(model: Any, caller: types.Caller) -> sa.Select[Any]:
    """All rows of a table that a caller may see."""
    statement = sa.select(model)
    if caller.namespace is not None:
        statement = statement.where(model.namespace == caller.namespace)
    return statement


def read_page(
    database: Database,
    statement: sa.Select[Any],
    key: Any,
    *,
    limit: int,
    marker: str | None,
    show: Callable[[Any], types.Body],
) -> types.Page:
    """One page of a statement's rows, in the order of ``key``, a column.

    Rows that come and go between pages never make others appear twice.
    """
    if marker is not None:
        statement = statement.where(key > decode_marker(marker))
    # One more than asked for tells whether there is a next page.
    statement = statement.order_by(key).limit(limit + 1)
    with database.read() as session:
        rows: Sequence[Any] = session.scalars(statement).all()
        more = len(rows) > limit
        rows = rows[:limit]
        last = getattr(rows[-1], key.key) if more else None
        items = [show(row) for row in rows]
    return types.Page(items, last and encode_marker(last))
