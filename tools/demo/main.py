# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Run the demonstration in a sandbox with NFS; see tools/demo.sh.

``python -m tools.demo.main --logs DIR [--keep] [--tour]``
"""

import argparse
import os
import pathlib
import signal
import sys
import time
import traceback

import prettytable

from tests.harness import appliance
from tests.harness import processes
from tests.harness import scenario
from tests.harness import stack

OK = "ok"
FAILED = "FAILED"


class Report:
    """The table: a line per step when it ends, and all at the end."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._rows: list[tuple[str, float, str, str]] = []

    def add(self, title: str, seconds: float, result: str, shown: str) -> None:
        self._rows.append((title, seconds, result, shown))
        line = f"{title} ... {result}, {seconds:.1f} s"
        print(f"{line} - {shown}" if shown else line, flush=True)

    @property
    def failed(self) -> bool:
        return any(result != OK for _, _, result, _ in self._rows)

    def __str__(self) -> str:
        table = prettytable.PrettyTable(
            ["step", "seconds", "result", "verified"]
        )
        table.align = "l"
        table.align["seconds"] = "r"
        for title, seconds, result, shown in self._rows:
            table.add_row([title, f"{seconds:.1f}", result, shown[:60]])
        total = time.monotonic() - self._started
        return f"{table}\nAll in all {total:.0f} s."


def run_step(report: Report, step: scenario.Step) -> bool:
    """Run one step; report its failure instead of raising it."""
    started = time.monotonic()
    result = OK
    try:
        shown = step.act()
    except scenario.CheckFailed as error:
        result, shown = FAILED, str(error)
    except Exception as error:  # any failure belongs in the table
        traceback.print_exc()
        result, shown = FAILED, f"{type(error).__name__}: {error}"
    report.add(step.title, time.monotonic() - started, result, shown)
    return result == OK


def nothing_left(machine: stack.Stack, view: appliance.View) -> str:
    left = {
        kind: found for kind, found in machine.leftovers(view).items() if found
    }
    scenario.check(not left, f"left behind: {left}")
    return "shares, snapshots, subvolumes, exports, mounts: none"


def demonstrate(machine: stack.Stack, report: Report, tour: bool) -> None:
    """Run all steps in order, until the first failure.

    :param tour: the steps of the tour, instead of the scenario.
    """

    def start() -> str:
        machine.start()
        return "TLS, token, btrfs in loop files, kernel NFS server"

    if not run_step(report, scenario.Step("start appliance, Cinder", start)):
        return
    view = machine.view()
    shown = machine.tour(view) if tour else machine.scenario(view)
    steps = [
        *shown.steps(),
        scenario.Step(
            "look for leftovers", lambda: nothing_left(machine, view)
        ),
    ]
    for step in steps:
        if not run_step(report, step):
            return


def tell_logs(logs: pathlib.Path) -> None:
    for log in sorted(logs.glob("*.log")):
        if text := processes.tail(log):
            print(f"--- the end of {log}\n{text}", file=sys.stderr)
    print(f"All logs are in {logs}.", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--logs", type=pathlib.Path, required=True)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--tour", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    machine = stack.Stack(
        pathlib.Path(os.environ["SANDBOX_SCRATCH"]) / "demo",
        arguments.logs,
        export_root=pathlib.Path(os.environ["SANDBOX_EXPORT_ROOT"]),
        more_pools=("silver",),
    )
    report = Report()
    keep = False
    try:
        demonstrate(machine, report, arguments.tour)
        keep = arguments.keep and not report.failed
        if keep:
            machine.write_settings(arguments.logs / "openrc")
    finally:
        if not keep:
            machine.stop()
    print(report, flush=True)
    if report.failed:
        tell_logs(arguments.logs)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
