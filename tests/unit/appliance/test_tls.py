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

"""The certificate works for those who verify, however strictly."""

import datetime
import hashlib
import ipaddress
import os
import pathlib
import socket
import ssl
import tempfile
import threading
import unittest
import warnings

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import oid
import requests

from acme_appliance import tls
from tests.harness.inprocess import RunningAppliance


class CertificateTest(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name) / "tls"

    def test_it_is_made_once(self):
        names = ["localhost", "127.0.0.1"]
        made = tls.ensure_certificate(self.directory, names)
        again = tls.ensure_certificate(self.directory, names)
        self.assertEqual(made, again)
        self.assertEqual(set(names), set(made.names))
        left = made.expires_at - datetime.datetime.now(datetime.UTC)
        self.assertGreater(left.days, 3600)

    def test_the_key_is_for_its_owner_only(self):
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        made = tls.ensure_certificate(self.directory, ["localhost"])
        self.assertEqual(0o600, made.key_file.stat().st_mode & 0o777)
        self.assertEqual(0o644, made.certificate_file.stat().st_mode & 0o777)
        self.assertEqual(
            ["server.crt", "server.key"], sorted(os.listdir(self.directory))
        )

    def test_a_name_that_came_later_is_told_and_how_to_get_it(self):
        tls.ensure_certificate(self.directory, ["localhost"])
        with self.assertLogs("acme_appliance.tls", "WARNING") as caught:
            tls.ensure_certificate(self.directory, ["localhost", "192.0.2.9"])
        self.assertIn("192.0.2.9", caught.output[0])
        self.assertIn(str(self.directory / "server.crt"), caught.output[0])

    def test_the_fingerprint_is_openssl_s(self):
        made = tls.ensure_certificate(self.directory, ["localhost"])
        der = ssl.PEM_cert_to_DER_cert(made.certificate_file.read_text())
        self.assertEqual(
            hashlib.sha256(der).hexdigest(),
            made.fingerprint.replace(":", "").lower(),
        )

    def test_both_readers_read_the_same(self):
        names = ["localhost", "::1", "192.0.2.1", "2001:db8::1"]
        made = tls.ensure_certificate(self.directory, names)
        der = ssl.PEM_cert_to_DER_cert(made.certificate_file.read_text())
        authority = tls._read_authority(der)
        self.assertEqual(set(names), set(authority[0]))
        other = tls._read_any(der)
        self.assertEqual(set(authority[0]), set(other[0]))
        self.assertEqual(authority[1], other[1])

    def test_one_that_an_authority_has_signed(self):
        file = self.directory / "leaf.crt"
        self.directory.mkdir()
        file.write_bytes(
            b"Certificate:\n" + _leaf("www.example.org") + _leaf("second")
        )
        found = tls.read_certificate(file, file)
        self.assertEqual(("www.example.org",), found.names)
        self.assertEqual(2030, found.expires_at.year)

    def test_files_that_are_no_certificate(self):
        self.directory.mkdir()
        file = self.directory / "server.crt"
        with self.assertRaisesRegex(tls.TlsError, "cannot be read"):
            tls.read_certificate(file, file)
        file.write_text("nonsense")
        with self.assertRaisesRegex(tls.TlsError, "not a PEM certificate"):
            tls.read_certificate(file, file)

    def test_a_key_of_another_certificate(self):
        made = tls.ensure_certificate(self.directory, ["localhost"])
        other = tls.ensure_certificate(self.directory / "b", ["localhost"])
        made.key_file.write_bytes(other.key_file.read_bytes())
        with self.assertRaisesRegex(tls.TlsError, "cannot be used together"):
            tls.server_context(made)


