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

"""The server as it runs: a process of its own, gunicorn, TLS, signals."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

import requests

from acme_appliance import conf as options
from acme_appliance import server
from acme_appliance.db.session import Database
from acme_appliance.service import tokens

PATIENCE_SECONDS = 60

CONFIGURATION = """\
[DEFAULT]
state_path = {directory}/state
listen_addresses = 127.0.0.1
port = {port}
threads = 16
graceful_shutdown_seconds = 10
enabled_pools = gold
[nfs]
portals = 192.0.2.10
exporter = memory
[pool:gold]
engine = memory
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what, condition):
    """What the condition returns once that is true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    pause = threading.Event()
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        pause.wait(0.05)
    raise AssertionError(f"{what} did not happen")


class Server:
    """``acme-appliance serve`` in a directory of its own."""

    def __init__(self, directory: str) -> None:
        self.directory = pathlib.Path(directory)
        self.port = free_port()
        self.file = self.directory / "a.conf"
        self.file.write_text(
            CONFIGURATION.format(directory=directory, port=self.port)
        )
        self.state = self.directory / "state"
        self.ca_file = self.state / "tls" / "server.crt"
        self.log = self.directory / "log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.program = ["-m", "acme_appliance"]

    def command(self, *arguments: str) -> list[str]:
        return [
            sys.executable,
            *self.program,
            "--config-file",
            str(self.file),
            *arguments,
        ]

    def start(self) -> subprocess.Popen[bytes]:
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                self.command("serve"), stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def start_and_wait(self) -> subprocess.Popen[bytes]:
        process = self.start()
        wait_for("readiness", lambda: self.is_ready(process))
        return process

    def is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        if process.poll() is not None:
            raise AssertionError(f"it ended:\n{self.log.read_text()}")
        try:
            return self.get("/readyz").status_code == 200
        except (OSError, requests.RequestException):
            return False

    def get(self, path: str, **options: object) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(
                f"https://localhost:{self.port}{path}",
                verify=str(self.ca_file),
                timeout=PATIENCE_SECONDS,
                **options,
            )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def worker_pid(self) -> int:
        return int((self.state / "worker.lock").read_text())

    def secret(self) -> dict[str, str]:
        conf = options.load(["--config-file", str(self.file)])
        database = Database(options.database_url(conf))
        try:
            name = f"t{uuid.uuid4().hex[:8]}"
            secret, _ = tokens.TokenStore(database).create(name, "admin")
        finally:
            database.close()
        return {"Authorization": f"Bearer {secret}"}

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE_SECONDS)
        # Workers whose master is gone notice within a second or two.
        lock = self.state / "worker.lock"
        if lock.exists():
            from acme_appliance import locks

            wait_for("end", lambda: not locks.Lock(lock).is_held())


class ServerCase(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.server = Server(temporary.name)
        self.addCleanup(self.server.stop)


class ServeTest(ServerCase):
    def test_from_start_to_stop(self):
        process = self.server.start_and_wait()
        log = self.server.log.read_text()
        self.assertRegex(log, r"SHA-256 ([0-9A-F]{2}:){31}[0-9A-F]{2}")
        self.check_second_serve(process)
        self.check_status(process)
        self.check_requests_that_are_none()
        self.check_stop_ends_a_long_poll(process)
        status = self.server.run("status")
        self.assertIn("server: not running", status.stdout)
        self.assertNotRegex(
            self.server.log.read_text(), "Traceback|acme_[A-Z]"
        )

    def check_second_serve(self, process):
        second = self.server.run("serve")
        self.assertEqual(1, second.returncode, second.stderr)
        self.assertIn(f"process {process.pid}", second.stderr)
        apply = self.server.run("reconcile", "--apply")
        self.assertEqual(1, apply.returncode)
        self.assertIn("systemctl stop acme-appliance", apply.stderr)

    def check_status(self, process):
        status = self.server.run("status")
        self.assertEqual(0, status.returncode, status.stderr)
        self.assertIn(f"server: process {process.pid}", status.stdout)
        printed = re.search(r"SHA-256: (\S+)", status.stdout)[1]
        self.assertIn(printed, self.server.log.read_text())

    def check_requests_that_are_none(self):
        context = ssl.create_default_context(cafile=self.server.ca_file)
        for line in (
            b"GARBAGE\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
            b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
            b"PUT /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n",
        ):
            with (
                self.subTest(line=line[:40]),
                socket.create_connection(
                    ("127.0.0.1", self.server.port), 30
                ) as plain,
                context.wrap_socket(
                    plain, server_hostname="localhost"
                ) as secure,
            ):
                secure.sendall(line)
                reply = http.client.HTTPResponse(secure)
                reply.begin()
                problem = json.loads(reply.read())
                self.assertEqual(400, reply.status)
                self.assertEqual("request.invalid", problem["code"])
        # No TLS at all: the connection ends, the server does not.
        with socket.create_connection(("127.0.0.1", self.server.port)) as s:
            s.sendall(b"GET / HTTP/1.1\r\n\r\n")
            s.settimeout(30)
            with contextlib.suppress(ConnectionResetError):
                while s.recv(4096):
                    pass
        self.assertEqual(200, self.server.get("/healthz").status_code)

    def check_stop_ends_a_long_poll(self, process):
        headers = self.server.secret()
        replies = []

        def poll():
            path = "/v1/events?after=999&wait=60"
            replies.append(self.server.get(path, headers=headers))

        poller = threading.Thread(target=poll)
        poller.start()
        # It counts as begun once the server has a connection more.
        wait_for("connection", lambda: self.connections() > 0)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(0, process.wait(PATIENCE_SECONDS))
        poller.join(PATIENCE_SECONDS)
        self.assertLess(time.monotonic() - begin, 30)
        self.assertEqual([200], [reply.status_code for reply in replies])

    def connections(self) -> int:
        """How many are established, from the server's side."""
        port = f":{self.server.port:04X}"
        lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
        fields = (line.split() for line in lines)
        return sum(f[1].endswith(port) and f[3] == "01" for f in fields)

    def test_a_body_in_chunks(self):
        self.server.start_and_wait()
        body = json.dumps({"name": "v", "size_bytes": 1 << 20}).encode()
        with requests.Session() as session:
            session.trust_env = False
            reply = session.put(
                f"https://localhost:{self.server.port}/v1/shares/"
                f"{uuid.uuid4()}",
                data=(body[n : n + 5] for n in range(0, len(body), 5)),
                headers=self.server.secret()
                | {"Content-Type": "application/json"},
                verify=str(self.server.ca_file),
                timeout=PATIENCE_SECONDS,
            )
            self.assertEqual(201, reply.status_code, reply.text)
            reply = session.put(
                reply.url,
                data=(b" " * 4096 for _ in range(40)),
                headers=self.server.secret()
                | {"Content-Type": "application/json"},
                verify=str(self.server.ca_file),
                timeout=PATIENCE_SECONDS,
            )
            self.assertEqual(413, reply.status_code, reply.text)


