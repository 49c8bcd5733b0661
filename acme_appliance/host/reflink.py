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

"""Files that share their blocks until one is written to (FICLONE).

XFS has it where it was made with reflink=1, which mkfs.xfs does by default,
and btrfs always.
"""

import errno
import fcntl
import os

#: linux/fs.h: _IOW(0x94, 9, int)
_FICLONE = 0x40049409
_BLOCK = 4096
#: What file systems say that do not have it, or no unnamed files.
_HAS_NONE = (
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EINVAL,
    errno.EXDEV,
    errno.EISDIR,
)


def clone(source_fd: int, target_fd: int) -> None:
    """Give an open file the content that another one has at one moment.

    Data beyond the size of the other one stays. After a crash only a part may
    be copied, because each extent is a separate transaction.

    "Clones are atomic with regards to concurrent writes, so no locks need to
    be taken to obtain a consistent cloned copy" (ioctl_ficlone(2)). Cached
    writes go to the disk first. The time depends on the number of extents, not
    on their size.

    :raises OSError: ENOSPC, EDQUOT, ...; EXDEV: another file system.
    """
    fcntl.ioctl(target_fd, _FICLONE, source_fd)


def is_supported(directory: str) -> bool:
    """Whether the file system of a directory has it; tries it with two files
    that have no name. :raises OSError: it cannot be written."""
    flags = os.O_RDWR | os.O_TMPFILE
    opened: list[int] = []
    try:
        for _ in range(2):
            opened.append(os.open(directory, flags, 0o600))
        os.pwrite(opened[0], bytes(_BLOCK), 0)
        clone(*opened)
    except OSError as error:
        if error.errno in _HAS_NONE:
            return False
        raise
    finally:
        for fd in opened:
            os.close(fd)
    return True
