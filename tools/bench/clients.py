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

"""Measure authenticated requests beside clients that only hold connections.

Starts an appliance with shares in memory, or measures a running one
(``--url``). Measures first without hostile clients, and then with each kind
(tools/bench/hostile.py).
"""

import argparse
from collections.abc import Iterator
import contextlib
import http.client
import json
import os
import pathlib
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any
from typing import Final
import urllib.parse

import prettytable

from tools.bench import hostile

PATH: Final = "/v1/shares?limit=1"
_START_SECONDS: Final = 120
#: The hostile clients have the last one, all else has the others: what they
#: cost the appliance is measured, and not what it takes to play 2,000 clients.
_CPUS: Final = sorted(os.sched_getaffinity(0))
_CONFIGURATION: Final = """\
[DEFAULT]
state_path = {directory}/state
listen_addresses = 127.0.0.1
port = {port}
enabled_pools = gold
[nfs]
portals = 192.0.2.10
exporter = memory
[pool:gold]
engine = memory
"""


class Target:
    """The measured appliance.

    :param pid: to report its memory; 0: do not.
    """

    def __init__(self, url: str, ca_file: str, token: str, pid: int) -> None:
        parts = urllib.parse.urlsplit(url)
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or 443
        self.pid = pid
        self._headers = {"Authorization": f"Bearer {token}"}
        self._context = ssl.create_default_context(cafile=ca_file)
        self._context.check_hostname = False

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            self.host, self.port, timeout=60, context=self._context
        )

    def ask(self, connection: http.client.HTTPSConnection) -> float:
        """The seconds that one request took."""
        began = time.perf_counter()
        connection.request("GET", PATH, headers=self._headers)
        reply = connection.getresponse()
        reply.read()
        if reply.status != 200:
            raise SystemExit(f"{PATH} answered {reply.status}")
        return time.perf_counter() - began

    def memory_mib(self) -> float:
        """Resident memory of the process and its children."""
        if not self.pid:
            return 0.0
        return sum(_resident_kib(pid) for pid in _family(self.pid)) / 1024


def _family(pid: int) -> list[int]:
    file = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(child) for child in file.read_text().split()]
    return [pid, *(each for child in children for each in _family(child))]


def _resident_kib(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def measure(target: Target, requests: int) -> dict[str, float]:
    """Milliseconds: on one connection, and with a new one each."""
    with contextlib.closing(target.connect()) as kept:
        target.ask(kept)
        on_kept = [target.ask(kept) for _ in range(requests)]
    on_new = []
    for _ in range(requests // 4):
        with contextlib.closing(target.connect()) as new:
            on_new.append(target.ask(new))
    return {
        "p50_ms": statistics.median(on_kept) * 1000,
        "p99_ms": _percentile(on_kept, 99) * 1000,
        "new_p50_ms": statistics.median(on_new) * 1000,
        "new_p99_ms": _percentile(on_new, 99) * 1000,
        "memory_mib": target.memory_mib(),
    }


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


@contextlib.contextmanager
def hostile_clients(
    target: Target, kind: str, count: int, source_addresses: int
) -> Iterator[None]:
    process = subprocess.Popen(
        [
            *("taskset", "--cpu-list", str(_CPUS[-1])),
            *(sys.executable, "-m", "tools.bench.hostile"),
            *("--port", str(target.port), "--kind", kind),
            *("--count", str(count)),
            *("--source-addresses", str(source_addresses)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin and process.stdout
        print(f"{kind}: {process.stdout.readline().strip()}", flush=True)
        time.sleep(2)
        try:
            yield
        finally:
            process.stdin.close()
            print(f"{kind}: {process.stdout.read().strip()}", flush=True)


@contextlib.contextmanager
def own_appliance() -> Iterator[Target]:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        folder = pathlib.Path(directory)
        port = 18443
        config = folder / "a.conf"
        config.write_text(
            _CONFIGURATION.format(directory=directory, port=port)
        )
        command = [
            *(sys.executable, "-m", "acme_appliance"),
            *("--config-file", str(config)),
        ]
        token_file = folder / "token"
        subprocess.run(
            [
                *(*command, "token", "create", "bench", "--scope", "admin"),
                *("--output", str(token_file)),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=_START_SECONDS,
        )
        with (
            open(folder / "log", "wb") as log,
            subprocess.Popen(
                [*command, "serve"], stdout=log, stderr=log
            ) as process,
        ):
            try:
                target = _wait(folder, port, token_file, process)
                yield target
            finally:
                process.terminate()


def _wait(
    folder: pathlib.Path,
    port: int,
    token_file: pathlib.Path,
    process: "subprocess.Popen[bytes]",
) -> Target:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            target = Target(
                f"https://127.0.0.1:{port}",
                str(folder / "state" / "tls" / "server.crt"),
                token_file.read_text().strip(),
                process.pid,
            )
            with contextlib.closing(target.connect()) as connection:
                target.ask(connection)
            return target
        time.sleep(0.1)
    raise SystemExit((folder / "log").read_text())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="write it there too")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--source-addresses", type=int, default=0)
    parser.add_argument(
        "--kinds", nargs="+", choices=hostile.KINDS, default=[*hostile.KINDS]
    )
    parser.add_argument("--url", help="an appliance that runs already")
    parser.add_argument("--ca-file")
    parser.add_argument("--token")
    parser.add_argument("--pid", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    results: dict[str, dict[str, Any]] = {}
    os.sched_setaffinity(0, _CPUS[:-1] or _CPUS)
    with contextlib.ExitStack() as stack:
        if arguments.url:
            target = Target(
                arguments.url,
                arguments.ca_file,
                arguments.token,
                arguments.pid,
            )
        else:
            target = stack.enter_context(own_appliance())
        results["none"] = measure(target, arguments.requests)
        for kind in arguments.kinds:
            with hostile_clients(
                target, kind, arguments.count, arguments.source_addresses
            ):
                try:
                    results[kind] = measure(target, arguments.requests)
                except OSError as error:
                    print(f"{kind}: no answer: {error}")
            # The server must have closed them all.
            time.sleep(3)
        results["none again"] = measure(target, arguments.requests)
    table = prettytable.PrettyTable(["clients", *results["none"]])
    for kind, result in results.items():
        table.add_row([kind, *(f"{v:.2f}" for v in result.values())])
    print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
