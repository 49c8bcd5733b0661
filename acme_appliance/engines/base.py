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

"""The interface of a storage engine.

An engine stores the shares and snapshots of one pool. It does not know names,
namespaces or rules: the service does. Every method that changes something is
idempotent: after an interruption anywhere, by an error, SIGKILL or a power
cut, call it again to reach the same state. Changes are on disk only after
:meth:`Engine.sync`.

Ids must be lower-case UUIDs, so that no id is a path outside of the pool.
"""

import abc
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import re
from typing import ClassVar
from typing import TYPE_CHECKING

from acme_appliance.references import Kind as Kind
from acme_appliance.references import Reference as Reference

if TYPE_CHECKING:
    from acme_appliance.engines.metadata import MetadataStore

ALLOCATION_SPARSE = "sparse"
ALLOCATION_FULL = "full"

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class EngineError(Exception):
    """The storage failed; the message has the object and the reason."""


class Unavailable(EngineError):
    """The pool cannot be used now: not mounted, read-only, I/O errors."""


class NoSpace(EngineError):
    """The pool is full."""


class TooLarge(EngineError):
    """The file is too large for this storage."""


class NotFound(EngineError):
    """The share or snapshot does not exist."""


class FileChanged(EngineError):
    """The volume file is missing, or is not a regular file.

    In a directory that root owns, clients can cause this only with the option
    squash = none. In earlier releases clients owned the directory.
    """


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """What an engine can do.

    ``volume_file``: creates and grows a volume file in a share.
    ``grow_online``: grows it while clients have the share mounted.
    ``revert``: reverts a volume file in place to a snapshot.
    ``copy_file``: reads and writes volume files, so that shares can be moved
    to and from other pools.
    ``hard_limit``: clients cannot use more of the pool than
    :meth:`Engine.set_limit` allows.
    ``durable``: shares outlive the process.
    ``snapshot_export``: an exporter can serve snapshots, read-only.
    ``qos_bandwidth``, ``qos_iops``: holds clients to these members of
    :class:`Qos`.
    """

    volume_file: bool = True
    grow_online: bool = True
    revert: bool = True
    copy_file: bool = False
    hard_limit: bool = False
    durable: bool = True
    snapshot_export: bool = True
    qos_bandwidth: bool = False
    qos_iops: bool = False


@dataclasses.dataclass(frozen=True)
class Usage:
    """A pool's capacity. Used and free may not add up to the total."""

    total_bytes: int
    used_bytes: int
    free_bytes: int


@dataclasses.dataclass(frozen=True)
class Owner:
    """The owner of a volume file, or of a directory where clients create
    it."""

    uid: int
    gid: int


ROOT = Owner(0, 0)

#: A hard limit allows this many times the size of the share, plus the extra
#: bytes; see :meth:`Engine.set_limit`.
LIMIT_FACTOR = 8
LIMIT_EXTRA_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Qos:
    """Limits of all clients of a share together; None: unlimited."""

    max_read_bytes_per_second: int | None = None
    max_write_bytes_per_second: int | None = None
    max_iops: int | None = None


@dataclasses.dataclass(frozen=True)
class VolumeFile:
    """The desired volume file of a share.

    ``mode`` has the permission bits. ``size_bytes`` never shrinks.
    """

    name: str
    size_bytes: int
    allocation: str
    owner: Owner
    mode: int


#: Pairs of a share and the snapshot to make of it: ``(share_id,
#: snapshot_id)``, as :meth:`Engine.create_snapshot` takes them.
Members = Sequence[tuple[str, str]]


class Staged(abc.ABC):
    """Complete snapshots of several shares, made by one call, which are not
    visible yet. Call exactly one of the two methods, once.

    ``pause_seconds``: how long the shares' clients may have waited for it.
    """

    pause_seconds: float = 0.0

    @abc.abstractmethod
    def publish(self) -> None:
        """Give all snapshots their ids.

        :raises EngineError: this fails; then none of them exists.
        """

    @abc.abstractmethod
    def discard(self) -> None:
        """Remove all of them."""


class OpenFile(abc.ABC):
    """A volume file that is being copied; offsets and lengths are in bytes.

    Methods raise :class:`EngineError`.
    """

    #: When it was opened.
    size_bytes: int

    @abc.abstractmethod
    def extents(self) -> Iterator[tuple[int, int]]:
        """Offset and length of each part that has data, in order. The rest
        reads as zeros."""

    @abc.abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """At least one byte, unless the file ends at the offset."""

    @abc.abstractmethod
    def write(self, offset: int, data: bytes) -> None:
        """Write all of it. :raises NoSpace: the pool is full."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Put what was written on disk."""


