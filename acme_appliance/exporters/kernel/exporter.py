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

from collections.abc import Container
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
from acme_appliance.exporters.kernel import exportfiles
from acme_appliance.exporters.kernel import passes
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

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: So many kinds of options have a process each; for more of them, one
#: process reads the options from the files, which costs as much as two.
_MOST_KINDS = 2


#: ``(path, client)``, as the table has them.
_Key = tuple[str, str]
_Found = dict[_Key, exportfs.Entry]
_Rows = Mapping[str, tuple[base.ExportedShare, base.Clients]]


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
        self._files = exportfiles.ExportFiles(self.exports_dir)
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
            self._files.remove(share_id)
            self._passes.serve(_Target(share_id))

    def exported(self) -> dict[str, dict[str, str]]:
        with _translated():
            return {
                share_id: _levels(row)
                for share_id, row in self._found().items()
            }

    def rules(self) -> dict[str, base.Rules]:
        with _translated():
            found = self._found()
            files = self._not_as_wanted({}, self._files.texts())
        return {
            share_id: base.with_recovered(
                files[share_id].rules if share_id in files else {},
                _everything(share_id, found, files),
            )
            for share_id in found.keys() | files.keys()
        }

    def reconcile(
        self,
        wanted: Iterable[tuple[base.ExportedShare, base.Clients]],
        *,
        apply: bool,
        remove: bool = False,
        leave: Container[str] = frozenset(),
    ) -> list[base.Difference]:
        rows = {share.id: (share, row) for share, row in wanted if row}
        with _translated():
            texts = self._files.texts()
            differences = self._differences(rows, texts)
            if apply:
                self._repair(rows, texts, differences, remove, leave)
        return differences

    # -- all shares

    def _differences(
        self, rows: _Rows, texts: Mapping[str, str]
    ) -> list[base.Difference]:
        found, files = self._found(), self._not_as_wanted(rows, texts)
        differences = []
        for share_id in sorted({*rows, *found, *files}):
            clients = dict(rows[share_id][1]) if share_id in rows else {}
            surplus = base.unexplained(
                clients, _everything(share_id, found, files)
            )
            row = found.get(share_id, {})
            if surplus or not _agree(row, self._target_of(rows, share_id)):
                differences.append(
                    base.Difference(
                        share_id, clients, {**surplus, **_levels(row)}
                    )
                )
        return differences

    def _repair(
        self,
        rows: _Rows,
        texts: Mapping[str, str],
        differences: list[base.Difference],
        remove: bool,
        leave: Container[str],
    ) -> None:
        if remove:
            for share_id in texts.keys() - rows.keys():
                self._files.remove(share_id)
        else:
            rows, differences = _only_adding(rows, differences)
        self._write_files(rows, texts)
        targets = [
            self._target_of(rows, each.share_id)
            for each in differences
            if each.share_id not in leave
        ]
        errors = self._pass(targets)
        for target, error in zip(targets, errors, strict=True):
            if error is not None:
                # One share that is not there keeps no other from its
                # clients; it is reported as the difference that it is.
                LOG.error(
                    "Share %s is not exported as it should be: %s",
                    target.share_id,
                    error,
                )

    def _target_of(self, rows: _Rows, share_id: str) -> _Target:
        if share_id not in rows:
            return _Target(share_id)
        return self._target(*rows[share_id])

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
            if len(targets) == 1:
                return dict.fromkeys(targets, error)
            if error.status is None:
                # What did not end by itself would not for one share. The
                # command names the shares of others: nobody is told it.
                reason = base.ExporterError(f"{error.argv[0]}: {error.reason}")
                return dict.fromkeys(targets, reason)
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

    def _not_as_wanted(
        self, rows: _Rows, texts: Mapping[str, str]
    ) -> dict[str, exportfiles.Content]:
        """The files that do not say exactly what is wanted."""
        return {
            share_id: exportfiles.parse(text)
            for share_id, text in texts.items()
            if share_id not in rows or text != self._text(*rows[share_id])
        }

    def _write_files(self, rows: _Rows, texts: Mapping[str, str]) -> None:
        """Write what differs; one wait for the disk serves all."""
        changed = {
            share.id: text
            for share, clients in rows.values()
            if (text := self._text(share, clients)) != texts.get(share.id)
        }
        for share_id, text in changed.items():
            self._files.write(share_id, text, sync=False)
        if changed:
            self._files.sync()

    def _write_file(
        self, share: base.ExportedShare, clients: base.Clients
    ) -> None:
        """The next pass has the folder on disk."""
        if clients:
            self._files.write(share.id, self._text(share, clients))
        else:
            self._files.remove(share.id)

    def _text(self, share: base.ExportedShare, clients: base.Clients) -> str:
        options = {
            client: self._options(share, level)
            for client, level in clients.items()
        }
        path = self.path(share.directory)
        return exportfiles.render(path, options, share.rules)


def _only_adding(
    rows: _Rows, differences: list[base.Difference]
) -> tuple[_Rows, list[base.Difference]]:
    """The rows, with all in them that is exported beyond them; and the
    differences of shares that have a row."""
    known = [each for each in differences if each.share_id in rows]
    grown = dict(rows)
    for each in known:
        share, clients = rows[each.share_id]
        grown[each.share_id] = (
            share,
            base.strongest(clients, each.unexplained),
        )
    return grown, known


def _levels(found: _Found) -> dict[str, str]:
    return {client: _level(entry) for (_, client), entry in found.items()}


def _everything(
    share_id: str,
    found: Mapping[str, _Found],
    files: Mapping[str, exportfiles.Content],
) -> base.Clients:
    """What is exported, now or after the next restart of the machine."""
    file = files[share_id].clients if share_id in files else {}
    return base.strongest(_levels(found.get(share_id, {})), file)


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


def _agree(found: _Found, target: _Target) -> bool:
    return not target.surplus(found) and not target.missing(found)
