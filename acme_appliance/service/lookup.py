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

"""Look up the objects that a caller may see."""

from collections.abc import Mapping
from typing import Any
from typing import Final

from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.db import models
from acme_appliance.references import GroupKind
from acme_appliance.references import Kind
from acme_appliance.references import Subject
from acme_appliance.references import SubjectKind

#: The model of each kind.
TABLES: Final[Mapping[SubjectKind, Any]] = {
    Kind.SHARE: models.Share,
    Kind.SNAPSHOT: models.Snapshot,
    GroupKind.GROUP: models.Group,
    GroupKind.GROUP_SNAPSHOT: models.GroupSnapshot,
}
_NOT_FOUND: Final[Mapping[SubjectKind, str]] = {
    Kind.SHARE: "share.not_found",
    Kind.SNAPSHOT: "snapshot.not_found",
    GroupKind.GROUP: "group.not_found",
    GroupKind.GROUP_SNAPSHOT: "group_snapshot.not_found",
}
_WRONG_STATE: Final[Mapping[SubjectKind, str]] = {
    Kind.SHARE: "share.wrong_state",
    Kind.SNAPSHOT: "snapshot.wrong_state",
    GroupKind.GROUP: "group.wrong_state",
    GroupKind.GROUP_SNAPSHOT: "group_snapshot.wrong_state",
}
_USABLE = (types.State.AVAILABLE, types.State.DEGRADED)


def not_found(
    reference: Subject, pointer: str | None = None
) -> problems.Problem:
    return problems.Problem(
        _NOT_FOUND[reference.kind],
        f"There is no {reference}.",
        pointer=pointer,
    )


def find_visible(
    session: orm.Session, caller: types.Caller, reference: Subject
) -> Any | None:
    """The row, if it exists and the caller may see it."""
    row = session.get(TABLES[reference.kind], reference.id)
    return row if row is not None and caller.sees(row.namespace) else None


def get_visible(
    session: orm.Session,
    caller: types.Caller,
    reference: Subject,
    pointer: str | None = None,
) -> Any:
    """:raises problems.Problem: ``share.not_found``,
    ``snapshot.not_found`` and the like.
    """
    row = find_visible(session, caller, reference)
    if row is None:
        raise not_found(reference, pointer)
    return row


def check_usable(row: Any) -> None:
    """:raises problems.Problem: ``share.wrong_state``,
    ``snapshot.wrong_state`` and the like.
    """
    if row.state not in _USABLE:
        kind = kind_of(row)
        raise problems.Problem(
            _WRONG_STATE[kind],
            f"The {kind.replace('_', ' ')} {row.id} is in state {row.state}:"
            " its data is missing from the pool or incomplete. It can only be"
            " deleted.",
        )


def kind_of(row: Any) -> SubjectKind:
    """Of a row of any of the :data:`TABLES`."""
    return next(kind for kind, table in TABLES.items() if type(row) is table)
