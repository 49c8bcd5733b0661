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
    "unusable_pools": "Pools that cannot be looked at",
    "open_jobs": "Changes that are neither finished nor undone; the appliance"
    " goes on trying",
    "unreadable_jobs": "Journal entries that this release cannot read",
    "unfinished_creates": "Parts of shares and snapshots whose create failed;"
    " delete them by the API",
    "missing_shares": "Shares whose data is gone",
    "missing_snapshots": "Snapshots whose data is gone",
    "damaged_shares": "Shares whose volume file is not as it should be",
    "oversized_shares": "Shares whose volume file takes more than their size:"
    " a client has made it longer",
    "unknown_shares": "Subvolumes that no share owns; never deleted by this"
    " program",
    "unknown_snapshots": "Subvolumes that no snapshot owns; never deleted by"
    " this program",
    "old_metadata": "Shares and snapshots whose metadata in the pool is"
    " missing or old",
    "export_differences": "Exports that are not as they should be",
    "unexplained_exports": "Exports that no access rule explains; only"
    " --apply withdraws them",
}
#: What --apply does about a finding.
_REPAIRED: Final = {
    "old_metadata": " (written)",
    "export_differences": " (repaired)",
    "unexplained_exports": " (withdrawn)",
}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "reconcile",
        help="compare database, pools and exports",
        description="Compare what the database says with what is in the"
        " pools and in the export table. Without --apply nothing is changed,"
        " and while the appliance serves, changes under way may show up."
        " Ends with 4 if there are differences that were not repaired.",
    )
    parser.add_argument(
        "--apply",
        action="store_true",
        help="finish or undo what was cut off, and make exports and states of"
        " shares what the database says. The appliance must not be serving. A"
        " start repairs too, but withdraws nothing: only this command"
        " withdraws exports that no access rule explains",
    )
    parser.add_argument(
        "--close-job",
        metavar="ID",
        action="append",
        default=[],
        help="with --apply: give up an open journal entry; the share that it"
        " names is then judged by what is in the pool; may be repeated",
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
            with nobody_else(conf), services.open_service(conf) as service:
                report = service.reconciliation.run(apply, close_jobs)
        else:
            with services.look_at_service(conf) as service:
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
def nobody_else(conf: cfg.ConfigOpts) -> Iterator[None]:
    """:raises CommandError: a server has the state directory, or will."""
    from acme_appliance import composition

    lock = locks.Lock(composition.ensure_state_path(conf) / "serve.lock")
    try:
        lock.take()
    except locks.Held as error:
        raise CommandError(
            f"the appliance is serving, as process {error.pid}. Stop it"
            " first (systemctl stop acme-appliance)."
        ) from error
    try:
        yield
    finally:
        lock.leave()


def _left(report: dict[str, Any], apply: bool) -> bool:
    """Whether something is still not as it should be."""
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
