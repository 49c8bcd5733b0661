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

"""Measure the appliance, or two checkouts of it alternately.

It measures the real process: TLS, SQLite on disk, the memory engine and, with
root and btrfs, btrfs on a loop device. See ``tools/bench.sh --help``.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import prettytable

from tests.harness import processes
from tools.bench import load

CLIENTS = (1, 4, 16)
OPERATIONS = ("nothing", "create", "read", "delete")
#: The minimal wait of a commit.
_PAGE_BYTES = 4096
_POOL_BYTES = 20 << 30
_START_SECONDS = 300
_INSIDE = pathlib.Path(__file__).with_name("inside.py")


class Checkout:
    """A checkout of the code, with an environment to run it in."""

    def __init__(self, name: str, path: pathlib.Path, python: str) -> None:
        self.name = name
        self._path = path
        self._python = python

    @property
    def environment(self) -> dict[str, str]:
        # Otherwise -m would use the code of the current folder.
        return {"PYTHONPATH": str(self._path), "PYTHONSAFEPATH": "1"}

    def command(self, config: pathlib.Path, *arguments: str) -> list[str]:
        program = [self._python, "-m", "acme_appliance"]
        return [*program, "--config-file", str(config), *arguments]

    def run(self, *arguments: str) -> str:
        """Run a Python program of this checkout, and return its output."""
        return subprocess.run(
            [self._python, *arguments],
            env={**os.environ, **self.environment},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout


#: Older checkouts have it one folder up.
_PREPARE = """
import sys
try:
    from acme_appliance.engines.btrfs.engine import prepare
except ImportError:
    from acme_appliance.engines.btrfs import prepare
prepare(sys.argv[1])
"""


class Box:
    """An appliance of one checkout, in its own folder."""

    def __init__(
        self,
        checkout: Checkout,
        folder: pathlib.Path,
        pool: pathlib.Path | None,
        logs: pathlib.Path,
    ) -> None:
        """:param pool: its directory on btrfs; None: in memory."""
        self._checkout = checkout
        self._port = _free_port()
        self._ca_file = folder / "state/tls/server.crt"
        self.config = folder / "acme-appliance.conf"
        folder.mkdir()
        if pool is not None:
            pool.mkdir()
            checkout.run(
                "-c",
                _PREPARE,
                str(pool),
            )
        self.config.write_text(_configuration(folder, self._port, pool))
        self.process = processes.Process(
            checkout.name,
            checkout.command(self.config, "serve"),
            logs / f"{checkout.name}.log",
            checkout.environment,
        )

    @contextlib.contextmanager
    def served(self) -> Iterator[float]:
        """Serve; yield the seconds until it was ready."""
        began = time.perf_counter()
        self.process.start()
        try:
            self.process.wait_ready(
                self._is_ready, timeout_seconds=_START_SECONDS
            )
            yield time.perf_counter() - began
        finally:
            self.process.stop()

    def _is_ready(self) -> bool:
        if not processes.listens(self._port):
            return False
        try:
            with contextlib.closing(self._client("")) as client:
                client.call("GET", "/readyz", 200)
        except (OSError, load.Unexpected):
            return False
        return True

    def token(self) -> str:
        output = self._checkout.run(
            *self._checkout.command(self.config)[1:],
            *("token", "create", "bench", "--scope", "driver:bench"),
        )
        return re.findall(r"acme_[A-Za-z0-9_-]{43}", output)[0]

    def _client(self, token: str) -> load.Client:
        return load.Client(self._port, token, self._ca_file)

    @contextlib.contextmanager
    def clients(self, count: int, token: str) -> Iterator[list[load.Client]]:
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(contextlib.closing(self._client(token)))
                for _ in range(count)
            ]

    def cpu_seconds(self) -> float:
        """The total of all processes of the appliance."""
        group = self.process.pid
        return sum(_cpu_seconds(pid) for pid in _members(group))

    def inside(self, *arguments: str) -> Any:
        """Run the service in a process without HTTP."""
        return json.loads(
            self._checkout.run(str(_INSIDE), str(self.config), *arguments)
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _configuration(
    folder: pathlib.Path, port: int, pool: pathlib.Path | None
) -> str:
    engine = f"engine = btrfs\npath = {pool}" if pool else "engine = memory"
    return (
        "[DEFAULT]\nlisten_addresses = 127.0.0.1\nenabled_pools = gold\n"
        f"port = {port}\nstate_path = {folder}/state\n"
        "[nfs]\nportals = 127.0.0.1\nexporter = memory\n"
        "[limits]\nmax_shares = 1000000\n"
        f"[pool:gold]\n{engine}\n"
    )


def _members(group: int) -> list[int]:
    """The processes of a session; its id is the leader's."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(folder.name)) == group:
                found.append(int(folder.name))
    return found


def _cpu_seconds(pid: int) -> float:
    # proc(5): fields 14 and 15; the name before them may hold anything.
    text = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    user, system = text.split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


#: Called with the name and the figure.
Add = Callable[[str, float], None]


