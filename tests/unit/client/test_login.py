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

"""Logging in, once, and again when the appliance forgot the session."""

import base64
import threading

import acme_client
from tests.harness import transports
from tests.unit.client import base
from tests.unit.client import wire

PASSWORD = "acme_" + "pa55" * 10
BASIC = "Basic " + base64.b64encode(f"cinder:{PASSWORD}".encode()).decode()


class Sessions:
    """Answers as an appliance with one valid session at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.valid = ""
        self.log_ins = 0
        self.refuse = False

    def forget(self) -> None:
        self.valid = ""

    def __call__(self, seen: wire.Seen) -> wire.Behaviour:
        given = seen.headers.get("Authorization")
        if seen.path == "/v1/tokens":
            return self.log_in(given)
        if not self.valid or given != f"Bearer {self.valid}":
            return wire.problem(401, "auth.expired")
        if seen.path == "/v1/tokens/self":
            self.forget()
            return wire.Reply(204)
        return wire.reply(base.SHARE)

    def log_in(self, given: str | None) -> wire.Behaviour:
        with self.lock:
            self.log_ins += 1
            if given != BASIC or self.refuse:
                return wire.problem(401, "auth.invalid")
            self.valid = f"acme_session{self.log_ins:031d}"
            return wire.reply({"token": self.valid}, 201)


class LoginTestCase(base.ClientTestCase):
    def setUp(self):
        super().setUp()
        self.sessions = Sessions()
        self.server = self.serve(self.sessions)

    def log_in_client(self, **kwargs):
        return self.client(
            self.server.address,
            credentials=acme_client.BasicLogin("cinder", PASSWORD),
            **kwargs,
        )


class LoginTest(LoginTestCase):
    def test_one_log_in_serves_many_calls(self):
        api = self.log_in_client()
        for _ in range(3):
            api.get_share(base.SHARE_ID)
        self.assertEqual(1, self.sessions.log_ins)
        self.assertEqual(4, len(self.server.seen))

    def test_expired_session_is_renewed_and_the_call_sent_again(self):
        api = self.log_in_client()
        api.get_share(base.SHARE_ID)
        self.sessions.forget()
        api.create_share(base.SHARE_ID, name="n", size_bytes=1)
        self.assertEqual(2, self.sessions.log_ins)

    def test_only_one_renewal_in_a_call(self):
        api = self.log_in_client()
        api.get_share(base.SHARE_ID)
        self.adapter.add(transports.unauthorised())
        self.adapter.add(transports.Fault())
        self.adapter.add(transports.unauthorised())
        with self.assertRaises(acme_client.AuthenticationFailed):
            api.get_share(base.SHARE_ID)

    def test_401_once_is_no_error(self):
        api = self.log_in_client()
        api.get_share(base.SHARE_ID)
        self.adapter.add(transports.unauthorised())
        api.get_share(base.SHARE_ID)

    def test_wrong_password_is_told_at_once(self):
        api = self.client(
            self.server.address,
            credentials=acme_client.BasicLogin("a", "b" * 9),
        )
        with self.assertRaises(acme_client.AuthenticationFailed) as caught:
            api.get_share(base.SHARE_ID)
        self.assertEqual("auth.invalid", caught.exception.code)
        self.assertEqual(1, len(self.server.seen))
        self.assertEqual([], self.clock.sleeps)

    def test_log_in_fails_over_and_is_repeated(self):
        api = self.log_in_client(
            faults=[transports.ReplyLost(), transports.unavailable("1")]
        )
        api.get_share(base.SHARE_ID)
        self.assertEqual(2, self.sessions.log_ins)
        self.assertEqual([1.25], self.clock.sleeps)

    def test_log_in_that_is_answered_without_a_token(self):
        server = self.serve(lambda seen: wire.reply({"tokens": []}, 201))
        api = self.client(
            server.address, credentials=acme_client.BasicLogin("a", "b" * 9)
        )
        with self.assertRaises(acme_client.ProtocolError) as caught:
            api.get_share(base.SHARE_ID)
        self.assertFalse(caught.exception.may_have_been_applied)

    def test_lost_log_in_has_changed_nothing(self):
        api = self.log_in_client(
            faults=[transports.ReplyLost()] * 9, deadline_seconds=1
        )
        with self.assertRaises(acme_client.NotSent) as caught:
            api.delete_share(base.SHARE_ID)
        self.assertFalse(caught.exception.may_have_been_applied)

    def test_lost_reply_and_then_a_refused_log_in(self):
        api = self.log_in_client()
        api.get_share(base.SHARE_ID)
        self.sessions.refuse = True
        self.adapter.add(transports.ReplyLost(), transports.unauthorised())
        with self.assertRaises(acme_client.AuthenticationFailed) as caught:
            api.delete_share(base.SHARE_ID)
        self.assertTrue(caught.exception.may_have_been_applied)

    def test_bearer_token_is_not_renewed(self):
        server = self.serve(lambda seen: wire.problem(401, "auth.expired"))
        with self.assertRaises(acme_client.AuthenticationFailed):
            self.client(server.address).get_share(base.SHARE_ID)
        self.assertEqual(1, len(server.seen))

    def test_close_gives_the_session_back(self):
        api = self.log_in_client()
        api.get_share(base.SHARE_ID)
        api.close()
        self.assertEqual("/v1/tokens/self", self.server.seen[-1].path)
        self.assertEqual("", self.sessions.valid)

    def test_close_without_a_session_asks_nothing(self):
        self.log_in_client().close()
        self.assertEqual((), self.server.seen)

    def test_close_does_not_fail_for_a_dead_appliance(self):
        api = self.log_in_client()
        api.get_share(base.SHARE_ID)
        self.server.close()
        with self.assertLogs("acme_client.requester", "WARNING"):
            api.close()

    def test_closed_client_can_be_used_again(self):
        api = self.log_in_client()
        api.get_share(base.SHARE_ID)
        api.close()
        api.get_share(base.SHARE_ID)
        self.assertEqual(2, self.sessions.log_ins)


class ManyThreadsTest(LoginTestCase):
    """Threads that find the session expired log in once among them."""

    def in_parallel(self, api, count=12):
        results = []

        def work():
            try:
                results.append(api.get_share(base.SHARE_ID))
            except acme_client.ApiError as exc:
                results.append(exc)

        threads = [threading.Thread(target=work) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        self.assertEqual(count, len(results))
        return results

    def test_first_log_in(self):
        self.in_parallel(self.log_in_client())
        self.assertEqual(1, self.sessions.log_ins)

    def test_renewal(self):
        gate = threading.Barrier(12)
        api = self.log_in_client()
        api.get_share(base.SHARE_ID)
        self.sessions.forget()
        expired = threading.local()
        answer = self.sessions.__call__

        def respond(seen):
            behaviour = answer(seen)
            if getattr(behaviour, "status", 0) == 401:
                if not getattr(expired, "seen", False):
                    expired.seen = True
                    gate.wait(120)  # all of them get their 401 at once
            return behaviour

        self.server.respond = respond
        results = self.in_parallel(api)
        for result in results:
            self.assertIsInstance(result, acme_client.Share)
        self.assertEqual(2, self.sessions.log_ins)

    def test_refused_log_in_is_shared_by_those_who_waited(self):
        api = self.log_in_client()
        lock = CountedLock(12)
        api._calls.requester._authenticator._lock = lock
        self.sessions.refuse = True
        answer = self.sessions.__call__

        def respond(seen):
            lock.wanted_by_all.wait(120)
            return answer(seen)

        self.server.respond = respond
        results = self.in_parallel(api)
        for result in results:
            self.assertIsInstance(result, acme_client.AuthenticationFailed)
        self.assertEqual(1, self.sessions.log_ins)


class CountedLock:
    """A lock that tells when so many threads have asked for it."""

    def __init__(self, count):
        self._lock = threading.Lock()
        self._missing = threading.Semaphore(count - 1)
        self.wanted_by_all = threading.Event()

    def acquire(self, timeout):
        if not self._missing.acquire(blocking=False):
            self.wanted_by_all.set()
        return self._lock.acquire(timeout=timeout)

    def release(self):
        self._lock.release()

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()