class Engine(abc.ABC):
    """One pool's storage. Methods are thread-safe for different shares;
    the service never runs two changes of one share concurrently.

    All methods can raise :class:`Unavailable` and :class:`EngineError`.
    """

    #: Its name in the API.
    name: ClassVar[str]
    capabilities: Capabilities
    #: Metadata of the pool, its shares and its snapshots.
    metadata: "MetadataStore"

    @abc.abstractmethod
    def check(self) -> list[str]:
        """Why the pool is not writable, one sentence per reason; empty: it
        is.

        Accesses the disk, not only the kernel's cache. So it can hang, as
        changes would: do not call it in a thread that must not wait. Must
        detect that the pool is not mounted: an empty directory is a reason,
        not an empty pool.
        """

    @abc.abstractmethod
    def warnings(self) -> list[str]:
        """What the operator should improve although the pool works, one
        sentence each. Empty if the pool cannot be inspected."""

    @abc.abstractmethod
    def usage(self) -> Usage:
        """The pool's current capacity."""

    @abc.abstractmethod
    def ids(self, kind: Kind) -> set[str]:
        """The ids of all objects of a kind, also of unknown ones."""

    @abc.abstractmethod
    def exists(self, reference: Reference) -> bool:
        """Whether it exists, in any condition."""

    @abc.abstractmethod
    def directory(self, reference: Reference) -> str:
        """The absolute path for the exporter; it may not exist."""

    def ensure_reachable(self, kind: Kind) -> None:
        """Let clients traverse the folder of the shares or snapshots, without
        listing it.

        For pools of earlier releases, which did not export snapshots.
        """
        return

    @abc.abstractmethod
    def create_share(self, share_id: str, owner: Owner | None) -> None:
        """Create an empty share, unless it exists.

        :param owner: of its directory, see :meth:`set_directory`.
        :raises NoSpace: the pool is full.
        """

    @abc.abstractmethod
    def set_directory(self, share_id: str, owner: Owner | None) -> None:
        """Set who can create, rename and remove files in a share.

        Does not disturb clients: open files stay open. Cheap if nothing
        changes.

        :param owner: None: only the appliance can. Root owns the directory,
            mode 0755, so that clients can look up and list files. Otherwise
            the owner of the directory, mode 0770, for clients that create the
            volume file.
        :raises NotFound: the share does not exist.
        """

    @abc.abstractmethod
    def set_limit(self, share_id: str, size_bytes: int) -> None:
        """Limit the space that a share can use from now on, if the engine
        can (capability ``hard_limit``).

        Call it before the share grows, and before a snapshot or clone of it:
        these keep the present data when it is overwritten. A client that
        stays within ``size_bytes`` must never reach the limit. So the limit
        is the space that the share uses now, plus eight times ``size_bytes``.
        An extent stays as long as any part of it is used, so new data takes
        more than its size: up to 4.5 times, measured on btrfs with random
        overwrites of 4 KiB to 64 MiB. The rest is for data that is written
        until the snapshot exists.

        :raises NotFound: the share does not exist.
        """

    @abc.abstractmethod
    def has_limit(self, share_id: str) -> bool:
        """Whether the share has a limit; True if the engine has none."""

    def set_qos(self, share_id: str, qos: Qos) -> None:
        """Limit a share, or lift its limits; idempotent.

        Called only for members that the capabilities have. A new share and a
        clone have no limits.

        :raises NotFound: there is no such share.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def clone_share(self, source: Reference, share_id: str) -> None:
        """Create a share with the source's current content, unless it exists.

        Takes constant time. Source and clone are independent. The clone and
        its file have the source's owner until :meth:`adopt` or
        :meth:`set_directory`.

        :raises NotFound: the source does not exist.
        :raises NoSpace: the pool is full.
        """

    @abc.abstractmethod
    def ensure_file(self, share_id: str, file: VolumeFile) -> None:
        """Create the volume file, or grow it and set its owner and mode.

        :raises FileChanged: it exists and is not a regular file.
        :raises NoSpace, TooLarge: see these classes.
        """

    @abc.abstractmethod
    def adopt(self, share_id: str, old_name: str, file: VolumeFile) -> None:
        """Turn a clone's file ``old_name`` into ``file``, and make root own
        the directory, see :meth:`set_directory`.

        :raises FileChanged: neither the old nor the new name is a regular
            file, or both exist.
        :raises NoSpace, TooLarge: see these classes.
        """

    @abc.abstractmethod
    def rename_file(self, share_id: str, old: str, new: str) -> None:
        """Rename a volume file; it stays open in clients.

        :raises FileChanged: see :meth:`adopt`.
        """

    @abc.abstractmethod
    def grow_file(
        self, share_id: str, name: str, size_bytes: int, allocation: str
    ) -> None:
        """Grow a volume file to a size, unless it is as large.

        With allocation ``full`` the space is reserved first: if there is not
        enough, the size does not change.

        :raises FileChanged: it is missing, or not a regular file.
        :raises NoSpace, TooLarge: see these classes.
        """

    @abc.abstractmethod
    def drop_excess(self, share_id: str, name: str, size_bytes: int) -> None:
        """Undo :meth:`grow_file`: truncate the file to its old size, and
        release space that is reserved beyond it. Does nothing if the file is
        missing.

        A file with data beyond that size keeps its size, because a client has
        written there since.
        """

    @abc.abstractmethod
    def revert_file(
        self,
        share_id: str,
        file: VolumeFile,
        snapshot_id: str,
        snapshot_file: str,
    ) -> None:
        """Revert a volume file to its content in a snapshot, and shape it
        like ``file``; a larger size is filled with zeros.

        In place: clients that have the file open keep it. So this is not
        atomic: until it succeeds, the file may have old and new content. The
        caller keeps the old content in a snapshot until the new content is on
        disk, and gives nobody access meanwhile. Then it may call this again,
        with either snapshot.

        :param snapshot_file: the file's name in the snapshot.
        :raises FileChanged: one of the two is gone, or no regular file;
            nothing was changed.
        :raises NotFound: the share or the snapshot is not there.
        :raises NoSpace: the pool is full.
        """

    def open_file(
        self, share_id: str, name: str, *, write: bool = False
    ) -> contextlib.AbstractContextManager[OpenFile]:
        """Open a volume file, to copy it to or from another pool.

        Called only with the capability ``copy_file``, and while no client has
        access.

        :raises NotFound: the share does not exist.
        :raises FileChanged: the file is missing, or not a regular file.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def delete_share(self, share_id: str) -> None:
        """Delete a share with its content, if it exists."""

    @abc.abstractmethod
    def create_snapshot(self, share_id: str, snapshot_id: str) -> None:
        """Snapshot the share's current content, read-only, unless it exists.

        :raises NotFound: the share does not exist.
        :raises NoSpace: the pool is full.
        """

    @abc.abstractmethod
    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot, if it exists; its clones stay."""

    def stage_at_once(self, members: Members, seconds: float) -> Staged | None:
        """Snapshot several shares at one moment, if the engine can do this
        without the exporter's help.

        One moment: a write that was acknowledged before another one was sent
        is in its snapshot if the other one is in its snapshot. Everything
        that was acknowledged before the call is in.

        :param seconds: begin no further attempt after this time.
        :return: None: the engine cannot, or did not in this time; nothing
            was made.
        :raises NotFound: a share does not exist.
        :raises NoSpace: the pool is full.
        """
        return None

    def stage(self, members: Members, seconds: float) -> Staged:
        """Snapshot several shares as fast as possible, while the exporter
        holds back its replies. After an error nothing is left.

        :param seconds: later the snapshots are useless; may stop then.
        :raises NotFound: a share does not exist.
        :raises NoSpace: the pool is full.
        """
        staged = NamedSnapshots(self, members)
        staged.create()
        return staged

    def write_back(self) -> None:
        """Write the data that clients wrote so far, so that snapshots after
        it are fast."""
        return

    def sweep_staged(self) -> None:
        """Remove what killed processes staged; leaves alone what this
        process is staging."""
        return

    @abc.abstractmethod
    def used_bytes(self, share_id: str, name: str) -> int | None:
        """The space that the volume file occupies; None: unknown."""

    @abc.abstractmethod
    def file_size(self, share_id: str, name: str) -> int | None:
        """The volume file's size in bytes; None: it is missing, or not a
        regular file."""

    def file_intact(self, share_id: str, name: str) -> bool:
        """Whether the volume file exists and is a regular file."""
        return self.file_size(share_id, name) is not None

    @abc.abstractmethod
    def find_file(self, share_id: str) -> VolumeFile | None:
        """Find the volume file of an unknown share: the only entry, and a
        regular file. None: there is no such file.

        :raises NotFound: the share does not exist.
        """

    @abc.abstractmethod
    def sync(self) -> None:
        """Return when all changes before the call are on disk."""


class NamedSnapshots(Staged):
    """Snapshots that have their ids from the beginning: for engines where
    nobody sees a snapshot before the service knows it."""

    def __init__(self, engine: Engine, members: Members) -> None:
        self._engine = engine
        self._members = members

    def create(self) -> None:
        try:
            for share_id, snapshot_id in self._members:
                self._engine.create_snapshot(share_id, snapshot_id)
        except BaseException:
            self.discard()
            raise

    def publish(self) -> None:
        return

    def discard(self) -> None:
        for _, snapshot_id in self._members:
            self._engine.delete_snapshot(snapshot_id)


def directory_rights(owner: Owner | None) -> tuple[Owner, int]:
    """Owner and mode of a share's directory, see
    :meth:`Engine.set_directory`."""
    return (ROOT, 0o755) if owner is None else (owner, 0o770)


def limit_for(taken_bytes: int, size_bytes: int) -> int:
    """See :meth:`Engine.set_limit`."""
    return taken_bytes + LIMIT_FACTOR * size_bytes + LIMIT_EXTRA_BYTES


def check_id(value: str) -> str:
    """Return the id. :raises ValueError: it is not a lower-case UUID."""
    if not _UUID.fullmatch(value):
        raise ValueError(f"not a lower-case UUID: {value!r}")
    return value


def check_file_name(value: str) -> str:
    """Return the name. :raises ValueError: it is not a plain file name."""
    plain = value not in ("", ".", "..") and not set(value) & {"/", "\0"}
    if not plain or len(value.encode()) > 255:
        raise ValueError(f"not a plain file name: {value!r}")
    return value


def well_formed_ids(names: Iterable[str]) -> set[str]:
    """The names that are ids; a pool may contain other files."""
    return {name for name in names if _UUID.fullmatch(name)}
