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
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import signal
import time
from typing import Any

from os_brick import exception as brick_exception
from os_brick.privileged import rootwrap as brick_rootwrap
from os_brick.remotefs import remotefs
from oslo_concurrency import processutils
from oslo_log import log as logging

from acme_cinder import errors
from acme_cinder import hostlock

LOG = logging.getLogger(__name__)

Execute = Callable[..., tuple[str, str]]
_RETRY_SECONDS = 1.0
#: Asking after a mount that is there already must not take long.
_PROBE_SECONDS = 10.0


class Commands:
    """Runs commands with a time limit, as the service's user or as root.

    A command can be killed even while it waits for a dead NFS server; a
    system call made by the service itself would stop a whole eventlet
    process. os-brick's executor works under eventlet and native threads.

    :raises ProcessExecutionError: it failed, or took too long (then
        :class:`os_brick.exception.ExecutionTimeout`).
    """

    def __init__(
        self,
        root_helper: str,
        timeout_seconds: float,
        execute: Execute | None = None,
    ) -> None:
        self.root_helper = root_helper
        self.timeout_seconds = timeout_seconds
        self._execute = execute or brick_rootwrap.execute

    def run(
        self,
        *command: str,
        root: bool = False,
        timeout_seconds: float | None = None,
    ) -> str:
        """Returns what it printed."""
        out, _ = self._execute(
            *command,
            run_as_root=root,
            root_helper=self.root_helper,
            timeout=timeout_seconds or self.timeout_seconds,
            signal=int(signal.SIGKILL),
        )
        return out if isinstance(out, str) else out.decode()

    def for_brick(self, *command: str, **options: Any) -> tuple[str, str]:
        """What os-brick's mount client runs its commands with."""
        if command[0] == "mkdir":
            # A process for a mkdir, for every single mount, is too much.
            os.makedirs(command[-1], exist_ok=True)
            return "", ""
        options.setdefault("timeout", self.timeout_seconds)
        options.setdefault("signal", int(signal.SIGKILL))
        return self._execute(*command, **options)


class _Client(remotefs.RemoteFsClient):
    """os-brick's, with the mount table as a parameter."""

    def __init__(
        self,
        *args: Any,
        table: Callable[[], dict[str, str]] | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._table = table

    def _read_mounts(self) -> dict[str, str]:
        if self._table is not None:
            return self._table()
        mounts: dict[str, str] = super()._read_mounts()
        return mounts


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

    :ivar known: there is a file of the driver about it.
    """

    share_id: str
    state: hostlock.State
    known: bool = True

    @classmethod
    def unknown(cls, share_id: str, export: str) -> "Leftover":
        return cls(share_id, hostlock.State(export=export), known=False)


class Mounts:
    """All mounts of shares below one mount point base.

    :param base: absolute and without symbolic links, since the kernel's
        mount table shows it so.
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
        attempts: int = 3,
        timeout_seconds: float = 60,
        execute: Execute | None = None,
        mount_table: Callable[[], dict[str, str]] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base = base
        self.commands = Commands(root_helper, timeout_seconds, execute)
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
        return self.path(export) in self._mounts()

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
            gate.state = dataclasses.replace(
                gate.state,
                export=gate.state.export or export,
                holders=tuple(holders),
            )

    def release(self, share_id: str, export: str, holder: str) -> None:
        """Cinder has detached; unmount unless there are others.

        os-brick's disconnect_volume leaves the mount where it is.
        """
        with self._locks.gate(share_id) as gate:
            gate.state = dataclasses.replace(
                gate.state,
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
                gate.state = dataclasses.replace(gate.state, export=export)
            self._drop(gate)

    def leftovers(self) -> list[Leftover]:
        """What no process uses, held or not; found by the files of the
        driver, so that other drivers' mounts are never among them."""
        found = []
        for share_id in self._locks.share_ids():
            with self._locks.gate(share_id) as gate:
                if not gate.in_use():
                    found.append(Leftover(share_id, gate.state))
        return found

    def foreign(self) -> dict[str, str]:
        """Mounts below the base that the driver has no file about, by
        export; they may be os-brick's, or another driver's."""
        known = {
            self.path(leftover.state.export)
            for leftover in self.leftovers()
            if leftover.state.export
        }
        prefix = self.base + os.sep
        return {
            export: path
            for path, export in self._mounts().items()
            if path.startswith(prefix) and path not in known
        }

    def reap(self, leftover: Leftover) -> None:
        """Unmount and forget a leftover, unless somebody uses it by now."""
        with self._locks.gate(leftover.share_id) as gate:
            if gate.in_use() or (
                leftover.known and gate.state != leftover.state
            ):
                return
            gate.state = dataclasses.replace(leftover.state, holders=())
            self._drop(gate)

    # -- below, the gate is in hand

    def _ensure_mounted(self, gate: hostlock.Gate, access: Access) -> str:
        export, options = access.grant()
        client = self._client(options)
        path: str = client.get_mount_point(export)
        if path in self._mounts():
            if self._answers(path):
                gate.state = dataclasses.replace(gate.state, export=export)
                return path
            LOG.warning("The mount %s is stale or dead; mounting anew", path)
            self._unmount_lazily(path)
        self._mount(client, export, path, access)
        gate.state = dataclasses.replace(gate.state, export=export, ours=True)
        return path

    def _mount(
        self, client: _Client, export: str, path: str, access: Access
    ) -> None:
        for attempt in range(1, self._attempts + 1):
            try:
                client.mount(export)
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

    def _close(self, share_id: str, user: int, access: Access) -> None:
        with self._locks.gate(share_id) as gate:
            os.close(user)
            self._leave(gate, access)

    def _leave(self, gate: hostlock.Gate, access: Access) -> None:
        """The last one unmounts, and always takes the rule away."""
        if gate.in_use():
            return
        try:
            if gate.state.ours:
                self._drop(gate)
            else:
                self._forget_if_empty(gate)
        finally:
            access.revoke()

    def _drop(self, gate: hostlock.Gate) -> None:
        """Unmount what nobody uses or holds, and forget it."""
        if gate.state.holders or gate.in_use():
            return
        export = gate.state.export
        if not export or self._unmount(self.path(export)):
            gate.forget()

    def _forget_if_empty(self, gate: hostlock.Gate) -> None:
        state = gate.state
        if not state.holders and not (
            state.export and self.is_mounted(state.export)
        ):
            gate.forget()

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

    def _mounts(self) -> dict[str, str]:
        return self._client("vers=4")._read_mounts()

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
        if path in self._mounts():
            try:
                self.commands.run("umount", path, root=True)
            except brick_exception.ExecutionTimeout:
                self._unmount_lazily(path)
            except processutils.ProcessExecutionError as error:
                if path in self._mounts():
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
