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

"""The journal's rows: one per job, and the claims of open jobs.

A queued or running job is open: it is neither finished nor undone. Ended jobs
stay as history, see ``retention``.
"""

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import datetime
import logging
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes import claimrows
from acme_appliance.changes import jobrows
from acme_appliance.changes.claims import Claims
from acme_appliance.changes.claims import exclusive
from acme_appliance.changes.claims import share
from acme_appliance.changes.context import Context
from acme_appliance.changes.operation import Operation
from acme_appliance.db import models
from acme_appliance.db import rows
from acme_appliance.engines import base as engines

LOG = logging.getLogger(__name__)

Kinds = Mapping[str, type[Operation]]

_JOB = rows.table(models.Job).c
_ARGUMENTS = sa.select(_JOB.arguments).where(
    _JOB.id == sa.bindparam("this_id")
)


@dataclasses.dataclass(frozen=True)
class Open:
    """An open job, with the fields that even a broken row has."""

    id: str
    kind: str
    state: str
    share_id: str
    snapshot_id: str | None
    undo: bool
    attempts: int
    attempted_at: datetime.datetime | None
    last_problem: types.Body | None
    created_at: datetime.datetime

    @property
    def problem(self) -> problems.Problem:
        """Why the last attempt failed."""
        if self.last_problem is None:
            return problems.Problem(
                "engine.unavailable", "The last attempt left no report."
            )
        return problems.Problem.from_dict(self.last_problem)

    @property
    def unreadable(self) -> bool:
        """Whether this release cannot read it."""
        return self.problem.code == "job.unreadable"


