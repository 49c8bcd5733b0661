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

"""Runs every change: wait in the queue, decide, act."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from concurrent import futures
import contextlib
from typing import Final

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.changes import entries
from acme_appliance.changes import failures
from acme_appliance.changes import inspection
from acme_appliance.changes import journal
from acme_appliance.changes import operation
from acme_appliance.changes import queue
from acme_appliance.changes.claims import Claim
from acme_appliance.changes.claims import Claims
from acme_appliance.changes.claims import exclusive
from acme_appliance.changes.claims import share
from acme_appliance.changes.context import Context
from acme_appliance.changes.deadline import Deadline
from acme_appliance.engines.base import Kind
from acme_appliance.storage import workers

#: How long to wait for changes of a share before inspecting it.
_LOOK_SECONDS: Final = 60.0


class Runner:
    """Runs changes with conflicting claims one at a time, in order."""

    def __init__(self, context: Context, log: journal.Journal) -> None:
        self.context = context
        self.journal = log
        self.inspector = inspection.Inspector(context)
        #: Set by the service after recovery, and cleared at its stop.
        self.started = False

    def run(
        self,
        claims: Callable[[], Claims],
        decide: Callable[[], operation.Decision],
        wait_seconds: float,
    ) -> types.Done | types.Accepted:
        """Make one change.

        :param claims: returns the claims, from the database; called again
            when they are held, because the database may have changed.
        :param decide: reads the database and returns what to do, while the
            claims are held. Runs in the request's thread: it may ask pools
            and exports only through their watches.
        :param wait_seconds: for the queue and the work together.
        :raises problems.Problem: no other exception.
        """
        if not self.started:
            raise problems.Problem(
                "system.starting", "The appliance is starting or stopping."
            )
        deadline = Deadline(wait_seconds)
        try:
            self.context.generations.reserve()
            ticket = self._hold_settled(claims, deadline)
            return self._decide(decide, ticket, deadline)
        except Exception as error:
            raise failures.to_problem(error) from error

    def _decide(
        self,
        decide: Callable[[], operation.Decision],
        ticket: queue.Ticket,
        deadline: Deadline,
    ) -> types.Done | types.Accepted:
        try:
            decision = decide()
        except BaseException:
            self.context.queue.release(ticket)
            raise
        if isinstance(decision, types.Done):
            self.context.queue.release(ticket)
            return decision
        if isinstance(decision, operation.Work):
            return self.journal.perform(decision, ticket, deadline)
        return self.journal.submit(decision, ticket, deadline)

    def _hold_settled(
        self, claims: Callable[[], Claims], deadline: Deadline
    ) -> queue.Ticket:
        """Take the claims, after ending open jobs that conflict.

        No one runs such a job while this holds its claims: its process died,
        or it could neither be finished nor undone. It must end first.
        """
        while True:
            ticket = self._hold_current(claims, deadline)
            try:
                jobs, shares = self.journal.entries.left_open(ticket.claims)
            except BaseException:
                self.context.queue.release(ticket)
                raise
            if not jobs and not shares:
                return ticket
            self.context.queue.release(ticket)
            if jobs:
                self._resume(jobs[0], deadline)
            else:
                self._settle(shares.pop(), deadline)

    def _hold_current(
        self, claims: Callable[[], Claims], deadline: Deadline
    ) -> queue.Ticket:
        """Take the claims, and verify them under the claims.

        A snapshot may have been created or deleted during the wait, which
        changes the share to claim.
        """
        while True:
            wanted = claims()
            ticket = self.hold(wanted, deadline)
            try:
                if claims() == wanted:
                    return ticket
            except BaseException:
                self.context.queue.release(ticket)
                raise
            self.context.queue.release(ticket)

    def hold(self, claims: Claims, deadline: Deadline) -> queue.Ticket:
        """Take claims. :raises problems.Problem: ``share.busy``."""
        try:
            return self.context.queue.hold(claims, deadline.remaining())
        except queue.Busy as busy:
            raise problems.Problem(
                "share.busy",
                f"Another change of {busy} took longer than this request"
                " waits.",
            ) from busy

    @contextlib.contextmanager
    def holding(self, *share_ids: str) -> Iterator[None]:
        """Block changes of shares while inspecting them.

        :raises problems.Problem: ``share.busy``.
        """
        with self.holding_all(exclusive(*map(share, share_ids))):
            yield

    @contextlib.contextmanager
    def holding_all(self, claims: Claims) -> Iterator[None]:
        """Like :meth:`holding`, for any claims."""
        ticket = self.hold(claims, Deadline(_LOOK_SECONDS))
        try:
            yield
        finally:
            self.context.queue.release(ticket)

    def _resume(self, job: entries.Open, deadline: Deadline) -> None:
        """Finish or undo an open job.

        :raises problems.Problem: this is not possible now.
        """
        ticket = self.hold(self.journal.entries.claims(job), deadline)
        self._wait_for(self._start_resume(job, ticket), deadline)
        for left in self.journal.entries.open([job.id]):
            raise journal.still_open(left.id, left.problem)

    def _wait_for(
        self, future: futures.Future[None], deadline: Deadline
    ) -> None:
        if not workers.wait(future, deadline.remaining()):
            raise problems.Problem(
                "share.busy",
                "An interrupted change is being finished or undone.",
            )
        future.result()

    def try_resume(self, job: entries.Open) -> futures.Future[None] | None:
        """Begin to finish or undo an open job.

        None: another change holds its claims, and ends it first.
        """
        try:
            ticket = self.context.queue.hold(
                self.journal.entries.claims(job), 0
            )
        except queue.Busy:
            return None
        return self._start_resume(job, ticket)

    def is_at_work(self, job: entries.Open) -> bool:
        """Whether another change holds the job's claims."""
        try:
            ticket = self.context.queue.hold(
                self.journal.entries.claims(job), 0
            )
        except queue.Busy:
            return True
        self.context.queue.release(ticket)
        return False

    def _start_resume(
        self, job: entries.Open, ticket: queue.Ticket
    ) -> futures.Future[None]:
        """Resume a job; the future's end releases the ticket."""
        try:
            self.context.generations.reserve()
            # Others may have ended it during the wait.
            jobs = self.journal.entries.open([job.id])
        except BaseException:
            self.context.queue.release(ticket)
            raise
        shares = [
            resource.id
            for resource, claim in ticket.claims.items()
            if resource.kind == Kind.SHARE and claim is Claim.EXCLUSIVE
        ]
        return self.journal.resume(
            jobs, ticket, lambda: self._settle_all(shares)
        )

    def _settle(self, share_id: str, deadline: Deadline) -> None:
        """Set the state of a share that names an ended job, directly or by a
        snapshot. :raises problems.Problem: this is not possible now."""
        ticket = self.hold(exclusive(share(share_id)), deadline)
        future = self.journal.resume(
            [], ticket, lambda: self._settle_all([share_id])
        )
        self._wait_for(future, deadline)

    def _settle_all(self, share_ids: Iterable[str]) -> None:
        for share_id in share_ids:
            self.inspector.settle(share_id)
