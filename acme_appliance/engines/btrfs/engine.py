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

"""Shares as btrfs subvolumes.

A pool has the layout of engines.folder: shares are subvolumes, snapshots are
read-only ones. It also has::

    POOL/commit         an empty subvolume, see btrfsutil.commit
    POOL/moments        unfinished snapshots, see engines.btrfs.together

Creating, cloning and deleting a subvolume take a few milliseconds, whatever
its size, and clones are independent. Simple quotas give shares a hard limit;
quota groups would slow down every write.
"""

from collections.abc import Iterator
import contextlib
import pathlib
import threading
import time
from typing import ClassVar
from typing import Final

from acme_appliance.engines import base
from acme_appliance.engines import folder
from acme_appliance.engines import staging
from acme_appliance.engines.btrfs import together
from acme_appliance.host import btrfsquota
from acme_appliance.host import btrfsutil
from acme_appliance.host import filesystem

_COMMIT = "commit"

#: Attempts to make snapshots in one transaction; measured: at most 7.
_ATTEMPTS: Final = 10


class BtrfsEngine(folder.FolderEngine):
    name: ClassVar[str] = "btrfs"
    further: ClassVar[tuple[str, ...]] = (_COMMIT,)

    def __init__(self, directory: str, *, hard_limit: bool = False) -> None:
        super().__init__(directory, hard_limit=hard_limit)
        self._committing = threading.Lock()
        self._tokens = staging.Tokens()
        #: Two sets at a time would disturb each other.
        self._staging = threading.Lock()
        #: Fewer when they have all failed, as always before Linux 6.12.
        self._attempts = _ATTEMPTS

    def why_unusable(self) -> str | None:
        missing = btrfsutil.available()
        if missing is None and not filesystem.is_btrfs(self.root):
            return f"{self.root} is not on btrfs; is the pool mounted?"
        return missing

    def why_unlimited(self) -> str | None:
        with folder.opened(self.root) as pool:
            if btrfsquota.is_enabled(pool):
                return None
        return (
            f"{self.root} has no simple quotas, and the pool's option quota"
            f" is simple: {btrfsquota.advice()}"
        )

    def make_directory(self, folder_fd: int, name: str) -> None:
        with contextlib.suppress(FileExistsError):
            btrfsutil.create_subvolume(folder_fd, name)
        with folder.opened(name, folder_fd) as share:
            if not btrfsutil.is_subvolume(share):
                raise base.EngineError(f"{name} is not a subvolume")

    def set_limit(self, share_id: str, size_bytes: int) -> None:
        with folder.translated(share_id), self.share(share_id) as share:
            if self.capabilities.hard_limit:
                taken = btrfsquota.charged_bytes(share)
                limit = base.limit_for(taken, size_bytes)
                btrfsquota.set_limit(share, limit)

    def has_limit(self, share_id: str) -> bool:
        if not self.capabilities.hard_limit:
            return True
        with folder.translated(share_id), self.share(share_id) as share:
            return btrfsquota.has_limit(share)

    def copy(self, source: base.Reference, kind: base.Kind, name: str) -> None:
        with (
            self.folder(kind) as target,
            self.folder(source.kind) as sources,
            folder.opened(source.id, sources) as origin,
        ):
            btrfsutil.create_snapshot(
                origin, target, name, read_only=kind == base.Kind.SNAPSHOT
            )

    def stage_at_once(
        self, members: base.Members, seconds: float
    ) -> base.Staged | None:
        end = time.monotonic() + seconds
        with self._new_staged(members) as (staged, lure):
            for number in range(self._attempts):
                if number and time.monotonic() > end:
                    break
                staged.make(lure)
                if staged.is_one_transaction():
                    self._attempts = _ATTEMPTS
                    return staged
                staged.unmake()
            self._attempts = 1
            staged.discard()
        return None

    def stage(self, members: base.Members, seconds: float) -> base.Staged:
        with self._new_staged(members) as (staged, _):
            staged.make()
        return staged

    @contextlib.contextmanager
    def _new_staged(
        self, members: base.Members
    ) -> Iterator[tuple[together.StagedSubvolumes, int]]:
        """With empty directories, discarded after an error; and a subvolume
        that nobody writes to."""
        with self.place(_COMMIT) as lure, self._staging:
            token = self._tokens.begin()
            staged = together.StagedSubvolumes(
                self, members, token, self._tokens.end
            )
            with folder.translated(token):
                try:
                    together.sweep(self, self._tokens)
                    staged.prepare()
                    yield staged, lure
                except BaseException:
                    staged.discard()
                    raise

    def write_back(self) -> None:
        with folder.translated(self.root):
            filesystem.sync_filesystem(pathlib.Path(self.root))

    def sweep_staged(self) -> None:
        with folder.translated(self.root):
            together.sweep(self, self._tokens)

    def discard(self, kind: base.Kind, name: str) -> None:
        with self.folder(kind) as parent:
            if folder.find(parent, name) is not None:
                btrfsutil.delete_subvolume(parent, name)

    def sync(self) -> None:
        with (
            folder.translated(self.root),
            self._committing,
            self.place(_COMMIT) as commit,
        ):
            btrfsutil.commit(commit)


def prepare(directory: str) -> None:
    """Turn a directory on btrfs into a pool, unless it is one.

    :raises base.EngineError: it is not on btrfs, not writable, or a pool of
        another engine.
    """
    with folder.translated(directory):
        if not filesystem.is_btrfs(directory):
            raise base.Unavailable(f"{directory} is not on btrfs")
        folder.refuse_others(directory, BtrfsEngine.further)
        with folder.opened(directory) as fd:
            with contextlib.suppress(FileExistsError):
                btrfsutil.create_subvolume(fd, _COMMIT)
        folder.prepare(directory)
    BtrfsEngine(directory).sync()


def enable_simple_quotas(directory: str) -> None:
    """Enable them on a pool's file system, unless they are enabled.

    :raises base.EngineError: it is not mounted, the kernel does not support
        them, or the file system has quota groups.
    """
    with folder.translated(directory), folder.opened(directory) as pool:
        # The mount point of an unmounted pool is on another file system.
        if folder.find(pool, _COMMIT) is None:
            raise base.Unavailable("there is no pool; is it mounted?")
        btrfsquota.enable(pool)