def _leaf(name: str) -> bytes:
    """A certificate that is no authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2025, 1, 1))
        .not_valid_after(datetime.datetime(2030, 1, 1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), False
        )
        .add_extension(x509.BasicConstraints(False, None), True)
    )
    signed = builder.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


class NamesTest(unittest.TestCase):
    def test_what_clients_may_call(self):
        names = tls.certificate_names(
            ["198.51.100.7", "::1"], ["192.0.2.10", "2001:DB8::1"], ["API.x"]
        )
        for name in (
            "localhost",
            "127.0.0.1",
            "::1",
            socket.gethostname().lower(),
            "198.51.100.7",
            "192.0.2.10",
            "2001:db8::1",
            "api.x",
        ):
            self.assertIn(name, names)
        self.assertEqual(len(names), len(set(names)))

    def test_a_wildcard_is_no_name(self):
        for wildcard in ("0.0.0.0", "::"):  # noqa: S104
            names = tls.certificate_names([wildcard], [])
            self.assertNotIn(wildcard, names)
        for name in names:
            self.assertNotIn("%", name)
        addresses = [n for n in names if n[0].isdigit() or ":" in n]
        self.assertTrue(all(ipaddress.ip_address(a) for a in addresses))


class VerifyTest(unittest.TestCase):
    """With real handshakes."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.appliance = RunningAppliance().start()
        cls.addClassCleanup(cls.appliance.stop)

    def shake_hands(self, context: ssl.SSLContext, name: str) -> str:
        address = ("127.0.0.1", self.appliance.port)
        with (
            socket.create_connection(address, 10) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            return secure.version() or ""

    def strict(self, ca_file: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=ca_file)
        # What Python 3.13 sets by itself.
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def test_strict_clients_accept_it(self):
        context = self.strict(self.appliance.ca_file)
        for name in ("localhost", "127.0.0.1"):
            self.assertIn("TLSv1", self.shake_hands(context, name))
        context.verify_flags &= ~ssl.VERIFY_X509_PARTIAL_CHAIN
        self.shake_hands(context, "localhost")

    def test_nobody_else_does(self):
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.shake_hands(self.strict(None), "localhost")
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.shake_hands(
                self.strict(self.appliance.ca_file), "example.org"
            )

    def test_old_protocols_are_refused(self):
        context = self.strict(self.appliance.ca_file)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertEqual("TLSv1.2", self.shake_hands(context, "localhost"))
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1_1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            self.shake_hands(context, "localhost")

    def test_requests_takes_the_file(self):
        session = requests.Session()
        self.addCleanup(session.close)
        session.trust_env = False
        reply = session.get(
            self.appliance.url + "/healthz",
            verify=self.appliance.ca_file,
            timeout=60,
        )
        self.assertEqual({"status": "ok"}, reply.json())


class FixtureTest(unittest.TestCase):
    """What the other tests stand on."""

    def test_a_restart_keeps_the_state(self):
        with tempfile.TemporaryDirectory() as directory:
            with RunningAppliance(state_path=directory) as first:
                token = first.token
            with RunningAppliance(state_path=directory) as second:
                credential = second.tokens.authenticate(token)
        self.assertEqual("cinder-a", credential.namespace)

    def test_requests_are_counted_and_connections_cut(self):
        with (
            RunningAppliance(https=False) as appliance,
            requests.Session() as session,
        ):
            session.trust_env = False
            session.get(appliance.url + "/healthz", timeout=60)
            self.assertEqual(
                [("GET", "/healthz", 200)],
                [(r.method, r.path, r.status) for r in appliance.requests],
            )
            appliance.requests.clear()
            self.assertEqual([], appliance.requests)
            before = threading.active_count()
            appliance.drop_connections()
            for _ in range(200):
                if threading.active_count() < before:
                    break
                threading.Event().wait(0.05)
            self.assertLess(threading.active_count(), before)

    def test_nothing_is_left(self):
        appliance = RunningAppliance().start()
        directory = appliance.state_path
        appliance.stop()
        self.assertFalse(directory.exists())
        with self.assertRaisesRegex(RuntimeError, "does not run"):
            self.fail(appliance.url)
