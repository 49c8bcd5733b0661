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

"""The server as it runs: a process of its own, TLS, clients, signals."""

import contextlib
import hashlib
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
from acme_appliance.db.session import Database
from acme_appliance.service import tokens
from tools.bench import hostile

PATIENCE_SECONDS = 300

CONFIGURATION = """\
[DEFAULT]
state_path = {directory}/state
listen_addresses = 127.0.0.1
port = {port}
threads = 16
max_connections_without_token = 40
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
        self.environment: dict[str, str] = {}

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
                self.command("serve"),
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,
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

    def secret(self) -> dict[str, str]:
        conf = options.load(["--config-file", str(self.file)])
        database = Database(options.database_url(conf))
        try:
            name = f"t{uuid.uuid4().hex[:8]}"
            secret, _ = tokens.TokenStore(database).create(name, "admin")
        finally:
            database.close()
        return {"Authorization": f"Bearer {secret}"}

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(
            ("127.0.0.1", self.port),
            PATIENCE_SECONDS,
            source_address=(source, 0),
        )

    def connect_with_tls(self, source: str = "127.0.0.1") -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.ca_file)
        return context.wrap_socket(
            self.connect(source), server_hostname="localhost"
        )

    def connections(self) -> int:
        """How many are established, from the server's side."""
        port = f":{self.port:04X}"
        lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
        fields = (line.split() for line in lines)
        return sum(f[1].endswith(port) and f[3] == "01" for f in fields)

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE_SECONDS)


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

        tasks = pathlib.Path(f"/proc/{process.pid}/task")
        before = len(list(tasks.iterdir()))
        poller = threading.Thread(target=poll)
        poller.start()
        # The first request with a token: its threads begin with it.
        wait_for("the poll", lambda: len(list(tasks.iterdir())) >= before + 2)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(0, process.wait(PATIENCE_SECONDS))
        poller.join(PATIENCE_SECONDS)
        self.assertLess(time.monotonic() - begin, 50)
        self.assertEqual([200], [reply.status_code for reply in replies])

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


class HttpTest(ServerCase):
    """What HTTP asks of a server, seen from a client."""

    def setUp(self) -> None:
        super().setUp()
        self.server.start_and_wait()
        self.headers = self.server.secret()
        context = ssl.create_default_context(cafile=self.server.ca_file)
        self.client = http.client.HTTPSConnection(
            "localhost",
            self.server.port,
            timeout=PATIENCE_SECONDS,
            context=context,
        )
        self.addCleanup(self.client.close)

    def ask(self, method, path, body=None, **headers):
        self.client.request(method, path, body, self.headers | headers)
        reply = self.client.getresponse()
        return reply, reply.read()

    def test_one_connection_for_many_requests(self):
        share = f"/v1/shares/{uuid.uuid4()}"
        body = json.dumps({"name": "v", "size_bytes": 1 << 20})
        json_type = {"Content-Type": "application/json"}
        reply, data = self.ask("PUT", share, body, **json_type)
        sock = self.client.sock
        self.assertEqual(201, reply.status)
        etag = reply.headers["ETag"]
        reply, data = self.ask("GET", share)
        self.assertEqual(len(data), int(reply.headers["Content-Length"]))
        self.assertNotIn("aiohttp", reply.headers["Server"])
        reply, nothing = self.ask("HEAD", share)
        self.assertEqual(b"", nothing)
        self.assertEqual(str(len(data)), reply.headers["Content-Length"])
        reply, data = self.ask("GET", share, **{"If-None-Match": etag})
        self.assertEqual((304, b""), (reply.status, data))
        reply, data = self.ask("DELETE", share)
        self.assertEqual((204, b""), (reply.status, data))
        self.assertNotIn("Content-Type", reply.headers)
        self.assertIs(sock, self.client.sock)

    def test_a_query_and_an_escaped_path(self):
        name = "a%20b%2Fc"
        reply, data = self.ask("GET", f"/v1/shares?name={name}&limit=1")
        self.assertEqual(200, reply.status, data)
        reply, data = self.ask("GET", "/v1/shares/%C3%A4")
        self.assertEqual(400, reply.status, data)
        reply, data = self.ask("GET", "/v1/%2e%2e/x")
        self.assertEqual(404, reply.status, data)

    def test_a_client_that_waits_to_be_told_to_go_on(self):
        body = json.dumps({"name": "v", "size_bytes": 1 << 20}).encode()
        with self.server.connect_with_tls() as secure:
            secure.sendall(
                f"PUT /v1/shares/{uuid.uuid4()} HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: {self.headers['Authorization']}\r\n"
                "Content-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n"
                "Expect: 100-continue\r\n\r\n".encode()
            )
            self.assertEqual(
                b"HTTP/1.1 100 Continue\r\n\r\n", secure.recv(4096)
            )
            secure.sendall(body)
            reply = http.client.HTTPResponse(secure)
            reply.begin()
            self.assertEqual(201, reply.status)

    def test_the_address_of_the_client_is_in_the_log(self):
        with self.server.connect_with_tls("127.0.0.9") as secure:
            secure.sendall(
                b"GET /v1/shares HTTP/1.1\r\nHost: x\r\n"
                b"X-Forwarded-For: 192.0.2.99\r\n\r\n"
            )
            self.assertTrue(secure.recv(4096))
        log = self.server.log.read_text()
        self.assertIn("from 127.0.0.9", log)
        self.assertNotIn("192.0.2.99", log)


