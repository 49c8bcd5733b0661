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

"""Limits on open connections.

A *stranger* is a connection that has not sent a complete request with a valid
token. At a limit the oldest stranger is closed and the new connection is
accepted. So clients with a token never wait for those without, and behind one
address (NAT, a proxy, loopback) a client that sends its request at once gets
through, even if others there are silent.
"""

from collections.abc import Callable
import logging
import time
from typing import Final

from acme_appliance import clientaddress

LOG = logging.getLogger(__name__)

#: Minimum interval between warnings about closed connections.
_LOG_SECONDS: Final = 60.0


class Connection:
    """:param end: closes it at once; may be called more than once."""

    def __init__(self, address: str, end: Callable[[], None]) -> None:
        self.address = clientaddress.normalize(address)
        self.network = clientaddress.network(address)
        self.end = end


class Connections:
    """The open connections. Not thread-safe: for the event loop only.

    :param maximum: of open connections.
    :param max_strangers: of open strangers per network.
    """

    def __init__(
        self,
        maximum: int,
        max_strangers: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._maximum = maximum
        self._max_strangers = max_strangers
        self._clock = clock
        self._open: set[Connection] = set()
        # In order of age, oldest first.
        self._strangers: dict[Connection, None] = {}
        self._by_network: dict[str, dict[Connection, None]] = {}
        self._logged_at = -_LOG_SECONDS

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Connection) -> bool:
        """Add a new connection; False: the limit is reached and no stranger
        can be closed."""
        own = self._by_network.get(connection.network, {})
        if len(own) >= self._max_strangers:
            self._end_oldest(own, connection.network)
        elif len(self._open) >= self._maximum and not self.make_room():
            return False
        self._open.add(connection)
        self.distrust(connection)
        return True

    def make_room(self) -> bool:
        """Close the oldest stranger; False: there is none."""
        if not self._strangers:
            return False
        self._end_oldest(self._strangers, "all addresses")
        return True

    def trust(self, connection: Connection) -> None:
        """The connection has shown a valid token; never close it early."""
        self._strangers.pop(connection, None)
        own = self._by_network.get(connection.network, {})
        own.pop(connection, None)
        if not own:
            self._by_network.pop(connection.network, None)

    def distrust(self, connection: Connection) -> None:
        """Make the connection the newest stranger."""
        if connection not in self._open:
            return
        self.trust(connection)
        self._strangers[connection] = None
        own = self._by_network.setdefault(connection.network, {})
        own[connection] = None

    def remove(self, connection: Connection) -> None:
        """Forget a closed connection. Idempotent."""
        self._open.discard(connection)
        self.trust(connection)

    def _end_oldest(self, among: dict[Connection, None], whose: str) -> None:
        oldest = next(iter(among))
        self.remove(oldest)
        oldest.end()
        if self._clock() - self._logged_at >= _LOG_SECONDS:
            self._logged_at = self._clock()
            LOG.warning(
                "Too many connections without a valid token from %s: closing"
                " the oldest (%d connections are open)",
                whose,
                len(self._open),
            )
