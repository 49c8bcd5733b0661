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

"""Accepts connections and passes complete requests to WSGI.

aiohttp parses HTTP; each connection is one of its protocols. Connections use
no thread: a thread runs from the complete request to the complete reply,
which the event loop sends. Clients without a valid token have separate
threads.
"""

import asyncio
from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
import contextlib
import dataclasses
import logging
import socket
import ssl
import struct
from typing import Any
from typing import cast
from typing import Final
from typing import TYPE_CHECKING

from aiohttp import http_exceptions
from aiohttp import web
import multidict

from acme_appliance import problems
from acme_appliance.api.requests import to_json
from acme_appliance.web import connections
from acme_appliance.web import wsgi

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from acme_appliance.api import auth

LOG = logging.getLogger(__name__)

#: Replaces aiohttp's header, which reveals its version.
_SERVER: Final = ("Server", "acme-appliance")
_BACKLOG: Final = 2048
#: Connections that are accepted at once, before others get their turn. Far
#: below the limit of strangers: else a batch could close a connection before
#: its request is read.
_BATCH: Final = 8
_HEAD_LINE_BYTES: Final = 8190
_HEADERS: Final = 100
#: Threads for requests without a valid token, and for token look-ups. More
#: would compete with valid requests for Python's interpreter lock.
_STRANGERS_THREADS: Final = 2
_LOOK_UP_THREADS: Final = 4
#: Linger time before closing.
_LINGER_SECONDS: Final = 2
#: The kernel's send buffer per connection. Small until a valid token is shown:
#: what the kernel has taken, it keeps for a client that reads nothing even
#: after the connection is closed here.
_SEND_BUFFER_BYTES: Final = 64 << 10
_STRANGERS_SEND_BUFFER_BYTES: Final = 8 << 10
#: Pause after a failed accept.
_NO_ROOM_SECONDS: Final = 0.1
#: Close with a reset, so that the kernel frees the connection at once.
_RESET: Final = struct.pack("ii", 1, 0)


@dataclasses.dataclass(frozen=True)
class Limits:
    """``threads``: for requests with a valid token."""

    threads: int
    max_connections: int
    max_strangers: int
    max_body_bytes: int
    #: For the handshake and the request head together, and again for the
    #: body; generous even for slow networks.
    receive_seconds: float = 10
    #: For the client to read a reply of up to some megabytes.
    send_seconds: float = 30
    #: Idle time of a client that has shown a valid token.
    keepalive_seconds: float = 75


class _Connection(connections.Connection):
    """One accepted socket, with the deadline of its current step."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        super().__init__(address, self._reset)
        self.sock = sock
        self._deadline: asyncio.TimerHandle | None = None
        self._has_large_buffer = False

    def enlarge_send_buffer(self) -> None:
        """For large replies to a client with a valid token."""
        if not self._has_large_buffer:
            self._has_large_buffer = True
            with contextlib.suppress(OSError):
                self.sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES
                )

    def _reset(self) -> None:
        # The current owner of the socket (handshake or parser) sees its end.
        self.clear_deadline()
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.sock.shutdown(socket.SHUT_RDWR)

    def set_deadline(self, seconds: float) -> None:
        self.clear_deadline()
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(seconds, self._on_timeout)

    def clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_timeout(self) -> None:
        LOG.debug("Too slow, closing: %s", self.address)
        self.end()


def _has_first_byte(sock: socket.socket) -> bool:
    """Whether a readable connection has data; False: it has ended."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def _accept_some(
    listener: socket.socket,
) -> Iterator[tuple[socket.socket, Any]]:
    """Yield the waiting connections, at most a batch.

    :raises OSError: no file descriptor is left, or the client has gone.
    """
    for _ in range(_BATCH):
        try:
            yield listener.accept()
        except BlockingIOError:
            return


