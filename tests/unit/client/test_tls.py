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

"""Certificates: verified by default, and errors that help."""

import os
import pathlib
import ssl
from unittest import mock

import ddt

import acme_client
from acme_client import checks
from tests.unit.client import base
from tests.unit.client import wire


@ddt.ddt
class TlsTest(base.ClientTestCase):
    def setUp(self):
        super().setUp()
        self.certificate = wire.Certificate(self.directory())

    def server(self, **kwargs):
        return self.serve(
            lambda seen: wire.reply(base.SHARE),
            tls=kwargs.pop("tls", self.certificate),
            **kwargs,
        )

    def tls_error(self, address, **kwargs):
        api = self.client(address, ca_option="acme_api_ca_file", **kwargs)
        with self.assertRaises(acme_client.TlsError) as caught:
            api.create_share(base.SHARE_ID, name="n", size_bytes=1)
        self.assertEqual(1, self.log.total, "TLS errors are not retried")
        self.assertEqual([], self.clock.sleeps)
        self.assertIn("acme_api_ca_file", str(caught.exception))
        return caught.exception

    def test_own_ca(self):
        server = self.server()
        api = self.client(server.address, verify=self.certificate.ca_file)
        self.assertEqual(base.SHARE_ID, api.get_share(base.SHARE_ID).id)

    def test_verified_by_default(self):
        error = self.tls_error(self.server().address)
        self.assertIn("system's CAs", str(error))

    def test_the_systems_cas_are_those_of_openssl(self):
        paths = ssl.get_default_verify_paths()._replace(
            openssl_cafile=self.certificate.ca_file,
            openssl_capath="/no/such",
        )
        with mock.patch("ssl.get_default_verify_paths", lambda: paths):
            api = self.client(self.server().address)
        self.assertEqual(base.SHARE_ID, api.get_share(base.SHARE_ID).id)
        paths = paths._replace(openssl_cafile="/no/such")
        with mock.patch("ssl.get_default_verify_paths", lambda: paths):
            self.assertEqual("/no/such", checks.system_cas())

    def test_another_ca(self):
        other = wire.Certificate(self.directory())
        error = self.tls_error(self.server().address, verify=other.ca_file)
        self.assertIn(other.ca_file, str(error))

    def test_another_host(self):
        other = wire.Certificate(self.directory(), host="192.0.2.1")
        error = self.tls_error(
            self.server(tls=other).address, verify=other.ca_file
        )
        self.assertIn("127.0.0.1", str(error))

    def test_port_that_speaks_no_tls(self):
        server = self.serve(lambda seen: wire.reply(base.SHARE))
        error = self.tls_error(f"https://127.0.0.1:{server.port}")
        self.assertIn("speaks TLS", str(error))

    def test_foreign_certificate_is_left_for_another_address(self):
        server = self.server()
        other = wire.Certificate(self.directory())
        good = self.server(tls=other)
        api = self.client(server.address, good.address, verify=other.ca_file)
        with self.assertLogs("acme_client", "WARNING") as logs:
            for _ in range(3):
                api.create_share(base.SHARE_ID, name="n", size_bytes=1)
        self.assertEqual((), server.seen)
        self.assertEqual(3, len(good.seen))
        self.assertEqual(1, len(logs.records))
        self.assertIn(server.address, logs.records[0].getMessage())

    def test_foreign_certificates_everywhere(self):
        servers = [self.server(), self.server()]
        other = wire.Certificate(self.directory())
        api = self.client(
            *(server.address for server in servers), verify=other.ca_file
        )
        with self.assertRaises(acme_client.TlsError) as caught:
            api.get_share(base.SHARE_ID)
        self.assertFalse(caught.exception.may_have_been_applied)
        self.assertEqual(2, self.log.total)
        self.assertEqual([], self.clock.sleeps)

    def test_ca_file_that_vanishes(self):
        api = self.client(
            self.server().address, verify=self.certificate.ca_file
        )
        os.unlink(self.certificate.ca_file)
        with self.assertRaises(acme_client.TlsError):
            api.get_share(base.SHARE_ID)

    @ddt.data(wire.Drop(), wire.Reset(), wire.Partial())
    def test_connection_lost_after_the_handshake(self, behaviour):
        server = self.serve_in_turn(
            behaviour, wire.reply(base.SHARE), tls=self.certificate
        )
        api = self.client(server.address, verify=self.certificate.ca_file)
        api.create_share(base.SHARE_ID, name="n", size_bytes=1)
        self.assertEqual(2, len(server.seen))

    def test_not_verifying_is_warned_of(self):
        server = self.server()
        with self.assertLogs("acme_client", "WARNING"):
            api = self.client(server.address, verify=False)
        api.get_share(base.SHARE_ID)

    def test_environment_does_not_choose_the_ca(self):
        server = self.server()
        bundle = self.certificate.ca_file
        os.environ["REQUESTS_CA_BUNDLE"] = bundle
        self.addCleanup(os.environ.pop, "REQUESTS_CA_BUNDLE")
        self.tls_error(server.address)

    @ddt.data("missing", "empty", "garbage")
    def test_ca_file_that_cannot_work_is_told_at_start(self, kind):
        path = pathlib.Path(self.directory()) / "ca.crt"
        if kind != "missing":
            path.write_text("" if kind == "empty" else "not a certificate")
        with self.assertRaises(acme_client.ConfigurationError) as caught:
            self.client(
                "https://a", verify=str(path), ca_option="acme_api_ca_file"
            )
        self.assertIn("acme_api_ca_file", str(caught.exception))
        self.assertIn(str(path), str(caught.exception))