class SlowClientTest(ServerCase):
    """More slow connections than there are threads."""

    LIMIT_SECONDS = 2
    CONNECTIONS = 20

    def setUp(self) -> None:
        super().setUp()
        self.server.program = [
            "-c",
            "from acme_appliance import server\n"
            "from acme_appliance.cmd import main\n"
            f"server.Worker.receive_seconds = {self.LIMIT_SECONDS}\n"
            f"server.Worker.send_seconds = {self.LIMIT_SECONDS}\n"
            "raise SystemExit(main.main())",
        ]
        self.server.start_and_wait()
        self.headers = self.server.secret()

    def connect(self) -> socket.socket:
        connection = socket.create_connection(
            ("127.0.0.1", self.server.port), PATIENCE_SECONDS
        )
        self.addCleanup(connection.close)
        return connection

    def connect_with_tls(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.server.ca_file)
        connection = context.wrap_socket(
            self.connect(), server_hostname="localhost"
        )
        self.addCleanup(connection.close)
        return connection

    def drip(self, connections, data: bytes) -> None:
        """Byte by byte, until the test ends or everybody is cut off."""
        stopping = threading.Event()

        def run() -> None:
            for byte in data * 1000:
                for connection in connections:
                    with contextlib.suppress(OSError):
                        connection.sendall(bytes([byte]))
                if stopping.wait(0.3):
                    return

        dripping = threading.Thread(target=run)
        dripping.start()
        self.addCleanup(dripping.join)
        self.addCleanup(stopping.set)

    def check_answered(self) -> None:
        self.assertEqual(200, self.server.get("/healthz").status_code)
        self.assertIn("Too slow, cut off", self.server.log.read_text())

    def test_handshakes(self):
        connections = [self.connect() for _ in range(self.CONNECTIONS)]
        # The begin of a ClientHello of 16 KiB.
        for connection in connections:
            connection.sendall(b"\x16\x03\x01\x40\x00\x01")
        self.drip(connections, b"\x00")
        self.check_answered()

    def test_heads(self):
        connections = []
        for _ in range(self.CONNECTIONS):
            connection = self.connect_with_tls()
            connection.sendall(b"GET /healthz HTTP/1.1\r\nX-A: ")
            connections.append(connection)
        self.drip(connections, b"a")
        self.check_answered()

    def test_bodies(self):
        head = (
            f"PUT /v1/shares/{uuid.uuid4()} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: {self.headers['Authorization']}\r\n"
            "Content-Type: application/json\r\nContent-Length: 9999\r\n\r\n"
        )
        connections = []
        for _ in range(self.CONNECTIONS):
            connection = self.connect_with_tls()
            connection.sendall(head.encode())
            connections.append(connection)
        self.drip(connections, b" ")
        self.check_answered()

    def test_who_does_not_hang_up_is_waited_for_in_a_thread(self):
        begin = time.monotonic()
        connections = []
        for _ in range(2 * self.CONNECTIONS):
            connection = self.connect_with_tls()
            connection.sendall(b"GARBAGE\r\n\r\n")
            connections.append(connection)
        for connection in connections:
            while connection.recv(4096):
                pass
        # One after the other it would take two seconds for each.
        self.assertLess(time.monotonic() - begin, self.CONNECTIONS)

    def test_work_may_take_longer(self):
        """Also after a connection was idle."""
        path = f"/v1/events?after=999&wait={2 * self.LIMIT_SECONDS}"
        context = ssl.create_default_context(cafile=self.server.ca_file)
        client = http.client.HTTPSConnection(
            "localhost",
            self.server.port,
            timeout=PATIENCE_SECONDS,
            context=context,
        )
        self.addCleanup(client.close)
        for _ in range(2):
            client.request("GET", path, headers=self.headers)
            reply = client.getresponse()
            reply.read()
            self.assertEqual(200, reply.status)
        self.assertNotIn("Too slow", self.server.log.read_text())


