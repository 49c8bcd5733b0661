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

"""What clients that nobody knows can write into the log."""

import asyncio
import contextlib
import logging
import pathlib
import socket
import struct
import tempfile
import unittest

import ddt
import uvloop

from acme_appliance import tls
from acme_appliance.web import frontend

MANY = 50
BOUND_SECONDS = 60
RESET = struct.pack("ii", 1, 0)

NO_REQUEST = b"\x16\x03\x01 this is no HTTP\r\n\r\n"
BAD_HEAD = b"GET / HTTP/1.1\r\nno header\r\n\r\n"
TOO_LONG = b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n"
CUT_OFF = b"GET / HTTP/1.1\r\nHost: a\r\n"
A_REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x" * (4 << 20)]


class CountingApplication:
    """:param body: of each reply."""

    def __init__(self, body):
        self.body = body
        self.calls = 0

    def __call__(self, environ, start_response):
        self.calls += 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [self.body]


class NobodyIsKnown:
    def was_valid(self, header):
        return False

    def is_valid(self, header):
        return False


class Lines(logging.Handler):
    """What the log has at the level that a server runs with."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@ddt.ddt
class LogTest(unittest.TestCase):
    def setUp(self):
        self.log = Lines()
        root = logging.getLogger()
        level = root.level
        root.addHandler(self.log)
        root.setLevel(logging.INFO)
        self.addCleanup(root.setLevel, level)
        self.addCleanup(root.removeHandler, self.log)
        self.reads_nothing = False
        self.left_open = []

    def certificate(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        made = tls.ensure_certificate(pathlib.Path(folder.name), ["localhost"])
        self.log.lines.clear()
        return tls.server_context(made)

    def attack(self, data, *, reset=False, context=None, receive=10, send=30):
        """Many clients that send this, until the last of them is gone."""
        limits = frontend.Limits(
            threads=1,
            max_connections=2 * MANY,
            max_strangers=2 * MANY,
            max_body_bytes=1 << 20,
            receive_seconds=receive,
            send_seconds=send,
        )

        async def run():
            front = frontend.Frontend(
                application, NobodyIsKnown(), limits, lambda: context
            )
            listener = socket.create_server(("127.0.0.1", 0))
            address = listener.getsockname()
            front.start([listener])
            try:
                async with asyncio.timeout(BOUND_SECONDS):
                    for _ in range(MANY):
                        await self.visit(address, data, reset)
                    while len(front._open):
                        await asyncio.sleep(0.01)
            finally:
                for writer in self.left_open:
                    writer.transport.abort()
                await front.stop(BOUND_SECONDS)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())

    async def visit(self, address, data, reset):
        reader, writer = await asyncio.open_connection(*address, limit=1)
        writer.write(data)
        await writer.drain()
        if self.reads_nothing:
            self.left_open.append(writer)
            return
        if reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        else:
            with contextlib.suppress(ConnectionError):
                await reader.read(1 << 20)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    @ddt.data(NO_REQUEST, BAD_HEAD, TOO_LONG)
    def test_what_is_no_request(self, data):
        self.attack(data)
        self.assertEqual([], self.log.lines)

    @ddt.data(b"", NO_REQUEST, CUT_OFF, A_REQUEST)
    def test_gone_at_once(self, data):
        self.attack(data, reset=True)
        self.assertEqual([], self.log.lines)

    def test_too_slow_with_its_request(self):
        self.attack(CUT_OFF, receive=0.01)
        self.assertEqual([], self.log.lines)

    def test_replies_that_nobody_reads(self):
        self.reads_nothing = True
        self.attack(A_REQUEST, send=0.01)
        self.assertEqual([], self.log.lines)

    @ddt.data(True, False)
    def test_no_tls(self, reset):
        self.attack(A_REQUEST, reset=reset, context=self.certificate())
        self.assertEqual([], self.log.lines)


class PipelineTest(unittest.TestCase):
    """Requests without a valid token, sent before the replies are read."""

    REQUESTS = 16

    def setUp(self):
        self.application = CountingApplication(b"x" * 50_000)
        self.made = None

    def frontend(self):
        return frontend.Frontend(
            self.application,
            NobodyIsKnown(),
            frontend.Limits(
                threads=1,
                max_connections=MANY,
                max_strangers=MANY,
                max_body_bytes=1 << 20,
                receive_seconds=BOUND_SECONDS,
            ),
            lambda: None,
        )

    def run_with(self, client):
        async def run():
            listener = socket.create_server(("127.0.0.1", 0))
            address = listener.getsockname()
            self.made = self.frontend()
            self.made.start([listener])
            try:
                async with asyncio.timeout(BOUND_SECONDS):
                    return await client(*address)
            finally:
                await self.made.stop(BOUND_SECONDS)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())

    def test_one_reply_and_the_end(self):
        async def client(host, port):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(A_REQUEST * self.REQUESTS)
            reply = b""
            with contextlib.suppress(ConnectionError):
                while part := await reader.read(1 << 16):
                    reply += part
            writer.close()
            return reply

        head, _, body = self.run_with(client).partition(b"\r\n\r\n")
        self.assertIn(b"connection: close", head.lower())
        self.assertEqual(self.application.body, body)
        self.assertEqual(1, self.application.calls)

    def test_the_end_of_those_that_say_nothing(self):
        """A stop closes connections before their first byte, too."""

        async def client(host, port):
            reader, writer = await asyncio.open_connection(host, port)
            while not len(self.made._open):
                await asyncio.sleep(0.01)
            self.addCleanup(writer.close)
            await self.made.stop(BOUND_SECONDS)
            with contextlib.suppress(ConnectionError):
                self.assertEqual(b"", await reader.read())
            self.assertEqual(0, len(self.made._open))

        self.run_with(client)
