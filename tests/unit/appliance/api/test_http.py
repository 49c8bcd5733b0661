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

"""Whatever is sent: a problem that says what is wrong, and never a 500."""

import json
import logging
import sqlite3
import unittest.mock
import uuid

import ddt
from falcon import testing
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies
from sqlalchemy import exc

from acme_appliance import problems
from acme_appliance.api import app
from acme_appliance.api import contract
from tests.harness.inprocess import RunningAppliance
from tests.unit.appliance.api import base
from tests.unit.appliance.api.test_validation import JSON

GOOD = {"name": "v", "size_bytes": 1 << 20}


@ddt.ddt
class HttpTest(base.ApiCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = f"/v1/shares/{uuid.uuid4()}"

    @ddt.data(
        "/v2",
        "/v1",
        "/v1/",
        "/v1//shares",
        "/x" * 500,
        "/%00",
        "/v1/shares/a%2Fb",
    )
    def test_no_such_path(self, path):
        for client in (self.client, self.anybody):
            self.refused("route.not_found", "GET", path, client=client)

    @ddt.data(
        ("POST", "/v1/shares", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
        ("PUT", "/v1/tokens", "POST"),
        ("OPTIONS", "/v1/system", "GET, HEAD"),
    )
    @ddt.unpack
    def test_no_such_method(self, method, path, allowed):
        reply = self.anybody.call(method, path)
        self.assertEqual("route.method_not_allowed", reply.json()["code"])
        self.assertEqual(allowed, reply.headers["Allow"])

    @ddt.data("BREW", "CONNECT", "TRACE")
    def test_strange_methods(self, method):
        reply = self.anybody.session.request(
            method, self.appliance.url + "/v1/system", timeout=120
        )
        self.assertIn(reply.status_code, (400, 405))
        self.assertEqual(
            "application/problem+json", reply.headers["Content-Type"]
        )

    def send(self, data: bytes, content_type="application/json", **headers):
        if content_type is not None:
            headers["Content-Type"] = content_type
        reply = self.client.session.put(
            self.appliance.url + self.path,
            data=data,
            headers=headers,
            timeout=120,
        )
        base.check_reply("PUT", self.path, reply)
        return reply

    def test_too_large(self):
        reply = self.send(b" " * 65_537)
        self.assertEqual(413, reply.status_code)
        self.assertEqual("request.too_large", reply.json()["code"])
        padded = json.dumps(GOOD).encode().ljust(65_536)
        self.assertEqual(201, self.send(padded).status_code)

    @ddt.data(
        None,
        "text/plain",
        "application/merge-patch+json",
        "application/json5",
        "",
        "application",
        "multipart/form-data",
    )
    def test_media_type(self, content_type):
        reply = self.send(json.dumps(GOOD).encode(), content_type)
        self.assertEqual("request.media_type", reply.json()["code"])

    def test_media_type_parameters_and_case(self):
        reply = self.send(
            json.dumps(GOOD).encode(), "Application/JSON; charset=utf-8"
        )
        self.assertEqual(201, reply.status_code)

    @ddt.data(b"", b"{", b"[1,", b"\xff\xfe", b'{"name": NaN}', b"[" * 60_000)
    def test_bad_json(self, data):
        reply = self.send(data)
        self.assertEqual("request.bad_json", reply.json()["code"])

    def test_request_ids(self):
        for given_, kept in (
            ("req-1.A_b", True),
            ("x" * 128, True),
            ("x" * 129, False),
            ("a b", False),
            ("a\tb", False),
            ("ä".encode(), False),
            ("", False),
        ):
            with self.subTest(given=given_):
                reply = self.anybody.call(
                    "GET", "/nothing", headers={"X-Request-Id": given_}
                )
                returned = reply.headers["X-Request-Id"]
                self.assertEqual(kept, returned == given_)
                self.assertEqual(returned, reply.json()["request_id"])

    def test_the_request_id_is_in_the_event_and_the_job(self):
        body = {"X-Request-Id": "req-of-cinder"}
        self.expect(201, "PUT", self.path, GOOD, headers=body)
        share_id = self.path.rpartition("/")[2]
        jobs = self.expect(200, "GET", f"/v1/jobs?share_id={share_id}").json()
        self.assertEqual("req-of-cinder", jobs["jobs"][0]["request_id"])
        events = self.expect(200, "GET", "/v1/events?limit=1000").json()
        self.assertEqual("req-of-cinder", events["events"][-1]["request_id"])

    def test_the_unexpected_is_told_and_logged_with_the_request_id(self):
        name = "acme_appliance.api.app"
        with (
            unittest.mock.patch.object(
                self.appliance.service.shares,
                "get",
                side_effect=ZeroDivisionError("secret detail"),
            ),
            self.assertLogs(name, logging.ERROR) as caught,
        ):
            reply = self.client.call(
                "GET", self.path, headers={"X-Request-Id": "find-me"}
            )
        self.assertEqual(500, reply.status_code)
        self.assertEqual("internal", reply.json()["code"])
        self.assertNotIn("secret detail", reply.text)
        self.assertIn("find-me", caught.output[0])
        self.assertIn("secret detail", caught.output[0])

    def test_a_database_that_fails_is_a_reason_to_try_again(self):
        """For reads and for log-ins as for changes."""
        newcomer = self.client_of(self.appliance.make_token("admin"))
        for error in (
            exc.OperationalError("SELECT", {}, Exception("secret detail")),
            exc.TimeoutError("QueuePool limit"),
        ):
            with (
                self.subTest(error=error),
                unittest.mock.patch.object(
                    self.appliance.database, "read", side_effect=error
                ),
                self.assertLogs("acme_appliance.changes", logging.WARNING),
            ):
                for client in (self.client, newcomer):
                    reply = client.call("GET", self.path)
                    self.assertEqual(503, reply.status_code)
                    self.assertEqual("1", reply.headers["Retry-After"])
                    self.assertTrue(reply.json()["retryable"])
                    self.assertNotIn("secret detail", reply.text)

    def test_waits_are_bounded_and_nonsense_is_ignored(self):
        for header, seconds in (
            (None, 20),
            ("wait=5", 5),
            ("wait=100000", 60),
            ("foo, WAIT=3", 20),
            ('return=minimal; x, wait="7"', 7),
            ("respond-async", 0),
            ("respond-async, wait=10", 10),
            ("wait=-1", 20),
            ("wait=x", 20),
            ("handling=lenient;" * 300, 20),
        ):
            headers = {} if header is None else {"Prefer": header}
            with (
                self.subTest(header=header),
                unittest.mock.patch.object(
                    self.appliance.service.shares,
                    "delete",
                    side_effect=problems.Problem("share.busy", "It is."),
                ) as delete,
            ):
                self.refused(
                    "share.busy", "DELETE", self.path, headers=headers
                )
                self.assertEqual(seconds, delete.call_args[1]["wait_seconds"])


class ReadinessTest(base.ApiCase):
    def readiness(self) -> tuple[int, list[str]]:
        reply = self.anybody.call("GET", "/readyz")
        return reply.status_code, reply.json()["reasons"]

    def test_a_database_that_cannot_be_written(self):
        path = self.appliance.database.url.database
        other = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        reasons = ["the database cannot be written"]
        self.assertEqual((503, reasons), self.readiness())
        system = self.expect(200, "GET", "/v1/system").json()
        self.assertEqual("degraded", system["health"])


class RoomTest(base.ApiCase):
    """One change and one long poll at a time."""

    options = {"api": {"changes": 1, "long_polls": 1}}

    def test_changes_leave_room_for_reads(self):
        path = f"/v1/shares/{uuid.uuid4()}"

        def nested(*_, **__):
            other = self.client_of(self.appliance.token)
            reply = other.call("DELETE", path)
            self.assertEqual("rate.limited", reply.json()["code"])
            self.assertEqual(200, other.call("GET", "/v1/shares").status_code)
            raise problems.Problem("share.busy", "It was asked.")

        with unittest.mock.patch.object(
            self.appliance.service.shares, "delete", side_effect=nested
        ):
            self.refused("share.busy", "DELETE", path)
        self.expect(204, "DELETE", path)

    def test_a_long_poll_too_many_does_not_wait(self):
        self.make_share()
        waits = []
        service = self.appliance.service
        found = self.expect(200, "GET", "/v1/events").json()

        def nested(caller, after, wait, limit):
            waits.append(wait > 0)
            if len(waits) == 1:
                other = self.client_of(self.appliance.token)
                other.call("GET", "/v1/events?wait=30")
            return found

        with unittest.mock.patch.object(
            service.events, "read", side_effect=nested
        ):
            self.expect(200, "GET", "/v1/events?wait=30")
            self.expect(200, "GET", "/v1/events?wait=30")
        self.assertEqual([True, False, True], waits)

    def test_a_long_poll_ends_when_the_server_stops(self):
        stopping = unittest.mock.Mock(side_effect=[False, True])
        wsgi = app.create_app(
            self.appliance.service,
            self.appliance.tokens,
            is_stopping=stopping,
        )
        reply = testing.TestClient(wsgi).simulate_get(
            "/v1/events",
            query_string="after=99999&wait=60",
            headers={"Authorization": f"Bearer {self.appliance.token}"},
        )
        self.assertEqual([], reply.json["events"])
        self.assertEqual(2, stopping.call_count)


METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS")
#: Paths that exist, with anything where an id should be.
PATHS = sorted({o.path for o in contract.load().operations.values()})
SEGMENT = strategies.one_of(
    strategies.uuids().map(str),
    strategies.sampled_from(["gold", "cmp-1", "", "..", "%2F", "%00"]),
    strategies.text(max_size=20),
)
#: What WSGI can carry: bytes, as latin-1, without line ends.
HEADER = strategies.text(
    strategies.characters(max_codepoint=255, exclude_characters="\r\n\0"),
    max_size=60,
)
QUERY = strategies.one_of(
    strategies.text(
        strategies.characters(max_codepoint=255, exclude_characters="#"),
        max_size=60,
    ),
    strategies.dictionaries(
        strategies.sampled_from(
            [
                "limit",
                "marker",
                "wait",
                "after",
                "state",
                "name",
                "pool",
                "snapshots",
                "share_id",
                "label.a",
                "label.",
                "x",
            ]
        ),
        strategies.one_of(
            strategies.integers().map(str),
            strategies.sampled_from(["%00", "%ff", "cascade", "available"]),
        ),
    ).map(lambda pairs: "&".join(f"{k}={v}" for k, v in pairs.items())),
)
#: Bodies that are nearly right get further than random ones.
BODY = strategies.one_of(
    strategies.binary(max_size=100),
    JSON.map(lambda value: json.dumps(value).encode()),
    strategies.fixed_dictionaries(
        {"name": strategies.text(max_size=300)},
        optional={
            "size_bytes": strategies.integers() | strategies.floats(),
            "share_id": strategies.uuids().map(str),
            "pool": strategies.sampled_from(["gold", "x", ""]),
            "labels": strategies.dictionaries(
                strategies.text(max_size=5), strategies.text(max_size=5)
            ),
            "source": strategies.fixed_dictionaries(
                {
                    "type": strategies.sampled_from(["share", "snapshot"]),
                    "id": strategies.uuids().map(str),
                }
            ),
            "file": JSON,
        },
    ).map(lambda value: json.dumps(value).encode()),
    strategies.fixed_dictionaries(
        {
            "clients": strategies.lists(
                strategies.one_of(
                    strategies.ip_addresses().map(str),
                    strategies.from_regex(r"\A[0-9a-f:.]{2,45}(/\d+)?\Z"),
                ),
                max_size=4,
            ),
            "level": strategies.sampled_from(["rw", "ro", "x"]),
        }
    ).map(lambda value: json.dumps(value).encode()),
)


class FuzzTest(unittest.TestCase):
    """Straight into WSGI: as many odd requests as there is time for."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.appliance = RunningAppliance(https=False).start()
        cls.addClassCleanup(cls.appliance.stop)
        cls.client = testing.TestClient(cls.appliance.wsgi)
        cls.log = cls.enterClassContext(
            unittest.mock.patch("acme_appliance.api.app.LOG")
        )

    @settings(
        max_examples=400,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(
        method=strategies.sampled_from(METHODS),
        template=strategies.sampled_from(PATHS) | strategies.text(max_size=30),
        segments=strategies.tuples(SEGMENT, SEGMENT),
        query=QUERY,
        headers=strategies.dictionaries(
            strategies.sampled_from(
                [
                    "If-Match",
                    "If-None-Match",
                    "Prefer",
                    "X-Request-Id",
                    "Content-Length",
                    "Transfer-Encoding",
                    "Accept",
                    "Host",
                    "Range",
                    "X-Http-Method-Override",
                    "Cookie",
                    "Expect",
                ]
            ),
            HEADER,
        ),
        media_type=strategies.sampled_from(
            ["application/json", "application/merge-patch+json", "text/x"]
        )
        | HEADER,
        body=BODY,
        known=strategies.booleans(),
    )
    def test_nothing_that_a_client_sends_is_a_500(
        self,
        method,
        template,
        segments,
        query,
        headers,
        media_type,
        body,
        known,
    ):
        path = template
        for name, segment in zip(
            ("{share_id}", "{holder}"), segments, strict=True
        ):
            path = path.replace(name, segment)
        for name in ("{snapshot_id}", "{job_id}", "{pool}"):
            path = path.replace(name, segments[0])
        token = self.appliance.token if known else "acme_" + "B" * 43
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path.encode("utf-8", "replace").decode("latin-1"),
            "QUERY_STRING": query,
            "CONTENT_TYPE": media_type,
            "CONTENT_LENGTH": headers.pop("Content-Length", str(len(body))),
            "HTTP_AUTHORIZATION": f"Bearer {token}",
        }
        environ |= {
            f"HTTP_{name.upper().replace('-', '_')}": value
            for name, value in headers.items()
        }
        status, reply_headers, reply = self.serve(environ, body)
        self.assertLess(status, 500, reply)
        self.assertFalse(self.log.error.called, self.log.error.call_args)
        if status >= 400 and method != "HEAD":
            problem = json.loads(reply)
            self.assertIn(problem["code"], problems.CODES)
            self.assertEqual(
                "application/problem+json", reply_headers["content-type"]
            )

    def serve(self, environ, body):
        import io

        full = testing.create_environ() | environ
        full["wsgi.input"] = io.BytesIO(body)
        full["REMOTE_ADDR"] = f"192.0.2.{hash(body) % 250}"
        seen = []
        data = b"".join(
            self.appliance.wsgi(full, lambda *line: seen.append(line))
        )
        status, headers = seen[0][:2]
        return int(status[:3]), {k.lower(): v for k, v in headers}, data
