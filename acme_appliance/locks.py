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

"""File locks, so that a state directory has only one appliance.

The kernel releases a lock when its process ends, in any way.
"""

from collections.abc import Callable
import errno
import fcntl
import os
import pathlib
import time

from acme_appliance.host import users


class Held(Exception):
    """Another process has the lock; ``pid`` is its id, if known."""

    def __init__(self, path: pathlib.Path, pid: int | None) -> None:
        super().__init__(f"{path} is held by process {pid or 'unknown'}")
        self.pid = pid


class Lock:
    """An exclusive lock on a file, held by the process that calls ``take``.

    Forked children also hold it, until they call :meth:`leave`.
    """

    def __init__(
        self,
        path: pathlib.Path,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._sleep = sleep
        self._clock = clock
        self._descriptor: int | None = None

    def take(self, wait_seconds: float = 0) -> None:
        """:raises Held: another process still has it after the wait."""
        users.create_for_owner(self.path)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        deadline = self._clock() + wait_seconds
        try:
            while not _try(descriptor):
                if self._clock() >= deadline:
                    raise Held(self.path, self.holder())
                self._sleep(0.05)
            # In place, with a fixed width, so that readers see all or nothing.
            os.pwrite(descriptor, f"{os.getpid():<10}\n".encode(), 0)
            os.ftruncate(descriptor, 11)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def leave(self) -> None:
        """Release it in this process; other processes keep it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_held(self) -> bool:
        """Whether any process has it now."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _try(descriptor)
        finally:
            os.close(descriptor)

    def holder(self) -> int | None:
        """The id of the process that took it last."""
        try:
            return int(self.path.read_text())
        except (OSError, ValueError):
            return None


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EINTR):
            return False
        raise
    return True
