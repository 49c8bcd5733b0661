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

"""``acme-appliance status``."""

import json
from typing import Any
from typing import TYPE_CHECKING

from oslo_config import cfg

from acme_appliance import conf as options
from acme_appliance import locks
from acme_appliance.cmd.common import CommandError
from acme_appliance.cmd.common import Exit
from acme_appliance.cmd.common import human_bytes

if TYPE_CHECKING:
    import prettytable

_MAX_EXPORTS = 50


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "status",
        help="show pools, shares, exports and open jobs",
        description="Show the state of this appliance, whether or not it is"
        " running. Changes nothing.",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON, with all exports"
    )


def run(conf: cfg.ConfigOpts) -> int:
    from acme_appliance import problems
    from acme_appliance.cmd import services

    lock = locks.Lock(options.state_path(conf) / "serve.lock")
    with services.inspect_service(conf) as service:
        try:
            service.reconciliation.compare_exports()
            status = service.system.status()
            # The service of this process is not started; show the reasons
            # that the running server has.
            status["reasons"] = service.system.obstacles()
            status["warnings"] = service.system.warnings()
        except problems.Problem as problem:
            raise CommandError(problem.detail) from problem
    status["serving_pid"] = lock.holder() if lock.is_held() else None
    status["tls"] = _certificate(conf)
    if conf.command.json:
        print(json.dumps(status, indent=2, sort_keys=True))
    else:
        _print(conf, status)
    return Exit.OK


def _certificate(conf: cfg.ConfigOpts) -> dict[str, str] | None:
    """The existing certificate; creates none."""
    from acme_appliance import tls

    if not conf.tls.enabled:
        return None
    directory = options.state_path(conf) / "tls"
    configured = conf.tls.certificate_file
    file = directory / "server.crt"
    if configured:
        file = type(file)(configured)
    try:
        found = tls.read_certificate(file, directory / "server.key")
    except tls.TlsError:
        return {"certificate_file": str(file), "sha256": "not created yet"}
    return {
        "certificate_file": str(found.certificate_file),
        "sha256": found.fingerprint,
        "expires_at": found.expires_at.isoformat(),
        "names": ", ".join(found.names),
    }


def _print(conf: cfg.ConfigOpts, status: dict[str, Any]) -> None:
    system = status["system"]
    pid = status["serving_pid"]
    scheme = "https" if status["tls"] else "http"
    urls = [f"{scheme}://{a}" for a in options.listen_points(conf)]
    print(f"{system['name']} ({system['id']}), {system['product']}", end=" ")
    print(system["version"])
    print(f"server: {f'process {pid}' if pid else 'not running'},", end=" ")
    print(", ".join(urls))
    if status["tls"]:
        print(f"CA file for clients: {status['tls']['certificate_file']}")
        print(f"SHA-256: {status['tls']['sha256']}")
    for reason in status["reasons"]:
        print(f"NOT READY: {reason}")
    for warning in status["warnings"]:
        print(f"WARNING: {warning}")
    states = status["share_states"]
    total = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
    for title, table in (
        ("Pools", _pools(status["pools"])),
        (f"Shares: {total or 'none'}\n\nExports", _exports(status)),
        ("Open journal entries", _jobs(status["open_jobs"])),
    ):
        print(f"\n{title}")
        print(table if table.rows else "none")
    more = len(status["exports"]) + len(status["snapshot_exports"])
    if more > _MAX_EXPORTS:
        print(f"{more - _MAX_EXPORTS} more exports: see --json")


def _table(*names: str) -> "prettytable.PrettyTable":
    import prettytable

    table = prettytable.PrettyTable(names)
    table.align = "l"
    return table


def _pools(pools: list[dict[str, Any]]) -> "prettytable.PrettyTable":
    table = _table(
        "pool",
        "state",
        "engine",
        "total",
        "used",
        "free",
        "provisioned",
        "shares",
        "snapshots",
    )
    for pool in pools:
        table.add_row(
            [
                pool["name"],
                pool["state"],
                pool["engine"],
                *(
                    human_bytes(pool[f"{kind}_bytes"])
                    for kind in ("total", "used", "free", "provisioned")
                ),
                pool["share_count"],
                pool["snapshot_count"],
            ]
        )
    return table


def _exports(status: dict[str, Any]) -> "prettytable.PrettyTable":
    table = _table("share or snapshot", "clients")
    # Before the many shares: few, and short-lived.
    exports = [
        (f"snapshot {id_}", clients)
        for id_, clients in sorted(status["snapshot_exports"].items())
    ]
    exports += sorted(status["exports"].items())
    for name, clients in exports[:_MAX_EXPORTS]:
        table.add_row(
            [
                name,
                ", ".join(f"{c} ({level})" for c, level in clients.items()),
            ]
        )
    return table


def _jobs(jobs: list[dict[str, Any]]) -> "prettytable.PrettyTable":
    table = _table(
        "job", "kind", "state", "share", "since", "attempts", "problem"
    )
    for job in jobs:
        table.add_row(
            [
                job["id"],
                job["kind"],
                "being undone" if job["undo"] else job["state"],
                job["share_id"],
                job["created_at"],
                job["attempts"],
                (job["last_problem"] or {}).get("detail", ""),
            ]
        )
    return table
