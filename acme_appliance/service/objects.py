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

"""Steps that changes of shares and snapshots have in common."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Final

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.changes.context import Context
from acme_appliance.references import GroupKind
from acme_appliance.references import Kind
from acme_appliance.references import Reference
from acme_appliance.references import SubjectKind
from acme_appliance.service import descriptions
from acme_appliance.service import fields
from acme_appliance.service import lookup

_MISMATCH: Final[Mapping[SubjectKind, str]] = {
    Kind.SHARE: "share.exists_mismatch",
    Kind.SNAPSHOT: "snapshot.exists_mismatch",
    GroupKind.GROUP: "group.exists_mismatch",
    GroupKind.GROUP_SNAPSHOT: "group_snapshot.exists_mismatch",
}


def check_same_create(
    caller: types.Caller,
    row: Any,
    body: types.Body,
    if_match: int | None,
) -> None:
    """Check that a create for an existing row is the one that created it.

    :raises problems.Problem: ``share.exists_mismatch``,
        ``snapshot.exists_mismatch`` and the like; also as
        :func:`lookup.check_usable`.
    """
    kind = lookup.kind_of(row)
    what = kind.replace("_", " ")
    if not caller.sees(row.namespace):
        raise problems.Problem(_MISMATCH[kind], f"The id {row.id} is taken.")
    fields.check_precondition(if_match, row.generation, what)
    if row.create_request != body:
        raise problems.Problem(
            _MISMATCH[kind],
            f"The {what} {row.id} was created by another request.",
        )
    lookup.check_usable(row)


def check_free(context: Context, pool: str, reference: Reference) -> None:
    """Check that a pool does not have an object without a row.

    :raises problems.Problem: ``share.exists_mismatch``,
        ``snapshot.exists_mismatch``.
    """
    if context.pools.exists(pool, reference):
        raise problems.Problem(
            _MISMATCH[reference.kind],
            f"The pool {pool} has a {reference} that is not in the database;"
            " see: acme-appliance reconcile.",
        )


def update(
    context: Context,
    reference: Reference,
    intent: types.Intent,
    change: Callable[[Any], None],
    show: Callable[[Any], types.Body],
) -> types.Done:
    """Update a row, and then its metadata in the pool, without a job.

    :param change: sets columns of the row.
    :param show: returns the row's body.
    """
    with context.database.write() as session:
        row = session.get_one(lookup.TABLES[reference.kind], reference.id)
        change(row)
        context.touch(row)
        context.events.add(
            session, f"{reference.kind}.updated", intent, job=False
        )
        body = show(row)
        metadata = descriptions.of(row, reference.kind)
    descriptions.write_after_commit(context, body["pool"], reference, metadata)
    context.events.announce()
    return types.Done(body)
