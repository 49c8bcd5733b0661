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

"""Connections with a deadline for the whole reply.

The timeouts of requests apply to each read: a server that sends a byte now
and then could block a call forever. Here each read from the socket gets only
the remaining time.
"""

from collections.abc import Iterator
import contextlib
import contextvars
import http.client
import io
import socket
from typing import Any

import requests.adapters
import urllib3
import urllib3.connection

from acme_client import timing

#: The deadline of the current (native or green) thread's request. requests
#: and urllib3 have no parameter to pass it to the socket.
_deadline: contextvars.ContextVar[timing.Deadline | None] = (
    contextvars.ContextVar("acme_reply_deadline", default=None)
)


@contextlib.contextmanager
def until(deadline: timing.Deadline) -> Iterator[None]:
    """Apply a deadline to all replies in this block."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


class Adapter(requests.adapters.HTTPAdapter):
    """The adapter of requests, with these connections."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _HttpPool,
            "https": _HttpsPool,
        }


class _Reader(io.RawIOBase):
    """Reads from a socket until the deadline."""

    def __init__(
        self, raw: Any, sock: socket.socket, deadline: timing.Deadline
    ) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """:raises TimeoutError: the read timeout or the deadline."""
        left = self._deadline.remaining()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        silence = self._sock.gettimeout()
        self._sock.settimeout(left if silence is None else min(silence, left))
        try:
            count: int | None = self._raw.readinto(buffer)
        finally:
            # The next request may reuse this connection.
            self._sock.settimeout(silence)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        deadline = _deadline.get()
        if deadline is not None:
            raw = self.fp.detach()
            self.fp = io.BufferedReader(_Reader(raw, sock, deadline))


class _HttpConnection(urllib3.connection.HTTPConnection):
    response_class = _Response


class _HttpsConnection(urllib3.connection.HTTPSConnection):
    response_class = _Response


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection
