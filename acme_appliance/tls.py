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

"""The TLS certificate, self-signed at the first start unless configured.

The certificate is its own CA: clients verify with a copy of its file. Python
3.13 verifies strictly (``VERIFY_X509_STRICT``), so it has all extensions that
RFC 5280 requires of a CA.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import datetime
import hashlib
import ipaddress
import logging
import os
import pathlib
import socket
import ssl
from typing import Any
from typing import Final
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

LOG = logging.getLogger(__name__)

_LIFETIME: Final = datetime.timedelta(days=3650)
#: Clients' clocks may be slow.
_BACKDATE: Final = datetime.timedelta(days=1)
_WARN_BEFORE: Final = datetime.timedelta(days=30)
_WILDCARDS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104


_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"


class TlsError(Exception):
    """The certificate cannot be used; the text has the solution."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """``fingerprint``: SHA-256 of the DER form, as openssl prints it."""

    certificate_file: pathlib.Path
    key_file: pathlib.Path
    names: tuple[str, ...]
    expires_at: datetime.datetime
    fingerprint: str


def certificate_names(
    listen: Iterable[str], portals: Iterable[str], extra: Iterable[str] = ()
) -> list[str]:
    """The names and addresses that clients may use for this machine.

    A wildcard address stands for the addresses that the host name resolves to
    and the source address of the default route.
    """
    host = socket.gethostname()
    names = ["localhost", "127.0.0.1", "::1", host, socket.getfqdn()]
    addresses = list(listen)
    if not _WILDCARDS.isdisjoint(addresses):
        addresses += own_addresses(host)
    names += [a for a in addresses if a not in _WILDCARDS]
    names += [*portals, *extra]
    return list(dict.fromkeys(_canonical(name) for name in names if name))


def _canonical(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name.lower()


def own_addresses(host: str) -> list[str]:
    """This machine's addresses, from its host name and default route."""
    found = []
    try:
        found = [str(i[4][0]) for i in socket.getaddrinfo(host, None)]
    except OSError as error:
        LOG.debug("The host name %s does not resolve: %s", host, error)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing; the kernel selects the source address.
            probe.connect(("192.0.2.1", 9))
            found.append(probe.getsockname()[0])
        except OSError as error:
            LOG.debug("There is no default route: %s", error)
    return [address.split("%")[0] for address in found]


def ensure_certificate(
    directory: pathlib.Path, names: Sequence[str]
) -> Certificate:
    """Return the certificate in ``directory``; create it if there is none.

    An existing one is kept, because clients have copies of it. If it lacks a
    name or expires soon, the log says so and how to create a new one.
    """
    certificate_file = directory / "server.crt"
    key_file = directory / "server.key"
    if not (certificate_file.exists() and key_file.exists()):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        _make(certificate_file, key_file, names)
    found = read_certificate(certificate_file, key_file)
    renew = (
        f"to create a new one, remove {certificate_file} and {key_file},"
        " restart, and copy the new file to the clients"
    )
    if missing := [name for name in names if name not in found.names]:
        LOG.warning(
            "The certificate does not have %s; %s", ", ".join(missing), renew
        )
    if found.expires_at < datetime.datetime.now(datetime.UTC) + _WARN_BEFORE:
        LOG.warning(
            "The certificate expires on %s; %s", found.expires_at.date(), renew
        )
    return found


def read_certificate(
    certificate_file: pathlib.Path, key_file: pathlib.Path
) -> Certificate:
    """:raises TlsError: a file is missing or invalid."""
    # Try the ssl module first, which reads only CA certificates, such as the
    # self-signed one: cryptography is slow to import.
    try:
        pem = certificate_file.read_text("ascii")
        # The first certificate; openssl may have written text before it.
        pem = pem[pem.index(_BEGIN) : pem.index(_END) + len(_END)]
        der = ssl.PEM_cert_to_DER_cert(pem)
        found = _read_authority(der) or _read_any(der)
    except OSError as error:
        raise TlsError(
            f"the certificate {certificate_file} cannot be read: {error}"
        ) from error
    except ValueError as error:
        raise TlsError(
            f"{certificate_file} is not a PEM certificate with subject"
            f" alternative names: {error}"
        ) from error
    names, expires_at = found
    return Certificate(
        certificate_file=certificate_file,
        key_file=key_file,
        names=tuple(names),
        expires_at=expires_at,
        fingerprint=hashlib.sha256(der).digest().hex(":").upper(),
    )


_Contents = tuple[list[str], datetime.datetime]


def _read_authority(der: bytes) -> _Contents | None:
    """Names and expiry of a CA certificate; None: it is not a CA's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=der)
    except ssl.SSLError as error:
        raise ValueError(str(error)) from error
    for parsed in context.get_ca_certs():
        alternatives: Any = parsed.get("subjectAltName", ())
        end = ssl.cert_time_to_seconds(str(parsed["notAfter"]))
        return (
            [_canonical(value) for _, value in alternatives],
            datetime.datetime.fromtimestamp(end, datetime.UTC),
        )
    return None


def _read_any(der: bytes) -> _Contents:
    from cryptography import x509

    parsed = x509.load_der_x509_certificate(der)
    try:
        alternatives = parsed.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except x509.ExtensionNotFound as error:
        raise ValueError(str(error)) from error
    addresses = alternatives.get_values_for_type(x509.IPAddress)
    names = alternatives.get_values_for_type(x509.DNSName)
    return [*names, *map(str, addresses)], parsed.not_valid_after_utc


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """TLS 1.2 or newer.

    :raises TlsError: the key cannot be read or does not match.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(
            certificate.certificate_file, certificate.key_file
        )
    except (OSError, ssl.SSLError) as error:
        raise TlsError(
            f"{certificate.certificate_file} and {certificate.key_file}"
            f" cannot be used together: {error}"
        ) from error
    return context


def _make(
    certificate_file: pathlib.Path,
    key_file: pathlib.Path,
    names: Sequence[str],
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    _write(
        key_file,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        0o600,
    )
    _write(certificate_file, _self_signed(key, names), 0o644)
    LOG.info(
        "Created a certificate for %s: %s", ", ".join(names), certificate_file
    )


def _self_signed(key: object, names: Sequence[str]) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import oid

    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the key must be an elliptic curve key")
    public = key.public_key()
    subject = x509.Name(
        [
            x509.NameAttribute(
                oid.NameOID.COMMON_NAME,
                f"acme-appliance {socket.gethostname()}"[:64],
            )
        ]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _LIFETIME)
        .add_extension(
            x509.SubjectAlternativeName([_general(n) for n in names]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(_key_usage(), True)
        .add_extension(
            x509.ExtendedKeyUsage([oid.ExtendedKeyUsageOID.SERVER_AUTH]),
            False,
        )
        .add_extension(identifier, False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                identifier
            ),
            False,
        )
    )
    signed = builder.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def _key_usage() -> "x509.KeyUsage":
    """For a server that is its own CA."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: pathlib.Path, data: bytes, mode: int) -> None:
    """Write a file atomically, with its mode from the start."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
