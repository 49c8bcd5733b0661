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

"""Look up the shares and snapshots that a caller may see."""

from collections.abc import Mapping
from typing import Any
from typing import Final

from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.db import models
from acme_appliance.references import Kind
from acme_appliance.references import Reference

#: The model of each kind.
TABLES: Final[Mapping[Kind, Any]] = {
    Kind.SHARE: models.Share,
    Kind.SNAPSHOT: models.Snapshot,
}
_NOT_FOUND: Final = {
    Kind.SHARE: "share.not_found",
    Kind.SNAPSHOT: "snapshot.not_found",
}
_WRONG_STATE: Final = {
    Kind.SHARE: "share.wrong_state",
    Kind.SNAPSHOT: "snapshot.wrong_state",
}
_USABLE = (types.State.AVAILABLE, types.State.DEGRADED)


def not_found(
    reference: Reference, pointer: str | None = None
) -> problems.Problem:
    return problems.Problem(
        _NOT_FOUND[reference.kind],
        f"There is no {reference}.",
        pointer=pointer,
    )


def find_visible(
    session: orm.Session, caller: types.Caller, reference: Reference
) -> Any | None:
    """The row, if it exists and the caller may see it."""
    row = session.get(TABLES[reference.kind], reference.id)
    return row if row is not None and caller.sees(row.namespace) else None


def get_visible(
    session: orm.Session,
    caller: types.Caller,
    reference: Reference,
    pointer: str | None = None,
) -> Any:
    """:raises problems.Problem: ``share.not_found``,
    ``snapshot.not_found``.
    """
    row = find_visible(session, caller, reference)
    if row is None:
        raise not_found(reference, pointer)
    return row


def check_usable(row: models.Share | models.Snapshot) -> None:
    """:raises problems.Problem: ``share.wrong_state``,
    ``snapshot.wrong_state``.
    """
    if row.state not in _USABLE:
        kind = kind_of(row)
        raise problems.Problem(
            _WRONG_STATE[kind],
            f"The {kind} {row.id} is in state {row.state}: its data is missing"
            " from the pool or incomplete. It can only be deleted.",
        )


def kind_of(row: models.Share | models.Snapshot) -> Kind:
    return Kind.SHARE if isinstance(row, models.Share) else Kind.SNAPSHOT
