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

"""``acme-cinder check``: find what is wrong with the set-up of a back end."""

from __future__ import annotations

import argparse
import collections
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import logging
from typing import Final
from typing import TYPE_CHECKING

from acme_cinder.cmd import configuration
from acme_cinder.cmd import output

if TYPE_CHECKING:
    from acme_cinder.checks import findings

LOG = logging.getLogger(__name__)

_MARKS: Final[Mapping[str, str]] = {
    "ok": output.TICK,
    "warning": "!",
    "failed": output.CROSS,
    "not checked": "?",
}


def run(given: argparse.Namespace) -> int:
    try:
        sections = configuration.sections(given.config_file, given.backend)
    except configuration.Wrong as error:
        LOG.critical("%s", error)
        return 2
    configuration.shorten_database_waits()
    configuration.prepare_commands()
    found: dict[str, list[findings.Finding]] = {}
    for section in sections:
        found[section.name] = find(section)
        if given.format == "table":
            output.show(table(section.name, found[section.name]))
    if given.format == "json":
        output.show_json(as_json(found))
    return int(any(each.needs_work for one in found.values() for each in one))


def find(
    section: configuration.Section, *, may_change: bool = True
) -> list[findings.Finding]:
    """:param may_change: False: make no share to mount."""
    # Cinder must be configured first.
    from acme_cinder import checks
    from acme_cinder.checks import backend
    from acme_cinder.checks import trial

    wanted = [
        each for each in checks.ALL if may_change or each is not trial.MOUNT
    ]
    return list(
        backend.check(
            section.options,
            section.name,
            section.host,
            section.cluster,
            wanted,
        )
    )


def as_json(
    found: Mapping[str, Sequence[findings.Finding]],
) -> list[dict[str, str]]:
    """One object for each finding, in order."""
    return [
        {
            "backend": name,
            "check": each.check,
            "state": str(each.state),
            "finding": each.text,
            "remedy": each.remedy,
        }
        for name, group in found.items()
        for each in group
    ]


def table(
    name: str,
    found: Sequence[findings.Finding],
    columns_wide: int | None = None,
) -> str:
    """The findings of a back end, below a line that sums them up."""
    counts = collections.Counter(str(each.state) for each in found)
    summary = ", ".join(
        f"{counts[state]} {state}" for state in _MARKS if counts[state]
    )
    columns = ("", "Check", "Finding")
    rows = [tuple(_row(each)) for each in found]
    return f"[{name}] {summary}\n{output.table(columns, rows, columns_wide)}"


def _row(found: findings.Finding) -> Iterator[str]:
    yield _MARKS[found.state]
    yield found.check
    remedy = f"\n{output.ARROW} {found.remedy}" if found.remedy else ""
    yield found.text + remedy
