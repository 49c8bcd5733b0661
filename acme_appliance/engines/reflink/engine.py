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

"""Shares as directories on XFS or btrfs, copied by reflink.

A pool has the layout of engines.folder: shares and snapshots are directories.
It also has, only for root::

    POOL/staging    incomplete copies
    POOL/trash      directories to remove
    POOL/synced     an empty file, see filesystem.commit
    POOL/projects   the number of the newest project

A copy has the regular files of a share, but no directories and links. Each
file is cloned atomically (see host.reflink), one after the other: several
files, which only clients can create, are not consistent with each other. A
copy is renamed into place when it is complete, and a deleted directory is
renamed before it is removed. So a share or snapshot exists completely or not
at all. A repeated call removes the remains of an interrupted one.

If the pool has an XFS of its own, each share is a project and can have a hard
limit.
"""

import contextlib
import errno
import os
import pathlib
import stat
import threading
from typing import ClassVar
from typing import Final
import uuid

from acme_appliance.engines import base
from acme_appliance.engines import folder
from acme_appliance.engines import staging
from acme_appliance.host import filesystem
from acme_appliance.host import projectquota
from acme_appliance.host import reflink

_STAGING, _TRASH = "staging", "trash"
_SYNCED, _PROJECTS = "synced", "projects"
_BLOCK_BYTES: Final = 4096
_LAST: Final = "user.acme.last"


