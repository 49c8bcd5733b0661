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

"""Project quotas of XFS: a hard limit for what is below a directory.

A directory's project is that of all that is made in it. Each file is charged
for all its blocks, whether or not others share them. The limits are set by
quotactl_fd(2), which Linux has since 5.14 and needs no disk in /dev as
quotactl(2) does; it wants CAP_SYS_ADMIN. Structures and numbers are those of
linux/fs.h and linux/dqblk_xfs.h.
"""

import ctypes
import errno
import fcntl
import functools
import os
import pathlib
import struct

_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820
#: struct fsxattr: flags, extent size, extents, project, then what we keep.
_ATTRIBUTES = struct.Struct("IIII12s")
_INHERIT = 0x200

_QUOTACTL_FD = 443
_PROJECT = 2
_GET, _SET, _STATE = 0x5803, 0x5804, 0x5805
#: struct fs_disk_quota: version, flags, which fields, id, hard and soft limit
#: of blocks, limits of inodes, blocks. A block has 512 bytes.
_QUOTA = struct.Struct("bbHIQQ16xQ64x")
_VERSION, _OF_PROJECT, _BLOCK_LIMIT = 1, 2, 1 << 3
_BLOCK = 512
#: struct fs_quota_stat: version, flags.
_STATE_SIZE = 256
_ENFORCED = 1 << 5

_PROC = pathlib.Path("/proc")


def is_supported() -> bool:
    """Whether this kernel's XFS has quotas; one that is not loaded yet
    cannot be asked, and most have."""
    kinds = (_PROC / "filesystems").read_text().split()
    return "xfs" not in kinds or (_PROC / "fs/xfs/xqm").exists()


def is_enforced(fd: int) -> bool:
    """Whether the file system of an open directory was mounted with
    prjquota."""
    state = ctypes.create_string_buffer(_STATE_SIZE)
    try:
        _quotactl(fd, _STATE, 0, state)
    except OSError as error:
        # No quotas at all, or a kernel that cannot be asked.
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise
    _, flags = struct.unpack_from("bxH", state)
    return bool(flags & _ENFORCED)


def project(fd: int) -> int:
    """The project of an open directory; 0: it has none."""
    return int(_attributes(fd)[3])


def set_project(fd: int, number: int) -> None:
    """Give an empty, open directory a project, which all that is made in it
    has from then on."""
    flags, size, extents, _, rest = _attributes(fd)
    changed = _ATTRIBUTES.pack(flags | _INHERIT, size, extents, number, rest)
    fcntl.ioctl(fd, _SET_ATTRIBUTES, changed)


def charged_bytes(fd: int, number: int) -> int:
    """What files of a project take, with what is on its way to the disk."""
    return int(_quota(fd, number)[6]) * _BLOCK


def has_limit(fd: int, number: int) -> bool:
    return _quota(fd, number)[4] > 0


def set_limit(fd: int, number: int, limit_bytes: int) -> None:
    """Limit what files of a project may take; more is ENOSPC.

    :param fd: of any directory of the file system.
    """
    blocks = -(-limit_bytes // _BLOCK)
    wanted = _QUOTA.pack(
        _VERSION, _OF_PROJECT, _BLOCK_LIMIT, number, blocks, 0, 0
    )
    _quotactl(fd, _SET, number, ctypes.create_string_buffer(wanted))


def _attributes(fd: int) -> tuple[int, int, int, int, bytes]:
    found = fcntl.ioctl(fd, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size))
    flags, size, extents, number, rest = _ATTRIBUTES.unpack(found)
    return flags, size, extents, number, rest


def _quota(fd: int, number: int) -> tuple[int, ...]:
    found = ctypes.create_string_buffer(_QUOTA.size)
    try:
        _quotactl(fd, _GET, number, found)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        # Nothing was ever charged to it.
    return _QUOTA.unpack(found.raw[: _QUOTA.size])


@functools.cache
def _syscall() -> "ctypes._FuncPointer":
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.argtypes = [
        ctypes.c_long,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
    ]
    call.restype = ctypes.c_long
    return call


def _quotactl(
    fd: int, command: int, number: int, data: "ctypes.Array[ctypes.c_char]"
) -> None:
    code = command << 8 | _PROJECT
    if _syscall()(_QUOTACTL_FD, fd, code, number, data) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
