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

"""The request loop: failover, retries, pauses, deadlines."""

import datetime
import email.utils
import json
import time

import ddt

import acme_client
from acme_client import timing
from acme_client import transport
from tests.harness import transports
from tests.unit.client import base
from tests.unit.client import test_transport
from tests.unit.client import wire


def dead_address() -> str:
    return f"http://127.0.0.1:{test_transport.closed_port()}"


class FailoverTest(base.ClientTestCase):
    def setUp(self):
        super().setUp()
        self.good = self.serve(lambda seen: wire.reply(base.SHARE))

    def test_next_address_is_asked_at_once_and_remembered(self):
        api = self.client(dead_address(), self.good.address)
        for _ in range(3):
            api.get_share(base.SHARE_ID)
        self.assertEqual([], self.clock.sleeps)
        # The dead one was tried by the first call only.
        self.assertEqual(4, self.log.total)
        self.assertEqual(3, len(self.good.seen))

    def test_lost_reply_is_asked_for_elsewhere(self):
        silent = self.serve(lambda seen: wire.Drop())
        api = self.client(silent.address, self.good.address)
        api.create_share(base.SHARE_ID, name="n", size_bytes=1)
        self.assertEqual(1, len(silent.seen))
        self.assertEqual(silent.seen[0].body, self.good.seen[0].body)

    def test_unavailable_address_is_left_for_another(self):
        starting = self.serve(
            lambda seen: wire.problem(
                503, "system.starting", retryable=True, Retry_After="5"
            )
        )
        api = self.client(starting.address, self.good.address)
        api.get_share(base.SHARE_ID)
        self.assertEqual([], self.clock.sleeps)

    def test_refusals_do_not_travel(self):
        refusing = self.serve(
            lambda seen: wire.problem(404, "share.not_found")
        )
        api = self.client(refusing.address, self.good.address)
        self.assertIsNone(api.find_share(base.SHARE_ID))
        self.assertEqual((), self.good.seen)

    def test_pause_between_rounds_not_between_addresses(self):
        api = self.client(dead_address(), dead_address(), deadline_seconds=1)
        with self.assertRaises(acme_client.NotSent) as caught:
            api.get_share(base.SHARE_ID)
        # 0.2 and 0.4 s fit into a second, 0.8 more do not.
        self.assertEqual([0.2, 0.4], self.clock.sleeps)
        self.assertEqual(6, self.log.total)
        self.assertFalse(caught.exception.may_have_been_applied)

    def test_first_address_is_asked_again_after_its_return(self):
        address = dead_address()
        api = self.client(
            address, faults=[transports.Refused(), transports.Refused()]
        )
        server = self.serve(
            lambda seen: wire.reply(base.SHARE),
            port=int(address.rpartition(":")[2]),
        )
        api.get_share(base.SHARE_ID)
        self.assertEqual([0.2, 0.4], self.clock.sleeps)
        self.assertEqual(1, len(server.seen))


_HTML = (("Content-Type", "text/html"),)
_JSON = (("Content-Type", "application/json"),)
_FOREIGN = {
    "a page": wire.Reply(200, b"<html>It works!</html>", _HTML),
    "an endless page": wire.Trickle(headers=(("Content-Type", "text/html"),)),
    "a share of no type": wire.Reply(200, json.dumps(base.SHARE).encode()),
    "a share as a page": wire.Reply(
        200, json.dumps(base.SHARE).encode(), _HTML
    ),
    "json that is none": wire.Reply(200, b'{"id": "trunca', _JSON),
    "json of others": wire.reply({"status": "UP"}),
    "nothing": wire.Reply(204),
    "not modified": wire.Reply(304),
    "a packed body": wire.Reply(
        200, b"x", (*_JSON, ("Content-Encoding", "gzip"))
    ),
    "a redirect": wire.Reply(302, b"", (("Location", "/login"),)),
    "a permanent redirect": wire.Reply(308, b"", (("Location", "/x/"),)),
    "a log-in of a proxy": wire.Reply(401, b"Who are you?", _HTML),
    "a proxy's log-in": wire.Reply(407, b"Who are you?", _HTML),
    "no such page": wire.Reply(404, b"<html>Not found</html>", _HTML),
    "a 404 of another API": wire.reply({"error": "not found"}, 404),
    "a 400": wire.Reply(400, b"Bad request", _HTML),
    "a 500": wire.Reply(500, b"Oops", _HTML),
    "a proxy that limits": wire.Reply(429, b"Slow down", _HTML),
    "a proxy without a server": wire.Reply(502, b"", _HTML),
}


