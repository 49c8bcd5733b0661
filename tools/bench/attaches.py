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
"""A burst of attaches: many concurrent access rules.

Runs in a sandbox (tools/sandbox.sh run --), against its own appliance, with
``--exports`` exported shares. Each rule has its own client, which is already
connected, and is sent once. Refused requests are counted, not retried.
"""

import argparse
import collections
from collections.abc import Iterable
from concurrent import futures
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import sqlite3
import ssl
import statistics
import sys
import threading
import time
from typing import Any
import uuid

import prettytable

from tests.harness import appliance

POOL_BYTES = 4 << 30
TIMEOUT_SECONDS = 300
CONNECT_TRIES = 10
#: Marks the start of a command in the appliance's debug log.
COMMAND_MARK = "acme_appliance.host.commands"


@dataclasses.dataclass
class Reply:
    status: int
    seconds: float


@dataclasses.dataclass
class Result:
    what: str
    count: int
    #: Number of replies by status code.
    codes: dict[str, int]
    p50_seconds: float
    worst_seconds: float
    #: From the first request to the last reply.
    all_seconds: float
    processes: int


class Client:
    """One connection, opened at once; status 0: no reply."""

    def __init__(self, box: appliance.Appliance, token: str) -> None:
        host, _, port = box.url.removeprefix("https://").partition(":")
        self._connection = http.client.HTTPSConnection(
            host,
            int(port),
            timeout=TIMEOUT_SECONDS,
            context=ssl.create_default_context(cafile=str(box.ca_file)),
        )
        self._connect()
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
        }

    def _connect(self) -> None:
        """A server busy with other handshakes may reset the connection."""
        for left in reversed(range(CONNECT_TRIES)):
            try:
                self._connection.connect()
                return
            except OSError:
                self._connection.close()
                if not left:
                    raise

    def send(self, method: str, path: str, body: Any = None) -> Reply:
        """Reconnect if the server has closed the connection."""
        began = time.perf_counter()
        data = None if body is None else json.dumps(body)
        status = 0
        for _ in range(2):
            try:
                status = self._send(method, path, data)
                break
            except (http.client.HTTPException, OSError):
                self._connection.close()
        return Reply(status, time.perf_counter() - began)

    def _send(self, method: str, path: str, data: str | None) -> int:
        self._connection.request(method, path, data, self._headers)
        reply = self._connection.getresponse()
        reply.read()
        return reply.status

    def close(self) -> None:
        self._connection.close()


class Bench:
    """:param token: with the scope driver."""

    def __init__(self, box: appliance.Appliance, token: str) -> None:
        self._box = box
        self._token = token
        self.shares: list[str] = []

    def make_shares(self, count: int) -> None:
        self.shares = [str(uuid.uuid4()) for _ in range(count)]
        client = Client(self._box, self._token)
        body = {"name": "volume", "size_bytes": 1 << 20}
        for share in self.shares:
            reply = client.send("PUT", f"/v1/shares/{share}", body)
            if reply.status != 201:
                raise RuntimeError(f"PUT of a share: {reply.status}")
        client.close()

    def export(self, database: pathlib.Path) -> None:
        """Export each share to its own host, when the appliance starts again.

        Writes to the database, while nothing serves: the API would change the
        whole export table for each rule, which takes many minutes.
        """
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.executemany(
                "INSERT INTO access_rules"
                " (kind, object_id, holder, clients, level)"
                " VALUES ('share', ?, 'first', ?, 'rw')",
                [
                    (share, json.dumps(rule(number)["clients"]))
                    for number, share in enumerate(self.shares)
                ],
            )
            connection.commit()

    def attach(self, count: int) -> Result:
        chosen = list(enumerate(self.shares[:count]))
        return self._burst(
            f"{count} attaches",
            [
                ("PUT", f"/v1/shares/{id_}/access/second", rule(n + 5000))
                for n, id_ in chosen
            ],
        )

    def detach(self, count: int) -> Result:
        return self._burst(
            f"{count} detaches",
            [
                ("DELETE", f"/v1/shares/{id_}/access/second", None)
                for id_ in self.shares[:count]
            ],
        )

    def _burst(
        self, what: str, requests: list[tuple[str, str, Any]]
    ) -> Result:
        barrier = threading.Barrier(len(requests) + 1)

        def send(request: tuple[str, str, Any]) -> Reply:
            client = Client(self._box, self._token)
            barrier.wait(TIMEOUT_SECONDS)
            try:
                return client.send(*request)
            finally:
                client.close()

        before = self._processes()
        with futures.ThreadPoolExecutor(len(requests)) as pool:
            calls = [pool.submit(send, request) for request in requests]
            barrier.wait(TIMEOUT_SECONDS)
            began = time.perf_counter()
            replies = [call.result() for call in calls]
            seconds = time.perf_counter() - began
        return result(what, replies, seconds, self._processes() - before)

    def _processes(self) -> int:
        with self._box.process.log.open(errors="replace") as lines:
            return sum(COMMAND_MARK in line for line in lines)


def rule(number: int) -> dict[str, Any]:
    host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {"clients": [host], "level": "rw"}


def result(
    what: str, replies: Iterable[Reply], seconds: float, processes: int
) -> Result:
    replies = list(replies)
    each = [reply.seconds for reply in replies]
    codes = collections.Counter(str(reply.status) for reply in replies)
    return Result(
        what,
        len(replies),
        dict(sorted(codes.items())),
        round(statistics.median(each), 3),
        round(max(each), 3),
        round(seconds, 3),
        processes,
    )


def table(results: list[Result]) -> prettytable.PrettyTable:
    shown = prettytable.PrettyTable(
        ["burst", "status codes", "p50, s", "worst, s", "all, s", "processes"]
    )
    shown.align = "r"
    for row in results:
        codes = ", ".join(f"{n} x {code}" for code, n in row.codes.items())
        shown.add_row(
            [
                row.what,
                codes,
                row.p50_seconds,
                row.worst_seconds,
                row.all_seconds,
                row.processes,
            ]
        )
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exports", type=int, default=1000)
    parser.add_argument("--bursts", type=int, nargs="+", default=[1, 48, 200])
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--logs", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    folder = pathlib.Path(os.environ["SANDBOX_SCRATCH"]) / "bench"
    box = appliance.Appliance(
        str(pathlib.Path(sys.executable).parent / "acme-appliance"),
        folder,
        arguments.logs,
        export_root=pathlib.Path(os.environ["SANDBOX_EXPORT_ROOT"]),
        arguments=("--debug",),
    )
    box.init(POOL_BYTES)
    box.start()
    try:
        bench = Bench(box, box.token("bench", "driver:bench"))
        bench.make_shares(arguments.exports)
        box.process.stop()
        bench.export(folder / "state" / "appliance.db")
        box.start()
        print(f"{len(appliance.exports())} shares are exported", flush=True)
        results = [
            act(count)
            for count in arguments.bursts
            for act in (bench.attach, bench.detach)
        ]
    finally:
        box.process.stop()
    if arguments.json:
        rows = [dataclasses.asdict(row) for row in results]
        arguments.json.write_text(f"{json.dumps(rows, indent=1)}\n")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
