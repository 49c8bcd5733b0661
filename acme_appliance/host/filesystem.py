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

"""File systems of pools, and system calls that Python lacks."""

import ctypes
import errno
import functools
import os
import pathlib
import stat
import uuid

from acme_appliance.host import commands

_BTRFS_MAGIC = 0x9123683E
_XFS_MAGIC = 0x58465342
_FALLOC_KEEP_SIZE = 1
_RENAME_NOREPLACE = 1

#: The appliance must never execute files or open devices that clients
#: created.
POOL_OPTIONS = "nodev,nosuid,noexec,noatime"

#: mkfs may discard a whole disk first.
_MKFS_TIMEOUT_SECONDS = 600.0


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_int64,
    ]
    libc.renameat2.argtypes = [
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    ]
    libc.statfs.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    libc.syncfs.argtypes = [ctypes.c_int]
    return libc


def _check(status: int, name: str = "") -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def reserve(fd: int, size_bytes: int) -> None:
    """Reserve space for a file's first bytes without changing its size.

    :raises OSError: ENOSPC: part of the space may be reserved.
    """
    _check(_libc().fallocate(fd, _FALLOC_KEEP_SIZE, 0, size_bytes))


def has_data_beyond(fd: int, offset: int) -> bool:
    """Whether anything was written at or after an offset; reserved space
    counts as a hole (lseek(2), SEEK_DATA)."""
    try:
        os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise
    return True


def rename_exclusive(dir_fd: int, old: str, new: str) -> None:
    """Rename inside of a directory. :raises OSError: EEXIST, ENOENT."""
    _check(
        _libc().renameat2(
            dir_fd, old.encode(), dir_fd, new.encode(), _RENAME_NOREPLACE
        ),
        new,
    )


def is_btrfs(path: str) -> bool:
    """Whether a path is on btrfs. :raises OSError: it is not there."""
    return _magic(path) == _BTRFS_MAGIC


def is_xfs(path: str) -> bool:
    """Whether a path is on XFS. :raises OSError: it is not there."""
    return _magic(path) == _XFS_MAGIC


def _magic(path: str) -> int:
    # struct statfs begins with f_type, a long; 256 bytes hold all of it.
    buffer = (ctypes.c_long * 32)()
    _check(_libc().statfs(path.encode(), ctypes.byref(buffer)), path)
    return int(buffer[0])


def is_read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def missing_mount_options(path: str) -> list[str]:
    """Restrictions that a pool's mount lacks, such as nodev."""
    flags = os.statvfs(path).f_flag
    wanted = {
        "nodev": os.ST_NODEV,
        "nosuid": os.ST_NOSUID,
        "noexec": os.ST_NOEXEC,
    }
    return [name for name, flag in wanted.items() if not flags & flag]


def usage(path: str) -> tuple[int, int, int]:
    """Total, used and free bytes of the file system of a path."""
    found = os.statvfs(path)
    total = found.f_blocks * found.f_frsize
    used = total - found.f_bfree * found.f_frsize
    return total, used, found.f_bavail * found.f_frsize


def write_durably(
    path: pathlib.Path, text: str, mode: int = 0o644, gid: int = -1
) -> None:
    """Replace a small file; the new content survives a power cut.

    :param gid: the file's group; -1: the process's.
    """
    replace_file(path, text, mode, gid)
    sync_directory(path.parent)


def replace_file(
    path: pathlib.Path,
    text: str,
    mode: int = 0o644,
    gid: int = -1,
    *,
    sync: bool = True,
) -> None:
    """Replace a small file atomically. It is durable after
    :func:`sync_directory`.

    :param sync: False: a power cut can lose both versions until
        :func:`sync_filesystem`, which many files can share.
    """
    temporary = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    fd = os.open(temporary, flags, mode)
    with open(fd, "w", encoding="utf-8") as file:
        os.fchown(fd, -1, gid)
        os.fchmod(fd, mode)
        file.write(text)
        file.flush()
        if sync:
            os.fsync(fd)
    os.rename(temporary, path)


