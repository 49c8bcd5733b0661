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

"""What a client can be made with, and pauses."""

import ddt

import acme_client
from acme_client import endpoints
from acme_client import timing
from tests.unit.client import base


@ddt.ddt
class AddressesTest(base.ClientTestCase):
    @ddt.data(
        ("https://a.example", "https://a.example:8443"),
        ("https://a.example/", "https://a.example:8443"),
        ("HTTPS://A.example:443", "https://a.example:443"),
        ("a.example", "https://a.example:8443"),
        ("a.example:9", "https://a.example:9"),
        ("192.0.2.1", "https://192.0.2.1:8443"),
        ("2001:db8::1", "https://[2001:db8::1]:8443"),
        ("[2001:db8::1]:9", "https://[2001:db8::1]:9"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]:8443"),
        (" https://a ", "https://a:8443"),
        ("http://127.0.0.1:80", "http://127.0.0.1:80"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("http://localhost:80", "http://localhost:80"),
    )
    @ddt.unpack
    def test_good(self, given, expected):
        self.assertEqual(expected, endpoints.normalise(given))

    @ddt.data(
        "",
        "https://",
        "ftp://a",
        "https://a/v1",
        "https://a?x=1",
        "https://a#x",
        "https://a:port",
        "https://a:70000",
        "https://[::1",
        "https://a b",
        "https://u:p@a",
        "https://a..b",
        "https://fe80::1%eth0",
        "http://192.0.2.1",
        "http://a.example",
        "http://127.0.0.1.example",
    )
    def test_bad(self, given):
        with self.assertRaises(acme_client.ConfigurationError):
            self.client(given)

    def test_none(self):
        with self.assertRaises(acme_client.ConfigurationError):
            self.client()

    def test_good_one_goes_first(self):
        book = endpoints.Endpoints(["a", "b", "c", "b"])
        a, b, c = (f"https://{name}:8443" for name in "abc")
        self.assertEqual((a, b, c), book.in_order())
        book.answered(b)
        self.assertEqual((b, c, a), book.in_order())

    def test_failed_one_goes_last_for_a_while(self):
        book = endpoints.Endpoints(["a", "b", "c"], self.clock)
        a, b, c = (f"https://{name}:8443" for name in "abc")
        with self.assertLogs("acme_client", "INFO") as logs:
            for _ in range(3):
                book.failed(a, acme_client.NotSent("nobody listens"))
            self.assertEqual((b, c, a), book.in_order())
            self.clock.now += endpoints.SUSPECT_SECONDS
            self.assertEqual((a, b, c), book.in_order())
            book.answered(a)
            book.answered(a)
        told = [record.getMessage() for record in logs.records]
        self.assertEqual(2, len(told), told)
        self.assertIn(a, told[0])
        self.assertIn("nobody listens", told[0])
        self.assertIn("again", told[1])


@ddt.ddt
class CredentialsTest(base.ClientTestCase):
    @ddt.data("", "a b", "a\n", "ü")
    def test_bad_tokens(self, token):
        with self.assertRaises(acme_client.ConfigurationError):
            acme_client.BearerToken(token)

    @ddt.data(("", "p"), ("a:b", "p"), ("a", ""))
    @ddt.unpack
    def test_bad_log_ins(self, user, password):
        with self.assertRaises(acme_client.ConfigurationError):
            acme_client.BasicLogin(user, password)


@ddt.ddt
class SecondsTest(base.ClientTestCase):
    @ddt.data(0, -1, float("nan"), float("inf"))
    def test_bad(self, value):
        for name in (
            "connect_timeout_seconds",
            "read_timeout_seconds",
            "deadline_seconds",
        ):
            with self.assertRaises(acme_client.ConfigurationError) as caught:
                self.client("https://a", **{name: value})
            self.assertIn(name, str(caught.exception))

    def test_backoff_is_jittered_over_its_whole_range(self):
        low = timing.Backoff(lambda: 0.0)
        high = timing.Backoff(lambda: 1.0)
        for _ in range(9):
            self.assertEqual(0.0, low.next())
            self.assertLessEqual(high.next(), timing.LONGEST_PAUSE_SECONDS)
        self.assertEqual(7.0, low.next(7.0))
        self.assertEqual(8.75, high.next(7.0))
