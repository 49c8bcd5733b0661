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

"""Base class of engines whose shares are directories of a file system.

A pool is a directory::

    POOL/shares/ID      a share
    POOL/snapshots/ID   a snapshot
    POOL/metadata       metadata of both, see engines.metadata
    POOL/probe          a small file, read to check that the disk answers

If the appliance creates the volume file, root owns the share's directory, and
clients can only write that file. If clients create it, they own the directory,
and can put anything there; snapshots may have it, too. So nothing in a share
is followed or opened before it is known to be a regular file: every path is
opened step by step from the pool, without symbolic links, and a file is first
opened with O_PATH, which reads no device and waits for no pipe.
"""

import abc
from collections.abc import Iterator
import contextlib
import errno
import os
import stat
import time
from typing import ClassVar

from acme_appliance.engines import base
from acme_appliance.engines import diskfile
from acme_appliance.engines import metadata
from acme_appliance.host import filesystem
from acme_appliance.host import reflink

_FOLDERS = {base.Kind.SHARE: "shares", base.Kind.SNAPSHOT: "snapshots"}
#: An NFSv4 client traverses the folder to its share, as nobody. It must not be
#: able to list it.
_FOLDER_MODE = 0o711
_PROBE = "probe"
_TOUCH_SECONDS = 1.0
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class FolderEngine(base.Engine):
    """:param directory: the prepared pool.
    :param hard_limit: limit shares; needs quotas in the file system.
    """

    #: Further names that a pool of this engine must contain.
    further: ClassVar[tuple[str, ...]]

    def __init__(self, directory: str, *, hard_limit: bool = False) -> None:
        self.capabilities = base.Capabilities(
            copy_file=True, hard_limit=hard_limit
        )
        self.root = os.path.realpath(directory)
        self.metadata = metadata.FolderStore(self.root)
        #: When the disk last answered, by the monotonic clock.
        self._touched = float("-inf")

    # -- implemented by each engine; these methods can raise OSError

    @abc.abstractmethod
    def why_unusable(self) -> str | None:
        """Why the file system cannot be used; None: it can."""

    @abc.abstractmethod
    def why_unlimited(self) -> str | None:
        """Why shares cannot have a hard limit; None: they can."""

    @abc.abstractmethod
    def make_directory(self, folder: int, name: str) -> None:
        """Create a share's directory, or complete an existing one.

        :param folder: descriptor of the parent directory.
        """

    @abc.abstractmethod
    def copy(self, source: base.Reference, kind: base.Kind, name: str) -> None:
        """Create a share or snapshot with the source's current content."""

    def reserve(self, fd: int, size_bytes: int) -> None:
        """Reserve the space for a file's first bytes."""
        filesystem.reserve(fd, size_bytes)

    @abc.abstractmethod
    def discard(self, kind: base.Kind, name: str) -> None:
        """Delete a share or snapshot, if it exists."""

    # -- the pool

    def check(self) -> list[str]:
        try:
            wrong = self.why_unusable()
            if wrong is not None:
                return [wrong]
            if filesystem.is_read_only(self.root):
                return [
                    f"{self.root} is read-only: it is mounted read-only, or"
                    " missing in ReadWritePaths= of the systemd unit"
                ]
            for name in (*_FOLDERS.values(), *self.further):
                os.stat(os.path.join(self.root, name))
            self._touch_disk()
            if self.capabilities.hard_limit:
                wrong = self.why_unlimited()
        except OSError as error:
            return [f"{error.filename or self.root}: {error.strerror}"]
        return [wrong] if wrong else []

    def _touch_disk(self) -> None:
        """Hang if the disk, or a frozen file system, would hang a change.
        The kernel answers all other checks from memory.

        Reads the disk, so at most once a second.
        """
        now = time.monotonic()
        if now - self._touched < _TOUCH_SECONDS:
            return
        filesystem.touch_disk(os.path.join(self.root, _PROBE))
        self._touched = now

    def warnings(self) -> list[str]:
        try:
            missing = filesystem.missing_mount_options(self.root)
        except OSError:
            # check() reports the reason.
            return []
        if not missing:
            return []
        return [
            f"the file system of {self.root} is mounted without"
            f" {','.join(missing)}, but clients can write any content there."
            " Add these options to the mount"
        ]

    def usage(self) -> base.Usage:
        with translated(self.root):
            return base.Usage(*filesystem.usage(self.root))

    def ids(self, kind: base.Kind) -> set[str]:
        with translated(self.root), self.folder(kind) as folder:
            return base.well_formed_ids(os.listdir(folder))

    def exists(self, reference: base.Reference) -> bool:
        name = base.check_id(reference.id)
        with translated(name), self.folder(reference.kind) as folder:
            return find(folder, name) is not None

    def directory(self, reference: base.Reference) -> str:
        folder = _FOLDERS[reference.kind]
        return os.path.join(self.root, folder, base.check_id(reference.id))

    def ensure_reachable(self, kind: base.Kind) -> None:
        with translated(self.root), self.folder(kind) as folder:
            if stat.S_IMODE(os.fstat(folder).st_mode) != _FOLDER_MODE:
                os.fchmod(folder, _FOLDER_MODE)

    # -- shares

    def create_share(self, share_id: str, owner: base.Owner | None) -> None:
        base.check_id(share_id)
        with translated(share_id), self.folder(base.Kind.SHARE) as folder:
            self.make_directory(folder, share_id)
            with opened(share_id, folder) as share:
                _set_directory(share, owner)

    def set_directory(self, share_id: str, owner: base.Owner | None) -> None:
        path = self._path(share_id)
        with translated(share_id):
            # Runs for every share at each start: usually one system call.
            found = os.stat(path, follow_symlinks=False)
            if not _has_rights(found, owner):
                with self.share(share_id) as share:
                    _set_directory(share, owner)

    def clone_share(self, source: base.Reference, share_id: str) -> None:
        self._copy(source, base.Kind.SHARE, share_id)

    def ensure_file(self, share_id: str, file: base.VolumeFile) -> None:
        base.check_file_name(file.name)
        with translated(share_id), self.share(share_id) as share:
            with contextlib.suppress(FileExistsError):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                os.close(os.open(file.name, flags, 0o600, dir_fd=share))
            with opened_file(share, file.name) as fd:
                self._shape(fd, file)

    def adopt(
        self, share_id: str, old_name: str, file: base.VolumeFile
    ) -> None:
        with translated(share_id), self.share(share_id) as share:
            _rename(share, old_name, file.name)
            with opened_file(share, file.name) as fd:
                self._shape(fd, file)
            _set_directory(share, None)

    def rename_file(self, share_id: str, old: str, new: str) -> None:
        with translated(share_id), self.share(share_id) as share:
            _rename(share, old, new)

    def grow_file(
        self, share_id: str, name: str, size_bytes: int, allocation: str
    ) -> None:
        with (
            translated(share_id),
            self.share(share_id) as share,
            opened_file(share, name) as fd,
        ):
            if os.fstat(fd).st_size < size_bytes:
                self._grow(fd, size_bytes, allocation)

    def drop_excess(self, share_id: str, name: str, size_bytes: int) -> None:
        with translated(share_id), self.share(share_id) as share:
            try:
                with opened_file(share, name) as fd:
                    end = os.fstat(fd).st_size
                    if not filesystem.has_data_beyond(fd, size_bytes):
                        end = min(end, size_bytes)
                    # Also releases reserved space beyond the end.
                    os.ftruncate(fd, end)
            except base.FileChanged:
                return

    def revert_file(
        self,
        share_id: str,
        file: base.VolumeFile,
        snapshot_id: str,
        snapshot_file: str,
    ) -> None:
        base.check_id(snapshot_id)
        base.check_file_name(snapshot_file)
        with (
            translated(share_id),
            self.share(share_id) as share,
            self.folder(base.Kind.SNAPSHOT) as snapshots,
            opened(snapshot_id, snapshots) as snapshot,
            regular_file(snapshot, snapshot_file, os.O_RDONLY) as source,
            opened_file(share, file.name) as target,
        ):
            # Nothing of the old content may stay beyond the new.
            os.ftruncate(target, os.fstat(source).st_size)
            reflink.clone(source, target)
            self._shape(target, file)

    @contextlib.contextmanager
    def open_file(
        self, share_id: str, name: str, *, write: bool = False
    ) -> Iterator[diskfile.DiskFile]:
        flags = os.O_RDWR if write else os.O_RDONLY
        with contextlib.ExitStack() as stack:
            with translated(share_id):
                share = stack.enter_context(self.share(share_id))
                base.check_file_name(name)
                fd = stack.enter_context(regular_file(share, name, flags))
                found = diskfile.DiskFile(
                    fd, lambda: translated(f"{self.root}: {share_id}")
                )
            yield found

    def delete_share(self, share_id: str) -> None:
        self._delete(base.Kind.SHARE, share_id)

    def create_snapshot(self, share_id: str, snapshot_id: str) -> None:
        source = base.Reference(base.Kind.SHARE, share_id)
        self._copy(source, base.Kind.SNAPSHOT, snapshot_id)

    def delete_snapshot(self, snapshot_id: str) -> None:
        self._delete(base.Kind.SNAPSHOT, snapshot_id)

    def used_bytes(self, share_id: str, name: str) -> int | None:
        found = self.stat_file(share_id, name)
        return None if found is None else found.st_blocks * 512

    def file_size(self, share_id: str, name: str) -> int | None:
        found = self.stat_file(share_id, name)
        return None if found is None else found.st_size

    def find_file(self, share_id: str) -> base.VolumeFile | None:
        with translated(share_id), self.share(share_id) as share:
            names = os.listdir(share)
            found = find(share, names[0]) if len(names) == 1 else None
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        return base.VolumeFile(
            name=names[0],
            size_bytes=found.st_size,
            allocation=base.ALLOCATION_SPARSE,
            owner=base.Owner(found.st_uid, found.st_gid),
            mode=stat.S_IMODE(found.st_mode),
        )

    # -- helpers

    def _path(self, share_id: str) -> str:
        return self.directory(base.Reference(base.Kind.SHARE, share_id))

    def folder(
        self, kind: base.Kind
    ) -> contextlib.AbstractContextManager[int]:
        return self.place(_FOLDERS[kind])

    @contextlib.contextmanager
    def place(self, name: str) -> Iterator[int]:
        """Open a directory of the pool.

        :raises base.Unavailable: it is missing, as in an unmounted pool.
        """
        path = os.path.join(self.root, name)
        try:
            fd = os.open(path, DIRECTORY)
        except OSError as error:
            raise base.Unavailable(f"{path}: {error.strerror}") from error
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def share(self, share_id: str) -> Iterator[int]:
        base.check_id(share_id)
        with (
            self.folder(base.Kind.SHARE) as folder,
            opened(share_id, folder) as share,
        ):
            yield share

    def _copy(
        self, source: base.Reference, kind: base.Kind, name: str
    ) -> None:
        base.check_id(source.id)
        base.check_id(name)
        with translated(name):
            if not self.exists(base.Reference(kind, name)):
                self.copy(source, kind, name)

    def _delete(self, kind: base.Kind, name: str) -> None:
        base.check_id(name)
        with translated(name):
            self.discard(kind, name)

    def _shape(self, fd: int, file: base.VolumeFile) -> None:
        self._grow(fd, file.size_bytes, file.allocation)
        os.fchown(fd, file.owner.uid, file.owner.gid)
        os.fchmod(fd, file.mode)

    def _grow(self, fd: int, size_bytes: int, allocation: str) -> None:
        if allocation == base.ALLOCATION_FULL:
            self.reserve(fd, size_bytes)
        if os.fstat(fd).st_size < size_bytes:
            os.ftruncate(fd, size_bytes)

    def stat_file(self, share_id: str, name: str) -> os.stat_result | None:
        # One system call, because a start checks every share. Clients control
        # only the last part of the path, which is not followed.
        path = os.path.join(self._path(share_id), base.check_file_name(name))
        with translated(share_id):
            try:
                found = os.stat(path, follow_symlinks=False)
            except FileNotFoundError:
                with self.folder(base.Kind.SHARE):
                    return None
        return found if stat.S_ISREG(found.st_mode) else None


