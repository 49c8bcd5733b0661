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

"""Dependencies of changes and use cases."""

from collections.abc import Callable
import datetime
import logging
from typing import Any

from acme_appliance import types
from acme_appliance.changes import queue
from acme_appliance.changes.eventlog import EventLog
from acme_appliance.changes.generations import Generations
from acme_appliance.db.session import Database
from acme_appliance.metrics import Metrics
from acme_appliance.storage.exports import Exports
from acme_appliance.storage.pools import Pools

LOG = logging.getLogger(__name__)

Clock = Callable[[], datetime.datetime]
OnStep = Callable[[str, str], None]


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def ignore_step(job_id: str, step: str) -> None:
    """The hook outside of tests."""


class Context:
    """The database, pools, exports, settings, and the queue of changes.

    :param database: upgraded to this release's tables.
    :param on_step: called with a job's id and a step's name before and
        after each step and both commits; for crash tests.
    """

    def __init__(
        self,
        database: Database,
        pools: Pools,
        exports: Exports,
        settings: types.ServiceSettings,
        *,
        clock: Clock = utc_now,
        on_step: OnStep = ignore_step,
    ) -> None:
        self.database = database
        self.pools = pools
        self.exports = exports
        self.settings = settings
        self.clock = clock
        self.on_step = on_step
        self.queue = queue.FairQueue()
        self.generations = Generations(database)
        self.events = EventLog(clock)
        self.metrics = Metrics()
        self.share_room = Room()

    def touch(self, row: Any) -> None:
        """Begin the next generation, because clients see a change.

        Also when a change begins or was undone: a client with the old ETag
        must not be told that nothing has changed.
        """
        row.generation = self.generations.next()
        row.updated_at = self.clock()

    def stop(self) -> None:
        """Stop asking pools and exports."""
        self.pools.stop()
        self.exports.stop()


class Room:
    """Enforces a maximum number of objects, with few counts."""

    def __init__(self) -> None:
        self._left = 0

    def take(self, count: Callable[[], int]) -> bool:
        """Take one, in the transaction that creates the object.

        :param count: returns how many more are allowed; called again when
            that many were taken. Deletes and failed creates only make the
            next call earlier.
        """
        if self._left <= 0:
            self._left = count()
        self._left -= 1
        return self._left >= 0