class ReflinkEngine(folder.FolderEngine):
    name: ClassVar[str] = "reflink"
    further: ClassVar[tuple[str, ...]] = (
        _STAGING,
        _TRASH,
        _SYNCED,
        _PROJECTS,
    )

    def __init__(self, directory: str, *, hard_limit: bool = False) -> None:
        super().__init__(directory, hard_limit=hard_limit)
        self._numbering = threading.Lock()
        self._removing = threading.Lock()
        self._tokens = staging.Tokens()

    # -- the pool

    def why_unusable(self) -> str | None:
        if not _has_reflinks(self.root):
            return f"{self.root} is not on XFS or btrfs; is the pool mounted?"
        return None

    def why_unlimited(self) -> str | None:
        with folder.opened(self.root) as pool:
            if self._has_projects() and projectquota.is_enforced(pool):
                return None
        return (
            f"{self.root} has no project quotas, and the pool's option quota"
            " is project. This needs an XFS only for the pool, mounted with"
            " prjquota; unmount the pool to change that"
        )

    def _has_projects(self) -> bool:
        """Whether to use projects: other users of the file system might use
        the same numbers."""
        return filesystem.is_xfs(self.root) and filesystem.is_mount_point(
            self.root
        )

    def sync(self) -> None:
        path = os.path.join(self.root, _SYNCED)
        with folder.translated(path):
            try:
                filesystem.commit(path)
            except FileNotFoundError as error:
                raise base.Unavailable(f"{path} is missing") from error

    # -- shares

    def make_directory(self, folder_fd: int, name: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder_fd)
        with folder.opened(name, folder_fd) as share:
            self._set_project(share)

    def set_limit(self, share_id: str, size_bytes: int) -> None:
        if not self.capabilities.hard_limit:
            return
        with folder.translated(share_id), self.share(share_id) as share:
            number = projectquota.project(share)
            if number == 0:
                raise base.EngineError(
                    f"{share_id} cannot have a limit: when it was created,"
                    " the pool did not have an XFS of its own"
                )
            taken = projectquota.charged_bytes(share, number)
            limit = base.limit_for(taken, size_bytes)
            projectquota.set_limit(share, number, limit)

    def has_limit(self, share_id: str) -> bool:
        if not self.capabilities.hard_limit:
            return True
        with folder.translated(share_id), self.share(share_id) as share:
            number = projectquota.project(share)
            return number != 0 and projectquota.has_limit(share, number)

    def reserve(self, fd: int, size_bytes: int) -> None:
        # XFS allocates all free space before it fails, and concurrent writes
        # would fail, too.
        taken = os.fstat(fd).st_blocks * 512
        if size_bytes - taken > self.usage().free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().reserve(fd, size_bytes)

    def used_bytes(self, share_id: str, name: str) -> int | None:
        found = self.stat_file(share_id, name)
        if found is None:
            return None
        # XFS also counts its preallocation for future writes.
        end = -(-found.st_size // _BLOCK_BYTES) * _BLOCK_BYTES
        return min(found.st_blocks * 512, end)

    def copy(self, source: base.Reference, kind: base.Kind, name: str) -> None:
        with (
            self.folder(kind) as target,
            self.folder(source.kind) as sources,
            folder.opened(source.id, sources) as origin,
            self.place(_STAGING) as staging,
        ):
            made = _staging_name(kind, name)
            self.move_to_trash(staging, made)
            os.mkdir(made, 0o700, dir_fd=staging)
            with folder.opened(made, staging) as copy:
                if kind == base.Kind.SHARE:
                    self._set_project(copy)
                _copy_files(origin, copy)
            os.rename(made, name, src_dir_fd=staging, dst_dir_fd=target)

    def stage(self, members: base.Members, seconds: float) -> base.Staged:
        staged = _StagedCopies(self, members, self._tokens)
        with folder.translated(staged.token):
            try:
                staged.make()
            except BaseException:
                staged.discard()
                raise
        return staged

    def write_back(self) -> None:
        with folder.translated(self.root):
            filesystem.sync_filesystem(pathlib.Path(self.root))

    def sweep_staged(self) -> None:
        with folder.translated(self.root), self.place(_STAGING) as place:
            for name in self._tokens.abandoned(os.listdir(place)):
                self.move_to_trash(place, name)
            self.empty_trash()

    def discard(self, kind: base.Kind, name: str) -> None:
        with self.place(_STAGING) as staging, self.folder(kind) as parent:
            self.move_to_trash(staging, _staging_name(kind, name))
            self.move_to_trash(parent, name)
        self.empty_trash()

    # -- helpers

    def move_to_trash(self, parent: int, name: str) -> None:
        """Move a directory to the trash, if it exists."""
        with self.place(_TRASH) as trash:
            with contextlib.suppress(FileNotFoundError):
                os.rename(
                    name,
                    str(uuid.uuid4()),
                    src_dir_fd=parent,
                    dst_dir_fd=trash,
                )

    def empty_trash(self) -> None:
        """Also removes the remains of interrupted calls."""
        with self.place(_TRASH) as trash, self._removing:
            filesystem.empty(trash)

    def _set_project(self, share: int) -> None:
        if self._has_projects() and projectquota.project(share) == 0:
            projectquota.set_project(share, self._next_project())

    def _next_project(self) -> int:
        """A number that no share has had. XFS logs changes in their order, so
        a power cut cannot lose the number but keep the share."""
        path = os.path.join(self.root, _PROJECTS)
        with self._numbering:
            number = int(os.getxattr(path, _LAST)) + 1
            os.setxattr(path, _LAST, str(number).encode())
        return number


class _StagedCopies(base.Staged):
    """Copies of shares in the folder of incomplete ones."""

    def __init__(
        self,
        engine: ReflinkEngine,
        members: base.Members,
        tokens: staging.Tokens,
    ) -> None:
        self._engine = engine
        self._members = members
        self._tokens = tokens
        self.token = tokens.begin()

    def make(self) -> None:
        with self._engine.place(_STAGING) as place:
            for share_id, snapshot_id in self._members:
                made = staging.name(self.token, base.check_id(snapshot_id))
                with (
                    folder.translated(share_id),
                    self._engine.share(share_id) as origin,
                ):
                    os.mkdir(made, 0o700, dir_fd=place)
                    with folder.opened(made, place) as copy:
                        _copy_files(origin, copy)

    def publish(self) -> None:
        with (
            folder.translated(self.token),
            self._engine.place(_STAGING) as place,
            self._engine.folder(base.Kind.SNAPSHOT) as target,
        ):
            try:
                for _, snapshot_id in self._members:
                    made = staging.name(self.token, snapshot_id)
                    os.rename(
                        made, snapshot_id, src_dir_fd=place, dst_dir_fd=target
                    )
            except BaseException:
                for _, snapshot_id in self._members:
                    self._engine.move_to_trash(target, snapshot_id)
                self.discard()
                raise
        self._tokens.end(self.token)

    def discard(self) -> None:
        with (
            folder.translated(self.token),
            self._engine.place(_STAGING) as place,
        ):
            for _, snapshot_id in self._members:
                made = staging.name(self.token, snapshot_id)
                self._engine.move_to_trash(place, made)
            # What cannot be removed is left to the next sweep.
            self._tokens.end(self.token)
            self._engine.empty_trash()


def prepare(directory: str) -> None:
    """Turn a directory into a pool, unless it is one.

    :raises base.EngineError: its file system has no reflinks, or is not
        writable.
    """
    with folder.translated(directory):
        wrong = why_unusable(directory)
        if wrong is not None:
            raise base.Unavailable(wrong)
        folder.refuse_others(directory, ReflinkEngine.further)
        for name in (_STAGING, _TRASH):
            folder.make_folder(directory, name)
        for name in (_SYNCED, _PROJECTS):
            path = os.path.join(directory, name)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        projects = os.path.join(directory, _PROJECTS)
        with contextlib.suppress(FileExistsError):
            os.setxattr(projects, _LAST, b"0", os.XATTR_CREATE)
        folder.prepare(directory)
    ReflinkEngine(directory).sync()


def why_unusable(directory: str) -> str | None:
    """Why a directory cannot become a pool; None: it can.

    :raises OSError: it does not exist, or is not writable.
    """
    if not _has_reflinks(directory):
        return f"{directory} is not on XFS or btrfs"
    if not reflink.is_supported(directory):
        return (
            f"the file system of {directory} has no reflinks: it was created"
            " with reflink=0, which cannot be changed"
        )
    return None


def _has_reflinks(path: str) -> bool:
    """Whether it is a supported file system with reflinks: sync() may not put
    changes of others on disk."""
    return filesystem.is_xfs(path) or filesystem.is_btrfs(path)


def _staging_name(kind: base.Kind, name: str) -> str:
    return f"{kind}-{name}"


def _copy_files(origin: int, copy: int) -> None:
    for name in os.listdir(origin):
        with contextlib.suppress(base.FileChanged):
            with folder.regular_file(origin, name, os.O_RDONLY) as source:
                _copy_file(source, copy, name)
    found = os.fstat(origin)
    os.fchown(copy, found.st_uid, found.st_gid)
    os.fchmod(copy, stat.S_IMODE(found.st_mode))


def _copy_file(source: int, copy: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    target = os.open(name, flags, 0o600, dir_fd=copy)
    try:
        reflink.clone(source, target)
        found = os.fstat(source)
        os.fchown(target, found.st_uid, found.st_gid)
        os.fchmod(target, stat.S_IMODE(found.st_mode))
    finally:
        os.close(target)
