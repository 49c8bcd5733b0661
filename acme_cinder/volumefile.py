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

"""Work on the volume file through a mount.

For appliances that do not manage files, and for work that only a client can
do. Every command has a time limit. The file is checked before it is used, so
that symbolic links are never followed.
"""

import os
import stat
import struct
import tempfile

from cinder.image import format_inspector
from oslo_concurrency import processutils

from acme_cinder import commands
from acme_cinder import errors

#: The offset of the data in the header of LUKS version 1, in sectors.
_LUKS_MAGIC = b"LUKS\xba\xbe\x00\x01"
_LUKS_PAYLOAD_OFFSET = struct.Struct(">I")
_LUKS_PAYLOAD_POSITION = 104
_SECTOR_BYTES = 512
#: The beginning of a file is sufficient to detect its format.
_HEAD_MIB = 4


class VolumeFiles:
    """Works on files of mounted shares.

    :param as_root: work as root instead of the service's user.
    :param allocation: ``sparse`` or ``full``.
    :param mode: octal text for new files.
    """

    def __init__(
        self,
        runner: commands.Commands,
        *,
        as_root: bool,
        allocation: str,
        mode: str,
    ) -> None:
        self._commands = runner
        self._as_root = as_root
        self._full = allocation == "full"
        self._mode = mode

    def find_size(self, path: str) -> int | None:
        """The file's size in bytes; None: it does not exist.

        :raises FileError: it is not a regular file.
        """
        try:
            out = self._run("stat", "-c", "%f %s", path)
        except processutils.ProcessExecutionError:
            # Absent, or no answer; only the former is None.
            self._run("stat", "-c", "%f", os.path.dirname(path))
            return None
        raw_mode, size = out.split()
        if not stat.S_ISREG(int(raw_mode, 16)):
            raise errors.FileError(f"{path} is no regular file")
        return int(size)

    def get_size(self, path: str) -> int:
        """Like :meth:`find_size`. :raises FileError: also if it is missing."""
        size = self.find_size(path)
        if size is None:
            raise errors.FileError(f"{path} does not exist")
        return size

    def names(self, folder: str) -> list[str]:
        """The names in a mounted share."""
        out = self._run(
            *("find", f"{folder}/", "-mindepth", "1", "-maxdepth", "1"),
            *("-printf", r"%f\0"),
        )
        return sorted(filter(None, out.split("\0")))

    def is_usable(self, path: str) -> bool:
        """Whether this host can read and write it."""
        try:
            self._run("test", "-r", path, "-a", "-w", path)
        except processutils.ProcessExecutionError as error:
            if error.exit_code != 1:
                raise
            return False
        return True

    def get_format(self, path: str, scratch: str) -> str:
        """``raw``, or the format of the image in the file.

        Inspects a copy of its beginning: the content is untrusted, and reading
        from a dead mount must not block the service.

        :param scratch: the folder for the copy.
        """
        with tempfile.NamedTemporaryFile(
            prefix="acme_head_", dir=scratch
        ) as head:
            self._run(
                *("dd", f"if={path}", f"of={head.name}", "bs=1M"),
                *(f"count={_HEAD_MIB}", "status=none"),
            )
            return str(format_inspector.detect_file_format(head.name))

    def create(self, path: str, size_bytes: int) -> None:
        """Create the file, or grow an existing one to this size."""
        if self.find_size(path) is None:
            self._run("truncate", "-s", "0", path)
        self._grow(path, size_bytes, self._full)
        self._run("chmod", self._mode, path)

    def adopt(self, old_path: str, path: str, size_bytes: int) -> None:
        """Give a clone's file its new name, size and mode.

        :raises FileError: neither name exists, or is a regular file.
        """
        self.rename(old_path, path)
        self.ensure_size(path, size_bytes)
        self._run("chmod", self._mode, path)

    def rename(self, old_path: str, path: str) -> None:
        """Rename the file, unless that is done.

        If neither name exists, it renames the only file: a snapshot may be
        older than its volume's current file name.

        :raises FileError: there is no such regular file.
        """
        if old_path != path and self.find_size(path) is None:
            self._run("mv", "-n", "-T", self._present(old_path), path)

    def _present(self, path: str) -> str:
        if self.find_size(path) is None:
            folder = os.path.dirname(path)
            names = self.names(folder)
            if len(names) == 1:
                path = os.path.join(folder, names[0])
            self.get_size(path)
        return path

    def ensure_size(
        self, path: str, size_bytes: int, *, full: bool | None = None
    ) -> bool:
        """Grow the file if it is smaller; return whether it was.

        With full allocation this also fills holes, which the writer of the
        file may have left.

        :param full: default: see the class.
        :raises FileError: it is missing.
        """
        smaller = self.get_size(path) < size_bytes
        full = self._full if full is None else full
        if smaller or full:
            self._grow(path, size_bytes, full)
        return smaller

    def put_header(self, header_path: str, path: str, size: int) -> None:
        """Overwrite the beginning of the file, and keep the rest."""
        self._run(
            "dd",
            f"if={header_path}",
            f"of={path}",
            f"bs={_SECTOR_BYTES}",
            f"count={size // _SECTOR_BYTES}",
            "conv=notrunc,fsync",
            "status=none",
        )

    def _grow(self, path: str, size_bytes: int, full: bool) -> None:
        if full:
            # Allocates space, and never truncates.
            self._run("fallocate", "-l", str(size_bytes), path)
        else:
            self._run("truncate", "-c", "-s", f">{size_bytes}", path)

    def _run(self, *command: str) -> str:
        return self._commands.run(*command, root=self._as_root)


def luks_offset(header: bytes) -> int | None:
    """The start of the data in a LUKS 1 header; None: it is not one."""
    if not header.startswith(_LUKS_MAGIC):
        return None
    (sectors,) = _LUKS_PAYLOAD_OFFSET.unpack_from(
        header, _LUKS_PAYLOAD_POSITION
    )
    return int(sectors) * _SECTOR_BYTES
