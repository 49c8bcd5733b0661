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

"""The journal: every decided change is finished or undone.

A change goes through these steps:

1. commit the intent (a job's row) and the intermediate state for clients;
2. run the operation's steps on storage and exports, each idempotent;
3. settle: sync the steps' effects to disk;
4. commit the result, its event and the job's end;
5. reply to the caller.

If a step fails, all steps are undone, in reverse, and the intent is
withdrawn. If that fails too, or if the operation cannot be undone, the job
stays open, with its direction and its last problem. It is resumed by the next
change of the share, at the next start, by the timer of ``openjobs`` and by
``acme-appliance reconcile --apply``.
"""

import collections
from collections.abc import Callable
from collections.abc import Sequence
from concurrent import futures
import logging
import threading
from typing import Final
from typing import TypeVar

from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.changes import entries
from acme_appliance.changes import failures
from acme_appliance.changes import queue
from acme_appliance.changes.context import Context
from acme_appliance.changes.deadline import Deadline
from acme_appliance.changes.operation import Operation
from acme_appliance.changes.operation import Stopped
from acme_appliance.changes.operation import Work
from acme_appliance.storage import workers

LOG = logging.getLogger(__name__)

T = TypeVar("T")

#: How long a stop waits for running changes.
STOP_SECONDS: Final = 60.0
#: How many changes copy data at once, from one pool to the same other one.
COPIES: Final = 2


class _Run:
    """One operation that runs or waits for a worker."""

    def __init__(self, operation: Operation, ticket: queue.Ticket) -> None:
        self.operation = operation
        self.ticket = ticket
        #: No worker was free when it arrived.
        self.queued = False
        #: Taken by a worker or a cancellation, exclusively.
        self.taken = False
        #: Whether this run must still release the ticket.
        self.holds = True
        self.future: futures.Future[types.Done] = futures.Future()


