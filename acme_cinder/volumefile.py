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

"""The volume file, worked on through a mount.

For appliances that do not know about files, and for what only a client can
do. Every command is bounded in time; the file is looked at before it is
touched, so that nothing is ever done through a symbolic link.
"""

import os
import stat
import struct
import tempfile

from cinder.image import format_inspector
from oslo_concurrency import processutils

from acme_cinder import commands
from acme_cinder import errors

#: In the header of LUKS version 1: where the data begins, in sectors.
_LUKS_MAGIC = b"LUKS\xba\xbe\x00\x01"
_LUKS_PAYLOAD_OFFSET = struct.Struct(">I")
_LUKS_PAYLOAD_POSITION = 104
_SECTOR_BYTES = 512
#: All formats are known by what is at the beginning of a file.
_HEAD_MIB = 4


class VolumeFiles:
    """Does the work on files of mounted shares.

    :param as_root: work as root and not as the service's own user.
    :param allocation: ``sparse`` or ``full``.
    :param mode: octal text for files that are made.
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
        """The file's size in bytes; None: there is no such file.

        :raises FileError: it is no regular file.
        """
        try:
            out = self._run("stat", "-c", "%f %s", path)
        except processutils.ProcessExecutionError:
            # Absent, or no answer at all; only the first is a None.
            self._run("stat", "-c", "%f", os.path.dirname(path))
            return None
        raw_mode, size = out.split()
        if not stat.S_ISREG(int(raw_mode, 16)):
            raise errors.FileError(f"{path} is no regular file")
        return int(size)

    def get_size(self, path: str) -> int:
        """As :meth:`find_size`. :raises FileError: also if it is gone."""
        size = self.find_size(path)
        if size is None:
            raise errors.FileError(f"{path} does not exist")
        return size

    def names(self, folder: str) -> list[str]:
        """What there is in a mounted share."""
        out = self._run(
            *("find", f"{folder}/", "-mindepth", "1", "-maxdepth", "1"),
            *("-printf", r"%f\0"),
        )
        return sorted(filter(None, out.split("\0")))

    def is_usable(self, path: str) -> bool:
        """Whether it can be read and written from here."""
        try:
            self._run("test", "-r", path, "-a", "-w", path)
        except processutils.ProcessExecutionError as error:
            if error.exit_code != 1:
                raise
            return False
        return True

    def get_format(self, path: str, scratch: str) -> str:
        """``raw``, or the format of the image that is in the file.

        Of a copy of its beginning: nobody knows what wrote it, and no read
        of a dead mount must stop the service.

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
        """Make the file, or make one that is there as large as that."""
        if self.find_size(path) is None:
            self._run("truncate", "-s", "0", path)
        self._grow(path, size_bytes, self._full)
        self._run("chmod", self._mode, path)

    def adopt(self, old_path: str, path: str, size_bytes: int) -> None:
        """Give a clone's file its new name, size and mode.

        :raises FileError: neither name is there, or no regular file is.
        """
        self.rename(old_path, path)
        self.ensure_size(path, size_bytes)
        self._run("chmod", self._mode, path)

    def rename(self, old_path: str, path: str) -> None:
        """Rename the file, unless that is done.

        The only file there, if it has neither name: a snapshot may be older
        than the name that its volume's file has now.

        :raises FileError: neither name is there, or no regular file is.
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
        """Grow the file if it is smaller; says whether it was.

        With full allocation holes are filled as well: what has written the
        file may have left some, whatever its size is.

        :param full: default: as for all files.
        :raises FileError: it is not there.
        """
        smaller = self.get_size(path) < size_bytes
        full = self._full if full is None else full
        if smaller or full:
            self._grow(path, size_bytes, full)
        return smaller

    def put_header(self, header_path: str, path: str, size: int) -> None:
        """Overwrite the beginning of the file; the rest stays."""
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
            # Takes the space, and never makes a file smaller.
            self._run("fallocate", "-l", str(size_bytes), path)
        else:
            self._run("truncate", "-c", "-s", f">{size_bytes}", path)

    def _run(self, *command: str) -> str:
        return self._commands.run(*command, root=self._as_root)


def luks_offset(header: bytes) -> int | None:
    """Where the data begins, from a LUKS 1 header; None: it is none."""
    if not header.startswith(_LUKS_MAGIC):
        return None
    (sectors,) = _LUKS_PAYLOAD_OFFSET.unpack_from(
        header, _LUKS_PAYLOAD_POSITION
    )
    return int(sectors) * _SECTOR_BYTES
