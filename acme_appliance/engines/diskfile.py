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

"""A volume file on a disk, opened to copy it."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import errno
import os

from acme_appliance.engines import base


class DiskFile(base.OpenFile):
    """:param fd: open as long as this is used.
    :param translated: returns a context that converts OSError to
        :class:`base.EngineError`.
    """

    def __init__(
        self,
        fd: int,
        translated: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._fd = fd
        self._translated = translated
        self.size_bytes = os.fstat(fd).st_size

    def extents(self) -> Iterator[tuple[int, int]]:
        end = 0
        while (start := self._seek(end, os.SEEK_DATA)) is not None:
            end = self._seek(start, os.SEEK_HOLE) or self.size_bytes
            yield start, end - start

    def _seek(self, offset: int, whence: int) -> int | None:
        """None: there is no data from there on."""
        with self._translated():
            try:
                return os.lseek(self._fd, offset, whence)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return None

    def read(self, offset: int, length: int) -> bytes:
        with self._translated():
            return os.pread(self._fd, length, offset)

    def write(self, offset: int, data: bytes) -> None:
        rest = memoryview(data)
        with self._translated():
            while rest:
                written = os.pwrite(self._fd, rest, offset)
                offset, rest = offset + written, rest[written:]

    def flush(self) -> None:
        with self._translated():
            os.fsync(self._fd)
