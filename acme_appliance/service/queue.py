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
from collections.abc import Mapping
import enum
import threading


class Busy(Exception):
    """The time was up before it was the ticket's turn."""


class Claim(enum.Enum):
    ALONE = "alone"
    TOGETHER = "together"


class Ticket:
    """A place in the lines; whoever has it may release it, once."""

    def __init__(self, claims: Mapping[str, Claim]) -> None:
        self.claims = dict(claims)
        self.granted = threading.Event()


class FairQueue:
    """Lines of tickets, one for each key; safe to share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, collections.deque[Ticket]] = {}

    def hold(
        self, claims: Mapping[str, Claim], timeout_seconds: float
    ) -> Ticket:
        """Wait for one's turn. :raises Busy: it did not come in time."""
        ticket = Ticket(claims)
        with self._lock:
            for key in ticket.claims:
                self._lines.setdefault(key, collections.deque()).append(ticket)
            self._grant([ticket])
        if ticket.granted.wait(max(0.0, timeout_seconds)):
            return ticket
        with self._lock:
            if ticket.granted.is_set():
                return ticket
            self._leave(ticket)
        raise Busy(", ".join(ticket.claims))

    def release(self, ticket: Ticket) -> None:
        """Let the next one go on."""
        with self._lock:
            self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        waiting: dict[int, Ticket] = {}
        for key in ticket.claims:
            line = self._lines[key]
            line.remove(ticket)
            if not line:
                del self._lines[key]
            waiting.update((id(other), other) for other in line)
        self._grant(waiting.values())

    def _grant(self, tickets: Iterable[Ticket]) -> None:
        for ticket in tickets:
            if not ticket.granted.is_set() and self._is_turn(ticket):
                ticket.granted.set()

    def _is_turn(self, ticket: Ticket) -> bool:
        return all(
            self._may_pass(ticket, key, claim)
            for key, claim in ticket.claims.items()
        )

    def _may_pass(self, ticket: Ticket, key: str, claim: Claim) -> bool:
        for other in self._lines[key]:
            if other is ticket:
                return True
            if Claim.ALONE in (claim, other.claims[key]):
                return False
        raise LookupError(key)
