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

"""Checks of the way to the appliance, one address after the other."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import datetime
import os
import re
import socket
import ssl
from typing import Final
import urllib.parse

from acme_cinder.checks import findings
import acme_client

_VERSION: Final = "v1"
_NFS_PORT_OPTION: Final = re.compile(r"\bport=(\d+)")
_CALL_SECONDS: Final = 10.0
_SOON: Final = datetime.timedelta(days=30)
_SKEW_SECONDS: Final = 60
_OPTION: Final = "acme_api_addresses"
_CA_OPTION: Final = "acme_api_ca_file"
#: OpenSSL's verification errors (openssl-verify(1)).
_EXPIRED: Final = (9, 10)
_OTHER_NAME: Final = (62, 64)


def _each(
    before: str | None,
    name: str,
    look: Callable[[findings.Scene, str], Iterator[findings.Note]],
) -> Callable[[findings.Scene], Iterator[findings.Note]]:
    """A check of every address that passed the check before it."""

    def run(scene: findings.Scene) -> Iterator[findings.Note]:
        passed = scene.reached.setdefault(name, set())
        for address in _addresses(scene):
            if before and address not in scene.reached[before]:
                yield findings.unchecked(f"{address}, because {before} failed")
                continue
            notes = list(look(scene, address))
            if findings.State.FAILED not in {note.state for note in notes}:
                passed.add(address)
            yield from notes

    return run


def _addresses(scene: findings.Scene) -> list[str]:
    return list(
        dict.fromkeys(
            acme_client.parse_address(each)
            for each in scene.settings.api_addresses
        )
    )


def _parts(address: str) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(address)
    return parts.hostname or "", parts.port or 0


def _name(scene: findings.Scene, address: str) -> Iterator[findings.Note]:
    host, port = _parts(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        yield findings.failed(
            f"{_OPTION}: {host} is not resolved: {error.strerror}",
            "correct the name, or the name service of this host "
            f"(getent hosts {host})",
            is_option=True,
        )
        return
    known = ", ".join(dict.fromkeys(str(item[4][0]) for item in found))
    yield findings.ok(host if known == host else f"{host} is {known}")


def _connection(
    scene: findings.Scene, address: str
) -> Iterator[findings.Note]:
    try:
        _connect(*_parts(address), scene).close()
    except OSError as error:
        yield findings.failed(
            f"{address} cannot be reached: {error}",
            "is the appliance running, the port right, and no firewall in "
            "between?",
        )
        return
    yield findings.ok(f"{address} accepts connections")


def _connect(host: str, port: int, scene: findings.Scene) -> socket.socket:
    return socket.create_connection(
        (host, port), scene.settings.connect_timeout_seconds
    )


def _tls(scene: findings.Scene, address: str) -> Iterator[findings.Note]:
    host, port = _parts(address)
    if address.startswith("http:"):
        yield findings.warning(f"{address} is not encrypted", "use https")
        return
    if scene.settings.verify is False:
        yield findings.warning(
            f"{address}: the certificate is not verified, so that anybody in "
            "between can read the credential",
            f"set {_CA_OPTION}, and do not switch off acme_api_verify",
        )
        return
    try:
        with (
            _connect(host, port, scene) as plain,
            _context(scene).wrap_socket(plain, server_hostname=host) as safe,
        ):
            certificate = safe.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        yield _distrusted(scene, address, error)
    except OSError as error:
        yield findings.failed(
            f"{address} does not speak TLS: {error}",
            "correct the port, or http and https",
        )
    else:
        yield _until(scene, address, str(certificate["notAfter"]))


def _context(scene: findings.Scene) -> ssl.SSLContext:
    """As the client's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    where = scene.settings.verify
    if isinstance(where, bool):
        context.set_default_verify_paths()
    elif os.path.isdir(where):
        context.load_verify_locations(capath=where)
    else:
        context.load_verify_locations(cafile=where)
    return context


