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

"""Store the number of the newest event in each pool."""

import logging
import threading
from typing import Final

from acme_appliance.changes.context import Context
from acme_appliance.engines import base as engines
from acme_appliance.storage import identity

LOG = logging.getLogger(__name__)

#: Minimum interval between writes to a pool.
_INTERVAL_SECONDS: Final = 0.1
_IDLE_SECONDS: Final = 60.0
#: How long a stop waits for a pool that does not answer.
_STOP_SECONDS: Final = 5.0


class Marks:
    """Writes the number of the newest event to each pool.

    Uses a thread per pool, so that no change and no other pool waits for it.
    The number may lag behind, also after a power cut, but it never makes a
    database look older than it is.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for pool in self.context.pools:
            thread = threading.Thread(
                target=self._run, args=[pool], name=f"mark {pool}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Write the last number and stop."""
        self._stopping.set()
        self.context.events.announce()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)

    def _run(self, pool: str) -> None:
        stopping = False
        while not stopping:
            stopping = self._stopping.is_set()
            version = self.context.events.version
            self._mark(pool)
            if not stopping:
                self.context.events.wait(version, _IDLE_SECONDS)
                self._stopping.wait(_INTERVAL_SECONDS)

    def _mark(self, pool: str) -> None:
        try:
            with self.context.database.read() as session:
                sequence = identity.newest_event(session)
            self.context.pools.identities.mark(pool, sequence)
        except Exception as error:
            # The next event or round retries.
            level = logging.WARNING
            if isinstance(error, engines.EngineError):
                level = logging.DEBUG
            LOG.log(level, "Cannot mark the pool %s: %s", pool, error)
