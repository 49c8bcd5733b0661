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

"""Who may change a share next: first come, first served.

A change claims everything it touches at once: its share alone, and the
source of a clone together with other clones of it. Because all claims of a
ticket join their lines in one moment, tickets are served in the order of
their arrival wherever they meet, so nobody starves and nothing deadlocks.
"""

import collections
from collections.abc import Iterable
import threading

from acme_appliance.changes.claims import Claim
from acme_appliance.changes.claims import Claims
from acme_appliance.changes.claims import Thing


class Busy(Exception):
    """The time was up before it was the ticket's turn."""


class Ticket:
    """A place in the lines; whoever has it may release it, once."""

    def __init__(self, claims: Claims) -> None:
        self.claims = dict(claims)
        self.granted = threading.Event()


class FairQueue:
    """Lines of tickets, one for each thing; safe to share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[Thing, collections.deque[Ticket]] = {}

    def hold(self, claims: Claims, timeout_seconds: float) -> Ticket:
        """Wait for one's turn. :raises Busy: it did not come in time."""
        ticket = Ticket(claims)
        with self._lock:
            for thing in ticket.claims:
                line = self._lines.setdefault(thing, collections.deque())
                line.append(ticket)
            self._grant([ticket])
        if ticket.granted.wait(max(0.0, timeout_seconds)):
            return ticket
        with self._lock:
            if ticket.granted.is_set():
                return ticket
            self._leave(ticket)
        raise Busy(", ".join(map(str, ticket.claims)))

    def release(self, ticket: Ticket) -> None:
        """Let the next one go on."""
        with self._lock:
            self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        waiting: dict[int, Ticket] = {}
        for thing in ticket.claims:
            line = self._lines[thing]
            line.remove(ticket)
            if not line:
                del self._lines[thing]
            waiting.update((id(other), other) for other in line)
        self._grant(waiting.values())

    def _grant(self, tickets: Iterable[Ticket]) -> None:
        for ticket in tickets:
            if not ticket.granted.is_set() and self._is_turn(ticket):
                ticket.granted.set()

    def _is_turn(self, ticket: Ticket) -> bool:
        return all(
            self._may_pass(ticket, thing, claim)
            for thing, claim in ticket.claims.items()
        )

    def _may_pass(self, ticket: Ticket, thing: Thing, claim: Claim) -> bool:
        for other in self._lines[thing]:
            if other is ticket:
                return True
            if Claim.EXCLUSIVE in (claim, other.claims[thing]):
                return False
        raise LookupError(thing)
