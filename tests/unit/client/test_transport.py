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

"""Which failure on the wire is which error, seen on real sockets."""

import contextlib
import pickle
import socket
import ssl
import tempfile
import threading
import time
import unittest
import unittest.mock

import ddt

import acme_client
from tests.harness import transports
from tests.unit.client import base
from tests.unit.client import wire


def closed_port() -> int:
    """A port of loopback where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@ddt.ddt
class ClassificationTest(base.ClientTestCase):
    """One sending each: the deadline leaves no time for a second."""

    def one_error(
        self, address: str, **kwargs: object
    ) -> acme_client.ApiError:
        api = self.client(address, **kwargs)

        with self.assertRaises(acme_client.ApiError) as caught:
            api.with_deadline(0.1).create_share(
                base.SHARE_ID, name="n", size_bytes=1
            )
        return caught.exception

    def test_refused_connection_was_never_sent(self):
        error = self.one_error(f"http://127.0.0.1:{closed_port()}")
        self.assertIsInstance(error, acme_client.NotSent)

    def test_unknown_name_was_never_sent(self):
        with unittest.mock.patch(
            "socket.getaddrinfo", side_effect=socket.gaierror(-2, "unknown")
        ):
            error = self.one_error("https://no-such-host.invalid")
        self.assertIsInstance(error, acme_client.NotSent)

    def test_connect_timeout_was_never_sent(self):
        # A listening socket whose queue is full answers no SYN.
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            port = listener.getsockname()[1]
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                self.addCleanup(filler.close)
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            error = self.one_error(f"http://127.0.0.1:{port}")
        self.assertIsInstance(error, acme_client.NotSent)

    @ddt.data(
        ("dropped", wire.Drop()),
        ("reset", wire.Reset()),
        ("stalled", wire.Stall()),
        ("broken off", wire.Partial()),
    )
    @ddt.unpack
    def test_lost_reply_may_have_been_applied(self, name, behaviour):
        server = self.serve(lambda seen: behaviour)
        error = self.one_error(server.address)
        self.assertIsInstance(error, acme_client.OutcomeUnknown)
        self.assertGreaterEqual(len(server.seen), 1)

    @ddt.data(
        ("refused", transports.Refused(), acme_client.NotSent),
        ("lost", transports.ReplyLost(), acme_client.OutcomeUnknown),
        ("slow", transports.SlowReply(), acme_client.OutcomeUnknown),
        ("broken", transports.ResetInTheMiddle(), acme_client.OutcomeUnknown),
    )
    @ddt.unpack
    def test_injected_faults_look_like_real_ones(self, name, fault, expected):
        server = self.serve(lambda seen: wire.reply(base.SHARE))
        error = self.one_error(server.address, faults=[fault] * 9)
        self.assertIsInstance(error, expected)

    def test_errors_can_be_pickled_and_carry_the_request_id(self):
        error = self.one_error(
            f"http://127.0.0.1:{closed_port()}", request_id=lambda: "req-7"
        )
        twin = pickle.loads(pickle.dumps(error))  # noqa: S301
        self.assertEqual(str(error), str(twin))
        self.assertEqual("req-7", twin.request_id)
        self.assertIn("req-7", str(error))


def location(**members: object) -> dict[str, object]:
    """An export location, with something wrong in it."""
    return {**base.SHARE["export_locations"][0], **members}


@ddt.ddt
class ForeignReplyTest(base.ClientTestCase):
    """Replies that are none of this API are told as such, at once."""

    def protocol_error(
        self, behaviour: wire.Behaviour, **kwargs: object
    ) -> acme_client.ProtocolError:
        server = self.serve(lambda seen: behaviour)
        api = self.client(server.address, **kwargs)
        with self.assertRaises(acme_client.ProtocolError) as caught:
            api.get_share(base.SHARE_ID)
        self.assertEqual(1, len(server.seen))
        self.assertEqual([], self.clock.sleeps)
        return caught.exception

    @ddt.data(
        b"",
        b"<html>It works!</html>",
        b'{"id": "trunca',
        b"[]",
        b"null",
        b'{"id": NaN}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"{}",
        b'{"id": 1, "name": 2}',
    )
    def test_body_is_not_a_share(self, body):
        error = self.protocol_error(wire.Reply(200, body))
        self.assertEqual(200, error.status)

    @ddt.data("size_bytes", "state", "generation", "pool", "name")
    def test_share_without_what_is_needed(self, member):
        share = {k: v for k, v in base.SHARE.items() if k != member}
        error = self.protocol_error(wire.reply(share))
        self.assertIn(member, str(error))

    @ddt.data(
        ("created_at", "yesterday"),
        ("created_at", "2026-11-20T10:00:00"),
        ("size_bytes", "1"),
        ("size_bytes", True),
        ("file", []),
        ("access", {"cmp-1": []}),
        ("export_locations", [{"address": "192.0.2.1"}]),
        ("export_locations", [location(address="-osuid")]),
        ("export_locations", [location(address="")]),
        ("export_locations", [location(address="nfs box")]),
        ("export_locations", [location(address="2001:db8::1::2")]),
        ("export_locations", [location(address="fe80::1%-o suid")]),
        ("export_locations", [location(address="nfs:/other")]),
        ("export_locations", [location(path="shares/x")]),
        ("export_locations", [location(path="/shares/x\0")]),
        ("export_locations", [location(path="/shares/x\n")]),
        ("export_locations", [location(path="/shares/x\x1b[2J")]),
        ("export_locations", [location(path="/shares/x y")]),
        ("export_locations", [location(path="/shares/../etc")]),
        ("export_locations", [location(path="/shares/..")]),
        ("export_locations", [location(nfs_versions=["v4.2"])]),
        ("export_locations", [location(nfs_versions=["latest"])]),
        ("export_locations", [location(nfs_versions=["4.2,suid"])]),
    )
    @ddt.unpack
    def test_share_with_a_wrong_member(self, member, value):
        self.protocol_error(wire.reply({**base.SHARE, member: value}))

    @ddt.data(
        {"address": "nfs-1.example.org"},
        {"address": "2001:db8::1"},
        {"address": "fe80::1%eth0"},
        {"path": "/a..b/...c"},
        {"nfs_versions": ["3", "4", "4.2"]},
        {"nfs_versions": []},
    )
    def test_good_export_locations(self, members):
        share = {**base.SHARE, "export_locations": [location(**members)]}
        server = self.serve(lambda seen: wire.reply(share))
        read = self.client(server.address).get_share(base.SHARE_ID)
        for name, value in members.items():
            shown = getattr(read.export_locations[0], name)
            self.assertEqual(
                value, list(shown) if isinstance(shown, tuple) else shown
            )

    @ddt.data(400, 404, 409, 418, 500)
    def test_error_status_without_a_problem(self, status):
        error = self.protocol_error(wire.Reply(status, b"<html>?</html>"))
        self.assertEqual(status, error.status)

    def test_foreign_404_is_not_an_absent_share(self):
        server = self.serve(lambda seen: wire.Reply(404, b"no such page"))
        api = self.client(server.address)
        for call in (api.find_share, api.delete_share, api.delete_snapshot):
            with self.assertRaises(acme_client.ProtocolError):
                call(base.SHARE_ID)

    @ddt.data(301, 302, 307, 308)
    def test_redirects_are_not_followed(self, status):
        other = self.serve(lambda seen: wire.reply(base.SHARE))
        error = self.protocol_error(
            wire.Reply(
                status,
                b"x" * 1024,
                (("Location", other.address + "/v1/shares/x"),),
            )
        )
        self.assertIn("redirect", str(error))
        self.assertEqual((), other.seen)

    def test_body_of_a_redirect_is_not_even_read(self):
        self.protocol_error(
            wire.Trickle(status=302, headers=(("Location", "/elsewhere"),))
        )

    def test_size_of_a_reply_is_bounded(self):
        error = self.protocol_error(
            wire.Reply(200, b" " * 200_000), max_reply_bytes=100_000
        )
        self.assertIn("100000", str(error))

    def test_packed_body_is_refused(self):
        error = self.protocol_error(
            wire.Reply(200, b"\x1f\x8b", (("Content-Encoding", "gzip"),))
        )
        self.assertIn("gzip", str(error))


@ddt.ddt
class SlowReplyTest(unittest.TestCase):
    """A byte now and then keeps every time-out for a silence from ending.

    With real time: what is bounded is a wait of the system.
    """

    def drip(self, head: bytes, context: ssl.SSLContext | None = None) -> int:
        """Serve ``head`` and then a byte at a time, for far too long."""
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        stop = threading.Event()
        self.addCleanup(stop.set)

        def serve() -> None:
            connection, _ = server.accept()
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(head)
                for _ in range(4000):
                    if stop.wait(0.05):
                        break
                    connection.sendall(b" ")

        threading.Thread(target=serve, daemon=True).start()
        port: int = server.getsockname()[1]
        return port

    def check(self, address: str, **given: object) -> None:
        api = acme_client.Client(
            [address],
            acme_client.BearerToken(base.TOKEN),
            read_timeout_seconds=0.3,
            deadline_seconds=0.5,
            **given,
        )
        self.addCleanup(api.close)
        started = time.monotonic()
        with self.assertRaises(acme_client.OutcomeUnknown) as caught:
            api.create_share(base.SHARE_ID, name="n", size_bytes=1)
        self.assertLess(time.monotonic() - started, 60)
        self.assertIn("too slowly", str(caught.exception))

    @ddt.data(
        b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n",
        b"HTTP/1.1 200 OK\r\nX-Header: ",
        b"HTTP/1.1 ",
        b"HTTP/1.1 302 Found\r\nLocation: ",
    )
    def test_ends_with_the_deadline(self, head):
        port = self.drip(head)
        self.check(f"http://127.0.0.1:{port}")

    def test_over_tls(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        certificate = wire.Certificate(directory.name)
        port = self.drip(
            b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n",
            certificate.server_context(),
        )
        self.check(f"https://127.0.0.1:{port}", verify=certificate.ca_file)

    def test_what_is_in_time_is_read_and_the_connection_kept(self):
        server = wire.Server(lambda seen: wire.reply(base.SHARE))
        self.addCleanup(server.close)
        with acme_client.Client(
            [server.address],
            acme_client.BearerToken(base.TOKEN),
            read_timeout_seconds=5,
        ) as api:
            for _ in range(3):
                api.get_share(base.SHARE_ID)
                api.with_deadline(1).get_share(base.SHARE_ID)
        self.assertEqual(1, server.connections)


class ConnectionTest(base.ClientTestCase):
    def test_connections_are_kept(self):
        server = self.serve(lambda seen: wire.reply(base.SHARE))
        api = self.client(server.address)
        for _ in range(5):
            api.get_share(base.SHARE_ID)
        self.assertEqual(1, server.connections)

    def test_dead_kept_connection_fails_no_call(self):
        def respond(seen: wire.Seen) -> wire.Behaviour:
            return wire.reply(base.SHARE) if seen.nth == 1 else wire.Drop()

        server = self.serve(respond)
        api = self.client(server.address)
        for _ in range(3):
            api.create_share(base.SHARE_ID, name="n", size_bytes=1)
        self.assertEqual([], self.clock.sleeps)
        self.assertEqual(3, server.connections)

    def test_server_restart_fails_no_call(self):
        first = self.serve(lambda seen: wire.reply(base.SHARE))
        api = self.client(first.address)
        api.get_share(base.SHARE_ID)
        first.close()
        second = self.serve(
            lambda seen: wire.reply(base.SHARE), port=first.port
        )
        api.create_share(base.SHARE_ID, name="n", size_bytes=1)
        self.assertEqual([], self.clock.sleeps)
        self.assertEqual(1, len(second.seen))

    def test_one_broken_connection_drops_all_idle_ones(self):
        gate = threading.Barrier(4)
        parallel = [True]

        def respond(seen: wire.Seen) -> wire.Behaviour:
            if parallel:
                gate.wait(120)
            return wire.reply(base.SHARE)

        server = self.serve(respond)
        api = self.client(server.address)
        threads = [
            threading.Thread(target=api.get_share, args=(base.SHARE_ID,))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(4, server.connections)
        parallel.clear()
        self.adapter.add(transports.ReplyLost())
        api.get_share(base.SHARE_ID)
        self.assertEqual(5, server.connections)

    def test_ipv6_address(self):
        server = self.serve(lambda seen: wire.reply(base.SHARE), host="::1")
        api = self.client(server.address)
        self.assertEqual(base.SHARE_ID, api.get_share(base.SHARE_ID).id)
        self.assertEqual(
            f"[::1]:{server.port}", server.seen[0].headers["Host"]
        )

    def test_environment_is_not_listened_to(self):
        directory = self.directory()
        netrc = f"{directory}/netrc"
        with open(netrc, "w") as file:
            file.write("machine 127.0.0.1 login eve password stolen\n")
        server = self.serve(lambda seen: wire.reply(base.SHARE))
        environment = {
            "NETRC": netrc,
            "http_proxy": f"http://127.0.0.1:{closed_port()}",
            "https_proxy": f"http://127.0.0.1:{closed_port()}",
            "ALL_PROXY": f"http://127.0.0.1:{closed_port()}",
            "no_proxy": "",
            "REQUESTS_CA_BUNDLE": "/nonexistent",
        }
        with unittest.mock.patch.dict("os.environ", environment):
            self.client(server.address).get_share(base.SHARE_ID)
        self.assertEqual(
            f"Bearer {base.TOKEN}", server.seen[0].headers["Authorization"]
        )

    def test_cookies_are_not_kept(self):
        server = self.serve(
            lambda seen: wire.reply(base.SHARE, Set_Cookie="who=me; Path=/")
        )
        api = self.client(server.address)
        api.get_share(base.SHARE_ID)
        api.get_share(base.SHARE_ID)
        self.assertNotIn("Cookie", server.seen[1].headers)