class Connection:
    """What gunicorn has for one."""

    client = ("192.0.2.1", 1)

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock


class DeadlinesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.deadlines = server.Deadlines(clock=lambda: self.now)
        ours, self.peer = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(self.peer.close)
        self.connection = Connection(ours)
        self.peer.setblocking(False)

    def is_cut_off(self) -> bool:
        self.deadlines.enforce()
        try:
            return self.peer.recv(1) == b""
        except BlockingIOError:
            return False

    def test_a_deadline_is_kept(self):
        self.deadlines.set(self.connection, 10)
        self.now += 9
        self.assertFalse(self.is_cut_off())
        self.now += 1
        self.assertTrue(self.is_cut_off())
        self.deadlines.clear(self.connection)

    def test_a_new_one_replaces_it(self):
        self.deadlines.set(self.connection, 10)
        self.deadlines.set(self.connection, 20)
        self.now += 15
        self.assertFalse(self.is_cut_off())

    def test_one_that_was_met(self):
        with self.deadlines.within(self.connection, 10):
            pass
        self.now += 15
        self.assertFalse(self.is_cut_off())

    def test_a_socket_that_cannot_be_shut_down_yet(self):
        self.deadlines.set(self.connection, 10)
        self.now += 15
        ours = self.connection.sock
        self.connection.sock = socket.socket()
        self.connection.sock.close()
        self.deadlines.enforce()
        self.connection.sock = ours
        self.assertTrue(self.is_cut_off())


class ReplacementTest(ServerCase):
    """One worker goes, another comes; never two at a time."""

    def test_a_reload(self):
        process = self.server.start_and_wait()
        old = self.server.worker_pid()
        process.send_signal(signal.SIGHUP)
        wait_for("a new worker", lambda: self.server.worker_pid() != old)
        wait_for("readiness", lambda: self.server.is_ready(process))
        wait_for("the old one's end", lambda: not is_alive(old))

    def test_the_worker_is_killed(self):
        process = self.server.start_and_wait()
        old = self.server.worker_pid()
        os.kill(old, signal.SIGKILL)
        wait_for("a new worker", lambda: self.server.worker_pid() != old)
        wait_for("readiness", lambda: self.server.is_ready(process))

    def test_the_master_is_killed_and_another_started(self):
        first = self.server.start_and_wait()
        old = self.server.worker_pid()
        first.kill()
        first.wait()
        second = self.server.start()
        wait_for("a new worker", lambda: self.server.worker_pid() != old)
        wait_for("readiness", lambda: self.server.is_ready(second))
        self.assertFalse(is_alive(old))


def is_alive(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"
