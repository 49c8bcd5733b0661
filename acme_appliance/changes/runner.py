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

"""How every change is made: a place in the queue, a look, a decision."""

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

#: How long a look at a share waits for the changes of it.
_LOOK_SECONDS: Final = 60.0


class Runner:
    """Runs decisions that touch the same one at a time, as they arrive."""

    def __init__(self, context: Context, log: journal.Journal) -> None:
        self.context = context
        self.journal = log
        self.inspector = inspection.Inspector(context)
        #: Set by the service when recovery is done, and unset at its stop.
        self.started = False

    def run(
        self,
        claims: Callable[[], Claims],
        decide: Callable[[], operation.Decision],
        wait_seconds: float,
    ) -> types.Done | types.Accepted:
        """Make one change.

        :param claims: what to hold, by what the database says; called
            again when that is held, for it may say something else by then.
        :param decide: looks at the database and says what to do, while
            everything claimed is held: nothing else changes it meanwhile.
            In the request's thread: it asks pools and exports by their
            watches only, and leaves all else to the pool's workers.
        :param wait_seconds: for the queue and for the work together.
        :raises problems.Problem: and nothing else.
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
        """Hold what is to be held, when no open job touches it any more.

        Nobody is at work on such a job while this holds what it touches:
        its process died, or it could neither be finished nor undone so far.
        That comes before anything else happens there.
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
                self._take_up(jobs[0], deadline)
            else:
                self._settle(shares.pop(), deadline)

    def _hold_current(
        self, claims: Callable[[], Claims], deadline: Deadline
    ) -> queue.Ticket:
        """Hold what is to be held now, not what was when the wait began.

        A snapshot may have come or gone meanwhile, and with it the share
        that its change has to hold.
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
        """A place at the head. :raises problems.Problem: ``share.busy``."""
        try:
            return self.context.queue.hold(claims, deadline.remaining())
        except queue.Busy as busy:
            raise problems.Problem(
                "share.busy",
                f"Another change is at work on {busy}; it took longer than"
                " this request would wait.",
            ) from busy

    @contextlib.contextmanager
    def holding(self, *share_ids: str) -> Iterator[None]:
        """Keep changes off shares, to look at them.

        :raises problems.Problem: ``share.busy``.
        """
        claims = exclusive(*map(share, share_ids))
        ticket = self.hold(claims, Deadline(_LOOK_SECONDS))
        try:
            yield
        finally:
            self.context.queue.release(ticket)

    def _take_up(self, job: entries.Open, deadline: Deadline) -> None:
        """Finish or undo what was left open.

        :raises problems.Problem: it cannot be, for now.
        """
        ticket = self.hold(self.journal.entries.claims(job), deadline)
        self._wait_for(self._start_take_up(job, ticket), deadline)
        for left in self.journal.entries.open([job.id]):
            raise journal.still_open(left.id, left.problem)

    def _wait_for(
        self, future: futures.Future[None], deadline: Deadline
    ) -> None:
        if not workers.wait(future, deadline.remaining()):
            raise problems.Problem(
                "share.busy",
                "A change that was cut off is being finished or undone.",
            )
        future.result()

    def try_take_up(self, job: entries.Open) -> futures.Future[None] | None:
        """Begin to finish or undo what was left open.

        None: another change has what it touches, and does it first.
        """
        try:
            ticket = self.context.queue.hold(
                self.journal.entries.claims(job), 0
            )
        except queue.Busy:
            return None
        return self._start_take_up(job, ticket)

    def is_at_work(self, job: entries.Open) -> bool:
        """Whether somebody has what a job touches, to finish or undo it."""
        try:
            ticket = self.context.queue.hold(
                self.journal.entries.claims(job), 0
            )
        except queue.Busy:
            return True
        self.context.queue.release(ticket)
        return False

    def _start_take_up(
        self, job: entries.Open, ticket: queue.Ticket
    ) -> futures.Future[None]:
        """The ticket is released when the future is done."""
        try:
            self.context.generations.reserve()
            # Others may have ended it while this waited for its turn.
            jobs = self.journal.entries.open([job.id])
        except BaseException:
            self.context.queue.release(ticket)
            raise
        shares = [
            thing.id
            for thing, claim in ticket.claims.items()
            if thing.kind == Kind.SHARE and claim is Claim.EXCLUSIVE
        ]
        return self.journal.take_up(
            jobs, ticket, lambda: self._settle_all(shares)
        )

    def _settle(self, share_id: str, deadline: Deadline) -> None:
        """Judge a share that names a job which is over, or whose snapshot
        does. :raises problems.Problem: it cannot be, for now."""
        ticket = self.hold(exclusive(share(share_id)), deadline)
        future = self.journal.take_up(
            [], ticket, lambda: self._settle_all([share_id])
        )
        self._wait_for(future, deadline)

    def _settle_all(self, share_ids: Iterable[str]) -> None:
        for share_id in share_ids:
            self.inspector.settle(share_id)