class ClientsTest(ServerCase):
    """Clients that hold connections, many more than there are threads."""

    LIMIT_SECONDS = 3
    CONNECTIONS = 80
    ALLOWED = 40

    def setUp(self) -> None:
        super().setUp()
        self.server.program = [
            "-c",
            "import functools\n"
            "from acme_appliance.cmd import main\n"
            "from acme_appliance.web import frontend\n"
            "frontend.Limits = functools.partial(\n"
            f"    frontend.Limits, receive_seconds={self.LIMIT_SECONDS},\n"
            f"    send_seconds={self.LIMIT_SECONDS})\n"
            "raise SystemExit(main.main())",
        ]
        self.server.start_and_wait()
        self.headers = self.server.secret()

    def check_answered(self) -> None:
        reply = self.server.get("/v1/shares", headers=self.headers)
        self.assertEqual(200, reply.status_code)

    def hold(self, kind: str, addresses: int = 0) -> hostile.Clients:
        clients = hostile.Clients(
            self.server.port, kind, self.CONNECTIONS, addresses
        )
        self.addCleanup(clients.close)
        clients.fill()
        return clients

    def test_each_kind_from_one_address(self):
        for kind in hostile.KINDS:
            with self.subTest(kind=kind):
                clients = self.hold(kind)
                clients.go_on()
                self.check_answered()
                wait_for(
                    "the end of those that are too many",
                    lambda: self.server.connections() <= self.ALLOWED,
                )
                self.check_answered()
                clients.close()

    def test_each_kind_from_many_addresses(self):
        for kind in hostile.KINDS:
            with self.subTest(kind=kind):
                clients = self.hold(kind, self.CONNECTIONS)
                clients.go_on()
                self.check_answered()
                clients.close()

    def test_silent_ones_are_ended(self):
        for kind in ("idle", "handshake", "silent", "head", "unread"):
            with self.subTest(kind=kind):
                clients = self.hold(kind, self.CONNECTIONS)
                wait_for(
                    "their end",
                    lambda clients=clients: self.all_ended(clients),
                )

    def all_ended(self, clients: hostile.Clients) -> bool:
        clients.go_on()
        return not clients.connections

    def test_one_with_a_token_stays_whoever_comes(self):
        with self.server.connect_with_tls() as secure:
            self.ask(secure)
            clients = self.hold("silent")
            wait_for(
                "the end of those that are too many",
                lambda: self.server.connections() <= self.ALLOWED + 1,
            )
            self.ask(secure)
            clients.close()

    def ask(self, secure: ssl.SSLSocket) -> None:
        secure.sendall(
            b"GET /v1/shares HTTP/1.1\r\nHost: x\r\n"
            b"Authorization: "
            + self.headers["Authorization"].encode()
            + b"\r\n\r\n"
        )
        reply = http.client.HTTPResponse(secure)
        reply.begin()
        reply.read()
        self.assertEqual(200, reply.status)

    def test_a_body_that_does_not_come(self):
        """Of one that has a token; others are refused without it."""
        head = (
            f"PUT /v1/shares/{uuid.uuid4()} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: {self.headers['Authorization']}\r\n"
            "Content-Type: application/json\r\nContent-Length: 9999\r\n\r\n"
        )
        # With room for one more: until the token of the first is read, that
        # one would have to give way.
        waiting = [
            self.server.connect_with_tls() for _ in range(self.ALLOWED - 1)
        ]
        for secure in waiting:
            self.addCleanup(secure.close)
            secure.sendall(head.encode() + b'{"name":')
        self.check_answered()
        for secure in waiting:
            reply = http.client.HTTPResponse(secure)
            reply.begin()
            self.assertEqual(400, reply.status)
            problem = json.loads(reply.read())
            self.assertEqual("request.bad_json", problem["code"])

    def test_more_bad_tokens_than_threads(self):
        """Whole requests, again and again, from other threads."""
        stopping = threading.Event()
        request = hostile.HALF_BODY

        def flood() -> None:
            while not stopping.is_set():
                with (
                    contextlib.suppress(OSError),
                    self.server.connect_with_tls("127.0.0.7") as secure,
                ):
                    secure.sendall(request)
                    secure.recv(4096)

        floods = [threading.Thread(target=flood) for _ in range(24)]
        for each in floods:
            each.start()
        try:
            for _ in range(20):
                self.check_answered()
        finally:
            stopping.set()
            for each in floods:
                each.join(PATIENCE_SECONDS)

    def test_long_polls_leave_threads_to_others(self):
        path = f"/v1/events?after=999&wait={4 * self.LIMIT_SECONDS}"
        done = threading.Event()

        def poll() -> None:
            with contextlib.suppress(requests.RequestException):
                self.server.get(path, headers=self.headers)
            done.set()

        pollers = [threading.Thread(target=poll) for _ in range(64)]
        for each in pollers:
            each.start()
        self.check_answered()
        for each in pollers:
            each.join(PATIENCE_SECONDS)
        self.check_answered()

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


