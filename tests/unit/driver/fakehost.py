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

"""A host for the driver to run commands on, without NFS and without root.

``mount`` is the only command that is not the real one: it checks the
exporter's table as an NFS server would, and puts a symbolic link to a
directory with the share's files at the mount point; ``umount`` writes what
was done to them back into the memory engine.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil
from typing import Any

from oslo_concurrency import processutils

from acme_appliance.engines import base as engines
from acme_appliance.engines.memory import engine as memory
from tests.harness import inprocess

_BLOCK = memory.BLOCK_BYTES
SOURCE = "127.0.0.1"


class FakeHost:
    """Runs the driver's commands.

    :ivar commands: those run so far, as tuples, the program first.
    :ivar failures: program to the exceptions its next calls raise.
    """

    def __init__(
        self, running: inprocess.RunningAppliance, directory: str
    ) -> None:
        self._appliance = running
        self._files = pathlib.Path(directory)
        self._mounted: dict[str, str] = {}
        self.commands: list[tuple[str, ...]] = []
        self.options: list[dict[str, Any]] = []
        self.failures: dict[str, list[Exception]] = {}

    def table(self) -> dict[str, str]:
        return dict(self._mounted)

    def count(self, program: str) -> int:
        return sum(command[0] == program for command in self.commands)

    def forget(self) -> None:
        self.commands.clear()
        self.options.clear()

    def execute(self, *command: str, **options: Any) -> tuple[str, str]:
        """As os-brick's execute."""
        self.commands.append(command)
        self.options.append(options)
        planned = self.failures.get(command[0])
        if planned:
            raise planned.pop(0)
        if command[0] == "mount":
            self.mount(command[-2], command[-1])
            return "", ""
        if command[0] == "umount":
            self.umount(command[-1])
            return "", ""
        if "stat" in command and self._is_stale(command[-1]):
            raise processutils.ProcessExecutionError(
                exit_code=1, stderr="cannot stat: Stale file handle"
            )
        return processutils.execute(*command)

    # -- also what os-brick's connector does behind the driver's back

    def mount(self, export: str, path: str) -> None:
        reference = _reference(export)
        clients = self._appliance.exporter.exported().get(reference, {})
        if SOURCE not in clients:
            raise processutils.ProcessExecutionError(
                exit_code=32,
                stderr=f"mount.nfs: access denied by server while mounting "
                f"{export}",
                cmd="mount",
            )
        folder = self._folder(reference)
        if reference not in self._references():
            self._read(reference, folder)
        os.rmdir(path)
        os.symlink(folder, path)
        self._mounted[path] = export

    def umount(self, path: str) -> None:
        export = self._mounted.pop(path, None)
        if export is None:
            raise processutils.ProcessExecutionError(
                exit_code=32, stderr=f"umount: {path}: not mounted."
            )
        reference = _reference(export)
        os.unlink(path)
        os.mkdir(path)
        if reference not in self._references():
            folder = self._folder(reference)
            if self._engine(reference) is not None:
                self._write(reference, folder)
            shutil.rmtree(folder)

    def _is_stale(self, path: str) -> bool:
        export = self._mounted.get(path)
        return export is not None and self._engine(_reference(export)) is None

    def _references(self) -> set[engines.Reference]:
        return {_reference(export) for export in self._mounted.values()}

    def _folder(self, reference: engines.Reference) -> pathlib.Path:
        return self._files / f"{reference.kind}-{reference.id}"

    def _engine(
        self, reference: engines.Reference
    ) -> memory.MemoryEngine | None:
        for engine in self._appliance.engines.values():
            if engine.exists(reference):
                return engine
        return None

    def _entries(
        self, reference: engines.Reference
    ) -> dict[str, memory.Entry]:
        engine = self._engine(reference)
        if engine is None:
            raise LookupError(str(reference))
        return engine.entries(reference)

    def _read(
        self, reference: engines.Reference, folder: pathlib.Path
    ) -> None:
        folder.mkdir()
        for name, entry in self._entries(reference).items():
            with open(folder / name, "wb") as file:
                for number, block in entry.blocks.items():
                    os.pwrite(file.fileno(), block, number * _BLOCK)
                os.ftruncate(file.fileno(), entry.size_bytes)
                os.fchmod(file.fileno(), entry.mode)

    def _write(
        self, reference: engines.Reference, folder: pathlib.Path
    ) -> None:
        entries = self._entries(reference)
        before = dict(entries)
        entries.clear()
        for path in folder.iterdir():
            status = path.stat()
            old = before.get(path.name, memory.Entry())
            entries[path.name] = memory.Entry(
                size_bytes=status.st_size,
                reserved_bytes=old.reserved_bytes,
                owner=old.owner,
                mode=status.st_mode & 0o7777,
                blocks=dict(_blocks(path)),
            )


def _reference(export: str) -> engines.Reference:
    """What an export's path, ``.../shares/ID``, is of."""
    folder, _, id_ = export.rpartition("/")
    kind = folder.rpartition("/")[2].removesuffix("s")
    try:
        return engines.Reference(engines.Kind(kind), id_)
    except ValueError:
        # Of another server.
        return engines.Reference(engines.Kind.SHARE, id_)


def _blocks(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """The blocks of a sparse file that are not zero."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        position = 0
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            for number in range(start // _BLOCK, -(-end // _BLOCK)):
                data = os.pread(file.fileno(), _BLOCK, number * _BLOCK)
                if data.strip(b"\0"):
                    yield number, data.ljust(_BLOCK, b"\0")
            position = end


@contextlib.contextmanager
def written(path: str) -> Iterator[Any]:
    """A file opened as a client writes to its disk: in place."""
    with open(path, "r+b") as file:
        yield file
