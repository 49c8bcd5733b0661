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

"""No secret in a log line, an exception or a representation."""

import base64
import copy
import logging
import pickle
import traceback

import ddt

import acme_client
from acme_client import redaction
from tests.harness import transports
from tests.unit.client import base
from tests.unit.client import wire

PASSWORD = "hunter2-is-not-it"
ENCODED = base64.b64encode(f"cinder:{PASSWORD}".encode()).decode()
# Nothing about these two looks like a credential.
TOKEN = "an-opaque-token-of-another-vendor"
SESSION = "a-session-of-another-vendor"
SECRETS = (TOKEN, PASSWORD, ENCODED, SESSION)


class Everything(logging.Handler):
    """All log lines of the process, formatted."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


@ddt.ddt
class SecretsTest(base.ClientTestCase):
    def setUp(self):
        super().setUp()
        self.handler = Everything()
        root = logging.getLogger()
        level = root.level
        root.addHandler(self.handler)
        root.setLevel(logging.DEBUG)
        self.addCleanup(root.setLevel, level)
        self.addCleanup(root.removeHandler, self.handler)

    def assert_clean(self, *texts):
        logged = "\n".join(self.handler.lines)
        self.assertIn("/v1/", logged, "nothing was logged at all")
        for text in (logged, *texts):
            for secret in SECRETS:
                self.assertNotIn(secret, text)

    def texts_of(self, error):
        chain = []
        while error is not None:
            chain.append(error)
            error = error.__cause__ or error.__context__
        for one in chain:
            request = getattr(one, "request", None)
            self.assertIsNone(request, "it has the credential in a header")
            yield from (str(one), repr(one), repr(one.__dict__))
            yield "".join(traceback.format_exception(one))
            if isinstance(one, acme_client.ApiError):
                yield pickle.dumps(one).decode("latin-1")
                yield repr(copy.copy(one).__dict__)

    def test_echoing_appliance(self):
        """The worst one: it tells us what we sent it."""

        def respond(seen: wire.Seen) -> wire.Behaviour:
            if seen.path == "/v1/tokens":
                return wire.reply({"token": SESSION}, 201)
            echo = f"{seen.headers['Authorization']} {' '.join(SECRETS)}"
            return wire.reply(
                {
                    "code": "request.invalid",
                    "detail": echo,
                    "errors": [{"pointer": "/x", "code": "x", "detail": echo}],
                },
                400,
            )

        server = self.serve(respond)
        for proof in (
            acme_client.BearerToken(TOKEN),
            acme_client.BasicLogin("cinder", PASSWORD),
        ):
            api = self.client(server.address, credentials=proof)
            with self.assertRaises(acme_client.BadRequest) as caught:
                api.get_share(base.SHARE_ID)
            texts = list(self.texts_of(caught.exception))
            own = SECRETS[:1] if "Bearer" in repr(proof) else SECRETS[1:]
            for secret in own:
                for text in (*texts, *self.handler.lines):
                    self.assertNotIn(secret, text)

    @ddt.data(
        transports.Refused(),
        transports.ReplyLost(),
        transports.SlowReply(),
        transports.ResetInTheMiddle(),
        transports.garbage(),
        transports.unauthorised(),
        transports.unavailable(),
    )
    def test_every_failure(self, fault):
        def respond(seen: wire.Seen) -> wire.Behaviour:
            if seen.path == "/v1/tokens":
                return wire.reply({"token": SESSION}, 201)
            return wire.reply(base.SHARE)

        server = self.serve(respond)
        for proof in (
            acme_client.BearerToken(TOKEN),
            acme_client.BasicLogin("cinder", PASSWORD),
        ):
            api = self.client(
                server.address, credentials=proof, deadline_seconds=1
            )
            api.get_share(base.SHARE_ID)
            self.adapter.add(*[fault] * 30)
            try:
                api.create_share(base.SHARE_ID, name="n", size_bytes=1)
            except acme_client.ApiError as exc:
                self.assert_clean(*self.texts_of(exc))
            self.assert_clean()

    def test_job_that_echoes(self):
        problem = {"code": "internal", "detail": f"{TOKEN} or Bearer {TOKEN}"}
        server = self.serve(
            lambda seen: wire.reply(base.job("failed", problem=problem), 202)
        )
        api = self.client(
            server.address, credentials=acme_client.BearerToken(TOKEN)
        )
        with self.assertRaises(acme_client.InternalError) as caught:
            api.delete_share(base.SHARE_ID)
        self.assert_clean(*self.texts_of(caught.exception))

    def test_header_that_echoes(self):
        server = self.serve(
            lambda seen: wire.Reply(headers=(("Content-Encoding", TOKEN),))
        )
        api = self.client(
            server.address, credentials=acme_client.BearerToken(TOKEN)
        )
        with self.assertRaises(acme_client.ProtocolError) as caught:
            api.get_share(base.SHARE_ID)
        self.assertIn("***", str(caught.exception))
        self.assert_clean(*self.texts_of(caught.exception))

    def test_representations(self):
        api = self.client("https://a")
        shown = [
            repr(acme_client.BearerToken(TOKEN)),
            repr(acme_client.BasicLogin("cinder", PASSWORD)),
            repr(api),
            repr(api._calls),
            repr(api._calls.requester),
        ]
        for secret in SECRETS:
            self.assertNotIn(secret, "".join(shown))

    def test_address_with_a_password(self):
        for address in (
            f"https://admin:{PASSWORD}@192.0.2.1",
            f"https://admin:{PASSWORD}@192.0.2.1:x",
            f"ftp://admin:{PASSWORD}@192.0.2.1/p",
        ):
            with self.assertRaises(acme_client.ConfigurationError) as caught:
                self.client(address)
            self.assertNotIn(PASSWORD, str(caught.exception))


@ddt.ddt
class RedactorTest(base.ClientTestCase):
    @ddt.data(
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("basic dXNlcjpwYXNz rest", "basic *** rest"),
        (f"token {base.TOKEN}.", "token ***."),
        ("acme_cinder failed", "acme_cinder failed"),
        ("a secret here", "a *** here"),
    )
    @ddt.unpack
    def test_clean(self, text, expected):
        self.assertEqual(expected, redaction.Redactor("secret").clean(text))

    def test_longer_secret_first(self):
        redactor = redaction.Redactor("part", "part-and-rest")
        self.assertEqual(
            "x *** y ***", redactor.clean("x part-and-rest y part")
        )

    def test_tiny_secrets_do_not_eat_the_text(self):
        redactor = redaction.Redactor("a", "")
        self.assertEqual("a cat", redactor.clean("a cat"))

    def test_old_session_is_forgotten_for_the_new(self):
        redactor = redaction.Redactor("long-term")
        redactor.replace("", "first-session")
        redactor.replace("first-session", "second-session")
        self.assertEqual(2, len(redactor._secrets))
