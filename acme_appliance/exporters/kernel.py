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

"""Exports by the kernel's NFS server.

Every share has a file of its own in ``/etc/exports.d``, with which it is
exported again after a restart of the machine; the running server is told of
a change by ``exportfs``, one process for each kind of change, however many
shares there are. Nothing here ever reloads the whole table: that takes
longer with every share, and drops what others have exported by hand.

Every share has an ``fsid`` of its own, its id, so that clients' handles stay
good over restarts and belong to no other share. Paths are seen from
``root``, which is nfs.conf's ``[exports] rootdir``.

``subtree_check`` is what keeps a client inside of its share. All shares of a
pool are subvolumes of one file system, and a handle of btrfs names the
subvolume: without the check the server opens whatever the handle names, and
a client that makes one up reads and writes the shares of others. What the
check is said to break, files renamed from one directory to another while
they are open (exports(5)), cannot happen to the one file of a volume.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import logging
import os
import pathlib
import re
import shutil

from acme_appliance.exporters import base
from acme_appliance.host import commands
from acme_appliance.host import exportfs
from acme_appliance.host import filesystem

LOG = logging.getLogger(__name__)

#: Every user of a granted host acts as the owner of the volume file: it is
#: hosts that are trusted, and not the users that they claim to have.
SQUASH_ALL = "all"
#: Only root is squashed, to nobody.
SQUASH_ROOT = "root"
SQUASH_NONE = "none"

_SQUASH = {
    SQUASH_ALL: "all_squash,anonuid={uid},anongid={gid}",
    SQUASH_ROOT: "root_squash",
    SQUASH_NONE: "no_root_squash",
}

_FILE = re.compile(r"acme-([0-9a-f-]{36})\.exports")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: With more differences than this, all files are loaded at once.
_SINGLY = 16


#: ``(path, client)``, as the table has them.
_Key = tuple[str, str]
_Found = dict[_Key, exportfs.Entry]
#: To the options that are wanted.
_Wanted = dict[_Key, str]
_Target = dict[str, tuple[base.ExportedShare, base.Clients]]


class KernelExporter(base.Exporter):
    """:param root: nfs.conf's rootdir; all pools are below it.
    :param exports_dir: where the export files are; ``exportfs -a`` reads it.
    """

    def __init__(
        self,
        root: str,
        *,
        squash: str = SQUASH_ALL,
        exports_dir: str = "/etc/exports.d",
        table: exportfs.ExportTable | None = None,
    ) -> None:
        if squash not in _SQUASH:
            raise ValueError(f"unknown squash: {squash!r}")
        self.root = os.path.realpath(root)
        self.exports_dir = pathlib.Path(exports_dir)
        self._squash = _SQUASH[squash]
        self._table = table or exportfs.ExportTable()

    def check(self) -> list[str]:
        if shutil.which("exportfs", path=commands.PATH) is None:
            return ["exportfs is not installed"]
        if not self.exports_dir.is_dir():
            return [f"{self.exports_dir} is not a directory"]
        if not exportfs.server_is_running():
            return ["the NFS server is not running"]
        try:
            root = os.path.realpath(exportfs.configured_root())
        except commands.CommandError as error:
            return [str(error)]
        if root != self.root:
            return [
                f"nfs.conf has rootdir={root} in [exports]; it must be"
                f" {self.root}"
            ]
        return []

    def path(self, directory: str) -> str:
        return base.export_path(directory, self.root)

    def apply(self, share: base.ExportedShare, clients: base.Clients) -> None:
        with _translated():
            self._write_file(share, clients)
            self._adjust(self._found(share.id), self._wanted(share, clients))

    def withdraw(self, share_id: str) -> None:
        with _translated():
            self._remove_file(share_id)
            self._adjust(self._found(share_id), {})

    def exported(self) -> dict[str, dict[str, str]]:
        with _translated():
            return {
                share_id: {
                    client: _level(entry) for (_, client), entry in row.items()
                }
                for share_id, row in self._all_found().items()
            }

    def reconcile(
        self,
        wanted: Iterable[tuple[base.ExportedShare, base.Clients]],
        *,
        apply: bool,
    ) -> list[base.Difference]:
        target = {share.id: (share, row) for share, row in wanted if row}
        with _translated():
            found = self._all_found()
            differing = [
                share_id
                for share_id in sorted(target.keys() | found.keys())
                if not _agree(
                    found.get(share_id, {}), self._target(target, share_id)
                )
            ]
            if apply:
                self._repair(target, differing)
        return [
            base.Difference(
                share_id,
                dict(target[share_id][1]) if share_id in target else {},
                {
                    client: _level(entry)
                    for (_, client), entry in found.get(share_id, {}).items()
                },
            )
            for share_id in differing
        ]

    # -- the whole table

    def _repair(self, target: _Target, differing: list[str]) -> None:
        for share_id in self._files() - target.keys():
            self._remove_file(share_id)
        for share, clients in target.values():
            self._write_file(share, clients)
        if len(differing) > _SINGLY:
            self._load_files()
        found = self._all_found()
        for share_id in differing:
            wanted = self._target(target, share_id)
            try:
                self._adjust(found.get(share_id, {}), wanted)
            except (OSError, commands.CommandError) as error:
                # One share that is not there keeps no other from its
                # clients; it is reported as the difference that it is.
                LOG.error("Share %s is not exported: %s", share_id, error)

    def _load_files(self) -> None:
        try:
            self._table.load_files()
        except commands.CommandError as error:
            # Loads what it can; what it could not is tried singly.
            LOG.warning("Not all exports could be loaded: %s", error)

    def _target(self, target: _Target, share_id: str) -> _Wanted:
        if share_id not in target:
            return {}
        return self._wanted(*target[share_id])

    def _all_found(self, part: str = "") -> dict[str, _Found]:
        """What is exported of ours: id to ``(path, client)`` to entry."""
        found: dict[str, _Found] = {}
        for entry in self._table.entries(part):
            share_id = os.path.basename(entry.path)
            if _ID.fullmatch(share_id) and f"fsid={share_id}" in entry.options:
                row = found.setdefault(share_id, {})
                row[entry.path, entry.client] = entry
        return found

    # -- one share

    def _found(self, share_id: str) -> _Found:
        return self._all_found(share_id).get(share_id, {})

    def _wanted(
        self, share: base.ExportedShare, clients: base.Clients
    ) -> _Wanted:
        path = self.path(share.directory)
        return {
            (path, client): self._options(share, level)
            for client, level in clients.items()
        }

    def _options(self, share: base.ExportedShare, level: str) -> str:
        squash = self._squash.format(uid=share.uid, gid=share.gid)
        return f"{level},sync,subtree_check,fsid={share.id},sec=sys,{squash}"

    def _adjust(self, found: _Found, wanted: _Wanted) -> None:
        """Make the table so; runs nothing where it is so already."""
        surplus = [key for key in found if key not in wanted]
        if surplus:
            self._table.revoke(surplus)
        missing: dict[str, list[tuple[str, str]]] = {}
        for key, options in wanted.items():
            if key not in found or not _has(found[key], options):
                missing.setdefault(options, []).append(key)
        for options, keys in missing.items():
            self._table.grant(keys, options)

    # -- the files

    def _file(self, share_id: str) -> pathlib.Path:
        return self.exports_dir / f"acme-{share_id}.exports"

    def _files(self) -> set[str]:
        """The shares that have a file."""
        matches = (
            _FILE.fullmatch(name) for name in os.listdir(self.exports_dir)
        )
        return {match[1] for match in matches if match is not None}

    def _write_file(
        self, share: base.ExportedShare, clients: base.Clients
    ) -> None:
        if not clients:
            self._remove_file(share.id)
            return
        fields = [f'"{self.path(share.directory)}"']
        fields += [
            f"{client}({self._options(share, level)})"
            for client, level in clients.items()
        ]
        text = "# By acme-appliance, which writes it anew.\n"
        text += " ".join(fields) + "\n"
        file = self._file(share.id)
        try:
            if file.read_text("utf-8") == text:
                return
        except FileNotFoundError:
            # The first rule of this share.
            pass
        filesystem.write_durably(file, text)

    def _remove_file(self, share_id: str) -> None:
        file = self._file(share_id)
        if file.exists():
            filesystem.remove_durably(file)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The machine's errors as the interface's."""
    try:
        yield
    except (OSError, commands.CommandError) as error:
        raise base.ExporterError(str(error)) from error


def _level(entry: exportfs.Entry) -> str:
    if base.LEVEL_READ_WRITE in entry.options:
        return base.LEVEL_READ_WRITE
    return base.LEVEL_READ_ONLY


def _has(entry: exportfs.Entry, options: str) -> bool:
    return entry.options.issuperset(options.split(","))


def _agree(found: _Found, wanted: _Wanted) -> bool:
    return found.keys() == wanted.keys() and all(
        _has(found[key], options) for key, options in wanted.items()
    )
