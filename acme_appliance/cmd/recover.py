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

"""``acme-appliance recover``."""

import json
from typing import Any
from typing import Final

from oslo_config import cfg

from acme_appliance.cmd import reconcile
from acme_appliance.cmd.common import CommandError
from acme_appliance.cmd.common import Exit

_DESCRIPTION: Final = (
    "Rebuild a lost database, or bring an older copy of it up to date: shares"
    " and snapshots from the metadata in the pools, access rules from the"
    " export files. Without --apply it only shows what it would do. The"
    " appliance must not be running. Clients of the shares are not affected."
    " Tokens cannot be recovered. The exit code is 4 if differences are left."
)

#: The findings and their titles, in the order of the output.
_TITLES: Final = {
    "skipped_pools": "Pools that are skipped",
    "added_shares": "Shares added from their metadata",
    "added_snapshots": "Snapshots added from their metadata",
    "adopted_shares": "Shares without metadata, adopted",
    "updated_shares": "Shares that had changed since the copy was made",
    "updated_snapshots": "Snapshots that had changed since the copy was made",
    "removed_shares": "Shares that were deleted since the copy was made",
    "removed_snapshots": "Snapshots that were deleted since the copy was made",
    "added_groups": "Groups and group snapshots added from their metadata",
    "updated_groups": "Groups and group snapshots that had changed since the"
    " copy was made",
    "removed_groups": "Groups and group snapshots that were deleted since the"
    " copy was made",
    "incomplete_groups": "Group snapshots that were not complete; their"
    " snapshots are kept as ordinary ones",
    "changed_rules": "Access rules changed to match the exports",
    "closed_jobs": "Changes that ended since the copy was made",
    "reopened_jobs": "Reverts that the next start completes",
    "undescribed": "Data without metadata; shares with exactly one file can"
    " be adopted: --adopt NAMESPACE",
    "without_data": "Metadata without data; the share or snapshot is lost",
    "duplicates": "Data whose id is in use in another pool",
    "without_share": "Snapshots whose share is missing",
}
_LEFT: Final = (
    "skipped_pools",
    "undescribed",
    "without_data",
    "duplicates",
    "without_share",
)
_MOST: Final = 50


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "recover",
        help="rebuild a lost database, or complete an older copy",
        description=_DESCRIPTION,
    )
    parser.add_argument(
        "--apply", action="store_true", help="apply it instead of showing it"
    )
    parser.add_argument(
        "--adopt",
        metavar="NAMESPACE",
        help="also add shares without metadata that hold exactly one file,"
        " which is assumed to be raw; use the namespace of the back end's"
        " token",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(conf: cfg.ConfigOpts) -> int:
    from acme_appliance import problems
    from acme_appliance.cmd import services

    command = conf.command
    try:
        with (
            reconcile.exclusive(conf),
            services.open_service(conf) as service,
        ):
            report = service.reconciliation.restore(
                apply=command.apply, adopt_into=command.adopt
            )
    except problems.Problem as problem:
        raise CommandError(problem.detail) from problem
    if command.apply and report["system_id"]:
        _restore_system_id(conf, report["system_id"])
    if command.json:
        print(json.dumps(report, indent=2, sort_keys=True))
    else:
        _print(report)
    return Exit.DIFFERENCES if any(report[n] for n in _LEFT) else Exit.OK


def _restore_system_id(conf: cfg.ConfigOpts, system_id: str) -> None:
    """Clients identify the appliance by its id."""
    from acme_appliance import composition
    from acme_appliance.host import filesystem

    file = composition.system_id_file(composition.ensure_state_path(conf))
    filesystem.write_durably(file, f"{system_id}\n")


def _print(report: dict[str, Any]) -> None:
    for pool, relation in report["pools"].items():
        print(f"Pool {pool}: {_RELATIONS[relation]}.")
    table = _table(report)
    print(table if table.rows else "There is nothing to recover.")
    for name, title in _TITLES.items():
        if report[name]:
            _print_found(title, report[name])
    if not report["applied"]:
        print("\nNothing was changed: repeat with --apply.")
    _print_tokens(report)


_RELATIONS: Final = {
    "ours": "the database matches the pool and is up to date",
    "new": "the pool is new to the database",
    "lost": "the database does not know the pool",
    "older": "the database is an older copy",
    "other": "the database knows another pool by this name",
}


def _table(report: dict[str, Any]) -> Any:
    import prettytable

    table = prettytable.PrettyTable(["what", "count"])
    table.align = "l"
    for name, title in _TITLES.items():
        if report[name]:
            table.add_row([title, len(report[name])])
    return table


def _print_found(title: str, found: Any) -> None:
    print(f"\n{title}:")
    if isinstance(found, dict):
        found = [f"{key}: {value}" for key, value in found.items()]
    for each in found[:_MOST]:
        print(f"  {_line(each)}")
    if len(found) > _MOST:
        print(f"  ... and {len(found) - _MOST} more: see --json")


def _line(each: Any) -> str:
    if not isinstance(each, dict):
        return str(each)
    parts = [
        f"{verb} {', '.join(each[verb])}"
        for verb in ("granted", "revoked")
        if each[verb]
    ]
    return f"{reconcile.name_of(each)}: {'; '.join(parts)}"


def _print_tokens(report: dict[str, Any]) -> None:
    relations = set(report["pools"].values())
    if "lost" in relations:
        print("\nTokens cannot be recovered. Create new ones:")
        for namespace in report["namespaces"]:
            print(
                "  acme-appliance token create NAME --scope"
                f" driver:{namespace}"
            )
    elif "older" in relations:
        print(
            "\nThe tokens are those of the copy. Revoke again the ones that"
            " were revoked since: acme-appliance token list"
        )
