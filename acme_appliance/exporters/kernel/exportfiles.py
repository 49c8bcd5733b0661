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

"""The export files, which restore the exports when the machine restarts.

Each share has a file ``acme-ID.exports``, and each snapshot a file
``acme-snapshot-ID.exports``, in the format of exports(5). A comment contains
the access rules as JSON, to rebuild a lost database: exports(5) has only
addresses, not holders.
"""

import dataclasses
import json
import logging
import os
import pathlib
import re

from acme_appliance.exporters import base
from acme_appliance.host import filesystem
from acme_appliance.references import Kind
from acme_appliance.references import Reference

LOG = logging.getLogger(__name__)

#: A share's has no kind, because the first release had only these.
_PREFIXES = {Kind.SHARE: "acme-", Kind.SNAPSHOT: "acme-snapshot-"}
_FILE = re.compile(r"(acme-(?:snapshot-)?)([0-9a-f-]{36})\.exports")
_CLIENT = re.compile(r"([^\s()]+)\(([^()]*)\)")
_HEADER = "# Written by acme-appliance, which replaces it. Do not edit.\n"
_RULES = "# rules: "


@dataclasses.dataclass(frozen=True)
class Content:
    """The content of a file: client to level, and the access rules. Files of
    early releases have no rules."""

    clients: base.Clients
    rules: base.Rules


class ExportFiles:
    """The files in one folder. Methods can raise OSError."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def references(self) -> set[Reference]:
        """The shares and snapshots that have a file."""
        kinds = {prefix: kind for kind, prefix in _PREFIXES.items()}
        matches = (_FILE.fullmatch(name) for name in os.listdir(self.folder))
        return {
            Reference(kinds[match[1]], match[2])
            for match in matches
            if match is not None
        }

    def texts(self) -> dict[Reference, str]:
        """The text of each file."""
        return {each: self._text(each) for each in self.references()}

    def write(
        self, reference: Reference, text: str, *, sync: bool = True
    ) -> None:
        """Replace a file, if its text differs. Sync the folder afterwards.

        :param sync: False: call :meth:`sync` afterwards, too.
        """
        if self._text(reference) != text:
            filesystem.replace_file(self._path(reference), text, sync=sync)

    def remove(self, reference: Reference) -> None:
        """Remove a file, if it exists. Sync the folder afterwards."""
        self._path(reference).unlink(missing_ok=True)

    def sync(self) -> None:
        """Write all files to disk."""
        filesystem.sync_filesystem(self.folder)

    def _path(self, reference: Reference) -> pathlib.Path:
        name = f"{_PREFIXES[reference.kind]}{reference.id}.exports"
        return self.folder / name

    def _text(self, reference: Reference) -> str:
        try:
            return self._path(reference).read_text("utf-8")
        except FileNotFoundError:
            return ""


def render(path: str, options: dict[str, str], rules: base.Rules) -> str:
    """Return a file's text. :param options: client to export options."""
    kept = {
        holder: {"clients": list(rule.clients), "level": rule.level}
        for holder, rule in sorted(rules.items())
    }
    clients = " ".join(f"{client}({each})" for client, each in options.items())
    return f'{_HEADER}{_RULES}{json.dumps(kept)}\n"{path}" {clients}\n'


def parse(text: str) -> Content:
    """Parse a file that :func:`render` wrote, of any release."""
    clients: dict[str, str] = {}
    rules: base.Rules = {}
    for line in text.splitlines():
        if line.startswith(_RULES):
            rules = _parse_rules(line.removeprefix(_RULES))
        elif not line.startswith("#"):
            for client, options in _CLIENT.findall(line.rpartition('"')[2]):
                clients[client] = options.partition(",")[0]
    return Content(clients, rules)


def _parse_rules(text: str) -> base.Rules:
    try:
        return {
            holder: base.Rule(tuple(rule["clients"]), rule["level"])
            for holder, rule in json.loads(text).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # The clients of the same file are still valid.
        LOG.warning("Access rules in an export file are unusable: %s", error)
        return {}
