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

"""``acme-cinder volumes``: all volumes, their shares and who has access.

From Cinder's database, which cinder.conf leads to. Cinder's API would need the
credentials of an administrator, which no host of Cinder has.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import logging
from typing import TYPE_CHECKING

from acme_cinder.cmd import configuration
from acme_cinder.cmd import failures
from acme_cinder.cmd import output

if TYPE_CHECKING:
    from acme_cinder import overview

LOG = logging.getLogger(__name__)


def run(given: argparse.Namespace) -> int:
    try:
        backends = configuration.load(given.config_file, given.backend)
        configuration.shorten_database_waits()
        with failures.told():
            found = {each.name: _read(each) for each in backends}
    except (configuration.Wrong, failures.CannotRun) as error:
        LOG.critical("%s", error)
        return 2
    if given.format == "json":
        output.show_json(as_json(found))
    else:
        for name, entries in found.items():
            output.show(table(name, entries))
    return int(
        any(each.differences for group in found.values() for each in group)
    )


def _read(backend: configuration.Backend) -> list[overview.Entry]:
    """:raises Wrong: the appliance is another one."""
    # Cinder must be configured first.
    from acme_cinder import overview
    from acme_cinder import recognition
    from acme_cinder import startup

    section = backend.section
    with startup.new_client(backend.settings) as client:
        api = client.with_deadline(backend.call_seconds)
        known = recognition.Recognition(api, section.host, section.cluster)
        if known.is_foreign():
            raise configuration.Wrong(
                f"[{backend.name}] {recognition.FOREIGN}"
            )
        return list(overview.read(api, known.where))


def as_json(
    found: Mapping[str, Sequence[overview.Entry]],
) -> list[dict[str, object]]:
    return [
        {"backend": name, **dataclasses.asdict(each)}
        for name, entries in found.items()
        for each in entries
    ]


def table(
    name: str,
    entries: Sequence[overview.Entry],
    columns_wide: int | None = None,
) -> str:
    if not entries:
        return f"[{name}] no volumes"
    rows = [(_volume(each), _state(each), _access(each)) for each in entries]
    differing = sum(bool(each.differences) for each in entries)
    return (
        f"[{name}] {len(entries)} volumes, {differing} with differences\n"
        + output.table(("Volume", "State", "Access"), rows, columns_wide)
    )


def _volume(entry: overview.Entry) -> str:
    lines = [entry.id, *filter(None, [entry.name])]
    if entry.share_id != entry.id:
        lines += ["share", entry.share_id]
    return "\n".join(lines)


def _state(entry: overview.Entry) -> str:
    return f"{entry.status}\n{entry.size_gib} GiB\n{entry.pool}"


def _access(entry: overview.Entry) -> str:
    wrong = [f"{output.CROSS} {each}" for each in entry.differences]
    return "\n".join([*entry.hosts, *wrong]) or "nobody"
