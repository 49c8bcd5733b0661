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

"""``acme-appliance reconcile``."""

from collections.abc import Iterator
import contextlib
import json
from typing import Any
from typing import Final

from oslo_config import cfg

from acme_appliance import locks
from acme_appliance.cmd.common import CommandError
from acme_appliance.cmd.common import Exit

_TITLES: Final = {
    "unusable_pools": "Pools that cannot be read",
    "open_jobs": "Changes that are neither finished nor undone; the appliance"
    " keeps retrying",
    "unreadable_jobs": "Journal entries that this release cannot read",
    "unfinished_creates": "Parts of shares and snapshots whose create failed;"
    " delete them with the API",
    "missing_shares": "Shares whose data is missing",
    "missing_snapshots": "Snapshots whose data is missing",
    "damaged_shares": "Shares with a damaged volume file",
    "oversized_shares": "Shares whose volume file exceeds their size because"
    " a client extended it",
    "unknown_shares": "Subvolumes that belong to no share; never deleted"
    " automatically",
    "unknown_snapshots": "Subvolumes that belong to no snapshot; never deleted"
    " automatically",
    "old_metadata": "Shares and snapshots whose metadata in the pool is"
    " missing or outdated",
    "export_differences": "Exports that differ from the access rules",
    "unexplained_exports": "Exports without an access rule; only --apply"
    " withdraws them",
}
#: What --apply does with a finding.
_REPAIRED: Final = {
    "old_metadata": " (written)",
    "export_differences": " (repaired)",
    "unexplained_exports": " (withdrawn)",
}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "reconcile",
        help="compare database, pools and exports",
        description="Compare the database with the pools and the export"
        " table. Without --apply nothing changes, and the report may contain"
        " changes in progress if the appliance is running. The exit code is 4"
        " if differences are left.",
    )
    parser.add_argument(
        "--apply",
        action="store_true",
        help="finish or undo interrupted changes, and correct exports and"
        " states to match the database. The appliance must not be running. A"
        " start also repairs, but only this command withdraws exports without"
        " an access rule",
    )
    parser.add_argument(
        "--close-job",
        metavar="ID",
        action="append",
        default=[],
        help="with --apply: close an open journal entry; the state of its"
        " share then follows from the contents of the pool; can be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(conf: cfg.ConfigOpts) -> int:
    from acme_appliance import problems
    from acme_appliance.cmd import services
    from acme_appliance.storage import identity

    apply, close_jobs = conf.command.apply, conf.command.close_job
    if close_jobs and not apply:
        raise CommandError("--close-job needs --apply")
    try:
        if apply:
            with exclusive(conf), services.open_service(conf) as service:
                report = service.reconciliation.run(apply, close_jobs)
        else:
            with services.inspect_service(conf) as service:
                report = service.reconciliation.run(apply)
    except problems.Problem as problem:
        wrong = isinstance(problem.__cause__, identity.Mismatch)
        code = Exit.WRONG_DATABASE if wrong else Exit.FAILED
        raise CommandError(problem.detail, code) from problem
    if conf.command.json:
        print(json.dumps(report, indent=2, sort_keys=True))
    else:
        _print(report)
    return Exit.DIFFERENCES if _left(report, apply) else Exit.OK


@contextlib.contextmanager
def exclusive(conf: cfg.ConfigOpts) -> Iterator[None]:
    """Keep servers from starting in the state directory.

    :raises CommandError: a server is running.
    """
    from acme_appliance import composition

    lock = locks.Lock(composition.ensure_state_path(conf) / "serve.lock")
    try:
        lock.take()
    except locks.Held as error:
        raise CommandError(
            f"the appliance is running, as process {error.pid}. Stop it"
            " first (systemctl stop acme-appliance)."
        ) from error
    try:
        yield
    finally:
        lock.leave()


def _left(report: dict[str, Any], apply: bool) -> bool:
    """Whether differences are left."""
    repaired = _REPAIRED if apply else {}
    return any(report.get(name) for name in _TITLES if name not in repaired)


def _print(report: dict[str, Any]) -> None:
    clean = True
    for name, title in _TITLES.items():
        found = report.get(name)
        if not found:
            continue
        clean = False
        note = _REPAIRED.get(name, "") if report["applied"] else ""
        print(f"{title}{note}:")
        if isinstance(found, dict):
            found = [f"{key}: {value}" for key, value in found.items()]
        for each in found:
            print(f"  {_line(each)}")
    if clean:
        print("Database, pools and exports agree.")


def _line(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    if "clients" in entry:
        return f"{name_of(entry)}: {_clients(entry['clients'])}"
    return (
        f"{name_of(entry)}: wanted {_clients(entry['wanted'])}, found"
        f" {_clients(entry['found'])}"
    )


def name_of(entry: dict[str, Any]) -> str:
    """The share or snapshot that an entry of a report is about."""
    if "snapshot_id" in entry:
        return f"snapshot {entry['snapshot_id']}"
    return str(entry["share_id"])


def _clients(clients: dict[str, str]) -> str:
    return ", ".join(f"{c} ({v})" for c, v in clients.items()) or "nobody"
