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

"""Mounts of shares on this host; the only way to get at a path.

os-brick's own client mounts, at the mount point that its connector uses
too, so that a share has one mount point on a host. What is added here: a
mount lives as long as somebody uses it, every command has a time limit,
and a stale mount is replaced.

Commands run as root by os-brick's privileged daemon, the one that its
connectors mount with. ``umount`` as well, and not by
``cinder.privsep.fs.umount``: that one cannot be given a time limit, and
each unmount that hangs on a dead server would keep one of the few threads
of Cinder's own daemon for ever. os-brick's kills the command; then
``umount -l`` takes the mount out of sight, which does not wait for any
server. What was written is on the server by then: everything that the
driver writes through a mount is flushed when the file is closed.

Back ends may share a mount point base, and do by default. Each judges only
what its own appliance knows.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import pathlib
import re
import time
from typing import Any
import uuid

from os_brick import exception as brick_exception
from os_brick.remotefs import remotefs
from oslo_concurrency import processutils
from oslo_log import log as logging

from acme_cinder import commands
from acme_cinder import errors
from acme_cinder import hostlock

LOG = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
#: Asking after a mount that is there already must not take long.
_PROBE_SECONDS = 10.0
_MOUNT_TABLE = pathlib.Path("/proc/self/mounts")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def mount_table() -> dict[str, str]:
    """What is mounted, mount point to source, as proc(5) has it.

    os-brick runs mount(8) to learn the same.
    """
    fields = (
        line.split(" ") for line in _MOUNT_TABLE.read_text().splitlines()
    )
    return {_unescaped(field[1]): _unescaped(field[0]) for field in fields}


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


class _Client(remotefs.RemoteFsClient):
    """os-brick's, with the mount table as a parameter."""

    def __init__(
        self, *args: Any, table: Callable[[], dict[str, str]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._table = table

    def _read_mounts(self) -> dict[str, str]:
        return self._table()


@dataclasses.dataclass(frozen=True)
class Access:
    """How the driver gets itself let in to a share.

    :ivar grant: makes the access rule; returns the export and the mount
        options. May be called again.
    :ivar revoke: removes the rule; absent is fine.
    """

    grant: Callable[[], tuple[str, str]]
    revoke: Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Leftover:
    """A mount below our base that no process of this host uses.

    :ivar known: the driver has a file about it.
    :ivar own: this very back end has.
    """

    share_id: str
    state: hostlock.State
    known: bool
    own: bool


class Mounts:
    """All mounts of shares below one mount point base.

    :param base: absolute and without symbolic links, since the kernel's
        mount table shows it so.
    :param owner: the name of the back end, for those that share the base.
    :param attempts: how often to try to mount, a second apart.
    :param execute: for tests: what runs the commands, as os-brick's
        ``execute`` does.
    :param mount_table: for tests: mount point to export.
    """

    def __init__(
        self,
        *,
        base: str,
        root_helper: str,
        owner: str = "",
        attempts: int = 3,
        timeout_seconds: float = 60,
        execute: commands.Execute = commands.execute,
        mount_table: Callable[[], dict[str, str]] = mount_table,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base = base
        self.commands = commands.Commands(
            root_helper, timeout_seconds, execute
        )
        self._owner = owner
        self._attempts = attempts
        self._table = mount_table
        self._sleep = sleep
        self._locks = hostlock.HostLocks(
            base, timeout_seconds * (attempts + 2), sleep=sleep
        )

    def path(self, export: str) -> str:
        """The mount point of an export, mounted or not."""
        path: str = self._client("vers=4").get_mount_point(export)
        return path

    def is_mounted(self, export: str) -> bool:
        return self.path(export) in self._table()

    @contextlib.contextmanager
    def mounted(self, share_id: str, access: Access) -> Iterator[str]:
        """Have a share mounted; gives the mount point.

        Unmounts, and removes the access rule, when the last user on this
        host leaves, whether it leaves with an error or not. What somebody
        else had mounted stays mounted.

        :raises MountError: it cannot be mounted.
        :raises ApiError: from ``access``.
        """
        with self._locks.gate(share_id) as gate:
            user = gate.enter()
            try:
                path = self._ensure_mounted(gate, access)
            except BaseException:
                os.close(user)
                with _logged_only(share_id):
                    self._leave(gate, access)
                raise
        try:
            yield path
        except BaseException:
            with _logged_only(share_id):
                self._close(share_id, user, access)
            raise
        self._close(share_id, user, access)

    def hold(self, share_id: str, export: str, holder: str) -> None:
        """Cinder attaches for itself: leave the mount to os-brick."""
        with self._locks.gate(share_id) as gate:
            holders = dict.fromkeys([*gate.state.holders, holder])
            self._note(
                gate,
                export=gate.state.export or export,
                holders=tuple(holders),
            )

    def release(self, share_id: str, export: str, holder: str) -> None:
        """Cinder has detached; unmount unless there are others.

        os-brick's disconnect_volume leaves the mount where it is.
        """
        with self._locks.gate(share_id) as gate:
            self._note(
                gate,
                export=gate.state.export or export,
                holders=tuple(
                    other for other in gate.state.holders if other != holder
                ),
            )
            self._drop(gate)

    def drop_idle(self, share_id: str, export: str) -> None:
        """Unmount a share that nobody uses or holds; cheap if it is not
        mounted. What is busy stays, with a warning."""
        if not self.is_mounted(export):
            return
        with self._locks.gate(share_id) as gate:
            if not gate.state.export:
                self._note(gate, export=export)
            self._drop(gate)

    def leftovers(self) -> list[Leftover]:
        """What no process uses, held or not: of all back ends, and what
        os-brick, or another driver, has mounted without us."""
        known = self._locks.share_ids()
        return [*self._unused(known), *self._foreign(known)]

    def _unused(self, share_ids: Iterable[str]) -> Iterator[Leftover]:
        for share_id in share_ids:
            with self._locks.gate_if_free(share_id) as gate:
                if gate is not None and not gate.in_use():
                    own = gate.state.owner == self._owner
                    yield Leftover(share_id, gate.state, True, own)

    def _foreign(self, known: Iterable[str]) -> Iterator[Leftover]:
        """Only what may be a share: an export that ends in an id."""
        prefix, others = self.base + os.sep, set(known)
        for path, export in self._table().items():
            share_id = export.rpartition("/")[2]
            if (
                path.startswith(prefix)
                and share_id not in others
                and _is_id(share_id)
            ):
                state = hostlock.State(export=export)
                yield Leftover(share_id, state, known=False, own=False)

    def reap(self, leftover: Leftover, revoke: Callable[[], None]) -> bool:
        """Unmount, and take our access to, a leftover; whether it is done.

        Nothing is done if anybody has worked with it in the meantime.
        """
        before = leftover.state if leftover.known else hostlock.State()
        with self._locks.gate_if_free(leftover.share_id) as gate:
            if gate is None or gate.in_use() or gate.state != before:
                return False
            gate.state = dataclasses.replace(leftover.state, holders=())
            if not self._unmount_idle(gate):
                return False
            revoke()
            gate.forget()
            return True

    # -- below, the gate is in hand

    def _ensure_mounted(self, gate: hostlock.Gate, access: Access) -> str:
        export, options = access.grant()
        client = self._client(options)
        path: str = client.get_mount_point(export)
        if path in self._table():
            if self._answers(path):
                self._note(gate, export=export)
                return path
            LOG.warning("The mount %s is stale or dead; mounting anew", path)
            self._unmount_lazily(path)
        # Before the mount: what dies in the middle of it leaves a trace.
        self._note(gate, export=export, ours=True)
        self._mount(client, export, path, access)
        return path

    def _note(self, gate: hostlock.Gate, **changes: Any) -> None:
        gate.state = dataclasses.replace(
            gate.state, owner=self._owner, **changes
        )

    def _mount(
        self, client: _Client, export: str, path: str, access: Access
    ) -> None:
        for attempt in range(1, self._attempts + 1):
            try:
                self._mount_once(client, export, path)
                return
            except (
                brick_exception.BrickException,
                processutils.ProcessExecutionError,
                OSError,
            ) as error:
                self._remove_mount_point(path)
                LOG.warning(
                    "Mounting %(export)s at %(path)s failed, attempt "
                    "%(attempt)s of %(attempts)s: %(error)s",
                    {
                        "export": export,
                        "path": path,
                        "attempt": attempt,
                        "attempts": self._attempts,
                        "error": error,
                    },
                )
                if attempt == self._attempts:
                    raise errors.MountError(
                        f"{export} cannot be mounted: {error}"
                    ) from error
            self._sleep(_RETRY_SECONDS)
            access.grant()

    def _mount_once(self, client: _Client, export: str, path: str) -> None:
        client.mount(export)
        if path not in self._table():
            # What is written there now would stay on this host.
            raise processutils.ProcessExecutionError(
                cmd="mount", stderr="no error, but nothing is mounted"
            )

    def _close(self, share_id: str, user: int, access: Access) -> None:
        with self._locks.gate(share_id) as gate:
            os.close(user)
            self._leave(gate, access)

    def _leave(self, gate: hostlock.Gate, access: Access) -> None:
        """The last one unmounts, and always takes the rule away.

        What is known is forgotten last: the reaper finishes what dies here.
        """
        if gate.in_use():
            return
        try:
            done = self._is_free(gate) or (
                gate.state.ours and self._unmount_idle(gate)
            )
        finally:
            access.revoke()
        if done:
            gate.forget()

    def _drop(self, gate: hostlock.Gate) -> None:
        """Unmount what nobody uses or holds, and forget it."""
        if self._unmount_idle(gate):
            gate.forget()

    def _unmount_idle(self, gate: hostlock.Gate) -> bool:
        """Unmount what nobody uses or holds; whether nothing is left."""
        if gate.state.holders or gate.in_use():
            return False
        export = gate.state.export
        return not export or self._unmount(self.path(export))

    def _is_free(self, gate: hostlock.Gate) -> bool:
        """Whether nothing is mounted, and nobody holds it."""
        export = gate.state.export
        return not gate.state.holders and not (
            export and self.is_mounted(export)
        )

    # -- one mount point

    def _client(self, options: str) -> _Client:
        return _Client(
            "nfs",
            self.commands.root_helper,
            execute=self.commands.for_brick,
            table=self._table,
            nfs_mount_point_base=self.base,
            nfs_mount_options=options,
        )

    def _answers(self, path: str) -> bool:
        """Whether a mount works: ESTALE, ENOTCONN and silence are a no."""
        try:
            self.commands.run(
                "stat", "-c", "%i", path, timeout_seconds=_PROBE_SECONDS
            )
        except processutils.ProcessExecutionError as error:
            LOG.info("No answer from the mount %s: %s", path, error.stderr)
            return False
        return True

    def _unmount(self, path: str) -> bool:
        """Returns whether the mount is gone; a busy one is left alone."""
        if path in self._table():
            try:
                self.commands.run("umount", path, root=True)
            except brick_exception.ExecutionTimeout:
                self._unmount_lazily(path)
            except processutils.ProcessExecutionError as error:
                if path in self._table():
                    LOG.warning(
                        "Leaving %s mounted: %s", path, error.stderr.strip()
                    )
                    return False
        self._remove_mount_point(path)
        return True

    def _unmount_lazily(self, path: str) -> None:
        LOG.warning("Unmounting %s lazily: its server does not answer", path)
        self.commands.run("umount", "-l", path, root=True)

    def _remove_mount_point(self, path: str) -> None:
        """Only ever an empty directory."""
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as error:
            LOG.warning("Leaving the mount point %s: %s", path, error)


@contextlib.contextmanager
def _logged_only(share_id: str) -> Iterator[None]:
    """For cleaning up while another error is on its way to the caller."""
    try:
        yield
    except errors.BELOW:
        LOG.exception("Cleaning up after share %s failed", share_id)


def _is_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
