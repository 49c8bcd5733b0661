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

import dataclasses
import datetime
import pathlib
import tempfile
import unittest

import ddt
import sqlalchemy as sa

from acme_appliance import problems
from acme_appliance.db import models
from acme_appliance.db.session import Database
from acme_appliance.service import tokens

DAY = datetime.timedelta(days=1)


@ddt.ddt
class TokenStoreTest(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        file = pathlib.Path(temporary.name) / "t.db"
        self.database = Database(f"sqlite:///{file}")
        self.addCleanup(self.database.close)
        self.database.upgrade()
        self.now = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
        self.store = tokens.TokenStore(self.database, utcnow=lambda: self.now)

    def refused(self, code: str, secret: str) -> None:
        with self.assertRaises(problems.Problem) as caught:
            self.store.authenticate(secret)
        self.assertEqual(code, caught.exception.code)

    def rows(self) -> list[models.Token]:
        with self.database.read() as reader:
            return list(reader.scalars(sa.select(models.Token)))

    def test_a_token_is_256_random_bits_and_kept_as_a_hash(self):
        secret, credential = self.store.create("c", "driver", "cinder-a")
        self.assertTrue(tokens.TOKEN_PATTERN.fullmatch(secret))
        self.assertEqual(credential, self.store.authenticate(secret))
        kept = self.rows()[0]
        self.assertEqual(tokens.hash_secret(secret), kept.hash)
        for value in vars(kept).values():
            self.assertNotIn(secret[5:], str(value))
        other, _ = self.store.create("c", "driver", "cinder-a")
        self.assertNotEqual(secret, other)

    def test_two_of_a_name_while_rotating_and_no_third(self):
        first, _ = self.store.create("c", "admin")
        self.now += DAY
        self.store.create("c", "admin")
        with self.assertRaises(tokens.TokenError) as caught:
            self.store.create("c", "admin")
        oldest = self.store.list_long()[0].id
        self.assertIn(f"token revoke {oldest}", str(caught.exception))
        self.store.revoke(oldest)
        self.refused("auth.invalid", first)
        self.store.create("c", "admin")

    def test_expired_ones_do_not_count(self):
        for _ in range(3):
            self.store.create("c", "admin", lifetime=DAY)
            self.now += DAY

    def test_a_name_has_one_scope(self):
        self.store.create("c", "driver", "a")
        with self.assertRaisesRegex(tokens.TokenError, "another scope"):
            self.store.create("c", "driver", "b")

    @ddt.data("", "a b", "a/b", "-a", "x" * 64, "a\n", "ä")
    def test_bad_names(self, name):
        with self.assertRaisesRegex(tokens.TokenError, "not usable"):
            self.store.create(name, "admin")

    def test_a_token_ends_on_time(self):
        secret, _ = self.store.create("c", "admin", lifetime=DAY)
        self.now += DAY - datetime.timedelta(seconds=1)
        self.store.authenticate(secret)
        self.now += datetime.timedelta(seconds=1)
        self.refused("auth.expired", secret)

    def test_a_session_never_outlives_its_parent(self):
        _, long = self.store.create("c", "admin", lifetime=DAY)
        _, session = self.store.start_session(long, 2 * DAY)
        self.assertEqual(long.expires_at, session.expires_at)
        _, session = self.store.start_session(long, DAY / 2)
        self.assertEqual(self.now + DAY / 2, session.expires_at)

    def test_no_session_of_what_ended_meanwhile(self):
        """Whoever shows a credential may have looked it up before."""
        _, revoked = self.store.create("c", "admin")
        _, expired = self.store.create("d", "admin", lifetime=DAY)
        # By another process: this one is not told.
        tokens.TokenStore(self.database).revoke("c")
        self.now += DAY
        for code, long in (
            ("auth.invalid", revoked),
            ("auth.expired", expired),
            ("auth.invalid", dataclasses.replace(expired, id="gone")),
        ):
            with self.assertRaises(problems.Problem) as caught:
                self.store.start_session(long, DAY)
            self.assertEqual(code, caught.exception.code)
        self.assertEqual(["long", "long"], [row.kind for row in self.rows()])

    def test_sessions_are_bounded_and_the_oldest_goes(self):
        _, long = self.store.create("c", "admin")
        limit = tokens.MAX_SESSIONS
        self.addCleanup(setattr, tokens, "MAX_SESSIONS", limit)
        tokens.MAX_SESSIONS = 3
        secrets = []
        for _ in range(4):
            self.now += datetime.timedelta(seconds=1)
            secrets.append(self.store.start_session(long, DAY)[0])
        self.refused("auth.invalid", secrets[0])
        for secret in secrets[1:]:
            self.store.authenticate(secret)

    def test_ended_sessions_are_pruned_after_a_while(self):
        _, long = self.store.create("c", "admin")
        secret, _ = self.store.start_session(long, DAY)
        self.now += 1.5 * DAY
        self.store.start_session(long, DAY)
        self.refused("auth.expired", secret)
        self.now += DAY
        self.store.start_session(long, DAY)
        self.refused("auth.invalid", secret)
        self.assertEqual(3, len(self.rows()))

    def test_ending_a_session_leaves_the_others(self):
        secret, long = self.store.create("c", "admin")
        first, session = self.store.start_session(long, DAY)
        second, _ = self.store.start_session(long, DAY)
        self.store.end_session(session.id)
        self.store.end_session(session.id)
        self.refused("auth.invalid", first)
        self.store.authenticate(second)
        self.store.authenticate(secret)

    def test_revoking_by_name_and_again(self):
        secret, long = self.store.create("c", "admin")
        session, _ = self.store.start_session(long, DAY)
        other, _ = self.store.create("d", "admin")
        self.assertEqual(1, len(self.store.revoke("c")))
        self.assertEqual([], self.store.revoke("c"))
        self.refused("auth.invalid", secret)
        self.refused("auth.invalid", session)
        self.store.authenticate(other)
        with self.assertRaisesRegex(tokens.TokenError, "no token x"):
            self.store.revoke("x")

    @ddt.data(
        ("admin", ("admin", None)),
        ("operator", ("operator", None)),
        ("metrics", ("metrics", None)),
        ("driver:cinder-a", ("driver", "cinder-a")),
    )
    @ddt.unpack
    def test_scopes(self, text, parsed):
        self.assertEqual(parsed, tokens.parse_scope(text))

    @ddt.data(
        "", "driver", "driver:", "driver:a b", "admin:x", "root", "Admin"
    )
    def test_bad_scopes(self, text):
        with self.assertRaisesRegex(tokens.TokenError, "driver:NAMESPACE"):
            tokens.parse_scope(text)
