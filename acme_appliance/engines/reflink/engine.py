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

A pool is as engines.folder has it, with shares and snapshots as directories,
and this beside them, for root alone::

    POOL/staging    copies that are being made
    POOL/trash      what is being deleted
    POOL/synced     an empty file, see filesystem.commit
    POOL/projects   the last project that a share was given

A copy is made of the regular files of a share, one by one, each as it is at
one moment (see host.reflink). The service has one in each share, the volume
file; where clients make files, copies of several are not of the same moment,
and directories and links are left out. A copy is made aside and renamed when
it is whole, and what is deleted is renamed before it is removed: so a share or
snapshot is there with all that is in it, or not at all. Whoever repeats what
was cut off removes what it has left.

On an XFS of the pool's own each share is a project, by which it can have a
hard limit.
"""

import contextlib
import errno
import os
import stat
import threading
from typing import ClassVar
from typing import Final
import uuid

from acme_appliance.engines import base
from acme_appliance.engines import folder
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

    # -- the pool

    def why_unusable(self) -> str | None:
        if not _has_reflinks(self.root):
            return f"{self.root} is on no XFS or btrfs; is the pool mounted?"
        return None

    def why_unlimited(self) -> str | None:
        with folder.opened(self.root) as pool:
            if self._has_projects() and projectquota.is_enforced(pool):
                return None
        return (
            f"{self.root} has no project quotas, and the pool's option quota"
            " is project: that needs an XFS of the pool's own, mounted with"
            " prjquota. To change it, unmount the pool first"
        )

    def _has_projects(self) -> bool:
        """On a file system of others, their projects might be the same."""
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
                    f"{share_id} cannot have a limit: it was made where its"
                    " pool was no XFS of its own"
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
        # XFS takes all that is free before it says that there is not enough,
        # and whoever writes meanwhile has none.
        taken = os.fstat(fd).st_blocks * 512
        if size_bytes - taken > self.usage().free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().reserve(fd, size_bytes)

    def used_bytes(self, share_id: str, name: str) -> int | None:
        found = self.stat_file(share_id, name)
        if found is None:
            return None
        # XFS also counts what it has set aside for writes to come.
        end = -(-found.st_size // _BLOCK_BYTES) * _BLOCK_BYTES
        return min(found.st_blocks * 512, end)

    def copy(self, source: base.Reference, kind: base.Kind, name: str) -> None:
        with (
            self.folder(kind) as target,
            self.folder(source.kind) as sources,
            folder.opened(source.id, sources) as origin,
            self.place(_STAGING) as staging,
        ):
            made = _name_aside(kind, name)
            self._throw_away(staging, made)
            os.mkdir(made, 0o700, dir_fd=staging)
            with folder.opened(made, staging) as copy:
                if kind == base.Kind.SHARE:
                    self._set_project(copy)
                _copy_files(origin, copy)
            os.rename(made, name, src_dir_fd=staging, dst_dir_fd=target)

    def discard(self, kind: base.Kind, name: str) -> None:
        with self.place(_STAGING) as staging, self.folder(kind) as parent:
            self._throw_away(staging, _name_aside(kind, name))
            self._throw_away(parent, name)
        self._empty_trash()

    # -- helpers

    def _throw_away(self, parent: int, name: str) -> None:
        """Have a directory in the trash, unless it is gone."""
        with self.place(_TRASH) as trash:
            with contextlib.suppress(FileNotFoundError):
                os.rename(
                    name,
                    str(uuid.uuid4()),
                    src_dir_fd=parent,
                    dst_dir_fd=trash,
                )

    def _empty_trash(self) -> None:
        """Also of what others have left, who were cut off."""
        with self.place(_TRASH) as trash, self._removing:
            filesystem.empty(trash)

    def _set_project(self, share: int) -> None:
        if self._has_projects() and projectquota.project(share) == 0:
            projectquota.set_project(share, self._next_project())

    def _next_project(self) -> int:
        """One that no share has had. XFS logs what is done in its order, so
        no power cut forgets the number and keeps the share."""
        path = os.path.join(self.root, _PROJECTS)
        with self._numbering:
            number = int(os.getxattr(path, _LAST)) + 1
            os.setxattr(path, _LAST, str(number).encode())
        return number


def prepare(directory: str) -> None:
    """Make a directory a pool; one that is one already stays.

    :raises base.EngineError: its file system has no reflinks, or cannot be
        written.
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
    """Why a pool cannot be made there. :raises OSError: it is not there, or
    cannot be written."""
    if not _has_reflinks(directory):
        return f"{directory} is on no XFS or btrfs"
    if not reflink.is_supported(directory):
        return (
            f"the file system of {directory} has no reflinks: it was made"
            " with reflink=0, which cannot be changed later"
        )
    return None


def _has_reflinks(path: str) -> bool:
    """Of the file systems that can have them: others may not have a change
    on the disk when sync() returns."""
    return filesystem.is_xfs(path) or filesystem.is_btrfs(path)


def _name_aside(kind: base.Kind, name: str) -> str:
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
