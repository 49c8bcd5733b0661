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

"""The kernel NFS server's export table, by way of nfs-utils."""

from collections.abc import Iterable
from collections.abc import Iterator
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

#: So many exports are named on one command line at most.
_BATCH = 500

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
    """The table. It has a line for each client of each share, so it is
    read no more often, and parsed no further, than is needed."""

    def __init__(self, etab: str = ETAB) -> None:
        self._etab = etab
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._lines: list[str] = []

    def entries(self, part: str = "") -> list[Entry]:
        """The exports whose path, client or options contain ``part``.

        :raises OSError: the table cannot be read; absent is empty.
        """
        lines = [line for line in self._read() if part in line]
        return list(_parse(lines))

    def _read(self) -> list[str]:
        with self._lock:
            try:
                found = os.stat(self._etab)
            except FileNotFoundError:
                return []
            # exportfs replaces the file: a new inode is a new table.
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                text = pathlib.Path(self._etab).read_text("utf-8")
                self._lines, self._stamp = text.splitlines(), stamp
            return self._lines

    def grant(self, exports: Iterable[tuple[str, str]], options: str) -> None:
        """Export ``(path, client)`` pairs, or change their options.

        Without ``-i`` exportfs would read every export of every share.
        :raises commands.CommandError: it failed.
        """
        for batch in _batches(exports):
            commands.run(["exportfs", "-i", "-o", options, "--", *batch])

    def revoke(self, exports: Iterable[tuple[str, str]]) -> None:
        """Take away ``(path, client)`` pairs that are in the table."""
        for batch in _batches(exports):
            commands.run(["exportfs", "-u", "--", *batch])

    def load_files(self) -> None:
        """Export all that the export files say; drop nothing else."""
        commands.run(["exportfs", "-a"])


def server_is_running() -> bool:
    """Whether this kernel's NFS server has threads."""
    try:
        return int(pathlib.Path(THREADS).read_text("ascii")) > 0
    except (FileNotFoundError, ValueError):
        return False


def configured_root() -> str:
    """``rootdir`` of ``[exports]`` in nfs.conf; ``/`` if there is none.

    Asked for with every health check, so it is read again only when a file
    has changed. :raises commands.CommandError: it cannot be read.
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
    arguments = [argument(path, client) for path, client in exports]
    for start in range(0, len(arguments), _BATCH):
        yield arguments[start : start + _BATCH]


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