class SignalsTest(ServerCase):
    def fingerprint(self) -> str:
        pem = ssl.get_server_certificate(("127.0.0.1", self.server.port))
        return hashlib.sha256(pem.encode()).hexdigest()

    def test_a_reload_reads_the_certificate_again(self):
        process = self.server.start_and_wait()
        before = self.fingerprint()
        with self.server.connect_with_tls() as kept:
            self.server.ca_file.unlink()
            process.send_signal(signal.SIGHUP)
            wait_for("a new certificate", lambda: self.fingerprint() != before)
            kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertIn(b"200 OK", kept.recv(4096))
        self.assertTrue(self.server.is_ready(process))

    def test_a_reload_with_a_broken_certificate_changes_nothing(self):
        process = self.server.start_and_wait()
        before = self.fingerprint()
        self.server.ca_file.write_text("broken")
        process.send_signal(signal.SIGHUP)
        wait_for(
            "the message",
            lambda: "Cannot reload the cert" in self.server.log.read_text(),
        )
        self.assertEqual(before, self.fingerprint())

    def test_killed_and_started_again(self):
        first = self.server.start_and_wait()
        first.kill()
        first.wait()
        self.server.start_and_wait()

    def test_the_port_is_taken(self):
        with socket.create_server(("127.0.0.1", self.server.port)):
            done = self.server.run("serve")
        self.assertEqual(1, done.returncode)
        self.assertIn(f"port {self.server.port}", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_systemd_is_told(self):
        path = f"{self.server.directory}/notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(path)
            manager.settimeout(PATIENCE_SECONDS)
            self.server.environment = {"NOTIFY_SOCKET": path}
            process = self.server.start_and_wait()
            self.assertEqual(b"READY=1", manager.recv(100))
            process.terminate()
            self.assertEqual(b"STOPPING=1", manager.recv(100))
            self.assertEqual(0, process.wait(PATIENCE_SECONDS))
