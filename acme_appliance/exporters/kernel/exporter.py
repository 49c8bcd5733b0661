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

Every share and every exported snapshot has a file in ``/etc/exports.d``, which
restores the export when the machine restarts. ``exportfs`` changes the running
server. It takes longer the more exports there are, so concurrent changes are
batched: one process revokes, and one or two grant, for any number of shares.
Nothing here reloads all files, because that would undo manual changes of the
operator.

Every export has its own ``fsid``, so that clients' handles stay valid over
restarts and are unique. A share's ``fsid`` is its id; a snapshot's is derived
from its id, because a share can have the same one. Paths are relative to
``root``, which is nfs.conf's ``[exports] rootdir``.

``subtree_check`` confines a client to its share. All shares of a pool are
subvolumes of one file system, and a btrfs handle names the subvolume: without
the check the server opens any handle, and a client with forged handles could
read and write other shares. This includes clients that have only a snapshot.
The drawback of the check, that files which are renamed across directories
while open become unreachable (exports(5)), does not apply: a volume has one
file, which stays in its directory.
"""

from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import logging
import os
import pathlib
import shutil

from acme_appliance.exporters import base
from acme_appliance.exporters.kernel import cut
from acme_appliance.exporters.kernel import exportfiles
from acme_appliance.exporters.kernel import tablechanges
from acme_appliance.host import commands
from acme_appliance.host import exportfs
from acme_appliance.references import Kind
from acme_appliance.references import Reference

LOG = logging.getLogger(__name__)

#: All users of a granted host act as the owner of the volume file: hosts are
#: trusted, their user ids are not.
SQUASH_ALL = "all"
#: Only root is mapped, to nobody.
SQUASH_ROOT = "root"
SQUASH_NONE = "none"

_SQUASH = {
    SQUASH_ALL: "all_squash,anonuid={uid},anongid={gid}",
    SQUASH_ROOT: "root_squash",
    SQUASH_NONE: "no_root_squash",
}

_Rows = Mapping[Reference, tuple[base.ExportedDirectory, base.Clients]]


class KernelExporter(base.Exporter):
    """:param root: nfs.conf's rootdir; all pools are below it.
    :param exports_dir: folder of the export files; ``exportfs -a`` reads it.
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
        self._changes = tablechanges.TableChanges(
            table or exportfs.ExportTable(), self.exports_dir
        )

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

    def apply(
        self, directory: base.ExportedDirectory, clients: base.Clients
    ) -> None:
        with _translated():
            self._write_file(directory, clients)
            self._changes.serve(self._target(directory, clients))

    def withdraw(self, reference: Reference) -> None:
        with _translated():
            self._files.remove(reference)
            self._changes.serve(tablechanges.Target(reference))

    def exported(self) -> dict[Reference, dict[str, str]]:
        with _translated():
            return {
                reference: _levels(row)
                for reference, row in self._changes.found().items()
            }

    def rules(self) -> dict[Reference, base.Rules]:
        with _translated():
            found = self._changes.found()
            files = self._changed_files({}, self._files.texts())
        return {
            reference: base.with_recovered(
                files[reference].rules if reference in files else {},
                _all_clients(reference, found, files),
            )
            for reference in found.keys() | files.keys()
        }

    def reconcile(
        self,
        wanted: Iterable[tuple[base.ExportedDirectory, base.Clients]],
        *,
        apply: bool,
        remove: bool = False,
        leave: Container[Reference] = frozenset(),
    ) -> list[base.Difference]:
        rows = {each.reference: (each, row) for each, row in wanted if row}
        with _translated():
            texts = self._files.texts()
            differences = self._differences(rows, texts)
            if apply:
                self._repair(rows, texts, differences, remove, leave)
        return differences

    def cut(self) -> contextlib.AbstractContextManager[base.Cut]:
        return cut.prepared()

    def sweep_cuts(self) -> None:
        cut.sweep()

    # -- all shares

    def _differences(
        self, rows: _Rows, texts: Mapping[Reference, str]
    ) -> list[base.Difference]:
        found, files = self._changes.found(), self._changed_files(rows, texts)
        differences = []
        for reference in sorted({*rows, *found, *files}):
            clients = dict(rows[reference][1]) if reference in rows else {}
            surplus = base.unexplained(
                clients, _all_clients(reference, found, files)
            )
            row = found.get(reference, {})
            if surplus or not tablechanges.agree(
                row, self._target_of(rows, reference)
            ):
                differences.append(
                    base.Difference(
                        reference, clients, {**surplus, **_levels(row)}
                    )
                )
        return differences

    def _repair(
        self,
        rows: _Rows,
        texts: Mapping[Reference, str],
        differences: list[base.Difference],
        remove: bool,
        leave: Container[Reference],
    ) -> None:
        if remove:
            for reference in texts.keys() - rows.keys():
                if reference not in leave:
                    self._files.remove(reference)
        else:
            rows, differences = _only_adding(rows, differences)
        self._write_files(
            {each: row for each, row in rows.items() if each not in leave},
            texts,
        )
        targets = [
            self._target_of(rows, each.reference)
            for each in differences
            if each.reference not in leave
        ]
        errors = self._changes.apply(targets)
        for target, error in zip(targets, errors, strict=True):
            if error is not None:
                # Continue: the failed one is reported as a difference.
                LOG.error(
                    "The exports of %s cannot be corrected: %s",
                    target.reference,
                    error,
                )

    def _target_of(
        self, rows: _Rows, reference: Reference
    ) -> tablechanges.Target:
        if reference not in rows:
            return tablechanges.Target(reference)
        return self._target(*rows[reference])

    def _target(
        self, directory: base.ExportedDirectory, clients: base.Clients
    ) -> tablechanges.Target:
        path = self.path(directory.directory)
        wanted = {
            (path, client): self._options(directory, level)
            for client, level in clients.items()
        }
        return tablechanges.Target(
            directory.reference, directory.directory, wanted
        )

    def _options(self, directory: base.ExportedDirectory, level: str) -> str:
        if directory.reference.kind == Kind.SNAPSHOT:
            # Despite the rule: not every engine has read-only snapshots.
            level = base.LEVEL_READ_ONLY
        id_ = tablechanges.fsid(directory.reference)
        squash = self._squash.format(uid=directory.uid, gid=directory.gid)
        return f"{level},sync,subtree_check,fsid={id_},sec=sys,{squash}"

    # -- the files

    def _changed_files(
        self, rows: _Rows, texts: Mapping[Reference, str]
    ) -> dict[Reference, exportfiles.Content]:
        """The files that differ from the desired ones."""
        return {
            reference: exportfiles.parse(text)
            for reference, text in texts.items()
            if reference not in rows or text != self._text(*rows[reference])
        }

    def _write_files(
        self, rows: _Rows, texts: Mapping[Reference, str]
    ) -> None:
        """Write the files that differ, with one sync for all."""
        changed = {
            reference: text
            for reference, row in rows.items()
            if (text := self._text(*row)) != texts.get(reference)
        }
        for reference, text in changed.items():
            self._files.write(reference, text, sync=False)
        if changed:
            self._files.sync()

    def _write_file(
        self, directory: base.ExportedDirectory, clients: base.Clients
    ) -> None:
        """The next pass syncs the folder."""
        if clients:
            text = self._text(directory, clients)
            self._files.write(directory.reference, text)
        else:
            self._files.remove(directory.reference)

    def _text(
        self, directory: base.ExportedDirectory, clients: base.Clients
    ) -> str:
        options = {
            client: self._options(directory, level)
            for client, level in clients.items()
        }
        path = self.path(directory.directory)
        return exportfiles.render(path, options, directory.rules)