def _distrusted(
    scene: findings.Scene, address: str, error: ssl.SSLCertVerificationError
) -> findings.Note:
    text = f"{address}: {error.verify_message}"
    if error.verify_code in _EXPIRED:
        remedy = "renew the appliance's certificate, or correct the clocks"
    elif error.verify_code in _OTHER_NAME:
        remedy = (
            f"name an address in {_OPTION} that the certificate contains, or "
            "issue one that contains this address"
        )
    else:
        verify = scene.settings.verify
        trusted = "the system's CAs" if verify is True else verify
        remedy = (
            f"{_CA_OPTION} must name a file with the CA of the certificate, "
            f"or the certificate itself (now: {trusted})"
        )
    return findings.failed(text, remedy, is_option=True)


def _until(scene: findings.Scene, address: str, text: str) -> findings.Note:
    ends = datetime.datetime.fromtimestamp(
        ssl.cert_time_to_seconds(text), datetime.UTC
    )
    said = f"{address}: the certificate is trusted until {ends:%Y-%m-%d}"
    if ends - scene.now() < _SOON:
        return findings.warning(said, "renew it before that day")
    return findings.ok(said)


def _api(scene: findings.Scene, address: str) -> Iterator[findings.Note]:
    found = _versions(scene, address)
    if isinstance(found, acme_client.AuthenticationFailed):
        # The credential has its own check.
        yield findings.ok(f"{address} is an appliance")
    elif isinstance(found, acme_client.ApiError):
        yield findings.failed(
            f"{address} does not answer as an appliance: {found}",
            f"is {_OPTION} that of an appliance's management?",
        )
    elif _VERSION not in found.ids:
        yield findings.failed(
            f"{address} has the API {', '.join(found.ids) or 'of no version'}"
            f", not {_VERSION}",
            "use releases of driver and appliance that have a version in "
            "common",
        )
    else:
        yield findings.ok(f"{address} has the API {', '.join(found.ids)}")


def _versions(
    scene: findings.Scene, address: str
) -> acme_client.Versions | acme_client.ApiError:
    with _client(scene, address) as api:
        try:
            return api.with_deadline(_CALL_SECONDS).get_versions()
        except acme_client.ApiError as error:
            return error


def _client(
    scene: findings.Scene, address: str
) -> contextlib.AbstractContextManager[acme_client.Client]:
    if scene.client_for is None:
        return contextlib.nullcontext(scene.api)
    return scene.client_for([address])


def _clock(scene: findings.Scene, address: str) -> Iterator[findings.Note]:
    found = _versions(scene, address)
    if isinstance(found, acme_client.ApiError) or found.time is None:
        yield findings.warning(f"{address} does not say its time")
        return
    skew = abs((scene.now() - found.time).total_seconds())
    if skew > _SKEW_SECONDS:
        yield findings.failed(
            f"the clocks of {address} and of this host differ by {skew:.0f} s",
            "synchronise both with NTP: ages of objects, certificates and "
            "the order of log lines depend on it",
        )
    else:
        yield findings.ok(
            f"the clocks of {address} and this host differ by less than "
            f"{_SKEW_SECONDS} s"
        )


def _nfs_port(scene: findings.Scene) -> Iterator[findings.Note]:
    options = scene.settings.mount_options
    if "rdma" in options:
        yield findings.warning("not looked at: NFS over RDMA")
        return
    given = _NFS_PORT_OPTION.search(options)
    number = int(given[1]) if given else scene.nfs_port
    for portal in scene.portals:
        try:
            _connect(portal, number, scene).close()
        except OSError as error:
            yield findings.failed(
                f"the NFS address {portal}, port {number}, cannot be "
                f"reached: {error}",
                "check routes and firewalls of the storage network, and the "
                "appliance's NFS server; acme_nfs_portal chooses another "
                "address",
            )
        else:
            yield findings.ok(f"{portal}, port {number}, accepts connections")


NAMES: Final = findings.Check(
    "names", _each(None, "names", _name), ("options",)
)
CONNECTION: Final = findings.Check(
    "connection", _each("names", "connection", _connection), ("names",)
)
TLS: Final = findings.Check(
    "tls", _each("connection", "tls", _tls), ("connection",)
)
API: Final = findings.Check("api", _each("tls", "api", _api), ("tls",))
CLOCK: Final = findings.Check("clock", _each("api", "clock", _clock), ("api",))
NFS_PORT: Final = findings.Check("nfs-port", _nfs_port, ("figures", "portal"))