@ddt.ddt
class ForeignAnswerTest(base.ClientTestCase):
    """Something else than the appliance answers at one address."""

    def setUp(self):
        super().setUp()
        self.good = self.serve(lambda seen: wire.reply(base.SHARE))

    @ddt.data(*_FOREIGN)
    def test_next_address_is_asked_at_once(self, name):
        foreign = self.serve(lambda seen: _FOREIGN[name])
        api = self.client(
            foreign.address, self.good.address, max_reply_bytes=1 << 20
        )
        for number in range(3):
            made = api.create_share(base.SHARE_ID, name="n", size_bytes=1)
            self.assertEqual(base.SHARE_ID, made.id)
            self.assertEqual(1, len(foreign.seen))
            self.assertEqual(number + 1, len(self.good.seen))
        self.assertEqual([], self.clock.sleeps)

    @ddt.data("a page", "no such page", "a redirect", "json of others")
    def test_a_delete_succeeds_only_by_the_appliances_word(self, name):
        foreign = self.serve(lambda seen: _FOREIGN[name])
        gone = self.serve(lambda seen: wire.Reply(204))
        self.client(foreign.address, gone.address).delete_share(base.SHARE_ID)
        self.assertEqual(1, len(gone.seen))
        with self.assertRaises(acme_client.ProtocolError):
            self.client(foreign.address).delete_share(base.SHARE_ID)

    def test_the_operator_is_told_once_by_name(self):
        foreign = self.serve(lambda seen: _FOREIGN["no such page"])
        api = self.client(foreign.address, self.good.address)
        with self.assertLogs("acme_client", "WARNING") as logs:
            for _ in range(3):
                api.get_share(base.SHARE_ID)
        (record,) = logs.records
        self.assertIn(foreign.address, record.getMessage())
        self.assertIn("404", record.getMessage())

    def test_it_is_not_asked_again_within_the_call(self):
        foreign = self.serve(lambda seen: _FOREIGN["a page"])
        api = self.client(foreign.address, dead_address(), deadline_seconds=1)
        with self.assertRaises(acme_client.OutcomeUnknown):
            api.get_share(base.SHARE_ID)
        self.assertEqual(1, len(foreign.seen))
        self.assertEqual([0.2, 0.4], self.clock.sleeps)

    def test_foreign_answers_everywhere(self):
        page = self.serve(lambda seen: _FOREIGN["a page"])
        redirect = self.serve(lambda seen: _FOREIGN["a redirect"])
        api = self.client(page.address, redirect.address)
        with self.assertRaises(acme_client.ProtocolError) as caught:
            api.get_share(base.SHARE_ID)
        self.assertEqual(302, caught.exception.status)
        self.assertEqual(2, self.log.total)
        self.assertEqual([], self.clock.sleeps)

    def test_what_may_not_be_repeated_is_not(self):
        foreign = self.serve(lambda seen: _FOREIGN["a page"])
        api = self.client(foreign.address, self.good.address)
        request = transport.Request("POST", "/v1/x", repeatable=False)
        with self.assertRaises(acme_client.ProtocolError):
            api._calls.read(request, dict)
        self.assertEqual((), self.good.seen)

    def test_a_log_in_fails_over_too(self):
        foreign = self.serve(lambda seen: _FOREIGN["no such page"])
        good = self.serve_in_turn(
            wire.reply({"token": base.TOKEN}, 201), wire.reply(base.SHARE)
        )
        api = self.client(
            foreign.address,
            good.address,
            credentials=acme_client.BasicLogin("cinder", base.TOKEN),
        )
        self.assertEqual(base.SHARE_ID, api.get_share(base.SHARE_ID).id)

    def test_silent_address_leaves_time_for_the_next(self):
        """With real time: what is bounded is a wait of the system."""
        silent = self.serve(lambda seen: wire.Stall())
        api = self.client(
            silent.address,
            self.good.address,
            deadline_seconds=4,
            clock=time.monotonic,
        )
        for _ in range(2):
            self.assertEqual(base.SHARE_ID, api.get_share(base.SHARE_ID).id)
        self.assertEqual(1, len(silent.seen))


