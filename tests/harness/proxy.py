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

"""A network between Cinder and the appliance that loses what it is told."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import pathlib
import select
import socket
import ssl
import threading

_TIMEOUT_SECONDS = 30


class BreakingProxy:
    """Forwards HTTPS connections to a port of the loopback address.

    After :meth:`break_after`, the first such request arrives and is carried
    out, but its reply and everything after it is lost until :meth:`mend`. TLS
    ends here, since a proxy that cannot read the requests does not know when
    one has arrived.

    :param certificate: gives the target's certificate, beside its key, once
        there is a connection.
    """

    def __init__(
        self, target_port: int, certificate: Callable[[], pathlib.Path]
    ) -> None:
        self._target_port = target_port
        self._certificate = certificate
        self._last_request: bytes | None = None
        self._broken = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def break_after(self, request: bytes) -> None:
        """:param request: how the request line begins."""
        self._last_request = request

    def mend(self) -> None:
        self._last_request = None
        self._broken.clear()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args)  # type: ignore
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            if select.select([self._listener], [], [], 0.1)[0]:
                client, _ = self._listener.accept()
                self._start(self._forward, client)

    def _forward(self, accepted: socket.socket) -> None:
        target = ("127.0.0.1", self._target_port)
        accepted.settimeout(_TIMEOUT_SECONDS)
        with (
            accepted,
            contextlib.suppress(OSError),  # broken by either side
            socket.create_connection(
                target, timeout=_TIMEOUT_SECONDS
            ) as connected,
            self._as_server(accepted) as client,
            self._as_client(connected) as server,
        ):
            last_arrived = False
            while not self._closed.is_set() and not self._broken.is_set():
                for source in _readable(client, server):
                    data = _received(source)
                    if data == b"":
                        return
                    if source is client and data:
                        last_arrived |= self._is_last(data)
                        server.sendall(data)
                    elif data and last_arrived:
                        self._broken.set()
                    elif data:
                        client.sendall(data)

    def _is_last(self, data: bytes) -> bool:
        last = self._last_request
        return last is not None and data.startswith(last)

    def _as_server(self, accepted: socket.socket) -> ssl.SSLSocket:
        file = self._certificate()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file, file.with_name("server.key"))
        return context.wrap_socket(accepted, server_side=True)

    def _as_client(self, connected: socket.socket) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self._certificate()))
        return context.wrap_socket(connected, server_hostname="127.0.0.1")


def _readable(*sockets: ssl.SSLSocket) -> list[ssl.SSLSocket]:
    """What may have data, within a tenth of a second."""
    decrypted = [source for source in sockets if source.pending()]
    return decrypted or select.select(sockets, [], [], 0.1)[0]


def _received(source: ssl.SSLSocket) -> bytes | None:
    """Data, nothing at the end, None where it was only TLS's own."""
    source.setblocking(False)
    try:
        return source.recv(65536)
    except ssl.SSLWantReadError:
        return None
    finally:
        source.settimeout(_TIMEOUT_SECONDS)
