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

An engine keeps shares and snapshots of one pool. It knows nothing of names,
namespaces or rules: the service keeps those. Every method that changes
something may be called again after it was cut off anywhere, by an error, by
SIGKILL or by a power cut, and then ends in the same state; what it did is
on disk only after :meth:`Engine.sync`.

Ids are lower-case UUIDs; anything else is refused, so that no id can name
a path outside of the pool.
"""

import abc
from collections.abc import Iterable
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
    """The storage failed; the message says at what."""


class Unavailable(EngineError):
    """The pool cannot be used now: not mounted, read-only, I/O errors."""


class NoSpace(EngineError):
    """The pool is full."""


class TooLarge(EngineError):
    """A file cannot be that large on this storage."""


class NotFound(EngineError):
    """The share or snapshot to work on is not there."""


class FileChanged(EngineError):
    """The volume file is gone, or something else has its name.

    Clients cannot do that where the directory is root's, unless the
    operator lets their root act as root (squash none). Snapshots and shares
    of earlier releases may have it from when the directory was theirs.
    """


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """What an engine can do; nobody asks for its class.

    ``volume_file``: makes and grows a volume file inside of a share.
    ``grow_online``: grows it while clients have the share mounted.
    ``hard_limit``: clients cannot take more of the pool than
    :meth:`Engine.set_limit` says.
    ``durable``: shares outlive the process.
    ``snapshot_export``: an exporter can serve snapshots, read-only.
    """

    volume_file: bool = True
    grow_online: bool = True
    hard_limit: bool = False
    durable: bool = True
    snapshot_export: bool = True


@dataclasses.dataclass(frozen=True)
class Usage:
    """A pool's capacity. Used and free need not add up to the total."""

    total_bytes: int
    used_bytes: int
    free_bytes: int


@dataclasses.dataclass(frozen=True)
class Owner:
    """Who owns a volume file, or a directory in which clients make it."""

    uid: int
    gid: int


ROOT = Owner(0, 0)

#: A hard limit leaves room for this many times the size of the share, and
#: for this much more; see :meth:`Engine.set_limit`.
LIMIT_FACTOR = 8
LIMIT_EXTRA_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class VolumeFile:
    """The one file of a share, as it is to be.

    ``mode`` is the permission bits. ``size_bytes`` only ever grows.
    """

    name: str
    size_bytes: int
    allocation: str
    owner: Owner
    mode: int


