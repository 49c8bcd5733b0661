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
a change by ``exportfs``. That takes longer with every export that there is,
so changes that are due at the same moment go together: one process for what
is to be revoked, and one or two for what is to be granted, however many
shares there are. Nothing here ever reloads all files: that would export what
others have withdrawn by hand, and drop what they have exported by hand.

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
from collections.abc import Mapping
import contextlib
import dataclasses
import logging
import os
import pathlib
import re
import shutil
import threading

from acme_appliance.exporters import base
from acme_appliance.exporters import passes
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

#: So many kinds of options have a process each; for more of them, one
#: process reads the options from the files, which costs as much as two.
_MOST_KINDS = 2


#: ``(path, client)``, as the table has them.
_Key = tuple[str, str]
_Found = dict[_Key, exportfs.Entry]


@dataclasses.dataclass(frozen=True)
class _Target:
    """How a share's exports are to be: ``(path, client)`` to options.

    ``directory`` None: the share may be gone, and has no clients.
    """

    share_id: str
    directory: str | None = None
    wanted: Mapping[_Key, str] = dataclasses.field(default_factory=dict)

    def is_there(self) -> bool:
        return self.directory is None or os.path.isdir(self.directory)

    def surplus(self, found: _Found) -> list[_Key]:
        return [key for key in found if key not in self.wanted]

    def missing(self, found: _Found) -> dict[_Key, str]:
        return {
            key: options
            for key, options in self.wanted.items()
            if key not in found or not _has(found[key], options)
        }


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
        self._passes = passes.Passes(self._pass)
        #: Held by whoever compares the table and changes it.
        self._adjusting = threading.Lock()

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
            self._passes.serve(self._target(share, clients))

    def withdraw(self, share_id: str) -> None:
        with _translated():
            self._remove_file(share_id)
            self._passes.serve(_Target(share_id))

    def exported(self) -> dict[str, dict[str, str]]:
        with _translated():
            return {
                share_id: {
                    client: _level(entry) for (_, client), entry in row.items()
                }
                for share_id, row in self._found().items()
            }

    def reconcile(
        self,
        wanted: Iterable[tuple[base.ExportedShare, base.Clients]],
        *,
        apply: bool,
    ) -> list[base.Difference]:
        rows = {share.id: (share, row) for share, row in wanted if row}
        with _translated():
            targets = {id_: self._target(*row) for id_, row in rows.items()}
            found = self._found()
            differing = [
                targets.get(id_) or _Target(id_)
                for id_ in sorted(targets.keys() | found.keys())
                if not _agree(found.get(id_, {}), targets.get(id_))
            ]
            if apply:
                self._repair(rows, differing)
        return [
            base.Difference(
                target.share_id,
                dict(rows[target.share_id][1]) if target.wanted else {},
                {
                    client: _level(entry)
                    for (_, client), entry in found.get(
                        target.share_id, {}
                    ).items()
                },
            )
            for target in differing
        ]

    def _repair(
        self,
        rows: Mapping[str, tuple[base.ExportedShare, base.Clients]],
        differing: list[_Target],
    ) -> None:
        for share_id in self._files() - rows.keys():
            self._remove_file(share_id)
        for share, clients in rows.values():
            self._write_file(share, clients)
        errors = self._pass(differing)
        for target, error in zip(differing, errors, strict=True):
            if error is not None:
                # One share that is not there keeps no other from its
                # clients; it is reported as the difference that it is.
                LOG.error(
                    "Share %s is not exported as it should be: %s",
                    target.share_id,
                    error,
                )

    # -- the table

    def _pass(self, targets: list[_Target]) -> list[Exception | None]:
        """Make the table so, for all of these shares; their files are
        written."""
        filesystem.sync_directory(self.exports_dir)
        # Two calls for one share: the later one is what holds.
        latest = {target.share_id: target for target in targets}
        with self._adjusting:
            errors = self._adjust(latest)
        return [errors.get(target.share_id) for target in targets]

    def _adjust(self, targets: Mapping[str, _Target]) -> dict[str, Exception]:
        """As :meth:`_pass`; what failed, by share."""
        found = self._found(targets)
        try:
            self._change(targets.values(), found)
        except commands.CommandError as error:
            if error.status is None or len(targets) == 1:
                # What did not end by itself would not for one share.
                return dict.fromkeys(targets, error)
            LOG.warning("Exports are changed one by one: %s", error)
            return self._adjust_singly(targets, found)
        return {}

    def _change(
        self, targets: Iterable[_Target], found: Mapping[str, _Found]
    ) -> None:
        """Runs nothing where the table is as it should be."""
        surplus: list[_Key] = []
        missing: dict[_Key, str] = {}
        for target in targets:
            row = found.get(target.share_id, {})
            surplus += target.surplus(row)
            missing |= target.missing(row)
        self._revoke(surplus)
        self._grant(missing)

    def _revoke(self, surplus: list[_Key]) -> None:
        if surplus:
            self._table.revoke(surplus)

    def _grant(self, missing: Mapping[_Key, str]) -> None:
        kinds: dict[str, list[_Key]] = {}
        for key, options in missing.items():
            kinds.setdefault(options, []).append(key)
        readable = self._table.folder == str(self.exports_dir)
        if readable and len(kinds) > _MOST_KINDS:
            self._table.grant_from_files(missing)
            return
        for options, keys in kinds.items():
            self._table.grant(keys, options)

    def _adjust_singly(
        self, targets: Mapping[str, _Target], before: Mapping[str, _Found]
    ) -> dict[str, Exception]:
        """After a failure that may be of only one share, or of none of
        ours: each has its own answer.

        exportfs does what it can, and says that it failed if anything did;
        it also keeps entries of directories that are not there.
        """
        errors: dict[str, Exception] = {}
        found = self._found(targets)
        for share_id, target in targets.items():
            row = found.get(share_id, {})
            if _agree(row, target) and target.is_there():
                continue
            missing = target.missing(before.get(share_id, {}))
            try:
                self._revoke(target.surplus(row))
                self._grant(missing | target.missing(row))
            except commands.CommandError as error:
                errors[share_id] = error
        return errors

    def _found(
        self, share_ids: Iterable[str] | None = None
    ) -> dict[str, _Found]:
        """What is exported of ours: id to ``(path, client)`` to entry."""
        found: dict[str, _Found] = {}
        for entry in self._table.entries(share_ids):
            share_id = os.path.basename(entry.path)
            if _ID.fullmatch(share_id) and f"fsid={share_id}" in entry.options:
                row = found.setdefault(share_id, {})
                row[entry.path, entry.client] = entry
        return found

    def _target(
        self, share: base.ExportedShare, clients: base.Clients
    ) -> _Target:
        path = self.path(share.directory)
        wanted = {
            (path, client): self._options(share, level)
            for client, level in clients.items()
        }
        return _Target(share.id, share.directory, wanted)

    def _options(self, share: base.ExportedShare, level: str) -> str:
        squash = self._squash.format(uid=share.uid, gid=share.gid)
        return f"{level},sync,subtree_check,fsid={share.id},sec=sys,{squash}"

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
        """The next pass has the folder on disk."""
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
        filesystem.replace_file(file, text)

    def _remove_file(self, share_id: str) -> None:
        self._file(share_id).unlink(missing_ok=True)


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


def _agree(found: _Found, target: _Target | None) -> bool:
    if target is None:
        return not found
    return not target.surplus(found) and not target.missing(found)
