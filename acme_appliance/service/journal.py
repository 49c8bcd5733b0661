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

"""The journal: what was decided is finished or undone, whatever happens.

One change goes through these steps, in this order:

1. the intent (a job's row) and the state that clients may see meanwhile are
   committed;
2. the operation's steps act on storage and exports, each idempotent;
3. the operation settles: what the steps did is on disk;
4. the result, its event and the job's end are committed;
5. only then does the caller get an answer.

A failing step has all steps undone, in reverse, and the intent withdrawn.
After a crash the same operation is built again from its row: it goes
forward, or back if it was going back already.
"""

import abc
from collections.abc import Callable
from collections.abc import Mapping
from concurrent import futures
import dataclasses
import logging
import threading
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance.db import models
from acme_appliance.service import core
from acme_appliance.service import failures
from acme_appliance.service import queue
from acme_appliance.service import types
from acme_appliance.service import views

LOG = logging.getLogger(__name__)


def _nothing() -> None:
    return None


@dataclasses.dataclass(frozen=True)
class Step:
    """``do`` may be called again after it was cut off; ``undo`` may be
    called whether or not ``do`` ever was."""

    name: str
    do: Callable[[], None]
    undo: Callable[[], None] = _nothing


class Operation(abc.ABC):
    """One kind of change. Built from its intent alone, so that a restart
    builds the very same."""

    kind: ClassVar[str]
    #: False: there is no way back (deletes); a failure leaves ``error``.
    undoable: ClassVar[bool] = True
    #: True: if undoing fails as well, the job stays open and is undone
    #: when the share is next changed, or at the next start.
    retry_undo: ClassVar[bool] = False

    def __init__(self, shared: core.Core, intent: types.Intent) -> None:
        self.core = shared
        self.intent = intent

    @property
    @abc.abstractmethod
    def pool(self) -> str:
        """The pool that the operation works in."""

    @abc.abstractmethod
    def begin(self, session: orm.Session) -> None:
        """Write what clients see while the change is being made."""

    @abc.abstractmethod
    def steps(self) -> list[Step]:
        """What is to be done."""

    @abc.abstractmethod
    def finish(self, session: orm.Session) -> types.Done:
        """Write the result and its event, and touch no storage: all
        other changes wait for this transaction."""

    @abc.abstractmethod
    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        """Write what was before: every step was undone."""

    @abc.abstractmethod
    def give_up(self, session: orm.Session) -> None:
        """Write that nobody knows what is on disk: state ``error``."""

    def settle(self) -> None:
        """Have on disk what steps, or their undoing, have done."""
        self.core.sync(self.pool)


class _Run:
    """One operation at work, or waiting for a worker."""

    def __init__(self, operation: Operation, ticket: queue.Ticket) -> None:
        self.operation = operation
        self.ticket = ticket
        #: No worker was free when it came.
        self.queued = False
        #: By a worker, or by whoever cancels it: it is theirs alone.
        self.taken = False
        self.future: futures.Future[types.Done] = futures.Future()


