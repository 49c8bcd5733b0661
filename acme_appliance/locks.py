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

"""One appliance for one state directory, held to by file locks.

The kernel drops a lock when its holder is gone, however it went.
"""

from collections.abc import Callable
import errno
import fcntl
import os
import pathlib
import time

from acme_appliance.host import users


class Held(Exception):
    """Somebody else has the lock; ``pid`` is theirs, if it is known."""

    def __init__(self, path: pathlib.Path, pid: int | None) -> None:
        super().__init__(f"{path} is held by process {pid or 'unknown'}")
        self.pid = pid


class Lock:
    """An exclusive lock on a file, by the process that called ``take``.

    A child that is forked holds it too, until it calls :meth:`leave`.
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
        """:raises Held: it is not to be had within the wait."""
        users.create_for_owner(self.path)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        deadline = self._clock() + wait_seconds
        try:
            while not _try(descriptor):
                if self._clock() >= deadline:
                    raise Held(self.path, self.holder())
                self._sleep(0.05)
            # In place and as wide as any: nobody ever reads half of it.
            os.pwrite(descriptor, f"{os.getpid():<10}\n".encode(), 0)
            os.ftruncate(descriptor, 11)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def leave(self) -> None:
        """Let go in this process; others that hold it keep it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_held(self) -> bool:
        """Whether anybody has it at this moment."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _try(descriptor)
        finally:
            os.close(descriptor)

    def holder(self) -> int | None:
        """Who took it last."""
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
