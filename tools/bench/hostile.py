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

"""Clients that only hold connections.

Runs until its standard input ends. Prints one line when all connections are
open, and reopens those that the server closes::

    python3 -m tools.bench.hostile --port 8443 --kind idle --count 2000
"""

import argparse
from collections.abc import Iterator
import contextlib
import itertools
import resource
import select
import socket
import ssl
import sys
from typing import Final

#: The beginning of a ClientHello of 16 KiB.
HALF_HELLO: Final = b"\x16\x03\x01\x40\x00\x01"
HALF_HEAD: Final = b"GET /v1/shares HTTP/1.1\r\nHost: x\r\nX-A: "
HALF_BODY: Final = (
    b"PUT /v1/shares/11111111-1111-4111-8111-111111111111 HTTP/1.1\r\n"
    b"Host: x\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer acme_" + b"A" * 43 + b"\r\n"
    b"Content-Length: 60000\r\n\r\n{"
)
NO_REQUEST: Final = b"GARBAGE\r\n\r\n"
#: The largest reply without authentication.
WHOLE_REQUEST: Final = b"GET /v1/openapi.yaml HTTP/1.1\r\nHost: x\r\n\r\n"
#: Of each kind: its first bytes, whether it uses TLS, its further bytes.
KINDS: Final = {
    "idle": (b"", False, b""),
    "handshake": (HALF_HELLO, False, b"\0"),
    "silent": (b"", True, b""),
    "head": (HALF_HEAD, True, b"a"),
    "body": (HALF_BODY, True, b" "),
    "garbage": (NO_REQUEST, True, b""),
    # Never reads replies that are much larger than the socket's buffer.
    "unread": (WHOLE_REQUEST * 16, True, b""),
    # Opens and closes connections.
    "churn": (b"", False, b""),
}


def addresses(count: int) -> Iterator[str]:
    """Source addresses in the loopback network, in turns."""
    return itertools.cycle(
        [
            f"127.{2 + n // 62500}.{n // 250 % 250}.{n % 250 + 1}"
            for n in range(count)
        ]
    )


class Clients:
    """:param source_addresses: 0: all from 127.0.0.1."""

    def __init__(
        self, port: int, kind: str, count: int, source_addresses: int = 0
    ) -> None:
        self._port = port
        self._kind = kind
        self._first, self._tls, self._next = KINDS[kind]
        self._count = count
        self._sources = addresses(source_addresses or 1)
        self._own = bool(source_addresses)
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self.connections: list[socket.socket] = []
        self.refused = 0

    def fill(self) -> None:
        """Open missing connections."""
        for _ in range(self._count - len(self.connections)):
            with contextlib.suppress(OSError):
                self.connections.append(self._connect())
                continue
            self.refused += 1

    def _connect(self) -> socket.socket:
        connection = socket.socket()
        try:
            connection.settimeout(20)
            # A small buffer for replies.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            if self._own:
                connection.bind((next(self._sources), 0))
            connection.connect(("127.0.0.1", self._port))
            if self._tls:
                connection = self._context.wrap_socket(connection)
            if self._first:
                connection.sendall(self._first)
        except OSError:
            connection.close()
            raise
        connection.setblocking(False)
        return connection

    def go_on(self) -> None:
        """Send the next byte on each connection; forget closed ones."""
        kept = []
        poll = select.poll()
        for connection in self.connections:
            poll.register(connection, select.POLLRDHUP | select.POLLHUP)
        ended = {number for number, _ in poll.poll(0)}
        for connection in self.connections:
            if connection.fileno() in ended or not self._send(connection):
                connection.close()
            else:
                kept.append(connection)
        self.connections = kept

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self.connections = []

    def _send(self, connection: socket.socket) -> bool:
        if self._kind == "churn":
            return False
        if not self._next:
            return True
        try:
            connection.send(self._next)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return True


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument(
        "--source-addresses",
        type=int,
        default=0,
        help="come from so many addresses of 127.0.0.0/8; 0: 127.0.0.1",
    )
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    clients = Clients(
        arguments.port,
        arguments.kind,
        arguments.count,
        arguments.source_addresses,
    )
    clients.fill()
    print(f"{len(clients.connections)} connections", flush=True)
    while not select.select([sys.stdin], [], [], 1)[0]:
        clients.go_on()
        clients.fill()
    print(
        f"{len(clients.connections)} left, {clients.refused} refused",
        flush=True,
    )


if __name__ == "__main__":
    main()
