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

"""Which connections are open, and which of them gives way to another.

A *stranger* is a connection that has not sent a whole request with a valid
token. Only strangers give way, so nobody who has a token waits for those who
have none. At a limit the oldest stranger is ended and the new connection is
taken: behind one address (NAT, a proxy, loopback) a client that sends its
request at once gets through, whoever else is silent there.
"""

from collections.abc import Callable
import logging
import time
from typing import Final

from acme_appliance import addresses

LOG = logging.getLogger(__name__)

#: The log tells of connections that gave way no more often than this.
_LOG_SECONDS: Final = 60.0


class Connection:
    """:param end: closes it at once; may be called more than once."""

    def __init__(self, address: str, end: Callable[[], None]) -> None:
        self.address = addresses.plain_address(address)
        self.network = addresses.network(address)
        self.end = end


class Connections:
    """The open ones; for one thread, that of the event loop.

    :param most: how many may be open in all.
    :param most_strangers: how many strangers of one network may be open.
    """

    def __init__(
        self,
        most: int,
        most_strangers: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._most_strangers = most_strangers
        self._clock = clock
        self._open: set[Connection] = set()
        # Dictionaries keep the order: the oldest is the first.
        self._strangers: dict[Connection, None] = {}
        self._by_network: dict[str, dict[Connection, None]] = {}
        self._logged_at = -_LOG_SECONDS

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Connection) -> bool:
        """Take a new one; False: all are open that may be, and none gives
        way."""
        own = self._by_network.get(connection.network, {})
        if len(own) >= self._most_strangers:
            self._end_oldest(own, connection.network)
        elif len(self._open) >= self._most and not self.make_room():
            return False
        self._open.add(connection)
        self.distrust(connection)
        return True

    def make_room(self) -> bool:
        """End the oldest stranger; False: there is none."""
        if not self._strangers:
            return False
        self._end_oldest(self._strangers, "all addresses")
        return True

    def trust(self, connection: Connection) -> None:
        """It has shown a valid token, and does not give way."""
        self._strangers.pop(connection, None)
        own = self._by_network.get(connection.network, {})
        own.pop(connection, None)
        if not own:
            self._by_network.pop(connection.network, None)

    def distrust(self, connection: Connection) -> None:
        """It is a stranger, or one again, and the newest of them."""
        if connection not in self._open:
            return
        self.trust(connection)
        self._strangers[connection] = None
        own = self._by_network.setdefault(connection.network, {})
        own[connection] = None

    def remove(self, connection: Connection) -> None:
        """It has ended. Doing it again is fine."""
        self._open.discard(connection)
        self.trust(connection)

    def _end_oldest(self, among: dict[Connection, None], whose: str) -> None:
        oldest = next(iter(among))
        self.remove(oldest)
        oldest.end()
        if self._clock() - self._logged_at >= _LOG_SECONDS:
            self._logged_at = self._clock()
            LOG.warning(
                "Too many connections without a valid token from %s: the"
                " oldest are ended (%d connections are open)",
                whose,
                len(self._open),
            )
