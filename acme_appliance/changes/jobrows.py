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

"""Read rows of jobs, some of which may be broken.

Invalid JSON or an invalid time raises when its row is read. Then each row is
read separately, column by column. Unreadable values are omitted, and the
job's last problem reports them.
"""

from collections.abc import Collection
import datetime
from types import SimpleNamespace
from typing import Any
from typing import Final
import uuid

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.db import models
from acme_appliance.db import rows

#: Exceptions that reading a broken row may raise.
BROKEN: Final = (ValueError, TypeError, LookupError)

_JOB: Final = rows.table(models.Job).c
_ENDED: Final = sorted(types.ENDED_JOB_STATES)


def _is_open(state: Any) -> sa.ColumnElement[bool]:
    """As "NOT IN" of the ended states, which would scan every ended job."""
    return sa.or_(
        state < _ENDED[0],
        *(
            sa.and_(state > low, state < high)
            for low, high in zip(_ENDED, _ENDED[1:], strict=False)
        ),
        state > _ENDED[-1],
    )


#: The open jobs, including those in states that this release does not know.
IS_OPEN: Final = _is_open(models.Job.state)

#: All but the arguments, which only running the job needs.
COLUMNS: Final = tuple(each for each in _JOB if each.key != "arguments")
# Built once, and plain rows: every start and every change reads open jobs.
_ALL: Final = sa.select(*COLUMNS).order_by(_JOB.id)
_ONE: Final = _ALL.where(_JOB.id == sa.bindparam("this_id"))
_OPEN: Final = _ALL.where(_is_open(_JOB.state))
_OPEN_OF: Final = _OPEN.where(_JOB.id.in_(sa.bindparam("ids", expanding=True)))

#: Columns, their types, and the default for anything else.
_EXPECTED: Final[tuple[tuple[str, Any, Any], ...]] = (
    ("kind", str, "unknown.unknown"),
    ("undo", bool, False),
    ("problem", dict | None, None),
    ("attempts", int, 0),
    ("attempted_at", datetime.datetime | None, None),
    ("last_problem", dict | None, None),
    ("created_at", datetime.datetime, None),
    ("finished_at", datetime.datetime | None, None),
)


class PartialRow(SimpleNamespace):
    """The readable values of a broken row, and defaults."""


def find(session: orm.Session, job_id: str) -> Any | None:
    """A job; None: not found."""
    found = _read_all(session, _ONE, {"this_id": job_id})
    return found[0] if found else None


def open_jobs(
    session: orm.Session, job_ids: Collection[str] | None = None
) -> list[Any]:
    """The open jobs, of these ids or all, oldest first."""
    if job_ids is None:
        return _read_all(session, _OPEN, {})
    return _read_all(session, _OPEN_OF, {"ids": list(job_ids)})


def _read_all(
    session: orm.Session, statement: sa.Select[Any], values: types.Body
) -> list[Any]:
    try:
        found = session.execute(statement, values).all()
    except BROKEN:
        only_ids = statement.with_only_columns(_JOB.id)
        ids = session.scalars(only_ids, values).all()
        return [read(session, id_) for id_ in ids]
    return [checked(row) for row in found]


def read(session: orm.Session, job_id: str) -> Any:
    """Read a job's row column by column."""
    values, faults = {}, []
    for column in COLUMNS:
        statement = sa.select(column).where(_JOB.id == job_id)
        try:
            values[column.key] = session.scalar(statement)
        except BROKEN as error:
            values[column.key] = None
            faults.append(f"{column.key}: {error}")
    return _mended(values, faults) or PartialRow(**values)


def checked(row: Any) -> Any:
    """The row itself, or a copy with defaults for values of a wrong type."""
    values = {column.key: getattr(row, column.key) for column in COLUMNS}
    return _mended(values, []) or row


def unreadable(job_id: str, reason: str) -> problems.Problem:
    return problems.Problem(
        "job.unreadable",
        f"This release cannot read the journal entry {job_id}"
        f" ({reason}). Install the release that wrote it; or stop the"
        " appliance and close the entry: acme-appliance reconcile --apply"
        f" --close-job {job_id}",
    )


def _mended(values: types.Body, faults: list[str]) -> PartialRow | None:
    """A copy with defaults for faulty values; None: there are no faults."""
    faulty = {fault.partition(":")[0] for fault in faults}
    for name, kind, instead in _EXPECTED:
        if not isinstance(values[name], kind):
            if name not in faulty:
                faults.append(f"{name}: {values[name]!r}")
            values[name] = instead
    if not _is_problem(values["last_problem"]):
        faults.append(f"last_problem: {values['last_problem']!r}")
        values["last_problem"] = None
    if values["state"] not in set(types.JobState):
        faults.append(f"state: {values['state']!r}")
    if not faults:
        return None
    if values["created_at"] is None:
        values["created_at"] = _time_of(values["id"])
    if values["state"] not in types.ENDED_JOB_STATES:
        problem = unreadable(values["id"], "; ".join(faults))
        values["last_problem"] = problem.to_dict()
    return PartialRow(**values)


def _is_problem(body: types.Body | None) -> bool:
    try:
        return body is None or bool(problems.Problem.from_dict(body))
    except BROKEN:
        return False


def _time_of(id_: str) -> datetime.datetime:
    """The creation time in a UUID of version 7."""
    milliseconds = uuid.UUID(id_).int >> 80
    return datetime.datetime.fromtimestamp(
        milliseconds / 1000, tz=datetime.UTC
    )
