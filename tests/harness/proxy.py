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

import contextlib
import select
import socket
import threading


class LossyProxy:
    """Forwards TCP connections to a port of the loopback address.

    While :attr:`replies_lost` is set, what clients send arrives, but no
    answer comes back and the connection breaks: a request on a connection
    that is open already is carried out, and nobody learns of it.
    """

    def __init__(self, target_port: int) -> None:
        self.replies_lost = threading.Event()
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

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

    def _forward(self, client: socket.socket) -> None:
        target = ("127.0.0.1", self._target_port)
        with (
            client,
            contextlib.suppress(ConnectionError),
            socket.create_connection(target, timeout=5) as server,
        ):
            while not self._closed.is_set():
                ready, _, _ = select.select([client, server], [], [], 0.1)
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client:
                        server.sendall(data)
                    elif self.replies_lost.is_set():
                        return
                    else:
                        client.sendall(data)
