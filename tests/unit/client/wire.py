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

"""A server on loopback that misbehaves on the wire as it is told.

The real appliance serves what it serves well; this one stands for what it
never does: dropped and reset connections, stalls, foreign bodies. HTTP/1.1
with keep-alive, optionally TLS.
"""

from collections.abc import Callable
import dataclasses
import http.server
import json
import pathlib
import socket
import ssl
import struct
import threading
from typing import Any
import urllib.parse

import trustme

from tests.harness import httpserver

#: Long enough that no test passes by outlasting it.
STALL_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class Seen:
    """One request as it arrived, the ``nth`` on its connection."""

    nth: int
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclasses.dataclass(frozen=True)
class Reply:
    """A well-formed reply; ``then_close`` drops the connection after it."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    then_close: bool = False


class Drop:
    """Close the connection without a reply."""


class Reset:
    """Send a TCP reset instead of a reply."""


class Stall:
    """Keep the connection and say nothing."""


@dataclasses.dataclass(frozen=True)
class Partial:
    """Promise more bytes than are sent, then close."""

    body: bytes = b'{"id": '
    promised: int = 100


@dataclasses.dataclass(frozen=True)
class Trickle:
    """A reply without end, a chunk at a time."""

    chunk: bytes = b" " * 20_000
    before_each: Callable[[], None] = lambda: None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


Behaviour = Reply | Drop | Reset | Stall | Partial | Trickle
Respond = Callable[["Seen"], Behaviour]


def reply(body: Any, status: int = 200, **headers: str) -> Reply:
    """A JSON reply; ``_`` in a header's name stands for ``-``."""
    named = {"Content_Type": "application/json", **headers}
    return Reply(
        status,
        json.dumps(body).encode(),
        tuple((name.replace("_", "-"), v) for name, v in named.items()),
    )


def problem(
    status: int, code: str, *, retryable: bool = False, **headers: str
) -> Reply:
    body = {"code": code, "detail": "A detail", "retryable": retryable}
    return reply(body, status, **headers)


class Server:
    """Runs ``respond`` for every request, in threads, until closed."""

    def __init__(
        self,
        respond: Respond,
        *,
        tls: "Certificate | None" = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ):
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._sockets: set[socket.socket] = set()
        self.closing = threading.Event()
        self.respond = respond
        kind = _Server6 if ":" in host else _Server
        self._server = kind((host, port), _Handler)
        self._server.stub = self
        if tls is not None:
            self._server.tls = tls.server_context()
        self.port = self._server.server_address[1]
        scheme = "http" if tls is None else "https"
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{scheme}://{shown}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.01},
            daemon=True,
        )
        self._thread.start()

    @property
    def seen(self) -> tuple[Seen, ...]:
        with self._lock:
            return tuple(self._seen)

    def record(self, seen: Seen) -> None:
        with self._lock:
            self._seen.append(seen)

    def track(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.add(connection)

    @property
    def connections(self) -> int:
        """How many were ever made."""
        with self._lock:
            return len(self._sockets)

    def close(self) -> None:
        """Stop, and close every connection as a dying process does."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        with self._lock:
            for connection in self._sockets:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the other side was first


class _Server(httpserver.Server):
    stub: Server
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is not None:
            try:
                request = self.tls.wrap_socket(request, server_side=True)
            except OSError:
                return  # the client refused our certificate
        self.stub.track(request)
        try:
            super().finish_request(request, client_address)
        finally:
            # The one that the base class closes was wrapped meanwhile.
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what this server is for."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    nth = 0  # there is one handler for each connection

    def _serve(self) -> None:
        stub = self.server.stub
        seen = self._read()
        stub.record(seen)
        behaviour = stub.respond(seen)
        if isinstance(behaviour, Reply):
            self._send(behaviour)
            return
        self.close_connection = True
        if isinstance(behaviour, Stall):
            stub.closing.wait(STALL_SECONDS)
        elif isinstance(behaviour, Partial):
            self._send_partial(behaviour)
        elif isinstance(behaviour, Trickle):
            self._trickle(behaviour)
        elif isinstance(behaviour, Reset):
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
            self.connection.close()

    do_GET = do_PUT = do_PATCH = do_DELETE = do_POST = _serve

    def _read(self) -> Seen:
        url = urllib.parse.urlsplit(self.path)
        length = int(self.headers.get("Content-Length", 0))
        self.nth += 1
        return Seen(
            self.nth,
            self.command,
            url.path,
            dict(urllib.parse.parse_qsl(url.query)),
            dict(self.headers),
            self.rfile.read(length),
        )

    def _send(self, answer: Reply) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if answer.status not in (204, 304):
            self.wfile.write(answer.body)
        self.wfile.flush()
        self.close_connection = self.close_connection or answer.then_close

    def _send_partial(self, answer: Partial) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(answer.promised))
        self.end_headers()
        self.wfile.write(answer.body)
        self.wfile.flush()

    def _trickle(self, answer: Trickle) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        while not self.server.stub.closing.is_set():
            answer.before_each()
            self.wfile.write(answer.chunk)

    def log_message(self, *args: Any) -> None:
        """Not to the tests' output."""


class Certificate:
    """A server's, for one address, and a file with the CA that signed it."""

    def __init__(self, directory: str, *, host: str = "127.0.0.1"):
        authority = trustme.CA()
        self.ca_file = str(pathlib.Path(directory) / f"{host}.crt")
        authority.cert_pem.write_to_path(self.ca_file)
        self._issued = authority.issue_cert(host)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._issued.configure_cert(context)
        return context
