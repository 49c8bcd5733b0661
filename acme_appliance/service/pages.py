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
from sqlalchemy import orm

from acme_appliance import problems
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


def read_page(
    session: orm.Session,
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
    rows: Sequence[Any] = session.scalars(statement).all()
    more = len(rows) > limit
    rows = rows[:limit]
    next_marker = encode_marker(getattr(rows[-1], key.key)) if more else None
    return types.Page([show(row) for row in rows], next_marker)