@ddt.ddt
class RetryTest(base.ClientTestCase):
    def test_once_lost_is_sent_again_at_once(self):
        server = self.serve(lambda seen: wire.reply(base.SHARE))
        api = self.client(server.address, faults=[transports.ReplyLost()])
        api.create_share(base.SHARE_ID, name="n", size_bytes=1)
        first, second = server.seen
        self.assertEqual(first.body, second.body)
        self.assertEqual(
            first.headers["X-Request-Id"], second.headers["X-Request-Id"]
        )
        self.assertEqual([], self.clock.sleeps)

    def test_lost_again_and_again_pauses_with_growing_jitter(self):
        server = self.serve(lambda seen: wire.reply(base.SHARE))
        api = self.client(server.address, faults=[transports.ReplyLost()] * 4)
        api.update_share(base.SHARE_ID, size_bytes=2)
        self.assertEqual([0.2, 0.4, 0.8], self.clock.sleeps)

    def test_refusal_after_a_lost_reply_is_not_called_never_sent(self):
        server = self.serve(lambda seen: wire.reply(base.SHARE))
        api = self.client(
            server.address,
            faults=[transports.ReplyLost()] + [transports.Refused()] * 20,
            deadline_seconds=2,
        )
        with self.assertRaises(acme_client.OutcomeUnknown) as caught:
            api.create_share(base.SHARE_ID, name="n", size_bytes=1)
        self.assertTrue(caught.exception.may_have_been_applied)
        self.assertIsInstance(caught.exception.__cause__, acme_client.NotSent)

    def test_problem_after_a_lost_reply_tells_of_it(self):
        server = self.serve(
            lambda seen: wire.problem(409, "share.exists_mismatch")
        )
        api = self.client(server.address, faults=[transports.ReplyLost()])
        with self.assertRaises(acme_client.AlreadyExists) as caught:
            api.create_share(base.SHARE_ID, name="n", size_bytes=1)
        self.assertTrue(caught.exception.may_have_been_applied)

    @ddt.data(
        ("share.busy", 409),
        ("job.in_progress", 409),
        ("rate.limited", 429),
        ("system.readonly", 503),
        ("engine.unavailable", 503),
        ("something.new", 409),
    )
    @ddt.unpack
    def test_retryable_problem_is_retried(self, code, status):
        server = self.serve_in_turn(
            wire.problem(status, code, retryable=True, Retry_After="3"),
            wire.reply(base.SHARE),
        )
        self.client(server.address).get_share(base.SHARE_ID)
        # The injected jitter is the whole quarter.
        self.assertEqual([3.75], self.clock.sleeps)

    @ddt.data(
        (409, "share.in_use", acme_client.InUse),
        (409, "snapshot.in_use", acme_client.InUse),
        (409, "share.has_snapshots", acme_client.HasSnapshots),
        (409, "share.shrink_refused", acme_client.ShrinkRefused),
        (409, "share.exists_mismatch", acme_client.AlreadyExists),
        (409, "name.taken", acme_client.AlreadyExists),
        (409, "share.wrong_state", acme_client.WrongState),
        (409, "share.degraded", acme_client.Degraded),
        (409, "what.is_this", acme_client.Conflict),
        (400, "request.invalid", acme_client.BadRequest),
        (413, "request.too_large", acme_client.BadRequest),
        (401, "auth.invalid", acme_client.AuthenticationFailed),
        (403, "auth.forbidden", acme_client.Forbidden),
        (404, "pool.not_found", acme_client.NotFound),
        (412, "precondition.failed", acme_client.PreconditionFailed),
        (428, "precondition.required", acme_client.PreconditionFailed),
        (500, "internal", acme_client.InternalError),
        (501, "what.is_this", acme_client.InternalError),
        (507, "pool.no_space", acme_client.NoSpace),
        (507, "limit.shares", acme_client.LimitReached),
        (507, "limit.of_tomorrow", acme_client.LimitReached),
        (507, "what.is_this", acme_client.NoSpace),
    )
    @ddt.unpack
    def test_final_problem_is_raised_at_once(self, status, code, expected):
        server = self.serve(lambda seen: wire.problem(status, code))
        with self.assertRaises(acme_client.ProblemError) as caught:
            self.client(server.address).create_share(
                base.SHARE_ID, name="n", size_bytes=1
            )
        self.assertIs(expected, type(caught.exception))
        self.assertEqual(code, caught.exception.code)
        self.assertEqual(status, caught.exception.status)
        self.assertEqual(1, len(server.seen))
        self.assertEqual(
            status in (500, 501), caught.exception.may_have_been_applied
        )

    def test_prose_decides_nothing(self):
        server = self.serve(
            lambda seen: wire.reply(
                {"code": "share.in_use", "detail": "share.not_found"}, 409
            )
        )
        with self.assertRaises(acme_client.InUse):
            self.client(server.address).delete_share(base.SHARE_ID)

    def test_fields_at_fault_are_told(self):
        problem = {
            "code": "request.invalid",
            "detail": "The request is not valid.",
            "errors": [
                {"pointer": "/name", "code": "x", "detail": "too long"}
            ],
            "request_id": "req-of-theirs",
        }
        server = self.serve(lambda seen: wire.reply(problem, 400))
        with self.assertRaises(acme_client.BadRequest) as caught:
            self.client(server.address).get_stats()
        self.assertEqual("/name", caught.exception.errors[0].pointer)
        self.assertIn("/name: too long", str(caught.exception))
        self.assertEqual("req-of-theirs", caught.exception.request_id)

    @ddt.data(429, 502, 503, 504)
    def test_gateways_are_retried_without_a_problem(self, status):
        server = self.serve_in_turn(
            wire.Reply(status, b"<html>Bad gateway</html>"),
            wire.reply(base.SHARE),
        )
        self.client(server.address).get_share(base.SHARE_ID)
        self.assertEqual([0.2], self.clock.sleeps)

    def test_gateway_that_gave_up_may_have_passed_it_on(self):
        server = self.serve(lambda seen: wire.Reply(504, b""))
        api = self.client(server.address, deadline_seconds=1)
        with self.assertRaises(acme_client.Unavailable) as caught:
            api.delete_share(base.SHARE_ID)
        self.assertTrue(caught.exception.may_have_been_applied)