def _only_adding(
    rows: _Rows, differences: list[base.Difference]
) -> tuple[_Rows, list[base.Difference]]:
    """The rows, extended by the unexplained exports; and the differences of
    objects that have a row."""
    known = [each for each in differences if each.reference in rows]
    grown = dict(rows)
    for each in known:
        directory, clients = rows[each.reference]
        grown[each.reference] = (
            directory,
            base.strongest(clients, each.unexplained),
        )
    return grown, known


def _levels(found: tablechanges.Found) -> dict[str, str]:
    return {client: _level(entry) for (_, client), entry in found.items()}


def _all_clients(
    reference: Reference,
    found: Mapping[Reference, tablechanges.Found],
    files: Mapping[Reference, exportfiles.Content],
) -> base.Clients:
    """Clients with access, now or after a restart of the machine."""
    file = files[reference].clients if reference in files else {}
    return base.strongest(_levels(found.get(reference, {})), file)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Convert errors of the machine to exporter errors."""
    try:
        yield
    except (OSError, commands.CommandError) as error:
        raise base.ExporterError(str(error)) from error


def _level(entry: exportfs.Entry) -> str:
    if base.LEVEL_READ_WRITE in entry.options:
        return base.LEVEL_READ_WRITE
    return base.LEVEL_READ_ONLY
