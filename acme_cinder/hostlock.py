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

"""What the processes of one host agree on about one share's mount.

cinder-volume services, and tools of an operator, may work on the same mount
point at once. Two files in a hidden folder of the mount point base decide:

* ``SHARE.gate``, locked for the moments in which a mount is made, looked
  at or taken away; holds the state as JSON.
* ``SHARE.use``, locked shared by whoever has the mount in use. Who gets it
  exclusively, with the gate in hand, is the last one.

flock(2) locks are the kernel's: a killed process leaves none behind. They
are taken without blocking and with short sleeps, which lets other green
threads run and is as good for native ones; and since every acquisition
opens the file anew they count inside of one process, too.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import fcntl
import json
import os
import time

from acme_cinder import errors

_POLL_SECONDS = 0.02
_FOLDER = ".acme"


@dataclasses.dataclass(frozen=True)
class State:
    """What is known of a share's mount on this host.

    :ivar export: what is mounted, or was last.
    :ivar ours: the driver mounted it, so the driver unmounts it.
    :ivar holders: those that Cinder attached on this host for itself;
        os-brick uses the mount for them, at times that we do not see.
    :ivar owner: the back end whose share it is. Others may use the same
        mount point base, and do not know what its appliance has.
    """

    export: str = ""
    ours: bool = False
    holders: tuple[str, ...] = ()
    owner: str = ""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "State":
        """What was written; the empty state where that was cut off."""
        try:
            body = json.loads(text)
            return cls(
                export=str(body["export"]),
                ours=bool(body["ours"]),
                holders=tuple(map(str, body["holders"])),
                owner=str(body["owner"]),
            )
        except (ValueError, KeyError, TypeError):
            return cls()


class Gate:
    """The open gate of one share. ``state`` is saved when it changes."""

    def __init__(self, folder: str, share_id: str, descriptor: int) -> None:
        self._use_path = os.path.join(folder, f"{share_id}.use")
        self._path = os.path.join(folder, f"{share_id}.gate")
        self._descriptor = descriptor
        self._state = State.from_json(
            os.pread(descriptor, 65536, 0).decode(errors="replace")
        )

    @property
    def state(self) -> State:
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        if state != self._state:
            data = state.to_json().encode()
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, data, 0)
            self._state = state

    def enter(self) -> int:
        """Count as a user; returns what :func:`os.close` ends it with."""
        return self._lock_use(fcntl.LOCK_SH)

    def in_use(self) -> bool:
        """Whether anybody, here or in another process, counts as a user."""
        try:
            os.close(self._lock_use(fcntl.LOCK_EX))
        except BlockingIOError:
            return True
        return False

    def _lock_use(self, kind: int) -> int:
        descriptor = os.open(self._use_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Exclusive ones are only ever held with the gate in hand.
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def forget(self) -> None:
        """Remove the files; only when nothing is mounted, used or held."""
        for path in (self._use_path, self._path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


class HostLocks:
    """All gates below one mount point base.

    :param timeout_seconds: how long to wait for a gate: longer than a
        mount, or an unmount, may take.
    """

    def __init__(
        self,
        base: str,
        timeout_seconds: float,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = os.path.join(base, _FOLDER)
        self._timeout_seconds = timeout_seconds
        self._sleep = sleep
        self._clock = clock

    def share_ids(self) -> list[str]:
        """The shares that anything is known of."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return sorted(
            name.removesuffix(".gate")
            for name in names
            if name.endswith(".gate")
        )

    @contextlib.contextmanager
    def gate(self, share_id: str) -> Iterator[Gate]:
        """Be the only one to change a share's mount on this host.

        :raises MountError: somebody else kept it for too long.
        """
        deadline = self._clock() + self._timeout_seconds
        while (descriptor := self._open_gate(share_id)) is None:
            if self._clock() >= deadline:
                raise errors.MountError(
                    f"waited {self._timeout_seconds} s for the mount of"
                    f" share {share_id}, which another process works on"
                )
            self._sleep(_POLL_SECONDS)
        try:
            yield Gate(self._folder, share_id, descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def gate_if_free(self, share_id: str) -> Iterator[Gate | None]:
        """The same without waiting; None: somebody else has it."""
        descriptor = self._open_gate(share_id)
        if descriptor is None:
            yield None
            return
        try:
            yield Gate(self._folder, share_id, descriptor)
        finally:
            os.close(descriptor)

    def _open_gate(self, share_id: str) -> int | None:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        path = os.path.join(self._folder, f"{share_id}.gate")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if _locked(descriptor) and _is_current(descriptor, path):
            return descriptor
        os.close(descriptor)
        return None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_current(descriptor: int, path: str) -> bool:
    """Whether the file was not forgotten while we waited for it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
