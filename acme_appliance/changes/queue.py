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

"""The queue of changes: first come, first served.

A change makes all its claims at once: exclusive ones, such as its share, and
shared ones, such as the source of a clone. Because all claims of a ticket
join their lines atomically, conflicting tickets are served in the order of
arrival. So there is no starvation and no deadlock.
"""

import collections
from collections.abc import Iterable
import threading
from typing import Final

from acme_appliance.changes.claims import Claim
from acme_appliance.changes.claims import Claims
from acme_appliance.changes.claims import Resource

#: How many resources an error names.
_NAMED: Final = 4


class Busy(Exception):
    """Timed out before the ticket's turn."""


class Ticket:
    """A place in the lines; must be released once."""

    def __init__(self, claims: Claims) -> None:
        self.claims = dict(claims)
        self.granted = threading.Event()


def _names(ticket: Ticket) -> str:
    """Of a few of the resources that it is about."""
    names = [str(resource) for resource in ticket.claims]
    if len(names) > _NAMED:
        names[_NAMED:] = [f"{len(names) - _NAMED} more"]
    return ", ".join(names)


class FairQueue:
    """Lines of tickets, one for each resource; safe to share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[Resource, collections.deque[Ticket]] = {}

    def hold(self, claims: Claims, timeout_seconds: float) -> Ticket:
        """Wait for the claims. :raises Busy: timed out."""
        ticket = Ticket(claims)
        with self._lock:
            for resource in ticket.claims:
                line = self._lines.setdefault(resource, collections.deque())
                line.append(ticket)
            self._grant([ticket])
        if ticket.granted.wait(max(0.0, timeout_seconds)):
            return ticket
        with self._lock:
            if ticket.granted.is_set():
                return ticket
            self._leave(ticket)
        raise Busy(_names(ticket))

    def release(self, ticket: Ticket) -> None:
        """Release a ticket and grant waiting ones."""
        with self._lock:
            self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        waiting: dict[int, Ticket] = {}
        for resource in ticket.claims:
            line = self._lines[resource]
            line.remove(ticket)
            if not line:
                del self._lines[resource]
            waiting.update((id(other), other) for other in line)
        self._grant(waiting.values())

    def _grant(self, tickets: Iterable[Ticket]) -> None:
        for ticket in tickets:
            if not ticket.granted.is_set() and self._is_turn(ticket):
                ticket.granted.set()

    def _is_turn(self, ticket: Ticket) -> bool:
        return all(
            self._may_pass(ticket, resource, claim)
            for resource, claim in ticket.claims.items()
        )

    def _may_pass(
        self, ticket: Ticket, resource: Resource, claim: Claim
    ) -> bool:
        for other in self._lines[resource]:
            if other is ticket:
                return True
            if Claim.EXCLUSIVE in (claim, other.claims[resource]):
                return False
        raise LookupError(resource)