def refuse_others(directory: str, further: tuple[str, ...]) -> None:
    """:param further: see :class:`FolderEngine`.
    :raises base.Unavailable: the directory is a pool of another engine.
    """
    if os.path.exists(os.path.join(directory, _FOLDERS[base.Kind.SHARE])):
        for name in further:
            if not os.path.exists(os.path.join(directory, name)):
                raise base.Unavailable(
                    f"{directory} is a pool of another engine: it has no"
                    f" {name}"
                )


def prepare(directory: str) -> None:
    """Create the missing folders of a pool.

    An engine must do this last, see :func:`refuse_others`.
    """
    for name in _FOLDERS.values():
        make_folder(directory, name, _FOLDER_MODE)
    metadata.FolderStore(directory).prepare()


def make_folder(directory: str, name: str, mode: int = 0o700) -> None:
    """Create a folder of a pool, unless it exists."""
    path = os.path.join(directory, name)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    with opened(path) as fd:
        os.fchmod(fd, mode)


def find(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def opened(name: str, folder: int | None = None) -> Iterator[int]:
    """Open a directory, not through a symbolic link."""
    fd = os.open(name, DIRECTORY, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


def opened_file(
    share: int, name: str
) -> contextlib.AbstractContextManager[int]:
    """Open the volume file of a share for writing.

    :raises base.FileChanged: it is missing, or not a regular file.
    """
    return regular_file(share, base.check_file_name(name), os.O_RDWR)


@contextlib.contextmanager
def regular_file(share: int, name: str, flags: int) -> Iterator[int]:
    """Open a file of a directory.

    :raises base.FileChanged: it is missing, or not a regular file.
    """
    try:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=share)
    except FileNotFoundError:
        raise base.FileChanged(f"volume file {name!r} is missing") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise base.FileChanged(f"{name!r} is not a regular file")
        # Open the inode that was checked, not another one of that name.
        fd = os.open(f"/proc/self/fd/{handle}", flags)
    finally:
        os.close(handle)
    try:
        yield fd
    finally:
        os.close(fd)


def _set_directory(fd: int, owner: base.Owner | None) -> None:
    wanted, mode = base.directory_rights(owner)
    os.fchown(fd, wanted.uid, wanted.gid)
    # Also restricts an access control list to the mode.
    os.fchmod(fd, mode)


def _has_rights(found: os.stat_result, owner: base.Owner | None) -> bool:
    wanted, mode = base.directory_rights(owner)
    return (found.st_uid, found.st_gid, found.st_mode) == (
        wanted.uid,
        wanted.gid,
        stat.S_IFDIR | mode,
    )


def _rename(share: int, old: str, new: str) -> None:
    base.check_file_name(old)
    base.check_file_name(new)
    before, after = find(share, old), find(share, new)
    if old == new or (before is None and after is not None):
        before, old = after, new
    if before is None:
        raise base.FileChanged(f"volume file {old!r} is missing")
    if not stat.S_ISREG(before.st_mode):
        raise base.FileChanged(f"{old!r} is not a regular file")
    if old != new:
        try:
            filesystem.rename_exclusive(share, old, new)
        except FileExistsError:
            raise base.FileChanged(f"{new!r} already exists") from None
        except FileNotFoundError:
            raise base.FileChanged(f"volume file {old!r} is missing") from None


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Convert operating system errors to engine errors."""
    try:
        yield
    except OSError as error:
        text = f"{what}: {error.strerror}"
        if filesystem.is_no_space(error):
            raise base.NoSpace(text) from error
        if error.errno == errno.EFBIG:
            raise base.TooLarge(text) from error
        if error.errno == errno.ENOENT:
            raise base.NotFound(text) from error
        if error.errno in (errno.EIO, errno.EROFS, errno.ESTALE):
            raise base.Unavailable(text) from error
        raise base.EngineError(text) from error
