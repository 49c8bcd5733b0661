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

"""Check whether the database is writable, with a cache."""

from collections.abc import Callable
import logging
import threading
import time
from typing import Final

from sqlalchemy import exc

from acme_appliance.db.session import Database

LOG = logging.getLogger(__name__)

#: How long a result is cached.
INTERVAL_SECONDS: Final = 2.0
#: How long to wait for another process that locks the database.
_WAIT_SECONDS: Final = 2.0


class WriteProbe:
    """Limits the rate of checks, and runs them in one thread at a time.

    Each check needs an fsync and may block, and readiness requests need no
    authentication.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait_seconds: float = _WAIT_SECONDS,
    ) -> None:
        self._database = database
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._trying = threading.Lock()
        self._tried_at: float | None = None
        self._works = True

    def works(self) -> bool:
        """The cached result, or that of a new check."""
        if self._trying.acquire(blocking=False):
            try:
                if self._is_due():
                    self._works = self._try()
                    self._tried_at = self._clock()
            finally:
                self._trying.release()
        return self._works

    def _is_due(self) -> bool:
        last = self._tried_at
        return last is None or self._clock() - last >= INTERVAL_SECONDS

    def _try(self) -> bool:
        try:
            self._database.check_writable(self._wait_seconds)
        except exc.SQLAlchemyError as error:
            reason = str(error).splitlines()[0]
            LOG.warning("The database cannot be written: %s", reason)
            return False
        return True
