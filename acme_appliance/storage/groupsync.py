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

"""Group sync: concurrent callers share one sync of a pool."""

from collections.abc import Callable
import threading


class GroupSync:
    """Calls ``sync`` as rarely as possible.

    A caller waits for a sync that began after its call; one that was already
    running may have missed the caller's changes.
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._changed = threading.Condition()
        self._running = False
        self._begun = 0
        #: The latest successful sync.
        self._ended = 0

    def __call__(self) -> None:
        """Return when all earlier changes are on disk.

        An error reaches only the caller that ran the sync; the others retry.
        """
        with self._changed:
            wanted = self._begun + 1
            while self._running and self._ended < wanted:
                self._changed.wait()
            if self._ended >= wanted:
                return
            self._running = True
            self._begun += 1
            number = self._begun
        ended = False
        try:
            self._sync()
            ended = True
        finally:
            with self._changed:
                self._running = False
                if ended:
                    self._ended = number
                self._changed.notify_all()