class Journal:
    """Runs operations, and finishes those of a process that died."""

    def __init__(
        self, shared: core.Core, kinds: Mapping[str, type[Operation]]
    ) -> None:
        self.core = shared
        self._kinds = kinds
        self._workers = futures.ThreadPoolExecutor(
            shared.settings.workers, thread_name_prefix="change"
        )
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}

    # -- new work

    def submit(
        self,
        operation: Operation,
        ticket: queue.Ticket,
        deadline: core.Deadline,
    ) -> types.Done | types.Accepted:
        """Make a change; the ticket is released when it is made.

        :raises problems.Problem: it failed and was undone, or could not
            be; or it was cancelled.
        """
        run = _Run(operation, ticket)
        try:
            with self._lock:
                run.queued = len(self._runs) >= self.core.settings.workers
                self._runs[operation.intent.id] = run
            self._open(run)
            self._workers.submit(self._work, run)
        except BaseException:
            self._forget(run)
            raise
        futures.wait([run.future], timeout=deadline.remaining())
        if run.future.done():
            return run.future.result()
        return types.Accepted(self._job_view(operation.intent.id))

    def wait(self, job_id: str, timeout_seconds: float) -> None:
        """Return when the job has ended, or at the time-out."""
        run = self._runs.get(job_id)
        if run is not None:
            futures.wait([run.future], timeout=timeout_seconds)

    def cancel(self, job_id: str) -> bool:
        """Withdraw a job that no worker has taken up; False: too late."""
        run = self._runs.get(job_id)
        if run is None or not run.queued or not self._take(run):
            return False
        problem = problems.Problem(
            "job.cancelled", "The job was cancelled before it began."
        )
        try:
            with self.core.database.write() as session:
                run.operation.abandon(session, problem)
                self._close(
                    session,
                    run.operation.intent,
                    types.JobState.CANCELLED,
                    problem,
                )
        except BaseException:
            self._put_back(run)
            raise
        self._forget(run)
        run.future.set_exception(problem)
        self.core.announce()
        return True

    def stop(self) -> None:
        """Wait for what is being done; nothing can be submitted then."""
        self._workers.shutdown(wait=True)

    # -- the work itself, in a worker's thread

    def _work(self, run: _Run) -> None:
        if not self._take(run):
            return
        try:
            if run.queued:
                job_id = run.operation.intent.id
                self._mark(job_id, {"state": types.JobState.RUNNING})
            done = self._forward(run.operation)
        except BaseException as error:
            # Also what is no Exception: whoever waits must be told.
            self._forget(run)
            run.future.set_exception(error)
        else:
            self._forget(run)
            run.future.set_result(done)

    def _take(self, run: _Run) -> bool:
        """Only one gets it: what is being cancelled must not begin."""
        with self._lock:
            taken, run.taken = run.taken, True
        return not taken

    def _put_back(self, run: _Run) -> None:
        """It could not be cancelled, so it is to be done after all."""
        with self._lock:
            run.taken = False
        # A worker may have passed it by meanwhile; one is enough.
        self._workers.submit(self._work, run)

    def _forward(self, operation: Operation) -> types.Done:
        try:
            self._act(operation)
        except Exception as error:
            problem = failures.to_problem(error)
            self._back(operation, problem)
            raise problem from error
        return self._commit(operation)

    def _act(self, operation: Operation) -> None:
        for step in operation.steps():
            self._step(operation, step.name, step.do)
        self._step(operation, "settle", operation.settle)

    def _commit(self, operation: Operation) -> types.Done:
        """A failure here leaves the job open: a later look finishes it."""
        intent = operation.intent
        try:
            self.core.on_step(intent.id, "result:before")
            with self.core.database.write() as session:
                done = operation.finish(session)
                self._close(session, intent, types.JobState.SUCCEEDED)
            self.core.on_step(intent.id, "result:after")
        except Exception as error:
            raise failures.to_problem(error) from error
        self.core.announce()
        return done

    def _back(self, operation: Operation, problem: problems.Problem) -> None:
        """Undo, and write that down; the problem is the caller's answer."""
        if not operation.undoable:
            self._give_up(operation, problem)
            return
        intent = operation.intent
        body = problem.to_dict(request_id=intent.request_id)
        self._mark(intent.id, {"undo": True, "problem": body})
        try:
            for step in reversed(operation.steps()):
                self._step(operation, f"undo {step.name}", step.undo)
            self._step(operation, "undo settle", operation.settle)
        except Exception as error:
            failures.to_problem(error)
            if not operation.retry_undo:
                self._give_up(operation, problem)
            return
        with self.core.database.write() as session:
            operation.abandon(session, problem)
            self._close(session, intent, types.JobState.FAILED, problem)
        self.core.on_step(intent.id, "undone:after")
        self.core.announce()

    def _give_up(
        self, operation: Operation, problem: problems.Problem
    ) -> None:
        with self.core.database.write() as session:
            operation.give_up(session)
            self._close(
                session, operation.intent, types.JobState.FAILED, problem
            )
        self.core.announce()

    def _step(
        self, operation: Operation, name: str, act: Callable[[], None]
    ) -> None:
        job_id = operation.intent.id
        self.core.on_step(job_id, f"{name}:before")
        act()
        self.core.on_step(job_id, f"{name}:after")

    # -- after a crash

    def open_jobs(self) -> list[models.Job]:
        """The journal's open entries, oldest first."""
        statement = (
            sa.select(models.Job)
            .where(models.Job.state.in_(types.OPEN_JOB_STATES))
            .order_by(models.Job.id)
        )
        with self.core.database.read() as session:
            return list(session.scalars(statement))

    def recover(self, job_id: str) -> bool:
        """Finish or undo an open job that no process is at work on.

        The caller holds the share. Returns False, with the job still
        open, where the storage cannot be used now.
        """
        with self.core.database.read() as session:
            row = session.get(models.Job, job_id)
            if row is None or row.state not in types.OPEN_JOB_STATES:
                return True
            operation = self._rebuild(row)
            undo, problem = row.undo, row.problem
        if self._unusable(operation):
            return False
        LOG.info(
            "%s %s of share %s, which a stop cut off",
            "Undoing" if undo else "Finishing",
            operation.kind,
            operation.intent.share_id,
        )
        if undo and problem is not None:
            self._back(operation, problems.Problem.from_dict(problem))
            return not self._is_open(job_id)
        try:
            self._forward(operation)
        except problems.Problem as error:
            LOG.warning("Job %s ended with %s", job_id, error)
        return not self._is_open(job_id)

    def _rebuild(self, row: models.Job) -> Operation:
        intent = types.Intent(
            id=row.id,
            kind=row.kind,
            namespace=row.namespace,
            share_id=row.share_id,
            snapshot_id=row.snapshot_id,
            arguments=row.arguments,
            actor=row.actor,
            request_id=row.request_id,
        )
        return self._kinds[row.kind](self.core, intent)

    def _unusable(self, operation: Operation) -> bool:
        engine = self.core.pools.get(operation.pool)
        reasons = engine.check() if engine else ["the pool is not configured"]
        for reason in reasons:
            LOG.warning(
                "Job %s stays open: pool %s: %s",
                operation.intent.id,
                operation.pool,
                reason,
            )
        return bool(reasons)

    def _is_open(self, job_id: str) -> bool:
        with self.core.database.read() as session:
            row = session.get(models.Job, job_id)
            return row is not None and row.state in types.OPEN_JOB_STATES

    # -- rows

    def _open(self, run: _Run) -> None:
        intent = run.operation.intent
        state = types.JobState.RUNNING
        if run.queued:
            state = types.JobState.QUEUED
        self.core.on_step(intent.id, "intent:before")
        with self.core.database.write() as session:
            session.add(
                models.Job(
                    id=intent.id,
                    kind=intent.kind,
                    namespace=intent.namespace,
                    share_id=intent.share_id,
                    snapshot_id=intent.snapshot_id,
                    arguments=dict(intent.arguments),
                    state=state,
                    undo=False,
                    problem=None,
                    request_id=intent.request_id,
                    actor=intent.actor,
                    created_at=self.core.clock(),
                    finished_at=None,
                )
            )
            run.operation.begin(session)
        self.core.on_step(intent.id, "intent:after")

    def _mark(self, job_id: str, values: types.Body) -> None:
        with self.core.database.write() as session:
            session.execute(
                sa.update(models.Job)
                .where(models.Job.id == job_id)
                .values(**values)
            )

    def _close(
        self,
        session: orm.Session,
        intent: types.Intent,
        state: types.JobState,
        problem: problems.Problem | None = None,
    ) -> None:
        values: types.Body = {
            "state": state,
            "finished_at": self.core.clock(),
        }
        if problem is not None:
            body = problem.to_dict(request_id=intent.request_id)
            values["problem"] = body
            end = "cancelled" if state == "cancelled" else "failed"
            self.core.add_event(
                session,
                f"{intent.kind}_{end}",
                intent,
                detail={"code": problem.code, "detail": problem.detail},
            )
        session.execute(
            sa.update(models.Job)
            .where(models.Job.id == intent.id)
            .values(**values)
        )

    def _job_view(self, job_id: str) -> types.Body:
        with self.core.database.read() as session:
            return views.job(session.get_one(models.Job, job_id))

    def _forget(self, run: _Run) -> None:
        """Release the share, after the last word about it is on disk."""
        if self._runs.pop(run.operation.intent.id, None) is not None:
            self.core.queue.release(run.ticket)
