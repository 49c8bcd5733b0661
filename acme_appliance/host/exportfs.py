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

"""The kernel NFS server's export table, through nfs-utils.

Every ``exportfs`` reads and rewrites the whole table and flushes the kernel's
caches; ``rpc.mountd`` then reads the whole table. So one process costs the
same for one export as for hundreds, and should handle all that are due.

This module deliberately does not write the table itself, as ``exportfs`` and
``rpc.mountd`` do (nfs-utils: support/export/xtab.c, support/nfs/cacheio.c):
the locks, the format and the order of flushes are private to nfs-utils, a
mistake loses the exports of others, and ``rpc.mountd`` would still read the
whole table.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import functools
import os
import pathlib
import re
import threading

from acme_appliance.host import commands

#: Where exportfs keeps the table; rpc.mountd answers the kernel from it.
ETAB = "/var/lib/nfs/etab"
THREADS = "/proc/fs/nfsd/threads"
CONFIGURATION = "/etc/nfs.conf"
CONFIGURATION_FOLDER = pathlib.Path("/etc/nfs.conf.d")

#: The folder that exportfs reads besides /etc/exports; it is compiled in.
EXPORTS_DIR = "/etc/exports.d"

#: Maximum size of the exports on one command line; Linux allows 2 MiB, with
#: the environment.
_MOST_ARGUMENT_BYTES = 256 << 10

_ENTRY = re.compile(r"(?P<path>\S+)\s+(?P<client>[^\s(]+)\((?P<options>.*)\)")
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One export: a path, for a client, with all its options."""

    path: str
    client: str
    options: frozenset[str]


def argument(path: str, client: str) -> str:
    """An export as exportfs takes it; IPv6 needs brackets there."""
    return f"[{client}]:{path}" if ":" in client else f"{client}:{path}"


class ExportTable:
    """The table. It can be large, with a line for each client of each share,
    so it is read only after changes and parsed only as needed."""

    def __init__(self, etab: str = ETAB, folder: str = EXPORTS_DIR) -> None:
        #: Whose files :meth:`grant_from_files` reads.
        self.folder = folder
        self._etab = etab
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._lines: dict[str, list[str]] = {}

    def entries(self, names: Iterable[str] | None = None) -> list[Entry]:
        """The exports of directories with these names; None: all exports.

        :raises OSError: the table cannot be read; absent is empty.
        """
        lines = self._read()
        if names is None:
            names = lines
        return [
            entry for name in names for entry in _parse(lines.get(name, ()))
        ]

    def _read(self) -> Mapping[str, list[str]]:
        """The table's lines, by the last part of their paths."""
        with self._lock:
            try:
                found = os.stat(self._etab)
            except FileNotFoundError:
                return {}
            # exportfs replaces the file: a new inode is a new table.
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                text = pathlib.Path(self._etab).read_text("utf-8")
                self._lines, self._stamp = _by_name(text), stamp
            return self._lines

    def grant(self, exports: Iterable[tuple[str, str]], options: str) -> None:
        """Export ``(path, client)`` pairs, or change their options.

        Without ``-i`` exportfs would read every export of every share.
        :raises commands.CommandError: it failed.
        """
        for batch in _batches(exports):
            commands.run(["exportfs", "-i", "-o", options, "--", *batch])

    def grant_from_files(self, exports: Iterable[tuple[str, str]]) -> None:
        """Export only these ``(path, client)`` pairs, with their options from
        the export files in :attr:`folder`.

        Needs one process for any number of options, unlike :meth:`grant`,
        but reads all files.

        :raises commands.CommandError: it failed.
        """
        for batch in _batches(exports):
            commands.run(["exportfs", "--", *batch])

    def revoke(self, exports: Iterable[tuple[str, str]]) -> None:
        """Unexport ``(path, client)`` pairs that are in the table."""
        for batch in _batches(exports):
            commands.run(["exportfs", "-u", "--", *batch])


def server_is_running() -> bool:
    """Whether this kernel's NFS server has threads."""
    try:
        return int(pathlib.Path(THREADS).read_text("ascii")) > 0
    except (FileNotFoundError, ValueError):
        return False


def configured_root() -> str:
    """``rootdir`` of ``[exports]`` in nfs.conf; ``/`` if there is none.

    Cached until a file changes, because every health check needs it.

    :raises commands.CommandError: it cannot be read.
    """
    return _configured_root(_configuration_stamp())


@functools.lru_cache(maxsize=1)
def _configured_root(stamp: tuple[tuple[str, int], ...]) -> str:
    try:
        found = commands.run(["nfsconf", "--get", "exports", "rootdir"])
    except commands.CommandError as error:
        if error.status == 1:  # nfsconf: it is not set
            return "/"
        raise
    return found.strip() or "/"


def _configuration_stamp() -> tuple[tuple[str, int], ...]:
    """All files that nfsconf reads, with the times of their changes."""
    files = [pathlib.Path(CONFIGURATION), *CONFIGURATION_FOLDER.glob("*.conf")]
    return tuple(
        (str(file), file.stat().st_mtime_ns)
        for file in sorted(files)
        if file.exists()
    )


def _batches(exports: Iterable[tuple[str, str]]) -> Iterator[list[str]]:
    batch: list[str] = []
    room = _MOST_ARGUMENT_BYTES
    for path, client in exports:
        word = argument(path, client)
        size = len(os.fsencode(word)) + 1
        if batch and size > room:
            yield batch
            batch, room = [], _MOST_ARGUMENT_BYTES
        batch.append(word)
        room -= size
    if batch:
        yield batch


def _by_name(text: str) -> dict[str, list[str]]:
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        path = line.split(maxsplit=1)[0] if line.strip() else ""
        lines.setdefault(path.rpartition("/")[2], []).append(line)
    return lines


def _parse(lines: Iterable[str]) -> Iterator[Entry]:
    for line in lines:
        match = _ENTRY.fullmatch(line.strip())
        if match is not None:
            path = _ESCAPE.sub(
                lambda found: chr(int(found[1], 8)), match["path"]
            )
            yield Entry(
                path,
                match["client"],
                frozenset(match["options"].split(",")),
            )
