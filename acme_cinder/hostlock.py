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

"""Locks for the mounts of shares, across the processes of a host.

An empty file has two bytes for every share, at an offset that derives from the
share's id. A process that mounts or unmounts a share locks the first byte. All
users of a mount hold a shared lock on the second byte.

The locks are open file description locks (fcntl(2)). The kernel releases them
when their process ends. They are beyond the end of the file. They also work
between threads, because each lock opens the file again. So there is no state
to clean up, and a full disk does no harm.

Locks are tried without blocking, with short sleeps in between. So other green
threads can run, and native threads work, too.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import fcntl
import hashlib
import os
import struct
import time

from acme_cinder import errors
import acme_client

_POLL_SECONDS = 0.02
#: ``struct flock`` of 64-bit Linux: type, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi4x")


class HostLocks:
    """The locks of all shares.

    :param path: the file, which is created when needed.
    :param timeout_seconds: how long :meth:`changing` waits. Must be longer
        than mounting and unmounting take.
    """

    def __init__(
        self,
        path: str,
        timeout_seconds: float,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._sleep = sleep
        self._clock = clock

    @contextlib.contextmanager
    def changing(
        self, share_id: str, timeout_seconds: float | None = None
    ) -> Iterator[None]:
        """Hold the exclusive lock to mount or unmount a share on this host.

        :param timeout_seconds: instead of the usual limit.
        :raises MountError: another process held the lock for too long.
        """
        limit = acme_client.at_most(timeout_seconds or self._timeout_seconds)
        deadline = self._clock() + limit
        while True:
            with self.changing_if_free(share_id) as free:
                if free:
                    yield
                    return
            if self._clock() >= deadline:
                raise errors.MountError(
                    f"waited {limit:g} s for another process"
                    f" of this host to mount or unmount share {share_id}"
                )
            self._sleep(_POLL_SECONDS)

    @contextlib.contextmanager
    def changing_if_free(self, share_id: str) -> Iterator[bool]:
        """Like :meth:`changing`, without waiting. False: it is taken."""
        descriptor = self._open()
        try:
            yield _try_lock(
                descriptor, fcntl.F_WRLCK, _change_offset(share_id)
            )
        finally:
            os.close(descriptor)

    def use(self, share_id: str) -> int:
        """Count as a user until the returned descriptor is closed.

        Call this only within :meth:`changing`.
        """
        descriptor = self._open()
        if not _try_lock(descriptor, fcntl.F_RDLCK, _use_offset(share_id)):
            os.close(descriptor)
            raise errors.MountError(
                f"share {share_id} is locked by a foreign process"
            )
        return descriptor

    def in_use(self, share_id: str) -> bool:
        """Whether any process, including this one, counts as a user.

        Call this only within :meth:`changing`.
        """
        descriptor = self._open()
        try:
            return not _try_lock(
                descriptor, fcntl.F_WRLCK, _use_offset(share_id)
            )
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT
        try:
            return os.open(self._path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
            return os.open(self._path, flags, 0o600)


def _try_lock(descriptor: int, kind: int, offset: int) -> bool:
    request = _FLOCK.pack(kind, os.SEEK_SET, offset, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    except (BlockingIOError, PermissionError):
        # POSIX allows either, EAGAIN or EACCES.
        return False
    return True


def _change_offset(share_id: str) -> int:
    digest = hashlib.sha256(share_id.encode()).digest()
    # An even number of 62 bits: off_t is signed.
    return int.from_bytes(digest[:8], "big") >> 3 << 1


def _use_offset(share_id: str) -> int:
    return _change_offset(share_id) + 1