@ddt.ddt
class RetryAfterTest(base.ClientTestCase):
    def pauses(self, *, header=None, member=None, **kwargs):
        problem = {"code": "share.busy", "detail": "d", "retryable": True}
        if member is not None:
            problem["retry_after_seconds"] = member
        headers = {} if header is None else {"Retry_After": header}
        server = self.serve_in_turn(
            wire.reply(problem, 409, **headers), wire.reply(base.SHARE)
        )
        self.client(server.address, **kwargs).get_share(base.SHARE_ID)
        return self.clock.sleeps

    def test_seconds(self):
        self.assertEqual([10.0], self.pauses(header="8"))

    def test_member_of_the_problem(self):
        self.assertEqual([10.0], self.pauses(member=8))

    def test_header_goes_before_the_member(self):
        self.assertEqual([10.0], self.pauses(header="8", member=80))

    def test_http_date(self):
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(
            seconds=100
        )
        header = email.utils.format_datetime(moment, usegmt=True)
        (pause,) = self.pauses(header=header)
        self.assertGreater(pause, 95 * 1.25)
        self.assertLessEqual(pause, 100 * 1.25)

    @ddt.data(
        "soon",
        "",
        "-1",
        "1.5",
        "Sat, 99 Foo 2026",
        "٣",
        "Mon, 01 Jan 2024 00:00:00 +9999999999999999",
    )
    def test_nonsense_is_ignored(self, header):
        header = header.encode("utf-8").decode("latin-1")
        self.assertEqual([0.2], self.pauses(header=header))

    @ddt.data("0", "Sun, 06 Nov 1994 08:49:37 GMT")
    def test_at_once_is_no_licence_to_hammer(self, header):
        self.assertEqual([0.2], self.pauses(header=header))

    def test_never_sleeps_past_the_deadline(self):
        with self.assertRaises(acme_client.Busy) as caught:
            self.pauses(header="8", deadline_seconds=9.9)
        self.assertEqual([], self.clock.sleeps)
        self.assertEqual(8, caught.exception.retry_after_seconds)

    def test_deadline_bounds_the_whole_call(self):
        server = self.serve(
            lambda seen: wire.problem(503, "system.starting", retryable=True)
        )
        api = self.client(server.address, deadline_seconds=60)
        started = self.clock()
        with self.assertRaises(acme_client.Unavailable):
            api.get_share(base.SHARE_ID)
        self.assertLessEqual(self.clock() - started, 60)
        # It doubles up to ten seconds, and stays there.
        self.assertEqual(10.0, max(self.clock.sleeps))

    def test_reply_that_does_not_end(self):
        """As endless as it is, the deadline and the limit are not."""

        def a_second_passes():
            self.clock.now += 1

        server = self.serve(
            lambda seen: wire.Trickle(before_each=a_second_passes)
        )
        api = self.client(server.address, deadline_seconds=10)
        with self.assertRaises(acme_client.OutcomeUnknown) as caught:
            api.get_share(base.SHARE_ID)
        self.assertIn("too slowly", str(caught.exception))
        self.assertEqual(1, len(server.seen))
        with self.assertRaises(acme_client.ProtocolError):
            self.client(
                server.address, deadline_seconds=10**6, max_reply_bytes=10**6
            ).get_share(base.SHARE_ID)

    def test_jitter_spreads_the_pauses(self):
        server = self.serve(
            lambda seen: wire.problem(503, "system.starting", retryable=True)
        )

        api = self.client(
            server.address, deadline_seconds=60, new_backoff=timing.Backoff
        )
        with self.assertRaises(acme_client.Unavailable):
            api.get_share(base.SHARE_ID)
        self.assertEqual(len(self.clock.sleeps), len(set(self.clock.sleeps)))


