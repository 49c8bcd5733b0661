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

"""Generations: the numbers of ETags, never issued twice.

An id that is deleted and created again must not get an old ETag. So all
generations come from one counter, which survives deletions, restarts and a
clock that is set back. It starts at least at the time in microseconds, and so
also survives the loss of the database.
"""

import threading
import time
from typing import Final

from acme_appliance.db import models
from acme_appliance.db.session import Database

#: Numbers are reserved in the database in blocks of this size. A stop
#: discards the rest of a block.
BLOCK: Final = 1 << 24
#: How many must be left when a change begins.
LEAST: Final = 1 << 20
_NAME: Final = "generation"


class Generations:
    """Thread-safe. Numbers stay below 2^53 for two centuries, so JSON readers
    keep them exactly."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._reserving = threading.Lock()
        self._last = 0
        #: The highest number reserved in the database.
        self._reserved = 0

    def reserve(self) -> None:
        """Reserve enough numbers for any change; usually does nothing.

        Must not be called in a transaction: it begins its own.
        """
        if self._reserved - self._last >= LEAST:
            return
        with self._reserving:
            if self._reserved - self._last < LEAST:
                self._reserve()

    def _reserve(self) -> None:
        with self._database.write() as session:
            counter = session.get(models.Counter, _NAME)
            if counter is None:
                counter = models.Counter(name=_NAME, value=0)
                session.add(counter)
            start = max(self._reserved, counter.value, time.time_ns() // 1_000)
            counter.value = start + BLOCK
        with self._lock:
            if self._reserved == 0:
                self._last = start
            self._reserved = start + BLOCK

    def next(self) -> int:
        """The next number, for a row that is being written."""
        with self._lock:
            if self._last >= self._reserved:
                raise RuntimeError("no generations were reserved")
            self._last += 1
            return self._last