class Entries:
    """Reads and writes the rows; knows how to build their operations."""

    def __init__(self, context: Context, kinds: Kinds) -> None:
        self.context = context
        self._kinds = kinds

    # -- writing

    def add(
        self,
        session: orm.Session,
        intent: types.Intent,
        claims: Claims,
        state: types.JobState,
    ) -> None:
        """Write the intent, in the transaction that begins the change."""
        rows.insert(
            session,
            models.Job,
            {
                "id": intent.id,
                "kind": intent.kind,
                "namespace": intent.namespace,
                "share_id": intent.share_id,
                "snapshot_id": intent.snapshot_id,
                "group_id": intent.group_id,
                "group_snapshot_id": intent.group_snapshot_id,
                "arguments": dict(intent.arguments),
                "state": state,
                "undo": False,
                "problem": None,
                "attempts": 0,
                "attempted_at": None,
                "last_problem": None,
                "request_id": intent.request_id,
                "actor": intent.actor,
                "created_at": self.context.clock(),
                "finished_at": None,
            },
        )
        claimrows.insert(session, intent.id, claims)

    def mark(self, job_id: str, **values: object) -> None:
        """Update an open job's row, in a separate transaction."""
        with self.context.database.write() as session:
            session.execute(
                sa.update(models.Job)
                .where(models.Job.id == job_id, jobrows.IS_OPEN)
                .values(**values)
            )

    def note_attempt(self, job_id: str, problem: problems.Problem) -> None:
        """Record a failed attempt. The job stays open even if this fails."""
        try:
            self.mark(
                job_id,
                attempts=models.Job.attempts + 1,
                attempted_at=self.context.clock(),
                last_problem=problem.to_dict(),
            )
        except sa.exc.SQLAlchemyError as error:
            LOG.warning(
                "Cannot record an attempt of job %s: %s", job_id, error
            )

    def close(
        self,
        session: orm.Session,
        intent: types.Intent,
        state: types.JobState,
        problem: problems.Problem | None = None,
    ) -> None:
        """End the job, in the transaction that writes its result."""
        values: types.Body = {
            "state": state,
            "finished_at": self.context.clock(),
        }
        if problem is not None:
            body = problem.to_dict(request_id=intent.request_id)
            values["problem"] = body
            end = "cancelled" if state == "cancelled" else "failed"
            self.context.events.add(
                session,
                f"{intent.kind}_{end}",
                intent,
                detail={"code": problem.code, "detail": problem.detail},
            )
        rows.change(session, models.Job, intent.id, **values)
        claimrows.delete(session, intent.id)

    def give_up(self, job_id: str, problem: problems.Problem) -> None:
        """End an open job as failed, whatever its progress."""
        operations = [
            operation for job, operation in self.readable() if job.id == job_id
        ]
        self.context.generations.reserve()
        with self.context.database.write() as session:
            for operation in operations:
                operation.give_up(session)
            session.execute(
                sa.update(models.Job)
                .where(models.Job.id == job_id, jobrows.IS_OPEN)
                .values(
                    state=types.JobState.FAILED,
                    problem=problem.to_dict(),
                    finished_at=self.context.clock(),
                )
            )
            claimrows.delete(session, job_id)
            # What it was to create is not complete. Shares and snapshots are
            # compared with the pool instead.
            for table in (models.Group, models.GroupSnapshot):
                session.execute(
                    sa.update(table)
                    .where(table.job_id == job_id)
                    .values(
                        state=types.State.ERROR,
                        job_id=None,
                        generation=self.context.generations.next(),
                    )
                    .execution_options(synchronize_session=False)
                )

    # -- reading

    def view(
        self, job_id: str, progress: types.Body | None = None
    ) -> types.Body:
        """The job as clients see it."""
        with self.context.database.read() as session:
            return views.job(jobrows.find(session, job_id), progress)

    def open(self, job_ids: Collection[str] | None = None) -> list[Open]:
        """The open jobs, of these ids or all, oldest first."""
        names = [field.name for field in dataclasses.fields(Open)]
        with self.context.database.read() as session:
            return [
                Open(*(getattr(row, name) for name in names))
                for row in jobrows.open_jobs(session, job_ids)
            ]

    def claims(self, job: Open) -> Claims:
        """An open job's claims; by default, its share."""
        with self.context.database.read_rows() as connection:
            found = claimrows.of_job(connection, job.id)
        return found or exclusive(share(job.share_id))

    def claimed(self, kind: engines.Kind) -> set[str]:
        """The ids of all objects of a kind that open jobs claim."""
        with self.context.database.read_rows() as connection:
            return claimrows.claimed(connection, kind.value)

    def left_open(self, claims: Claims) -> tuple[list[Open], set[str]]:
        """What must end before a change with these claims begins.

        :returns: the open jobs, oldest first; and shares that name a job
            that is not open, directly or by a snapshot.
        """
        with self.context.database.read_rows() as connection:
            left = claimrows.left_open(connection, claims)
        if not left.job_ids and not left.marked_shares:
            return [], set()
        jobs = self.open(left.job_ids | left.marked_shares.keys())
        for job in jobs:
            left.marked_shares.pop(job.id, None)
        return jobs, set().union(*left.marked_shares.values())

    def copies(self, job: Open) -> bool:
        """Whether it is of a kind that copies data."""
        kind = self._kinds.get(job.kind)
        return kind is not None and kind.copies_data

    def build(self, job_id: str) -> tuple[Operation, problems.Problem | None]:
        """An open job's operation, and why it is being undone, if it is.

        :raises problems.Problem: ``job.unreadable``: the row names a kind
            of a later release, or its content is broken.
        :raises engines.EngineError: the pool is not configured.
        """
        try:
            with self.context.database.read() as session:
                arguments = session.execute(
                    _ARGUMENTS, {"this_id": job_id}
                ).scalar_one()
                row = jobrows.find(session, job_id)
            if isinstance(row, jobrows.PartialRow):
                raise problems.Problem.from_dict(row.last_problem)
            return self._build(row, arguments)
        except (
            problems.Problem,
            engines.EngineError,
            sa.exc.SQLAlchemyError,
        ):
            raise
        except Exception as error:
            # A broken row can cause any error.
            reason = f"{type(error).__name__}: {error}"
            raise jobrows.unreadable(job_id, reason) from error

    def readable(self) -> Iterator[tuple[Open, Operation]]:
        """The open jobs that this release can resume."""
        for job in self.open():
            try:
                operation, _ = self.build(job.id)
            except (problems.Problem, engines.EngineError) as error:
                LOG.debug("Skipping job %s: %s", job.id, error)
            else:
                yield job, operation

    def _build(
        self, row: Any, arguments: types.Body
    ) -> tuple[Operation, problems.Problem | None]:
        intent = types.Intent(
            id=row.id,
            kind=row.kind,
            namespace=row.namespace,
            share_id=row.share_id,
            snapshot_id=row.snapshot_id,
            group_id=row.group_id,
            group_snapshot_id=row.group_snapshot_id,
            arguments=arguments,
            actor=row.actor,
            request_id=row.request_id,
        )
        operation = self._kinds[row.kind](self.context, intent)
        if not isinstance(operation.pool, str):
            raise TypeError("the pool is not a name")
        # Validates the arguments; does nothing yet.
        operation.steps()
        if not row.undo:
            return operation, None
        return operation, problems.Problem.from_dict(row.problem or {})