def sync_directory(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(path: pathlib.Path) -> None:
    """Write the whole file system of a path to disk; see syncfs(2)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check(_libc().syncfs(fd), str(path))
    finally:
        os.close(fd)


def commit(path: str) -> None:
    """Write earlier changes of names, sizes and attributes to disk.

    XFS logs all changes in order: an fsync of a new change writes all earlier
    ones. btrfs logs only the file of an fsync and so needs syncfs(2), which
    also waits for data that clients have written.

    :param path: of a file that exists only for this.
    :raises OSError: EROFS, EIO, ...
    """
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        if is_xfs(path):
            os.utime(fd)
            os.fsync(fd)
        else:
            _check(_libc().syncfs(fd), path)
    finally:
        os.close(fd)


def empty(folder: int) -> None:
    """Remove the contents of an open directory, however deep.

    Clients may nest deeper than a path or a stack allows: so each directory
    is moved up before it is emptied.
    """
    while names := os.listdir(folder):
        for name in names:
            if not _unlinked(name, folder):
                fd = os.open(
                    name,
                    os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW,
                    dir_fd=folder,
                )
                try:
                    _flatten(fd, folder)
                finally:
                    os.close(fd)
                os.rmdir(name, dir_fd=folder)


def _flatten(fd: int, above: int) -> None:
    for name in os.listdir(fd):
        if not _unlinked(name, fd):
            new = str(uuid.uuid4())
            os.rename(name, new, src_dir_fd=fd, dst_dir_fd=above)


def _unlinked(name: str, folder: int) -> bool:
    """False: it is a directory."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        return False
    return True


#: At least a sector, and more than btrfs stores inline in its metadata
#: (max_inline, 2048), so that a read must access the disk.
_PROBE_BYTES = 4096


def touch_disk(path: str) -> None:
    """Return once the disk answers and accepts changes.

    Setting times blocks while the file system is frozen (FIFREEZE,
    fsfreeze(8)). Reading a file that was dropped from the page cache
    (posix_fadvise(2), POSIX_FADV_DONTNEED) waits for the disk. A full disk
    counts as answering.

    :param path: of a small file; created if missing.
    :raises OSError: the disk answered with an error.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.utime(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if len(os.pread(fd, _PROBE_BYTES, 0)) < _PROBE_BYTES:
                # Random, because compressed data could be stored inline.
                os.pwrite(fd, os.urandom(_PROBE_BYTES), 0)
                os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if not is_no_space(error):
            raise


# -- making a pool


def is_block_device(path: str) -> bool:
    return stat.S_ISBLK(os.stat(path).st_mode)


def create_image(path: str, size_bytes: int) -> None:
    """Create a sparse file for a pool. :raises OSError: EEXIST, ..."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(fd, size_bytes)
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_directory(pathlib.Path(path).resolve().parent)


def make_btrfs(path: str, label: str, *, discard: bool = True) -> None:
    """Make btrfs on a device or an image, which must be empty.

    :param discard: tell the disk first that all of it is free; a new image
        has nothing to give back.
    :raises commands.CommandError: it is not empty, or too small.
    """
    keep = [] if discard else ["--nodiscard"]
    commands.run(
        ["mkfs.btrfs", "--quiet", *keep, "--label", label, "--", path],
        timeout_seconds=_MKFS_TIMEOUT_SECONDS,
    )


def make_xfs(path: str, label: str, *, discard: bool = True) -> None:
    """Make XFS with reflinks, as :func:`make_btrfs` does btrfs.

    :param label: of 12 bytes at most.
    """
    keep = [] if discard else ["-K"]
    commands.run(
        ["mkfs.xfs", "-q", *keep, "-m", "reflink=1", "-L", label, "--", path],
        timeout_seconds=_MKFS_TIMEOUT_SECONDS,
    )


def mount(
    source: str,
    directory: str,
    kind: str,
    options: str = "",
    *,
    loop: bool = False,
) -> None:
    """Mount a pool. :raises commands.CommandError: it cannot be.

    :param kind: of file system, as mount(8) calls it.
    :param options: further ones.
    """
    wanted = [POOL_OPTIONS, *filter(None, [options, "loop" if loop else ""])]
    commands.run(
        [
            "mount",
            *("-t", kind),
            *("-o", ",".join(wanted)),
            *("--", source, directory),
        ]
    )


def unmount(directory: str) -> None:
    """:raises commands.CommandError: it is in use, or not mounted."""
    commands.run(["umount", "--", directory])


def is_mount_point(directory: str) -> bool:
    return os.path.ismount(directory)


def is_no_space(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