class Journal:
    """Runs operations, and finishes interrupted ones."""

    def __init__(self, context: Context, kinds: entries.Kinds) -> None:
        self.context = context
        self.entries = entries.Entries(context, kinds)
        self._workers = workers.Workers(context.settings.workers)
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}
        #: Operations that a worker runs, by job.
        self._active: dict[str, Operation] = {}
        #: Work without a job, by pool; it also uses workers.
        self._performing: collections.Counter[str] = collections.Counter()
        self._stopped = threading.Event()

    # -- new work

    def submit(
        self,
        operation: Operation,
        ticket: queue.Ticket,
        deadline: Deadline,
    ) -> types.Done | types.Accepted:
        """Make a change; its end releases the ticket.

        :raises problems.Problem: it failed and was undone, it stays open and
            is resumed later, or it was cancelled.
        """
        run = _Run(operation, ticket)
        try:
            self._register(run)
            self._open(run)
            self._submit(operation, self._work, run)
        except BaseException:
            self._forget(run)
            raise
        if workers.wait(run.future, deadline.remaining()):
            return run.future.result()
        job_id = operation.intent.id
        return types.Accepted(self.entries.view(job_id, self.progress(job_id)))

    def perform(
        self,
        work: Work,
        ticket: queue.Ticket,
        deadline: Deadline,
    ) -> types.Done:
        """Do work without a job; its end releases the ticket.

        :raises problems.Problem: ``share.busy``: it continues, but takes
            longer than the request waits.
        """
        with self._lock:
            self._performing[work.pool] += 1
        try:
            future = self._workers.submit(
                work.pool, self._perform, work, ticket
            )
        except BaseException:
            self._performed(work, ticket)
            raise
        if workers.wait(future, deadline.remaining()):
            return future.result()
        raise problems.Problem(
            "share.busy",
            "The request is in progress and takes longer than its wait. Send"
            " it again.",
        )

    def _perform(self, work: Work, ticket: queue.Ticket) -> types.Done:
        try:
            return work.do()
        finally:
            self._performed(work, ticket)

    def _performed(self, work: Work, ticket: queue.Ticket) -> None:
        with self._lock:
            self._performing[work.pool] -= 1
        self.context.queue.release(ticket)

    def progress(self, job_id: str) -> types.Body | None:
        """What the job has copied, if it copies."""
        operation = self._active.get(job_id)
        return None if operation is None else operation.progress

    def is_running(self, job_id: str) -> bool:
        """Whether a request's job runs or waits for a worker."""
        return job_id in self._runs

    def wait(self, job_id: str, timeout_seconds: float) -> bool:
        """Wait for the end of the job's run.

        A job that stays open has no run; then wait for the timeout.
        False: the service stops, so do not wait again.
        """
        run = self._runs.get(job_id)
        if run is None:
            return not self._stopped.wait(timeout_seconds)
        workers.wait(run.future, timeout_seconds)
        return True

    def cancel(self, job_id: str) -> bool:
        """Withdraw a job that no worker has begun, or begin to undo one
        that copies; False: too late."""
        run = self._runs.get(job_id)
        if run is not None and run.queued and self._take(run):
            self._withdraw(run)
            return True
        operation = self._active.get(job_id)
        return operation is not None and operation.cancel(
            problems.Problem("job.cancelled", "The job was cancelled.")
        )

    def _withdraw(self, run: _Run) -> None:
        """Cancel a run that this has taken."""
        problem = problems.Problem(
            "job.cancelled", "The job was cancelled before it began."
        )
        try:
            self._abandon(run.operation, problem, types.JobState.CANCELLED)
        except BaseException:
            self._put_back(run)
            raise
        self._forget(run)
        run.future.set_exception(problem)
        self.context.events.announce()

    def stop(self) -> None:
        """Refuse new changes and wait for running ones.

        The next start resumes changes that take too long, and copies.
        """
        self._stopped.set()
        for operation in list(self._active.values()):
            operation.interrupt()
        self._workers.stop(STOP_SECONDS)

    # -- the work itself, in a worker's thread

    def _work(self, run: _Run) -> None:
        if not self._take(run):
            return
        try:
            if run.queued:
                self.entries.mark(
                    run.operation.intent.id, state=types.JobState.RUNNING
                )
            done = self._forward(run.operation)
        except Stopped:
            self._forget(run)
            run.future.set_exception(
                problems.Problem(
                    "system.starting", "The appliance is stopping."
                )
            )
        except BaseException as error:
            # Also if it is no Exception: the waiting caller needs it.
            self._forget(run)
            run.future.set_exception(error)
        else:
            self._forget(run)
            run.future.set_result(done)

    def _take(self, run: _Run) -> bool:
        """Claim a run exclusively: a cancelled run must not begin."""
        with self._lock:
            taken, run.taken = run.taken, True
        return not taken

    def _put_back(self, run: _Run) -> None:
        """Return a run whose cancellation failed."""
        with self._lock:
            run.taken = False
        # A worker may have skipped it meanwhile. A second entry is harmless.
        self._submit(run.operation, self._work, run)

    def _submit(
        self, operation: Operation, work: Callable[..., T], *arguments: object
    ) -> futures.Future[T]:
        """Let a worker of the operation's lane do the work."""
        return self._workers.submit(
            operation.lane, work, *arguments, most=self._most(operation)
        )

    def _most(self, operation: Operation) -> int:
        most = self.context.settings.workers
        return min(most, COPIES) if operation.copies_data else most

    def _forward(self, operation: Operation) -> types.Done:
        job_id = operation.intent.id
        self._active[job_id] = operation
        if self._stopped.is_set():
            operation.interrupt()
        try:
            return self._run(operation)
        finally:
            del self._active[job_id]

    def _run(self, operation: Operation) -> types.Done:
        try:
            self._act(operation)
        except Exception as error:
            problem = failures.to_problem(error)
            if operation.undoable:
                answer = self._back(operation, problem)
            else:
                answer = self._leave_open(operation, problem)
            raise answer from error
        return self._commit(operation)

    def _act(self, operation: Operation) -> None:
        for step in operation.steps():
            self._step(operation, step.name, step.do)
        self._step(operation, "settle", operation.settle)

    def _commit(self, operation: Operation) -> types.Done:
        """Commit the result. A failure leaves the job open."""
        intent = operation.intent
        try:
            self.context.on_step(intent.id, "result:before")
            with self.context.metrics.step(operation.kind, "commit"):
                done = self.context.database.run(
                    lambda session: self._finish(session, operation)
                )
        except Exception as error:
            problem = failures.to_problem(error)
            raise self._leave_open(operation, problem) from error
        self.context.metrics.change(operation.kind, "succeeded")
        self.context.events.announce()
        self.context.on_step(intent.id, "result:after")
        return done

    def _finish(
        self, session: orm.Session, operation: Operation
    ) -> types.Done:
        done = operation.finish(session)
        self.entries.close(session, operation.intent, types.JobState.SUCCEEDED)
        return done

    def _back(
        self, operation: Operation, problem: problems.Problem
    ) -> problems.Problem:
        """Undo, and record it. Return the problem for the caller."""
        try:
            self._undo(operation, problem)
        except Exception as error:
            return self._leave_open(operation, failures.to_problem(error))
        self.context.metrics.change(operation.kind, "failed")
        self.context.events.announce()
        self.context.on_step(operation.intent.id, "undone:after")
        return problem

    def _undo(self, operation: Operation, problem: problems.Problem) -> None:
        intent = operation.intent
        body = problem.to_dict(request_id=intent.request_id)
        # After this a restart continues the undo.
        self.entries.mark(intent.id, undo=True, problem=body)
        for step in reversed(operation.steps()):
            self._step(operation, f"undo {step.name}", step.undo)
        self._step(operation, "undo settle", operation.settle)
        cancelled = problem.code == "job.cancelled"
        self._abandon(
            operation,
            problem,
            types.JobState.CANCELLED if cancelled else types.JobState.FAILED,
        )

    def _abandon(
        self,
        operation: Operation,
        problem: problems.Problem,
        state: types.JobState,
    ) -> None:
        with self.context.database.write() as session:
            operation.abandon(session, problem)
            self.entries.close(session, operation.intent, state, problem)

    def _leave_open(
        self, operation: Operation, problem: problems.Problem
    ) -> problems.Problem:
        """Record the attempt. Return the problem for the caller."""
        intent = operation.intent
        LOG.warning(
            "Job %s, %s of %s, stays open: %s",
            intent.id,
            operation.kind,
            intent.subject,
            problem,
        )
        self.context.metrics.change(operation.kind, "left open")
        self.entries.note_attempt(intent.id, problem)
        return still_open(intent.id, problem)

    def _step(
        self, operation: Operation, name: str, act: Callable[[], None]
    ) -> None:
        job_id = operation.intent.id
        self.context.on_step(job_id, f"{name}:before")
        with self.context.metrics.step(operation.kind, name):
            act()
        self.context.on_step(job_id, f"{name}:after")

    # -- interrupted jobs

    def resume(
        self,
        jobs: Sequence[entries.Open],
        ticket: queue.Ticket,
        settle: Callable[[], None],
    ) -> futures.Future[None]:
        """Finish or undo open jobs, in order.

        :param ticket: holds their claims; released when the future is done.
            A job that is still open has its problem recorded.
        :param settle: called last, in the pool's thread, because a share may
            name a job that does not exist.
        """
        built = []
        try:
            for job in jobs:
                try:
                    built.append(self.entries.build(job.id))
                except Exception as error:
                    problem = failures.to_problem(error)
                    LOG.error("Job %s is set aside: %s", job.id, problem)
                    self.entries.note_attempt(job.id, problem)
            if built:
                return self._submit(
                    built[0][0], self._resume_all, built, ticket, settle
                )
            pool = self.context.pools.default
            return self._workers.submit(
                pool, self._resume_all, built, ticket, settle
            )
        except BaseException:
            self.context.queue.release(ticket)
            raise

    def _resume_all(
        self,
        built: Sequence[tuple[Operation, problems.Problem | None]],
        ticket: queue.Ticket,
        settle: Callable[[], None],
    ) -> None:
        try:
            for operation, problem in built:
                self._resume(operation, problem)
            settle()
        except Stopped:
            LOG.info("The next start resumes what is left")
        finally:
            self.context.queue.release(ticket)

    def _resume(
        self, operation: Operation, undone_for: problems.Problem | None
    ) -> None:
        LOG.info(
            "%s job %s, %s of %s",
            "Finishing" if undone_for is None else "Undoing",
            operation.intent.id,
            operation.kind,
            operation.intent.subject,
        )
        try:
            operation.check()
        except Exception as error:
            self._leave_open(operation, failures.to_problem(error))
            return
        if undone_for is not None:
            self._back(operation, undone_for)
            return
        try:
            self._forward(operation)
        except problems.Problem as problem:
            LOG.warning("Job %s: %s", operation.intent.id, problem)

    # -- rows

    def _register(self, run: _Run) -> None:
        lane = run.operation.lane
        with self._lock:
            ahead = sum(
                other.operation.lane == lane for other in self._runs.values()
            )
            ahead += self._performing[lane]
            run.queued = ahead >= self._most(run.operation)
            self._runs[run.operation.intent.id] = run

    def _open(self, run: _Run) -> None:
        intent = run.operation.intent
        state = types.JobState.RUNNING
        if run.queued:
            state = types.JobState.QUEUED

        def begin(session: orm.Session) -> None:
            self.entries.add(session, intent, run.ticket.claims, state)
            run.operation.begin(session)

        self.context.on_step(intent.id, "intent:before")
        self.context.database.run(begin)
        self.context.on_step(intent.id, "intent:after")

    def _forget(self, run: _Run) -> None:
        """Release the share after the result is on disk, even if the run was
        never registered.
        """
        with self._lock:
            self._runs.pop(run.operation.intent.id, None)
            holds, run.holds = run.holds, False
        if holds:
            self.context.queue.release(run.ticket)


def still_open(job_id: str, problem: problems.Problem) -> problems.Problem:
    """The problem for callers while a job is neither finished nor undone.

    It may be transient, so the request can be sent again.
    """
    if problem.code == "job.unreadable":
        return problem
    code = problem.code if problem.row.retryable else "engine.unavailable"
    return problems.Problem(
        code,
        f"{problem.detail} Job {job_id} stays open and is retried.",
        retry_after_seconds=5,
    )