class HoldTest(base.ClientTestCase):
    """A held request is answered before its read time-out."""

    def held(self, **kwargs):
        server = self.serve(lambda seen: wire.reply(base.SHARE))
        self.client(server.address, **kwargs).update_share(
            base.SHARE_ID, name="n"
        )
        return server.seen[0].headers["Prefer"]

    def test_usual(self):
        self.assertEqual("wait=20", self.held())

    def test_short_read_timeout(self):
        self.assertEqual("wait=7", self.held(read_timeout_seconds=10))

    def test_short_deadline(self):
        self.assertEqual("wait=3", self.held(deadline_seconds=4))

    def test_reads_are_not_held(self):
        server = self.serve(lambda seen: wire.reply(base.SHARE))
        self.client(server.address).get_share(base.SHARE_ID)
        self.assertNotIn("Prefer", server.seen[0].headers)


@ddt.ddt
class RequestIdTest(base.ClientTestCase):
    def sent_id(self, given):
        server = self.serve(lambda seen: wire.reply(base.SHARE))
        api = self.client(server.address, request_id=lambda: given)
        api.get_share(base.SHARE_ID)
        return server.seen[0].headers["X-Request-Id"]

    def test_given(self):
        self.assertEqual("req-1f", self.sent_id("req-1f"))

    @ddt.data(None, "", "a b", "x\r\nEvil: 1", "x" * 129)
    def test_made_up(self, given):
        self.assertRegex(self.sent_id(given), r"^req-[0-9a-f-]{36}$")


class NotRepeatableTest(base.ClientTestCase):
    """No call of today is of this kind; the loop is ready for one."""

    def test_lost_reply_is_raised(self):

        server = self.serve(lambda seen: wire.Drop())
        api = self.client(server.address)
        request = transport.Request("POST", "/v1/x", repeatable=False)
        with self.assertRaises(acme_client.OutcomeUnknown):
            api._calls.read(request, dict)
        self.assertEqual(1, len(server.seen))

    def test_refused_connection_is_safe_to_repeat(self):

        server = self.serve(lambda seen: wire.reply({"done": 1}))
        api = self.client(server.address, faults=[transports.Refused()])
        request = transport.Request("POST", "/v1/x", repeatable=False)
        self.assertEqual({"done": 1}, api._calls.read(request, dict))
