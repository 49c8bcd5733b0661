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

"""``acme-cinder orphans``: find, and remove, what Cinder and the appliance do
not agree about."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import datetime
import logging
import sys
from typing import Final
from typing import TYPE_CHECKING

from acme_cinder.cmd import configuration
from acme_cinder.cmd import failures
from acme_cinder.cmd import output

if TYPE_CHECKING:
    from acme_cinder.orphans import orphan

LOG = logging.getLogger(__name__)
_REMOVED: Final = "removed"


@dataclasses.dataclass(frozen=True)
class Result:
    """:ivar outcome: what was done about the orphan; empty: nothing."""

    orphan: orphan.Orphan
    outcome: str = ""


def run(given: argparse.Namespace) -> int:
    if given.yes and not given.clean:
        LOG.critical("--yes is of use only with --clean")
        return 2
    if given.clean and not given.yes and not sys.stdin.isatty():
        LOG.critical("--clean asks for each; without a terminal give --yes")
        return 2
    try:
        backends = configuration.load(given.config_file, given.backend)
        configuration.shorten_database_waits()
        configuration.prepare_commands()
        with failures.told():
            found = {each.name: _work(each, given) for each in backends}
    except (configuration.Wrong, failures.CannotRun) as error:
        LOG.critical("%s", error)
        return 2
    if given.format == "json":
        output.show_json(as_json(found))
    else:
        for name, results in found.items():
            output.show(table(name, results))
    return int(
        any(
            each.outcome != _REMOVED
            for results in found.values()
            for each in results
        )
    )


def _work(
    backend: configuration.Backend, given: argparse.Namespace
) -> list[Result]:
    """:raises Wrong: the appliance is another one."""
    # Cinder must be configured first.
    from acme_cinder import recognition
    from acme_cinder import startup
    from acme_cinder.orphans import orphan
    from acme_cinder.orphans import search

    section = backend.section
    with startup.new_client(backend.settings) as client:
        api = client.with_deadline(backend.call_seconds)
        known = recognition.Recognition(api, section.host, section.cluster)
        scene = orphan.Scene(
            backend.settings,
            api,
            startup.new_mounts(backend.settings, backend.name),
            known.where,
            datetime.timedelta(minutes=given.min_age),
        )
        try:
            found = list(search.find(scene, known))
        except search.Foreign as error:
            raise configuration.Wrong(f"[{backend.name}] {error}") from error
        if not given.clean:
            return [Result(each) for each in found]
        _start_locks(found)
        return list(clean(found, _always if given.yes else ask))


def _start_locks(found: Sequence[orphan.Orphan]) -> None:
    """Rules are changed under the locks that the services take."""
    from cinder import coordination

    if any(each.remove is not None for each in found):
        coordination.COORDINATOR.start()


def clean(
    found: Sequence[orphan.Orphan], wanted: Callable[[orphan.Orphan], bool]
) -> Iterator[Result]:
    """Remove what is proven to be an orphan, and wanted to be removed."""
    for each in found:
        if each.remove is None or not wanted(each):
            yield Result(each)
            continue
        try:
            done = each.remove()
        except Exception as error:
            # The others can still be removed.
            LOG.debug("%s %s", each.kind, each.id, exc_info=True)
            yield Result(each, f"not removed: {error}")
        else:
            changed = "left alone: it is in use, or not as it was"
            yield Result(each, _REMOVED if done else changed)


def _always(found: orphan.Orphan) -> bool:
    return True


def ask(found: orphan.Orphan) -> bool:
    """Ask the person at the terminal; anything but yes is no."""
    print(
        f"Remove {found.kind} {found.id}, {found.name}: {found.why}? [y/N] ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def as_json(found: Mapping[str, Sequence[Result]]) -> list[dict[str, object]]:
    return [
        {
            "backend": name,
            "kind": each.orphan.kind,
            "id": each.orphan.id,
            "name": each.orphan.name,
            "why": each.orphan.why,
            "remedy": each.orphan.remedy,
            "is_proven": each.orphan.remove is not None,
            "outcome": each.outcome,
        }
        for name, results in found.items()
        for each in results
    ]


def table(
    name: str, results: Sequence[Result], columns_wide: int | None = None
) -> str:
    if not results:
        return f"[{name}] no orphans"
    proven = sum(each.orphan.remove is not None for each in results)
    rows = [(each.orphan.kind, _text(each)) for each in results]
    return (
        f"[{name}] {len(results)} found, {proven} of them proven to be "
        "orphans\n" + output.table(("Kind", "Finding"), rows, columns_wide)
    )


def _text(result: Result) -> str:
    found = result.orphan
    can_clean = "" if found.remove is None else "--clean removes it"
    todo = result.outcome or found.remedy or can_clean
    lines = [found.id, f"{found.name}: {found.why}".removeprefix(": ")]
    return "\n".join([*lines, f"{output.ARROW} {todo}"])