class Measurements:
    """Figures by name and by checkout."""

    def __init__(self) -> None:
        self._figures: dict[str, dict[str, list[float]]] = {}

    def adder(self, checkout: Checkout, engine: str) -> Add:
        def add(what: str, figure: float) -> None:
            figures = self._figures.setdefault(f"{engine}: {what}", {})
            figures.setdefault(checkout.name, []).append(figure)

        return add

    def rows(self) -> list[dict[str, Any]]:
        """The medians, and the ratio if there are two."""
        rows = []
        for what, figures in self._figures.items():
            row: dict[str, Any] = {"what": what}
            for checkout, each in figures.items():
                row[checkout] = round(statistics.median(each), 2)
            if "before" in row and row["before"]:
                row["ratio"] = round(row["after"] / row["before"], 2)
            rows.append(row)
        return rows


def measure_requests(box: Box, add: Add, seconds: float) -> None:
    """Measure each operation with few and with many clients."""
    token = box.token()
    with box.served():
        for count in CLIENTS:
            with box.clients(count, token) as clients:
                _measure_clients(box, clients, add, seconds)


def _measure_clients(
    box: Box,
    clients: list[load.Client],
    add: Add,
    seconds: float,
) -> None:
    shares: list[str] = []
    for operation in OPERATIONS:
        calls = [getattr(client, operation) for client in clients]
        ids = shares if operation in ("read", "delete") else load.new_ids()
        limit = seconds if operation != "delete" else float("inf")
        before = box.cpu_seconds()
        done, rate = load.run_together(calls, ids, limit)
        cpu = (box.cpu_seconds() - before) / len(done)
        what = f"{operation}, {len(clients)} clients"
        add(f"{what}: a second", rate)
        add(f"{what}: CPU ms each", 1000 * cpu)
        if operation == "create":
            shares = done


def measure_inside(box: Box, add: Add, seconds: float) -> None:
    """Measure creates of the service without HTTP."""
    found = box.inside(str(seconds), *map(str, CLIENTS))
    for threads, figures in found.items():
        what = f"service alone, create, {threads} threads"
        add(f"{what}: a second", figures["per_second"])
        add(f"{what}: CPU ms each", 1000 * figures["cpu_seconds"])


def measure_start(box: Box, add: Add, shares: int) -> None:
    """Measure from the command to the first successful readiness check."""
    with box.served() as seconds:
        add("start without shares: seconds", seconds)
    box.inside("--fill", str(shares))
    for _ in range(2):
        with box.served() as seconds:
            add(f"start with {shares} shares: seconds", seconds)


def commits_per_second(folder: pathlib.Path, seconds: float = 2) -> float:
    """Sequential commits of the disk: the lower bound."""
    page, count = os.urandom(_PAGE_BYTES), 0
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            file.write(page)
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.perf_counter() - began)


@contextlib.contextmanager
def btrfs_pool(folder: pathlib.Path) -> Iterator[pathlib.Path | None]:
    """btrfs on a loop device; None: not available here."""
    image, directory = folder / "pool.img", folder / "pool"
    directory.mkdir()
    with image.open("wb") as file:
        file.truncate(_POOL_BYTES)
    try:
        for command in (
            ["mkfs.btrfs", "--quiet", str(image)],
            ["mount", "-o", "loop,noatime", str(image), str(directory)],
        ):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"without btrfs: {error}", flush=True)
        yield None
        return
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def measure(
    arguments: argparse.Namespace,
    checkouts: list[Checkout],
    folder: pathlib.Path,
    pool: pathlib.Path | None,
) -> Measurements:
    found = Measurements()

    def box(checkout: Checkout, engine: str, name: str) -> Box:
        name = f"{name}-{engine}-{checkout.name}"
        directory = pool / name if pool and engine == "btrfs" else None
        return Box(checkout, folder / name, directory, arguments.logs)

    for number in range(arguments.rounds):
        for engine in ("memory", "btrfs") if pool else ("memory",):
            # Alternate the first one.
            for checkout in checkouts[:: -1 if number % 2 else 1]:
                made = box(checkout, engine, f"round-{number}")
                add = found.adder(checkout, engine)
                measure_requests(made, add, arguments.seconds)
                measure_inside(made, add, arguments.seconds)
                print(f"round {number}: {engine} {checkout.name}", flush=True)
    if pool and arguments.shares:
        for checkout in checkouts:
            made = box(checkout, "btrfs", "start")
            measure_start(
                made, found.adder(checkout, "btrfs"), arguments.shares
            )
    return found


def table(rows: list[dict[str, Any]]) -> prettytable.PrettyTable:
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = prettytable.PrettyTable(names)
    shown.align = "r"
    shown.align["what"] = "l"
    for row in rows:
        shown.add_row([row.get(name, "") for name in names])
    return shown


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--logs", type=pathlib.Path, required=True)
    parser.add_argument("--scratch", type=pathlib.Path, required=True)
    parser.add_argument("--before", nargs=2, metavar=("CHECKOUT", "PYTHON"))
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shares", type=int, default=10_000)
    arguments = parser.parse_args()
    top = pathlib.Path(__file__).resolve().parents[2]
    checkouts = [Checkout("after", top, sys.executable)]
    if arguments.before:
        path, python = arguments.before
        checkouts.insert(0, Checkout("before", pathlib.Path(path), python))
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
        folder = pathlib.Path(name).resolve()
        with btrfs_pool(folder) as pool:
            found = measure(arguments, checkouts, folder, pool)
        rows = found.rows()
        floor = commits_per_second(folder)
    results = {"results": rows, "disk_commits_per_second": round(floor)}
    arguments.json.write_text(f"{json.dumps(results, indent=1)}\n")
    print(table(rows))
    print(f"The disk makes {floor:.0f} commits a second, one by one.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