class Engine(abc.ABC):
    """One pool's storage. Methods are thread-safe for different shares;
    the service never runs two changes of one share at a time.

    Any method may raise :class:`Unavailable` and :class:`EngineError`.
    """

    #: What the API calls it.
    name: ClassVar[str]
    capabilities: Capabilities
    #: What the pool tells of itself, of its shares and of its snapshots.
    metadata: "MetadataStore"

    @abc.abstractmethod
    def check(self) -> list[str]:
        """Why the pool cannot be written, one sentence each; empty: it can.

        Asks the disk, and not only what the kernel remembers of it; so it
        may hang, as changes would, and is never called by who must not wait.
        Must notice that the pool is not mounted: an empty directory where
        shares should be is a reason, not an empty pool.
        """

    @abc.abstractmethod
    def warnings(self) -> list[str]:
        """What an operator should change although the pool works, one
        sentence each. A pool that cannot be looked at has none."""

    @abc.abstractmethod
    def usage(self) -> Usage:
        """The pool's capacity, as of now."""

    @abc.abstractmethod
    def ids(self, kind: Kind) -> set[str]:
        """Everything of that kind the pool holds, known to us or not."""

    @abc.abstractmethod
    def exists(self, reference: Reference) -> bool:
        """Whether the pool holds it, in whatever condition."""

    @abc.abstractmethod
    def directory(self, reference: Reference) -> str:
        """The absolute path that an exporter serves; need not exist."""

    def ensure_reachable(self, kind: Kind) -> None:
        """Let clients pass through the folders above shares, or above
        snapshots, without seeing what else is in them.

        For pools of earlier releases, which kept snapshots to themselves.
        """
        return

    @abc.abstractmethod
    def create_share(self, share_id: str, owner: Owner | None) -> None:
        """Make an empty share, unless it is there.

        :param owner: of its directory, as for :meth:`set_directory`.
        :raises NoSpace: the pool is full.
        """

    @abc.abstractmethod
    def set_directory(self, share_id: str, owner: Owner | None) -> None:
        """Say who may make, rename and remove files in a share.

        Clients that have the share mounted go on: what is open stays open.
        Costs one look where it is so already.

        :param owner: None: only the appliance. The directory is root's,
            mode 0755: clients look files up and list them. Else: its
            owner, mode 0770, for clients that make the volume file.
        :raises NotFound: the share is not there.
        """

    @abc.abstractmethod
    def set_limit(self, share_id: str, size_bytes: int) -> None:
        """Limit what clients can take of the pool through a share from now
        on, if the engine can (capability ``hard_limit``).

        To be called before anything that makes present data stay when it
        is overwritten: a snapshot, a clone of the share; and before the
        share grows. Whoever keeps to ``size_bytes`` shall never meet the
        limit. So it is what the share has taken by now, which may have to
        stay for good, and eight times ``size_bytes``. An extent stays as
        long as any part of it is in use, so what is written anew takes
        more than its size: up to 4.5 times, measured on btrfs by
        overwriting at random places in pieces of 4 KiB to 64 MiB. The
        rest is for what is written until the snapshot is there.

        :raises NotFound: the share is not there.
        """

    @abc.abstractmethod
    def has_limit(self, share_id: str) -> bool:
        """Whether there is a limit, or none can be set."""

    @abc.abstractmethod
    def clone_share(self, source: Reference, share_id: str) -> None:
        """Make a share with the content the source has now, unless it is
        there.

        Takes no longer for more data. Source and clone live on without each
        other. Who owns the clone, and its file, is the source's until
        :meth:`adopt` or :meth:`set_directory`.

        :raises NotFound: the source is not there.
        :raises NoSpace: the pool is full.
        """

    @abc.abstractmethod
    def ensure_file(self, share_id: str, file: VolumeFile) -> None:
        """Make the volume file, or grow it and set its owner and mode.

        :raises FileChanged: something that is no regular file has its name.
        :raises NoSpace: the pool is full. :raises TooLarge: see there.
        """

    @abc.abstractmethod
    def adopt(self, share_id: str, old_name: str, file: VolumeFile) -> None:
        """Turn a clone's file ``old_name`` into ``file``, and make the
        directory root's, as :meth:`set_directory` does.

        :raises FileChanged: neither the old nor the new name is a regular
            file, or both are there. :raises NoSpace, TooLarge: see there.
        """

    @abc.abstractmethod
    def rename_file(self, share_id: str, old: str, new: str) -> None:
        """Rename a volume file; clients that have it open keep it.

        :raises FileChanged: as :meth:`adopt`.
        """

    @abc.abstractmethod
    def grow_file(
        self, share_id: str, name: str, size_bytes: int, allocation: str
    ) -> None:
        """Grow a volume file to a size; one that has it is left alone.

        With allocation ``full`` the space is taken first: where there is
        not enough, the size stays.

        :raises FileChanged: it is gone, or no regular file.
        :raises NoSpace, TooLarge: see there.
        """

    @abc.abstractmethod
    def drop_excess(self, share_id: str, name: str, size_bytes: int) -> None:
        """Undo :meth:`grow_file`: cut the file off at the size it had, and
        give back what is reserved beyond; no matter if the file is gone.

        A file that has data beyond that size keeps its size: somebody has
        written there since.
        """

    @abc.abstractmethod
    def delete_share(self, share_id: str) -> None:
        """Delete a share with all in it, unless it is gone."""

    @abc.abstractmethod
    def create_snapshot(self, share_id: str, snapshot_id: str) -> None:
        """Keep the share's content of now, read-only, unless it is kept.

        :raises NotFound: the share is not there.
        :raises NoSpace: the pool is full.
        """

    @abc.abstractmethod
    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot, unless it is gone; clones of it live on."""

    @abc.abstractmethod
    def used_bytes(self, share_id: str, name: str) -> int | None:
        """What the volume file occupies; None: it cannot be told."""

    @abc.abstractmethod
    def file_size(self, share_id: str, name: str) -> int | None:
        """The volume file's size in bytes; None: it is not there, or is no
        regular file."""

    def file_intact(self, share_id: str, name: str) -> bool:
        """Whether the volume file is there and a regular file."""
        return self.file_size(share_id, name) is not None

    @abc.abstractmethod
    def find_file(self, share_id: str) -> VolumeFile | None:
        """The one regular file of a share of which nobody knows more; None:
        the share has something else in it, or no file, or several.

        :raises NotFound: the share is not there.
        """

    @abc.abstractmethod
    def sync(self) -> None:
        """Return once all that was done before the call is on disk."""


def directory_rights(owner: Owner | None) -> tuple[Owner, int]:
    """Owner and mode of a share's directory, see ``set_directory``."""
    return (ROOT, 0o755) if owner is None else (owner, 0o770)


def limit_for(taken_bytes: int, size_bytes: int) -> int:
    """See :meth:`Engine.set_limit`."""
    return taken_bytes + LIMIT_FACTOR * size_bytes + LIMIT_EXTRA_BYTES


def check_id(value: str) -> str:
    """The id itself. :raises ValueError: it is no lower-case UUID."""
    if not _UUID.fullmatch(value):
        raise ValueError(f"not a lower-case UUID: {value!r}")
    return value


def check_file_name(value: str) -> str:
    """The name itself. :raises ValueError: it is no plain file name."""
    plain = value not in ("", ".", "..") and not set(value) & {"/", "\0"}
    if not plain or len(value.encode()) > 255:
        raise ValueError(f"not a plain file name: {value!r}")
    return value


def well_formed_ids(names: Iterable[str]) -> set[str]:
    """Those of the names that are ids; a pool may hold other things."""
    return {name for name in names if _UUID.fullmatch(name)}
