# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Write patterns to volumes, and compare contents.

Volumes are gigabytes of holes with a little data. A digest is the SHA-256 of
every block that is not all zero, with its offset. So a hole and written zeros
are equal, and holes are not read: NFS 4.2 knows them, as file systems do.
"""

from collections.abc import Iterator
import errno
import hashlib
import os

BLOCK_BYTES = 1 << 20
PATTERN_BYTES = 4 * BLOCK_BYTES


def pattern(seed: str, size_bytes: int = PATTERN_BYTES) -> bytes:
    """Incompressible bytes that depend on the seed."""
    return hashlib.shake_256(seed.encode()).digest(size_bytes)


def write_pattern(path: str, seed: str) -> None:
    """Write at the start, in the middle and at the very end.

    Does not change the file's size. Returns when the data is on the server.
    """
    handle = os.open(path, os.O_WRONLY)
    try:
        size = os.fstat(handle).st_size
        middle = size // 2 // BLOCK_BYTES * BLOCK_BYTES
        for part, offset in enumerate((0, middle, size - PATTERN_BYTES)):
            data = pattern(f"{seed}/{part}")
            if os.pwrite(handle, data, offset) != len(data):
                raise OSError(errno.EIO, "short write", path)
        os.fsync(handle)
    finally:
        os.close(handle)


def size(path: str) -> int:
    """The size that a process sees that opens the file now.

    An NFS client caches attributes for some seconds; opening the file makes
    it ask the server.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(handle).st_size
    finally:
        os.close(handle)


def _data_ranges(handle: int, end: int) -> Iterator[tuple[int, int]]:
    offset = 0
    while offset < end:
        try:
            start = os.lseek(handle, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        if start >= end:
            return
        offset = min(os.lseek(handle, start, os.SEEK_HOLE), end)
        yield start, offset


def digest(path: str, size_bytes: int | None = None) -> str:
    """The digest of the file's first ``size_bytes``, by default of all."""
    result = hashlib.sha256()
    zeros = bytes(BLOCK_BYTES)
    handle = os.open(path, os.O_RDONLY)
    try:
        end = os.fstat(handle).st_size
        if size_bytes is not None:
            end = min(end, size_bytes)
        last = -1
        for start, stop in _data_ranges(handle, end):
            first = max(start // BLOCK_BYTES, last + 1)
            for block in range(first, (stop - 1) // BLOCK_BYTES + 1):
                last = block
                offset = block * BLOCK_BYTES
                length = min(BLOCK_BYTES, end - offset)
                data = os.pread(handle, length, offset)
                if data != zeros[: len(data)]:
                    # A partial block at the end counts as a full one.
                    result.update(b"%d:" % offset)
                    result.update(data.rstrip(b"\0"))
    finally:
        os.close(handle)
    return result.hexdigest()
