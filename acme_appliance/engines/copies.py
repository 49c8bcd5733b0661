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

"""Copy a volume file from one pool to another."""

from collections.abc import Callable
from typing import Final

from acme_appliance.engines import base

#: One read and write; how soon a copy notices that it is cancelled.
CHUNK_BYTES: Final = 1 << 20
#: How much may be written but not on disk. The kernel's own bound is a part
#: of the memory, and others would wait for all of it.
FLUSH_BYTES: Final = 64 << 20


class Copy:
    """A copy in progress; figures in bytes, for other threads."""

    def __init__(self) -> None:
        self.done_bytes = 0
        self.total_bytes = 0

    def run(
        self,
        source: base.OpenFile,
        target: base.OpenFile,
        check: Callable[[], None],
    ) -> None:
        """Copy all data; the target is a new file of the same size, so that
        holes stay holes. Afterwards it is on disk.

        :param check: called before each chunk; raises to end the copy.
        :raises base.EngineError: reading or writing failed.
        """
        self.total_bytes = sum(length for _, length in source.extents())
        for start, length in source.extents():
            offset, end = start, start + length
            while offset < end:
                check()
                size = min(CHUNK_BYTES, end - offset)
                data = source.read(offset, size)
                if not data:
                    raise base.EngineError(
                        "the volume file became shorter while it was copied"
                    )
                target.write(offset, data)
                offset += len(data)
                self._count(len(data), target)
        target.flush()

    def _count(self, size: int, target: base.OpenFile) -> None:
        before = self.done_bytes // FLUSH_BYTES
        self.done_bytes += size
        if self.done_bytes // FLUSH_BYTES > before:
            target.flush()
