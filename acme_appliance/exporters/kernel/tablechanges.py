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

"""Change the NFS server's export table, one pass for all waiting callers."""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import logging
import os
import pathlib
import re
import threading
import uuid

from acme_appliance.exporters import base
from acme_appliance.exporters.kernel import passes
from acme_appliance.host import commands
from acme_appliance.host import exportfs
from acme_appliance.host import filesystem
from acme_appliance.references import Kind
from acme_appliance.references import Reference

LOG = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Must never change: clients' handles of snapshots depend on it.
_SNAPSHOTS = uuid.UUID("5b0e2c52-3f0b-5d0c-9c62-6f9e41a7d3b8")

#: Up to this many different option strings use a process each. For more, one
#: process reads the options from the files, which takes as long as two.
_MAX_OPTION_STRINGS = 2


#: ``(path, client)``, as in the export table.
Key = tuple[str, str]
Found = dict[Key, exportfs.Entry]


@dataclasses.dataclass(frozen=True)
class Target:
    """The desired exports of one directory: ``(path, client)`` to options.

    ``directory`` None: it may not exist, and has no clients.
    """

    reference: Reference
    directory: str | None = None
    wanted: Mapping[Key, str] = dataclasses.field(default_factory=dict)

    def is_there(self) -> bool:
        return self.directory is None or os.path.isdir(self.directory)

    def surplus(self, found: Found) -> list[Key]:
        return [key for key in found if key not in self.wanted]

    def missing(self, found: Found) -> dict[Key, str]:
        return {
            key: options
            for key, options in self.wanted.items()
            if key not in found or not _has(found[key], options)
        }


class TableChanges:
    """:param exports_dir: folder of the export files."""

    def __init__(
        self, table: exportfs.ExportTable, exports_dir: pathlib.Path
    ) -> None:
        self._table = table
        self._exports_dir = exports_dir
        self._passes = passes.Passes(self.apply)
        #: Held while the export table is compared and changed.
        self._adjusting = threading.Lock()

    def serve(self, target: Target) -> None:
        """Change the table for one target, with those of other callers.

        :raises commands.CommandError, OSError: it failed.
        """
        self._passes.serve(target)

    def apply(self, targets: list[Target]) -> list[Exception | None]:
        """Change the export table for all targets, whose files are
        written."""
        filesystem.sync_directory(self._exports_dir)
        # The last target of the same share wins.
        latest = {target.reference: target for target in targets}
        with self._adjusting:
            errors = self._adjust(latest)
        return [errors.get(target.reference) for target in targets]

    def _adjust(
        self, targets: Mapping[Reference, Target]
    ) -> dict[Reference, Exception]:
        """Like :meth:`apply`; return the errors."""
        found = self.found(targets)
        try:
            self._change(targets.values(), found)
        except commands.CommandError as error:
            if len(targets) == 1:
                return dict.fromkeys(targets, error)
            if error.status is None:
                # A timeout or signal would also occur for a single share. The
                # command contains other shares: do not show it to callers.
                reason = base.ExporterError(f"{error.argv[0]}: {error.reason}")
                return dict.fromkeys(targets, reason)
            LOG.warning("Retrying exports one by one: %s", error)
            return self._adjust_singly(targets, found)
        return {}

    def _change(
        self, targets: Iterable[Target], found: Mapping[Reference, Found]
    ) -> None:
        """Runs no process if nothing differs."""
        surplus: list[Key] = []
        missing: dict[Key, str] = {}
        for target in targets:
            row = found.get(target.reference, {})
            surplus += target.surplus(row)
            missing |= target.missing(row)
        self._revoke(surplus)
        self._grant(missing)

    def _revoke(self, surplus: list[Key]) -> None:
        if surplus:
            self._table.revoke(surplus)

    def _grant(self, missing: Mapping[Key, str]) -> None:
        kinds: dict[str, list[Key]] = {}
        for key, options in missing.items():
            kinds.setdefault(options, []).append(key)
        readable = self._table.folder == str(self._exports_dir)
        if readable and len(kinds) > _MAX_OPTION_STRINGS:
            self._table.grant_from_files(missing)
            return
        for options, keys in kinds.items():
            self._table.grant(keys, options)

    def _adjust_singly(
        self,
        targets: Mapping[Reference, Target],
        before: Mapping[Reference, Found],
    ) -> dict[Reference, Exception]:
        """Retry each target after a failure, and return the errors.

        exportfs continues after errors, and then fails, even if the error is
        in an export that the appliance did not create. It also keeps entries
        of missing directories.
        """
        errors: dict[Reference, Exception] = {}
        found = self.found(targets)
        for reference, target in targets.items():
            row = found.get(reference, {})
            if agree(row, target) and target.is_there():
                continue
            missing = target.missing(before.get(reference, {}))
            try:
                self._revoke(target.surplus(row))
                self._grant(missing | target.missing(row))
            except commands.CommandError as error:
                errors[reference] = error
        return errors

    def found(
        self, references: Iterable[Reference] | None = None
    ) -> dict[Reference, Found]:
        """The appliance's current exports: ``(path, client)`` to entry."""
        names = None
        if references is not None:
            names = {each.id for each in references}
        found: dict[Reference, Found] = {}
        for entry in self._table.entries(names):
            reference = _reference(entry)
            if reference is not None:
                row = found.setdefault(reference, {})
                row[entry.path, entry.client] = entry
        return found


def fsid(reference: Reference) -> str:
    """A share's id, or a UUID derived from a snapshot's id, with the variant
    that RFC 9562 reserves. No share has such an id. Otherwise a tenant could
    create a share with the fsid of another tenant's snapshot."""
    if reference.kind == Kind.SHARE:
        return reference.id
    made = uuid.uuid5(_SNAPSHOTS, reference.id)
    return str(uuid.UUID(int=made.int | 0xE << 60))


def _reference(entry: exportfs.Entry) -> Reference | None:
    """The share or snapshot of an entry; None: not the appliance's."""
    id_ = os.path.basename(entry.path)
    if not _ID.fullmatch(id_):
        return None
    for kind in Kind:
        if f"fsid={fsid(Reference(kind, id_))}" in entry.options:
            return Reference(kind, id_)
    return None


def _has(entry: exportfs.Entry, options: str) -> bool:
    return entry.options.issuperset(options.split(","))


def agree(found: Found, target: Target) -> bool:
    return not target.surplus(found) and not target.missing(found)
