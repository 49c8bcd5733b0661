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

"""Who may do what, and what becomes of those who guess."""

import base64
import datetime
import hashlib
import unittest
import unittest.mock
import uuid

import ddt
from sqlalchemy import exc

from acme_appliance import problems
from acme_appliance.api import auth
from acme_appliance.api import contract
from acme_appliance.api import middleware
from acme_appliance.service import tokens
from tests.unit.appliance.api import base

UNKNOWN = "acme_" + "A" * 43


def basic(name: str, secret: str) -> dict[str, str]:
    pair = base64.b64encode(f"{name}:{secret}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


@ddt.ddt
class BearerTest(base.ApiCase):
    options = {"api": {"max_failed_logins": 1000}}

    def test_every_operation_wants_a_credential(self):
        for operation in contract.load().operations.values():
            if not operation.scopes and not operation.basic:
                continue
            with self.subTest(operation=operation.id):
                reply = self.anybody.call(operation.method, operation.path)
                self.assertEqual("auth.invalid", reply.json()["code"])
                self.assertTrue(
                    reply.headers["WWW-Authenticate"].startswith(
                        "Basic " if operation.basic else "Bearer "
                    )
                )

    def test_every_operation_keeps_to_its_scopes(self):
        for scope in ("admin", "operator", "driver", "metrics"):
            namespace = "n" if scope == "driver" else None
            client = self.client_of(
                self.appliance.make_token(scope, namespace)
            )
            for operation in contract.load().operations.values():
                # Only the scope is looked at: no path is filled in.
                if not operation.scopes:
                    continue
                with self.subTest(scope=scope, operation=operation.id):
                    reply = client.call(operation.method, operation.path)
                    refused = reply.status_code == 403
                    if operation.id == "delete_own_token":
                        self.assertTrue(refused)  # a long token stays
                    else:
                        self.assertEqual(
                            scope not in operation.scopes, refused
                        )

    @ddt.data(
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Bearer {UNKNOWN}",
        f"Bearer {UNKNOWN}x",
        f"Token {UNKNOWN}",
        "Basic Zm9vOmJhcg==",
        "Bearer " + "x" * 5000,
        "Bearer \xe4\xf6",
    )
    def test_bad(self, header):
        reply = self.anybody.call(
            "GET",
            "/v1/system",
            headers={"Authorization": header.encode("latin-1")},
        )
        self.assertEqual("auth.invalid", reply.json()["code"])

    def test_the_scheme_is_not_case_sensitive(self):
        header = {"Authorization": f"bEARER {self.appliance.token}"}
        reply = self.anybody.call("GET", "/v1/system", headers=header)
        self.assertEqual(200, reply.status_code)

    def test_a_revoked_token_is_worth_nothing_at_once(self):
        secret, credential = self.appliance.tokens.create("gone", "admin")
        client = self.client_of(secret)
        self.assertEqual(200, client.call("GET", "/v1/system").status_code)
        self.appliance.tokens.revoke(credential.id)
        reply = client.call("GET", "/v1/system")
        self.assertEqual("auth.invalid", reply.json()["code"])

    def test_an_expired_token_says_so(self):
        secret, _ = self.appliance.tokens.create(
            "old", "admin", lifetime=datetime.timedelta(seconds=-1)
        )
        reply = self.client_of(secret).call("GET", "/v1/system")
        self.assertEqual("auth.expired", reply.json()["code"])


@ddt.ddt
class SessionTest(base.ApiCase):
    options = {"api": {"max_failed_logins": 1000}}

    def log_in(self, name="cinder-s", scope="driver", body=None):
        try:
            self.secret, _ = self.appliance.tokens.create(
                name, scope, "cinder-a" if scope == "driver" else None
            )
        except tokens.TokenError:
            self.appliance.tokens.revoke(name)
            return self.log_in(name, scope, body)
        reply = self.anybody.call(
            "POST", "/v1/tokens", body, headers=basic(name, self.secret)
        )
        self.assertEqual(201, reply.status_code, reply.text)
        return reply

    def test_from_log_in_to_log_out(self):
        reply = self.log_in()
        session = reply.json()
        self.assertEqual("no-store", reply.headers["Cache-Control"])
        self.assertEqual(
            ("cinder-s", "driver", "cinder-a"),
            (session["name"], session["scope"], session["namespace"]),
        )
        client = self.client_of(session["token"])
        self.assertEqual(200, client.call("GET", "/v1/shares").status_code)
        reply = client.call("DELETE", "/v1/tokens/self")
        self.assertEqual(204, reply.status_code)
        reply = client.call("GET", "/v1/shares")
        self.assertEqual("auth.invalid", reply.json()["code"])

    def test_what_a_token_may_do(self):
        session = self.log_in().json()
        reply = self.client_of(session["token"]).call("GET", "/v1/tokens/self")
        self.assertEqual("no-store", reply.headers["Cache-Control"])
        self.assertEqual(
            {
                name: session[name]
                for name in ("name", "scope", "namespace", "expires_at")
            },
            reply.json(),
        )
        reply = self.client_of(self.secret).call("GET", "/v1/tokens/self")
        self.assertEqual(
            {
                "name": "cinder-s",
                "scope": "driver",
                "namespace": "cinder-a",
                "expires_at": None,
            },
            reply.json(),
        )

    def test_a_session_ends_when_it_is_asked_to_and_not_later(self):
        body = {"expires_in_seconds": 60}
        for asked, seconds in ((body, 60), (None, 3600)):
            before = datetime.datetime.now(datetime.UTC)
            session = self.log_in(body=asked).json()
            expires = datetime.datetime.fromisoformat(session["expires_at"])
            left = (expires - before).total_seconds()
            self.assertAlmostEqual(seconds, left, delta=20)

    def test_a_token_that_is_revoked_during_the_log_in(self):
        name = "revoked-meanwhile"
        secret, _ = self.appliance.tokens.create(name, "admin")
        problem = problems.Problem("auth.invalid", "It was revoked.")
        with unittest.mock.patch.object(
            self.appliance.tokens, "start_session", side_effect=problem
        ):
            reply = self.anybody.call(
                "POST", "/v1/tokens", headers=basic(name, secret)
            )
        self.assertEqual(401, reply.status_code)
        self.assertIn("Basic", reply.headers["WWW-Authenticate"])

    def test_a_session_is_no_credential_for_another(self):
        session = self.log_in().json()
        reply = self.anybody.call(
            "POST", "/v1/tokens", headers=basic("cinder-s", session["token"])
        )
        self.assertEqual("auth.invalid", reply.json()["code"])

    def test_revoking_the_long_token_ends_its_sessions(self):
        client = self.client_of(self.log_in("short-lived").json()["token"])
        self.assertEqual(200, client.call("GET", "/v1/shares").status_code)
        self.appliance.tokens.revoke("short-lived")
        reply = client.call("GET", "/v1/shares")
        self.assertEqual("auth.invalid", reply.json()["code"])

    @ddt.data(
        "Basic",
        "Basic !!!",
        "Basic Zm9v",
        "Basic /////w==",
        "Bearer x",
        "Basic " + base64.b64encode(f"x:{UNKNOWN}".encode()).decode(),
    )
    def test_bad_basic(self, header):
        reply = self.anybody.call(
            "POST", "/v1/tokens", headers={"Authorization": header}
        )
        self.assertEqual("auth.invalid", reply.json()["code"])
        self.assertIn("Basic", reply.headers["WWW-Authenticate"])

    def test_a_good_token_under_another_name(self):
        reply = self.anybody.call(
            "POST",
            "/v1/tokens",
            headers=basic("somebody", self.appliance.token),
        )
        self.assertEqual("auth.invalid", reply.json()["code"])

    def test_basic_is_for_logging_in_only(self):
        self.log_in("basic-user")
        reply = self.anybody.call(
            "GET", "/v1/shares", headers=basic("basic-user", self.secret)
        )
        self.assertEqual("auth.invalid", reply.json()["code"])
        self.assertIn("Bearer", reply.headers["WWW-Authenticate"])


@ddt.ddt
class GuessingTest(unittest.TestCase):
    """All from one address, as behind a proxy."""

    def setUp(self) -> None:
        self.store = unittest.mock.Mock(spec=tokens.TokenStore, revocations=0)
        self.store.authenticate_hash.side_effect = self.look_up
        self.credentials = {}
        self.authenticator = auth.Authenticator(
            self.store, auth.FailureLimit(3, 60)
        )
        self.good = self.add("good", "g")

    def add(self, name: str, letter: str) -> str:
        secret = "acme_" + letter * 43
        digest = hashlib.sha256(secret.encode()).hexdigest()
        self.credentials[digest] = unittest.mock.Mock(kind="long")
        self.credentials[digest].name = name
        return secret

    def look_up(self, digest: str) -> tokens.Credential:
        try:
            return self.credentials[digest]
        except KeyError:
            raise problems.Problem("auth.invalid", "Unknown.") from None

    def bearer(self, secret: str) -> str:
        return self.ask(self.authenticator.bearer, f"Bearer {secret}")

    def basic(self, secret: str) -> str:
        header = basic("good", secret)["Authorization"]
        return self.ask(self.authenticator.basic, header)

    def ask(self, check, header: str) -> str:
        try:
            return check(header, "192.0.2.1").name
        except problems.Problem as problem:
            if problem.code == "rate.limited":
                self.assertLessEqual(problem.retry_after_seconds, 61)
            return problem.code

    @ddt.data("junk", UNKNOWN)
    def test_guessing_stops_and_a_token_goes_on(self, guess):
        answers = [self.bearer(guess) for _ in range(5)]
        self.assertEqual(["auth.invalid"] * 3 + ["rate.limited"] * 2, answers)
        # Not seen before.
        self.assertEqual("good", self.bearer(self.good))
        self.assertEqual("rate.limited", self.bearer(guess))

    def test_what_is_no_token_costs_no_look_up(self):
        for _ in range(5):
            self.bearer("junk")
        self.store.authenticate_hash.assert_not_called()

    def test_a_valid_log_in_is_never_limited(self):
        answers = [self.basic(UNKNOWN) for _ in range(5)]
        self.assertEqual(["auth.invalid"] * 3 + ["rate.limited"] * 2, answers)
        # Not seen before.
        self.assertEqual("good", self.basic(self.good))
        self.assertEqual("rate.limited", self.basic(UNKNOWN))
        self.assertEqual("good", self.basic(self.good))

    def test_a_failed_log_in_costs_one_look_up_and_no_more(self):
        for _ in range(5):
            self.basic(UNKNOWN)
        self.assertEqual(5, self.store.authenticate_hash.call_count)


class LanesTest(unittest.TestCase):
    """Whom the server serves first."""

    def setUp(self) -> None:
        self.store = unittest.mock.Mock(spec=tokens.TokenStore, revocations=0)
        self.failures = auth.FailureLimit(1, 60)
        self.authenticator = auth.Authenticator(self.store, self.failures)
        self.header = "Bearer acme_" + "g" * 43

    def test_valid_once_it_was_looked_up(self):
        self.assertFalse(self.authenticator.was_valid(self.header))
        self.assertTrue(self.authenticator.is_valid(self.header))
        self.assertTrue(self.authenticator.was_valid(self.header))

    def test_by_both_schemes(self):
        self.assertTrue(self.authenticator.is_valid(self.header))
        header = basic("name", "acme_" + "g" * 43)["Authorization"]
        self.assertTrue(self.authenticator.was_valid(header))

    def test_what_is_not_valid_counts_no_failure(self):
        self.store.authenticate_hash.side_effect = problems.Problem(
            "auth.invalid", "Unknown."
        )
        for header in (None, "", "Bearer", "Basic !", "Digest x", self.header):
            self.assertFalse(self.authenticator.is_valid(header), header)
            self.assertFalse(self.authenticator.was_valid(header), header)
        self.assertEqual(0, self.failures.wait_seconds("192.0.2.1"))

    def test_without_a_database_nobody_is_known(self):
        self.store.authenticate_hash.side_effect = exc.OperationalError(
            "", {}, Exception("the disk is gone")
        )
        self.assertFalse(self.authenticator.is_valid(self.header))


class GuessingOverHttpTest(base.ApiCase):
    options = {"api": {"max_failed_logins": 3}}

    def test_it_is_told_when_to_come_back(self):
        stranger = self.client_of(UNKNOWN)
        codes = [
            stranger.call("GET", "/v1/system").json()["code"] for _ in range(5)
        ]
        self.assertEqual(["auth.invalid"] * 3 + ["rate.limited"] * 2, codes)
        reply = stranger.call("GET", "/v1/system")
        self.assertLessEqual(int(reply.headers["Retry-After"]), 61)
        self.expect(200, "GET", "/v1/system")


class TrustTest(base.ApiCase):
    """For how long a token that was good is believed to be."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.store = self.appliance.tokens
        self.authenticator = auth.Authenticator(
            self.store, auth.FailureLimit(5, 60), clock=lambda: self.now
        )
        self.name = f"t{uuid.uuid4().hex}"
        self.secret, _ = self.store.create(self.name, "admin")

    def check(self) -> str:
        header = f"Bearer {self.secret}"
        return self.authenticator.bearer(header, "192.0.2.1").name

    def test_it_is_looked_up_once_a_second(self):
        with unittest.mock.patch.object(
            self.store, "authenticate_hash", wraps=self.store.authenticate_hash
        ) as look_up:
            for self.now in (0.0, 0.5, 0.9, 1.0, 1.5, 2.0):
                self.assertEqual(self.name, self.check())
        self.assertEqual(3, look_up.call_count)

    def test_revoked_by_another_process(self):
        self.check()
        tokens.TokenStore(self.appliance.database).revoke(self.name)
        self.now = 0.9
        self.check()
        self.now = 1.0
        with self.assertRaises(problems.Problem) as caught:
            self.check()
        self.assertEqual("auth.invalid", caught.exception.code)

    def test_revoked_here(self):
        self.check()
        self.store.revoke(self.name)
        with self.assertRaises(problems.Problem):
            self.check()

    def test_expired_meanwhile(self):
        self.secret, _ = self.store.create(
            self.name, "admin", lifetime=datetime.timedelta(seconds=30)
        )
        self.check()
        later = datetime.datetime.now(datetime.UTC)
        later += datetime.timedelta(seconds=31)
        with unittest.mock.patch.object(self.store, "_utcnow", lambda: later):
            with self.assertRaises(problems.Problem) as caught:
                self.check()
        self.assertEqual("auth.expired", caught.exception.code)


class FailureLimitTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.limit = auth.FailureLimit(2, 60, clock=lambda: self.now)

    def test_the_window_slides(self):
        self.limit.record("192.0.2.1")
        self.now += 30
        self.assertEqual(0, self.limit.wait_seconds("192.0.2.1"))
        self.limit.record("192.0.2.1")
        self.assertEqual(31, self.limit.wait_seconds("192.0.2.1"))
        self.assertEqual(0, self.limit.wait_seconds("192.0.2.2"))
        self.now += 31
        self.assertEqual(0, self.limit.wait_seconds("192.0.2.1"))
        self.limit.record("192.0.2.1")
        self.assertEqual(30, self.limit.wait_seconds("192.0.2.1"))

    def test_an_ipv6_client_is_its_whole_network(self):
        self.limit.record("2001:db8::1")
        self.limit.record("2001:db8::2")
        self.assertGreater(self.limit.wait_seconds("2001:db8::3"), 0)
        self.assertEqual(0, self.limit.wait_seconds("2001:db8:0:1::3"))
        self.assertEqual(0, self.limit.wait_seconds("not an address"))

    def test_memory_is_bounded(self):
        for number in range(12_000):
            self.limit.record(f"192.0.{number >> 8}.{number & 255}x")
        self.assertEqual(10_000, len(self.limit._failures))


class MaskSecretsTest(unittest.TestCase):
    def test_tokens_do_not_get_into_the_log(self):
        import logging

        record = logging.LogRecord(
            "x", logging.INFO, "f", 1, "got %s", (f"{UNKNOWN}!",), None
        )
        self.assertTrue(middleware.MaskSecrets().filter(record))
        self.assertEqual("got acme_***!", record.getMessage())
        record = logging.LogRecord(
            "x", logging.INFO, "f", 1, "acme_cinder %d", (1,), None
        )
        self.assertTrue(middleware.MaskSecrets().filter(record))
        self.assertEqual("acme_cinder 1", record.getMessage())
