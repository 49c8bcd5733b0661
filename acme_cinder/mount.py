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

"""Mounts of shares on this host.

The driver mounts a share only during an operation, with os-brick's client. Its
mount points are in a folder per back end, and are named after the share::

    BASE/.acme/mounts/BACKEND/SHARE    mounted by the driver
    BASE/HASH                          mounted by os-brick, for an attachment

So the mount table shows who must unmount. The driver creates a mount point
before the share's access rule and removes it after the rule: so everything
that a killed service leaves can be found and undone.

os-brick's privileged daemon runs commands as root, the same one that its
connectors mount with. Also umount, instead of ``cinder.privsep.fs.umount``,
which has no time limit: each unmount that hangs on a dead server would block
one of the few threads of Cinder's daemon forever. os-brick's daemon kills the
command; then ``umount -l`` detaches the mount without waiting for a server. No
data is lost: everything that the driver writes is flushed when the file is
closed.

Do not call stat(2) on a mount point here: it hangs if the server is dead.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import pathlib
import re
import time
from typing import Any
import urllib.parse

from os_brick import exception as brick_exception
from os_brick.remotefs import remotefs
from oslo_concurrency import processutils
from oslo_log import log as logging

from acme_cinder import commands
from acme_cinder import errors
from acme_cinder import hostlock
from acme_cinder import identity
import acme_client

LOG = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
#: Limit for checking an existing mount.
_PROBE_SECONDS = 10.0
#: How long an attachment waits for another process to (un)mount its share. It
#: must end before Cinder's RPC time-out.
_ATTACH_SECONDS = 20.0
#: Maximum fraction of a limit for mounting, to leave time to unmount.
_SHARE_OF_MOUNTING = 0.7
_FOLDER = ".acme"
_MOUNT_TABLE = pathlib.Path("/proc/self/mounts")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_REFUSED = re.compile("Stale file handle|Permission denied")


def mount_table() -> dict[str, str]:
    """The kernel's mount table, mount point to source (proc(5)).

    os-brick runs mount(8) for this. Names can have any encoding; lines end
    only with a newline, which the kernel escapes in names.
    """
    lines = os.fsdecode(_MOUNT_TABLE.read_bytes()).rstrip("\n").split("\n")
    fields = (line.split(" ") for line in lines)
    return {_unescaped(field[1]): _unescaped(field[0]) for field in fields}


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


class _Client(remotefs.RemoteFsClient):
    """os-brick's client, for one mount point and with this mount table."""

    def __init__(
        self,
        *args: Any,
        mount_point: str,
        table: Callable[[], dict[str, str]],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._mount_point = mount_point
        self._table = table

    def get_mount_point(self, device_name: str) -> str:
        return self._mount_point

    def _read_mounts(self) -> dict[str, str]:
        return self._table()


@dataclasses.dataclass(frozen=True)
class Access:
    """How the driver grants itself access to a share.

    :ivar grant: creates the access rule; returns the export and the mount
        options. Idempotent.
    :ivar revoke: removes the rule, if it exists.
    """

    grant: Callable[[], tuple[str, str]]
    revoke: Callable[[], None]


@dataclasses.dataclass(frozen=True, order=True)
class Attached:
    """A mount by os-brick or others.

    :ivar export: its source, which ends in the share's id.
    """

    share_id: str
    export: str


class Mounts:
    """All mounts of shares below a mount point base.

    :param base: absolute and without symbolic links, as in the kernel's
        mount table.
    :param backend: the name of the back end: several can share a base.
    :param attempts: how often to try to mount, a second apart.
    :param execute: for tests: replaces os-brick's ``execute``.
    :param mount_table: for tests: mount point to export.
    """

    def __init__(
        self,
        *,
        base: str,
        root_helper: str,
        backend: str = "default",
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
        self._folder = os.path.join(
            base, _FOLDER, "mounts", urllib.parse.quote(backend, safe="")
        )
        self._attempts = attempts
        self._table = mount_table
        self._sleep = sleep
        self._locks = hostlock.HostLocks(
            os.path.join(base, _FOLDER, "locks"),
            timeout_seconds * (attempts + 2),
            sleep=sleep,
        )

    # -- the driver's own mounts

    def path(self, share_id: str) -> str:
        """The driver's mount point of a share, mounted or not."""
        return os.path.join(self._folder, share_id)

    @contextlib.contextmanager
    def mounted(self, share_id: str, access: Access) -> Iterator[str]:
        """Mount a share during the block; yield the mount point.

        The last user on this host unmounts and removes the access rule, also
        after errors. Failures of this are logged, because the operation itself
        is done; :meth:`reap` finishes the rest.

        :raises MountError: it cannot be mounted.
        :raises ApiError: from ``access``.
        """
        user = self._enter(share_id, access)
        try:
            yield self.path(share_id)
        finally:
            os.close(user)
            self._leave(share_id, access)

    def _enter(self, share_id: str, access: Access) -> int:
        with self._locks.changing(share_id):
            user = self._locks.use(share_id)
            try:
                with acme_client.limited_to_share(_SHARE_OF_MOUNTING):
                    self._ensure_mounted(share_id, access)
            except BaseException:
                os.close(user)
                with _logged_only(share_id):
                    self._undo_if_unused(share_id, access.revoke)
                raise
        return user

    def _leave(self, share_id: str, access: Access) -> None:
        with _logged_only(share_id), self._locks.changing(share_id):
            self._undo_if_unused(share_id, access.revoke)

    def leftovers(self) -> list[str]:
        """The shares with mount points of this back end, including those in
        use."""
        try:
            return sorted(filter(identity.is_id, os.listdir(self._folder)))
        except FileNotFoundError:
            return []

    def reap(self, share_id: str, revoke: Callable[[], None]) -> bool:
        """Undo an unused mount of the driver; return whether it is undone.

        Does not wait for a process that uses it.
        """
        with self._locks.changing_if_free(share_id) as free:
            return free and self._undo_if_unused(share_id, revoke)

    # -- work that nobody can tell by a mount

    @contextlib.contextmanager
    def at_work(self, name: str) -> Iterator[None]:
        """Let all processes of this host know, until this one is done or
        dead."""
        with self._locks.changing(name):
            user = self._locks.use(name)
        try:
            yield
        finally:
            os.close(user)

    @contextlib.contextmanager
    def idle(self, name: str) -> Iterator[bool]:
        """Whether no process on this host is at work; none can begin
        meanwhile."""
        with self._locks.changing_if_free(name) as free:
            yield free and not self._locks.in_use(name)

    def _undo_if_unused(
        self, share_id: str, revoke: Callable[[], None]
    ) -> bool:
        """Unmount and revoke; the caller holds the lock.

        Removes the rule even if unmounting fails. Removes the mount point
        last, because it shows that there is something to undo.
        """
        if self._locks.in_use(share_id):
            return False
        path = self.path(share_id)
        try:
            unmounted = self._unmount(path)
        finally:
            revoke()
        return unmounted and self._remove_mount_point(path)

    def _ensure_mounted(self, share_id: str, access: Access) -> None:
        path = self.path(share_id)
        os.makedirs(self._folder, 0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        export, options = access.grant()
        if self._table().get(path) == export and self._answers(path):
            return
        if path in self._table():
            LOG.warning("The mount %s is stale or dead; mounting anew", path)
            self._unmount_lazily(path)
        self._mount(path, export, options, access)

    def _mount(
        self, path: str, export: str, options: str, access: Access
    ) -> None:
        brick = _Client(
            "nfs",
            self.commands.root_helper,
            execute=self.commands.for_brick,
            mount_point=path,
            table=self._table,
            nfs_mount_point_base=self.base,
            nfs_mount_options=options,
        )
        for attempt in range(1, self._attempts + 1):
            try:
                self._mount_once(brick, export, path)
                return
            except (
                brick_exception.BrickException,
                processutils.ProcessExecutionError,
                OSError,
            ) as error:
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
                if attempt == self._attempts or not acme_client.at_most(1):
                    raise errors.MountError(
                        f"{export} cannot be mounted: {error}"
                    ) from error
            self._sleep(_RETRY_SECONDS)
            access.grant()

    def _mount_once(self, brick: _Client, export: str, path: str) -> None:
        brick.mount(export)
        if path not in self._table():
            # Later writes would go to this host's disk.
            raise processutils.ProcessExecutionError(
                cmd="mount", stderr="no error, but nothing is mounted"
            )

    # -- the mounts of attachments, which os-brick makes

    def attached_path(self, export: str) -> str:
        """The path where os-brick mounts an export."""
        brick = remotefs.RemoteFsClient(
            "nfs", self.commands.root_helper, nfs_mount_point_base=self.base
        )
        path: str = brick.get_mount_point(export)
        return path

    def is_attached(self, export: str) -> bool:
        return self.attached_path(export) in self._table()

    def attached(self) -> list[Attached]:
        """All mounts directly below the base whose export ends in an id, and
        so may be a share, of anybody."""
        return sorted(
            Attached(share_id, export)
            for path, export in self._table().items()
            if os.path.dirname(path) == self.base
            and identity.is_id(share_id := export.rpartition("/")[2])
        )

    def changing(
        self, share_id: str
    ) -> contextlib.AbstractContextManager[None]:
        """Prevent others on this host from mounting or unmounting the share.

        :raises MountError: another process holds the lock for too long.
        """
        return self._locks.changing(share_id, _ATTACH_SECONDS)

    def detach(self, share_id: str, export: str) -> bool:
        """Unmount an attachment, which os-brick does not do.

        The caller knows that it is not needed. Never raises, so that later
        steps run. Returns whether it is unmounted. Failures are logged, and
        the cleanup retries.
        """
        with _logged_only(share_id), self.changing(share_id):
            return self.detach_locked(export)
        return False

    def detach_locked(self, export: str) -> bool:
        """Like :meth:`detach`, if the caller holds :meth:`changing`."""
        path = self.attached_path(export)
        return self._unmount(path) and self._remove_mount_point(path)

    def is_refused(self, export: str) -> bool:
        """Whether the server refuses an attached export to this host.

        nfsd answers ESTALE or EACCES if an export does not exist. No answer
        proves nothing: the server may be down.
        """
        try:
            self._probe(self.attached_path(export))
        except processutils.ProcessExecutionError as error:
            return bool(_REFUSED.search(str(error.stderr)))
        return False

    # -- one mount point

    def _answers(self, path: str) -> bool:
        """Whether a mount works: not with ESTALE, ENOTCONN, or no answer."""
        try:
            self._probe(path)
        except processutils.ProcessExecutionError as error:
            LOG.info("No answer from the mount %s: %s", path, error.stderr)
            return False
        return True

    def _probe(self, path: str) -> None:
        # statfs(2) asks the server; stat(2) may answer from a cache.
        self.commands.run(
            "env",
            "LC_ALL=C",
            "stat",
            "--file-system",
            "--format=%t",
            path,
            timeout_seconds=_PROBE_SECONDS,
        )

    def _unmount(self, path: str) -> bool:
        """Return whether it is unmounted; a busy mount stays."""
        if path not in self._table():
            return True
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
        return True

    def _unmount_lazily(self, path: str) -> None:
        LOG.warning("Unmounting %s lazily: its server does not answer", path)
        self.commands.run("umount", "-l", path, root=True)

    def _remove_mount_point(self, path: str) -> bool:
        """Only an empty directory."""
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError as error:
            LOG.warning("Leaving the mount point %s: %s", path, error)
            return False
        return True


@contextlib.contextmanager
def _logged_only(share_id: str) -> Iterator[None]:
    """For cleanup: the periodic cleanup retries."""
    try:
        yield
    except errors.BELOW:
        LOG.exception("Cleaning up after share %s failed", share_id)