class _Protocol(web.RequestHandler):
    """HTTP on one connection."""

    __slots__ = ("connection", "on_lost")

    def __init__(
        self,
        server: web.Server,
        connection: _Connection,
        on_lost: Callable[[_Connection], None],
        keepalive_seconds: float,
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=keepalive_seconds,
            access_log=cast(Any, None),
            max_line_size=_HEAD_LINE_BYTES,
            max_field_size=_HEAD_LINE_BYTES,
            max_headers=_HEADERS,
            lingering_time=_LINGER_SECONDS,
            # A small body could expand to a huge one.
            auto_decompress=False,
        )
        self.connection = connection
        self.on_lost = on_lost

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.on_lost(self.connection)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The reply to invalid HTTP or an internal error."""
        if isinstance(exc, http_exceptions.HttpProcessingError):
            # Any client can cause this: above DEBUG it could flood the log.
            LOG.debug(
                "Not a request, from %s: %s: %.200r",
                self.connection.address,
                type(exc).__name__,
                message,
            )
            return _refuse("request.invalid", "This is not a valid request.")
        if isinstance(exc, ConnectionError):
            LOG.debug("Closed before its reply: %s", self.connection.address)
            return _refuse("internal", "The connection is closed.")
        LOG.error("A request could not be served", exc_info=exc)
        return _refuse("internal", "Something unexpected happened.")


def _refuse(code: str, detail: str) -> web.Response:
    """A problem reply to a request that never reaches the application."""
    problem = problems.Problem(code, detail)
    reply = web.Response(
        status=problem.http_status,
        body=to_json(problem.to_dict()),
        content_type="application/problem+json",
        headers=dict([_SERVER]),
    )
    reply.force_close()
    return reply


class Frontend:
    """Serves a WSGI application until it is stopped.

    :param context: called for each connection; returns None for no TLS.
    """

    def __init__(
        self,
        application: "WSGIApplication",
        authenticator: "auth.Authenticator",
        limits: Limits,
        context: Callable[[], ssl.SSLContext | None],
    ) -> None:
        self._application = application
        self._authenticator = authenticator
        self._limits = limits
        self._context = context
        self._open = connections.Connections(
            limits.max_connections, limits.max_strangers
        )
        self._server = web.Server(self._serve)
        #: Connections before their first byte.
        self._silent: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: list[asyncio.Task[None]] = []
        self._working = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._threads = _pool(limits.threads, "api")
        self._strangers_threads = _pool(_STRANGERS_THREADS, "stranger")
        self._look_up_threads = _pool(_LOOK_UP_THREADS, "login")

    def start(self, listeners: list[socket.socket]) -> None:
        """:param listeners: bound sockets; this object closes them."""
        for listener in listeners:
            listener.setblocking(False)
            listener.setsockopt(
                socket.SOL_SOCKET,
                socket.SO_SNDBUF,
                _STRANGERS_SEND_BUFFER_BYTES,
            )
            listener.listen(_BACKLOG)
            self._accepting.append(asyncio.create_task(self._accept(listener)))

    async def stop(self, seconds: float) -> None:
        """Accept no more requests, and wait so many seconds for current
        ones to finish."""
        for task in self._accepting:
            task.cancel()
        await asyncio.wait(self._accepting)
        self._server.pre_shutdown()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            LOG.warning("%d requests did not finish in time", self._working)
        await self._server.shutdown(timeout=1)
        for connection in [*self._silent]:
            self._drop(connection)
        for task in self._tasks:
            task.cancel()
        for threads in (
            self._threads,
            self._strangers_threads,
            self._look_up_threads,
        ):
            threads.shutdown(wait=False, cancel_futures=True)

    # -- connections

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    sock, peer = await loop.sock_accept(listener)
                    self._admit(_Connection(sock, peer[0]))
                    for sock, peer in _accept_some(listener):
                        sock.setblocking(False)
                        self._admit(_Connection(sock, peer[0]))
                except OSError as error:
                    LOG.warning("Cannot accept a connection: %s", error)
                    self._open.make_room()
                    await asyncio.sleep(_NO_ROOM_SECONDS)

    def _admit(self, connection: _Connection) -> None:
        if not self._open.admit(connection):
            connection.end()
            connection.sock.close()
            return
        connection.set_deadline(self._limits.receive_seconds)
        # No TLS and no task before the first byte: for clients that say
        # nothing, and come back when they are closed, these would cost a
        # large part of a processor.
        self._silent.add(connection)
        asyncio.get_running_loop().add_reader(
            connection.sock, self._begin, connection
        )

    def _begin(self, connection: _Connection) -> None:
        """The first byte or the end of a connection has arrived."""
        if not _has_first_byte(connection.sock):
            self._drop(connection)
            return
        self._silent.discard(connection)
        asyncio.get_running_loop().remove_reader(connection.sock)
        # Those that say nothing are closed before it.
        self._open.distrust(connection)
        task = asyncio.create_task(self._open_connection(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _drop(self, silent: _Connection) -> None:
        self._silent.discard(silent)
        asyncio.get_running_loop().remove_reader(silent.sock)
        silent.sock.close()
        self._lost(silent)

    async def _open_connection(self, connection: _Connection) -> None:
        """Run the TLS handshake and attach the protocol."""
        context = self._context()
        options: dict[str, Any] = {}
        if context is not None:
            options = {
                "ssl": context,
                "ssl_handshake_timeout": self._limits.receive_seconds,
                # Also for a stranger to read its reply, before the deadline
                # resets the connection.
                "ssl_shutdown_timeout": self._limits.receive_seconds,
            }
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: _Protocol(
                    self._server,
                    connection,
                    self._lost,
                    self._limits.keepalive_seconds,
                ),
                connection.sock,
                **options,
            )
        except OSError as error:
            LOG.debug(
                "TLS handshake failed with %s: %s", connection.address, error
            )
            self._lost(connection)

    def _lost(self, connection: _Connection) -> None:
        connection.clear_deadline()
        self._open.remove(connection)

    # -- requests

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request whose head has arrived."""
        connection = cast(_Protocol, request.protocol).connection
        connection.clear_deadline()
        self._working += 1
        self._idle.clear()
        try:
            reply = await self._answer(request, connection)
            await self._send(request, reply, connection)
        finally:
            self._working -= 1
            if not self._working:
                self._idle.set()
        return reply

    async def _answer(
        self, request: web.BaseRequest, connection: _Connection
    ) -> web.Response:
        # Do not close the connection while its request is served.
        self._open.trust(connection)
        if not await self._is_valid(request):
            # The application refuses the request or needs no body.
            reply = await self._call(
                request, connection, b"", self._strangers_threads
            )
            # One request per connection: with pipelined ones, clients that
            # read nothing would cause work and hold replies without end.
            reply.force_close()
            self._open.distrust(connection)
            connection.set_deadline(self._limits.receive_seconds)
            return reply
        connection.enlarge_send_buffer()
        try:
            async with asyncio.timeout(self._limits.receive_seconds):
                body = await self._read(request)
        except (TimeoutError, web.RequestPayloadError) as error:
            LOG.info("Incomplete body from %s: %s", connection.address, error)
            return _refuse("request.bad_json", "The body is not complete.")
        return await self._call(request, connection, body, self._threads)

    async def _is_valid(self, request: web.BaseRequest) -> bool:
        header = request.headers.get("Authorization")
        if header is None:
            return False
        if self._authenticator.was_valid(header):
            return True
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._look_up_threads, self._authenticator.is_valid, header
        )

    async def _read(self, request: web.BaseRequest) -> bytes:
        """Read the body. If it is too large, return one byte more than the
        maximum, or nothing if its length is given."""
        most = self._limits.max_body_bytes
        if (request.content_length or 0) > most:
            return b""
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = bytearray()
        while len(body) <= most and (part := await request.content.readany()):
            body += part
        return bytes(body[: most + 1])

    async def _call(
        self,
        request: web.BaseRequest,
        connection: _Connection,
        body: bytes,
        threads: futures.Executor,
    ) -> web.Response:
        variables = wsgi.environ(request, connection.address, body)
        loop = asyncio.get_running_loop()
        status, fields, data = await loop.run_in_executor(
            threads, wsgi.call, self._application, variables
        )
        headers = multidict.CIMultiDict([*fields, _SERVER])
        return web.Response(status=status, body=data, headers=headers)

    async def _send(
        self,
        request: web.BaseRequest,
        reply: web.Response,
        connection: _Connection,
    ) -> None:
        try:
            async with asyncio.timeout(self._limits.send_seconds):
                await reply.prepare(request)
                await reply.write_eof()
                await request.writer.drain()
        except TimeoutError:
            LOG.debug("Reads too slowly, closing: %s", connection.address)
            connection.end()
            raise ConnectionResetError("the reply was not read") from None


def _pool(threads: int, name: str) -> futures.ThreadPoolExecutor:
    return futures.ThreadPoolExecutor(threads, thread_name_prefix=name)
