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

A pool is a directory on btrfs::

    POOL/shares/ID      a share, a subvolume
    POOL/snapshots/ID   a snapshot, a read-only subvolume
    POOL/metadata       what the service knows of both, see engines.metadata
    POOL/commit         an empty subvolume, see btrfsutil.commit
    POOL/probe          a small file, read to see whether the disk answers

Making, cloning and deleting a subvolume take the same few milliseconds
whatever is in it, and none depends on another afterwards. Quota groups slow
down every write, simple quotas do not: with these a share has a hard limit.

Where the appliance makes the volume file, the share's directory is root's,
and clients write that file only. Where clients make it, the directory is
theirs; and snapshots may hold what was in one of theirs. So nothing in a share
is followed or opened before it is known to be a regular file: every path is
opened step by step from the pool, without symbolic links, and a file is first
opened with O_PATH, which reads no device and waits for no pipe.
"""

from collections.abc import Iterator
import contextlib
import errno
import os
import stat
import threading
import time
from typing import ClassVar

from acme_appliance.engines import base
from acme_appliance.engines import metadata
from acme_appliance.host import btrfsquota
from acme_appliance.host import btrfsutil
from acme_appliance.host import filesystem

_FOLDERS = {base.Kind.SHARE: "shares", base.Kind.SNAPSHOT: "snapshots"}
#: An NFSv4 client walks to its share through the folder, as nobody: it may
#: pass, and not look around.
_FOLDER_MODE = 0o711
_COMMIT = "commit"
_PROBE = "probe"
_TOUCH_SECONDS = 1.0
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class BtrfsEngine(base.Engine):
    """:param directory: the pool, prepared by :func:`prepare`.
    :param simple_quotas: limit shares; the file system must have them on.
    """

    name: ClassVar[str] = "btrfs"

    def __init__(self, directory: str, *, simple_quotas: bool = False) -> None:
        self.capabilities = base.Capabilities(hard_limit=simple_quotas)
        self.root = os.path.realpath(directory)
        self.metadata = metadata.FolderStore(self.root)
        self._committing = threading.Lock()
        #: When the disk last answered, by the monotonic clock.
        self._touched = float("-inf")

    def check(self) -> list[str]:
        missing = btrfsutil.available()
        if missing is not None:
            return [missing]
        try:
            if not filesystem.is_btrfs(self.root):
                return [f"{self.root} is not on btrfs; is the pool mounted?"]
            if filesystem.is_read_only(self.root):
                return [
                    f"{self.root} is read-only: so it is mounted, or the"
                    " unit's ReadWritePaths= lacks it"
                ]
            for folder in (*_FOLDERS.values(), _COMMIT):
                os.stat(os.path.join(self.root, folder))
            self._touch_disk()
            if self.capabilities.hard_limit and not self._is_quota_on():
                return [
                    f"{self.root} has no simple quotas, and the pool's option"
                    f" quota is simple: {btrfsquota.advice()}"
                ]
        except OSError as error:
            return [f"{error.filename or self.root}: {error.strerror}"]
        return []

    def _touch_disk(self) -> None:
        """Hangs where the disk, or a frozen file system, would hang a
        change: all else that is asked here the kernel has in memory.

        Once a second at most: it is a read of the disk.
        """
        now = time.monotonic()
        if now - self._touched < _TOUCH_SECONDS:
            return
        filesystem.touch_disk(os.path.join(self.root, _PROBE))
        self._touched = now

    def _is_quota_on(self) -> bool:
        with _opened(self.root) as pool:
            return btrfsquota.is_enabled(pool)

    def warnings(self) -> list[str]:
        try:
            missing = filesystem.missing_mount_options(self.root)
        except OSError:
            # Why it cannot be looked at is what check() says.
            return []
        if not missing:
            return []
        return [
            f"the file system of {self.root} is mounted without"
            f" {','.join(missing)}: clients write what they like there."
            " Add these options to the mount"
        ]

    def usage(self) -> base.Usage:
        with _translated(self.root):
            return base.Usage(*filesystem.usage(self.root))

    def ids(self, kind: base.Kind) -> set[str]:
        with _translated(self.root), self._folder(kind) as folder:
            return base.well_formed_ids(os.listdir(folder))

    def exists(self, reference: base.Reference) -> bool:
        name = base.check_id(reference.id)
        with _translated(name), self._folder(reference.kind) as folder:
            return _find(folder, name) is not None

    def directory(self, reference: base.Reference) -> str:
        folder = _FOLDERS[reference.kind]
        return os.path.join(self.root, folder, base.check_id(reference.id))

    def ensure_reachable(self, kind: base.Kind) -> None:
        with _translated(self.root), self._folder(kind) as folder:
            if stat.S_IMODE(os.fstat(folder).st_mode) != _FOLDER_MODE:
                os.fchmod(folder, _FOLDER_MODE)

    def _path(self, share_id: str) -> str:
        return self.directory(base.Reference(base.Kind.SHARE, share_id))

    def create_share(self, share_id: str, owner: base.Owner | None) -> None:
        base.check_id(share_id)
        with _translated(share_id), self._folder(base.Kind.SHARE) as folder:
            with contextlib.suppress(FileExistsError):
                btrfsutil.create_subvolume(folder, share_id)
            with _opened(share_id, folder) as share:
                _check_subvolume(share, share_id)
                _set_directory(share, owner)

    def set_directory(self, share_id: str, owner: base.Owner | None) -> None:
        path = self._path(share_id)
        with _translated(share_id):
            # Asked of every share at each start: one call for most.
            found = os.stat(path, follow_symlinks=False)
            if not _has_rights(found, owner):
                with self._share(share_id) as share:
                    _set_directory(share, owner)

    def set_limit(self, share_id: str, size_bytes: int) -> None:
        with _translated(share_id), self._share(share_id) as share:
            if self.capabilities.hard_limit:
                taken = btrfsquota.charged_bytes(share)
                limit = base.limit_for(taken, size_bytes)
                btrfsquota.set_limit(share, limit)

    def has_limit(self, share_id: str) -> bool:
        if not self.capabilities.hard_limit:
            return True
        with _translated(share_id), self._share(share_id) as share:
            return btrfsquota.has_limit(share)

    def clone_share(self, source: base.Reference, share_id: str) -> None:
        self._snapshot(source, base.Kind.SHARE, share_id)

    def ensure_file(self, share_id: str, file: base.VolumeFile) -> None:
        base.check_file_name(file.name)
        with _translated(share_id), self._share(share_id) as share:
            with contextlib.suppress(FileExistsError):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                os.close(os.open(file.name, flags, 0o600, dir_fd=share))
            with _opened_file(share, file.name) as fd:
                _shape(fd, file)

    def adopt(
        self, share_id: str, old_name: str, file: base.VolumeFile
    ) -> None:
        with _translated(share_id), self._share(share_id) as share:
            _rename(share, old_name, file.name)
            with _opened_file(share, file.name) as fd:
                _shape(fd, file)
            _set_directory(share, None)

    def rename_file(self, share_id: str, old: str, new: str) -> None:
        with _translated(share_id), self._share(share_id) as share:
            _rename(share, old, new)

    def grow_file(
        self, share_id: str, name: str, size_bytes: int, allocation: str
    ) -> None:
        with (
            _translated(share_id),
            self._share(share_id) as share,
            _opened_file(share, name) as fd,
        ):
            if os.fstat(fd).st_size < size_bytes:
                _grow(fd, size_bytes, allocation)

    def drop_excess(self, share_id: str, name: str, size_bytes: int) -> None:
        with _translated(share_id), self._share(share_id) as share:
            try:
                with _opened_file(share, name) as fd:
                    end = os.fstat(fd).st_size
                    if not filesystem.has_data_beyond(fd, size_bytes):
                        end = min(end, size_bytes)
                    # Also frees what is reserved beyond the end.
                    os.ftruncate(fd, end)
            except base.FileChanged:
                return

    def delete_share(self, share_id: str) -> None:
        self._delete(base.Kind.SHARE, share_id)

    def create_snapshot(self, share_id: str, snapshot_id: str) -> None:
        source = base.Reference(base.Kind.SHARE, share_id)
        self._snapshot(source, base.Kind.SNAPSHOT, snapshot_id)

    def delete_snapshot(self, snapshot_id: str) -> None:
        self._delete(base.Kind.SNAPSHOT, snapshot_id)

    def used_bytes(self, share_id: str, name: str) -> int | None:
        found = self._stat(share_id, name)
        return None if found is None else found.st_blocks * 512

    def file_size(self, share_id: str, name: str) -> int | None:
        found = self._stat(share_id, name)
        return None if found is None else found.st_size

    def find_file(self, share_id: str) -> base.VolumeFile | None:
        with _translated(share_id), self._share(share_id) as share:
            names = os.listdir(share)
            found = _find(share, names[0]) if len(names) == 1 else None
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        return base.VolumeFile(
            name=names[0],
            size_bytes=found.st_size,
            allocation=base.ALLOCATION_SPARSE,
            owner=base.Owner(found.st_uid, found.st_gid),
            mode=stat.S_IMODE(found.st_mode),
        )

    def sync(self) -> None:
        path = os.path.join(self.root, _COMMIT)
        with _translated(path), self._committing:
            try:
                fd = os.open(path, _DIRECTORY)
            except FileNotFoundError as error:
                raise base.Unavailable(f"{path} is missing") from error
            try:
                btrfsutil.commit(fd)
            finally:
                os.close(fd)

    # -- helpers

    @contextlib.contextmanager
    def _folder(self, kind: base.Kind) -> Iterator[int]:
        path = os.path.join(self.root, _FOLDERS[kind])
        try:
            fd = os.open(path, _DIRECTORY)
        except OSError as error:
            raise base.Unavailable(f"{path}: {error.strerror}") from error
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _share(self, share_id: str) -> Iterator[int]:
        base.check_id(share_id)
        with (
            self._folder(base.Kind.SHARE) as folder,
            _opened(share_id, folder) as share,
        ):
            yield share

    def _snapshot(
        self, source: base.Reference, kind: base.Kind, name: str
    ) -> None:
        base.check_id(source.id)
        base.check_id(name)
        with (
            _translated(name),
            self._folder(kind) as target,
            self._folder(source.kind) as folder,
        ):
            if _find(target, name) is not None:
                return
            with _opened(source.id, folder) as origin:
                btrfsutil.create_snapshot(
                    origin,
                    target,
                    name,
                    read_only=kind == base.Kind.SNAPSHOT,
                )

    def _delete(self, kind: base.Kind, name: str) -> None:
        base.check_id(name)
        with _translated(name), self._folder(kind) as folder:
            if _find(folder, name) is not None:
                btrfsutil.delete_subvolume(folder, name)

    def _stat(self, share_id: str, name: str) -> os.stat_result | None:
        # One call, as a start looks at every share. Only the last part of
        # the path is a client's to name, and that is not followed.
        path = os.path.join(self._path(share_id), base.check_file_name(name))
        with _translated(share_id):
            try:
                found = os.stat(path, follow_symlinks=False)
            except FileNotFoundError:
                with self._folder(base.Kind.SHARE):
                    return None
        return found if stat.S_ISREG(found.st_mode) else None


def prepare(directory: str) -> None:
    """Make a directory on btrfs a pool; one that is one already stays.

    :raises base.Unavailable: it is not on btrfs, or cannot be written.
    """
    with _translated(directory):
        if not filesystem.is_btrfs(directory):
            raise base.Unavailable(f"{directory} is not on btrfs")
        for folder in _FOLDERS.values():
            path = os.path.join(directory, folder)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, _FOLDER_MODE)
            with _opened(path) as fd:
                os.fchmod(fd, _FOLDER_MODE)
        with _opened(directory) as fd:
            with contextlib.suppress(FileExistsError):
                btrfsutil.create_subvolume(fd, _COMMIT)
    engine = BtrfsEngine(directory)
    engine.metadata.prepare()
    engine.sync()


def enable_simple_quotas(directory: str) -> None:
    """Switch them on for a pool's file system, unless they are.

    :raises base.EngineError: it is not mounted, the kernel has none, or the
        file system has quotas of the other kind.
    """
    with _translated(directory), _opened(directory) as pool:
        # Below a pool that is not mounted is a file system of others.
        if _find(pool, _COMMIT) is None:
            raise base.Unavailable("no pool is there; is it mounted?")
        btrfsquota.enable(pool)


def _find(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _opened(name: str, folder: int | None = None) -> Iterator[int]:
    """An open directory, never through a symbolic link."""
    fd = os.open(name, _DIRECTORY, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened_file(share: int, name: str) -> Iterator[int]:
    """A regular file of a share, open for writing.

    :raises base.FileChanged: it is something else, or not there.
    """
    base.check_file_name(name)
    try:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=share)
    except FileNotFoundError:
        raise base.FileChanged(f"the volume file {name!r} is gone") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise base.FileChanged(f"{name!r} is no regular file")
        # Opens the very inode that was looked at, whatever has its name.
        fd = os.open(f"/proc/self/fd/{handle}", os.O_RDWR)
    finally:
        os.close(handle)
    try:
        yield fd
    finally:
        os.close(fd)


def _check_subvolume(fd: int, name: str) -> None:
    if not btrfsutil.is_subvolume(fd):
        raise base.EngineError(f"{name} is no subvolume")


def _set_directory(fd: int, owner: base.Owner | None) -> None:
    wanted, mode = base.directory_rights(owner)
    os.fchown(fd, wanted.uid, wanted.gid)
    # Also takes from an access list what the mode does not allow.
    os.fchmod(fd, mode)


def _has_rights(found: os.stat_result, owner: base.Owner | None) -> bool:
    wanted, mode = base.directory_rights(owner)
    return (found.st_uid, found.st_gid, found.st_mode) == (
        wanted.uid,
        wanted.gid,
        stat.S_IFDIR | mode,
    )


def _shape(fd: int, file: base.VolumeFile) -> None:
    _grow(fd, file.size_bytes, file.allocation)
    os.fchown(fd, file.owner.uid, file.owner.gid)
    os.fchmod(fd, file.mode)


def _grow(fd: int, size_bytes: int, allocation: str) -> None:
    if allocation == base.ALLOCATION_FULL:
        filesystem.reserve(fd, size_bytes)
    if os.fstat(fd).st_size < size_bytes:
        os.ftruncate(fd, size_bytes)


def _rename(share: int, old: str, new: str) -> None:
    base.check_file_name(old)
    base.check_file_name(new)
    before, after = _find(share, old), _find(share, new)
    if old == new or (before is None and after is not None):
        before, old = after, new
    if before is None:
        raise base.FileChanged(f"the volume file {old!r} is gone")
    if not stat.S_ISREG(before.st_mode):
        raise base.FileChanged(f"{old!r} is no regular file")
    if old != new:
        try:
            filesystem.rename_exclusive(share, old, new)
        except FileExistsError:
            raise base.FileChanged(f"{new!r} is in the way") from None
        except FileNotFoundError:
            raise base.FileChanged(f"{old!r} is gone") from None


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """The system's errors as the interface's."""
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
