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

"""btrfs simple quotas: a hard limit on the space of a subvolume.

Every extent, of data and of the subvolume's own tree, is charged to the
subvolume that allocated it until nothing refers to it, including snapshots
and clones. Needs Linux 6.7 and CAP_SYS_ADMIN. The calls are those of
linux/btrfs.h, which libbtrfsutil does not wrap.
"""

import errno
import fcntl
import os
import pathlib
import struct
import uuid

_FS_INFO = 0x8400941F
_INO_LOOKUP = 0xD0009412
_QUOTA_CTL = 0xC0109428
_QGROUP_LIMIT = 0x8030942B

_ENABLE_SIMPLE = 4
#: BTRFS_FIRST_FREE_OBJECTID: the root directory of any subvolume.
_ROOT_DIRECTORY = 256
#: BTRFS_QGROUP_LIMIT_MAX_RFER: the limit of what is charged.
_MAX_CHARGED = 1

_TOO_OLD = (
    "this kernel does not support simple quotas: use Linux 6.7 or later, or"
    " set the pool's option quota to none"
)

_SYSFS = pathlib.Path("/sys/fs/btrfs")
_SIMPLE = "squota"
#: Charged space, and data not yet written. Omits the small reservation for
#: the subvolume's tree, to save a read.
_CHARGED = ("referenced", "rsv_data")


def is_supported() -> bool:
    """Whether this kernel has simple quotas; btrfs must be loaded."""
    return (_SYSFS / "features" / "simple_quota").exists()


def advice() -> str:
    """What an operator must do to enable simple quotas."""
    if not is_supported():
        return _TOO_OLD
    return "restart the appliance to switch them on; the log says why not"


def is_enabled(fd: int) -> bool:
    """Whether the file system of an open directory has simple quotas."""
    return _mode(fd) == _SIMPLE


def enable(fd: int) -> None:
    """Enable simple quotas. Older kernels cannot mount the file system after
    that, and earlier data is not charged. Idempotent.

    :raises OSError: EOPNOTSUPP: the kernel has none; EEXIST: the file
        system has quotas of the other kind. The text says what to do.
    """
    if not is_supported():
        raise OSError(errno.EOPNOTSUPP, _TOO_OLD)
    mode = _mode(fd)
    if mode == _SIMPLE:
        return
    if mode:
        text = "other quotas are enabled; see btrfs quota disable"
        raise OSError(errno.EEXIST, text)
    fcntl.ioctl(fd, _QUOTA_CTL, struct.pack("QQ", _ENABLE_SIMPLE, 0))


def set_limit(fd: int, limit_bytes: int) -> None:
    """Limit the space of an open subvolume; writing more fails with EDQUOT."""
    # Group 0 means the group of the open subvolume.
    limit = struct.pack("QQQQQQ", 0, _MAX_CHARGED, limit_bytes, 0, 0, 0)
    fcntl.ioctl(fd, _QGROUP_LIMIT, limit)


def charged_bytes(fd: int) -> int:
    """The space charged to an open subvolume, with unwritten data."""
    group = _group(fd)
    return sum(_number(f"{group}/{name}") for name in _CHARGED)


def has_limit(fd: int) -> bool:
    """Whether an open subvolume has a limit."""
    return bool(_number(f"{_group(fd)}/limit_flags") & _MAX_CHARGED)


def _group(fd: int) -> str:
    # struct btrfs_ioctl_ino_lookup_args: treeid, objectid, name[4080].
    lookup = bytearray(struct.pack("QQ4080x", 0, _ROOT_DIRECTORY))
    fcntl.ioctl(fd, _INO_LOOKUP, lookup)
    (subvolume,) = struct.unpack_from("Q", lookup)
    return f"{_groups(fd)}/0_{subvolume}"


def _groups(fd: int) -> pathlib.Path:
    # struct btrfs_ioctl_fs_info_args: two numbers, then the id.
    info = bytearray(1024)
    fcntl.ioctl(fd, _FS_INFO, info)
    return _SYSFS / str(uuid.UUID(bytes=bytes(info[16:32]))) / "qgroups"


def _mode(fd: int) -> str:
    """``squota``, ``qgroup``, or an empty string without quotas."""
    try:
        return (_groups(fd) / "mode").read_text().strip()
    except FileNotFoundError:
        # Before 6.7 there is one kind, and no such file.
        return "qgroup" if _groups(fd).exists() else ""


def _number(file: str) -> int:
    fd = os.open(file, os.O_RDONLY)
    try:
        return int(os.read(fd, 64))
    finally:
        os.close(fd)
