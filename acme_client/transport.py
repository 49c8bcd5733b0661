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

"""Send one HTTP request and read its reply.

Nothing is retried here. Errors are classified by the question that decides
about a retry: may the request have been applied?
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import http.cookiejar
import json
import ssl
from typing import Any
import urllib.parse

import requests
import requests.adapters
import urllib3.exceptions

from acme_client import bounded
from acme_client import checks
from acme_client import errors
from acme_client import timing

JSON = "application/json"
PROBLEM = "application/problem+json"
MERGE_PATCH = "application/merge-patch+json"
_CHUNK_BYTES = 16 * 1024

#: OpenSSL's reasons of a failed handshake. Other TLS failures may happen in
#: the middle of a reply and count as lost connections.
_HANDSHAKE_REASONS = frozenset(
    {
        "BAD_PROTOCOL_VERSION_NUMBER",
        "CA_MD_TOO_WEAK",
        "DH_KEY_TOO_SMALL",
        "EE_KEY_TOO_SMALL",
        "HTTP_REQUEST",
        "NO_CERTIFICATE_OR_CRL_FOUND",
        "NO_CIPHERS_AVAILABLE",
        "NO_PROTOCOLS_AVAILABLE",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV1_UNRECOGNIZED_NAME",
        "UNSUPPORTED_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)


@dataclasses.dataclass(frozen=True)
class Request:
    """A request without its address.

    :ivar path: percent-encoded, from the root.
    :ivar hold_seconds: how long the appliance may hold the request before
        it answers; ``held`` writes it to ``hold_by``.
    :ivar repeatable: the request is idempotent.
    """

    method: str
    path: str
    query: Mapping[str, str] = dataclasses.field(default_factory=dict)
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    media_type: str = JSON
    hold_seconds: int | None = None
    hold_by: str = "prefer"
    repeatable: bool = True

    def held(self, at_most_seconds: float) -> "Request":
        """A copy with the hold time in it."""
        if self.hold_seconds is None:
            return self
        hold = str(max(0, int(min(self.hold_seconds, at_most_seconds))))
        if self.hold_by == "query":
            query = {**self.query, "wait": hold}
            return dataclasses.replace(self, query=query)
        headers = {**self.headers, "Prefer": f"wait={hold}"}
        return dataclasses.replace(self, headers=headers)

    def with_headers(self, **headers: str) -> "Request":
        """A copy with more headers; ``_`` in a name means ``-``."""
        more = {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return dataclasses.replace(self, headers={**self.headers, **more})


@dataclasses.dataclass(frozen=True)
class Reply:
    """A complete reply."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body, which must be declared as JSON and be an object.

        :raises ValueError: it is not.
        """
        declared = self.headers.get("Content-Type", "")
        if declared.partition(";")[0].strip().lower() not in (JSON, PROBLEM):
            raise ValueError(f"its content type is {declared!r}")
        try:
            value = json.loads(self.body, parse_constant=_not_json)
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        return value


def _not_json(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


class _Session(requests.Session):
    """A session without external influences.

    No proxies, CA bundles or .netrc of the environment (the client connects
    directly, with its own credential), no cookies (all threads would share
    them), no redirects (the credential is only for the configured addresses).
    """

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(
            http.cookiejar.DefaultCookiePolicy(allowed_domains=[])
        )

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Otherwise requests reads the whole body even of a redirect that it
        does not follow."""
        return None


class Transport:
    """Sends over pooled connections; thread-safe."""

    def __init__(
        self,
        *,
        verify: bool | str,
        ca_option: str,
        connect_timeout_seconds: float,
        read_timeout_seconds: float,
        max_reply_bytes: int,
        adapter_factory: Callable[[], requests.adapters.BaseAdapter],
    ):
        self.read_timeout_seconds = read_timeout_seconds
        self._names_cas = isinstance(verify, str)
        self._verify = checks.system_cas() if verify is True else verify
        self._ca_option = ca_option
        self._connect_timeout_seconds = connect_timeout_seconds
        self._max_reply_bytes = max_reply_bytes
        self._adapter = adapter_factory()
        self._session = _Session()
        self._session.headers.update(
            {
                "Accept": "application/json, application/problem+json",
                # The limit of a reply's size works only without compression.
                "Accept-Encoding": "identity",
                "User-Agent": "acme-cinder-client",
            }
        )
        self._session.mount("https://", self._adapter)
        self._session.mount("http://", self._adapter)

    def send(
        self, address: str, request: Request, deadline: timing.Deadline
    ) -> Reply:
        """Send once and read the whole reply.

        :param deadline: of this attempt; also limits the timeouts.
        :raises errors.TransportError: no complete reply.
        :raises errors.ProtocolError: the reply does not conform to this API.
        :raises errors.InvalidArgument: the request cannot be sent.
        """
        prepared = self._prepare(address, request)
        # requests refuses a timeout of zero.
        left = max(deadline.remaining(), 0.001)
        try:
            with (
                bounded.until(deadline),
                self._session.send(
                    prepared,
                    stream=True,
                    verify=self._verify,
                    allow_redirects=False,
                    timeout=(
                        min(self._connect_timeout_seconds, left),
                        min(self.read_timeout_seconds, left),
                    ),
                ) as response,
            ):
                return self._read(response, address, deadline)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as e:
            # Its request contains the credential.
            if isinstance(e, requests.RequestException):
                e.request = None
            raise self._classify(e, address, deadline) from e
        except OSError as e:
            # requests looks for the CA file before it connects.
            raise self._tls_error(e, address) from e

    def drop_idle_connections(self) -> None:
        """Drop pooled connections, except those in use.

        After one broke, the others to the same server are probably dead, too,
        and each would cost a failed request.
        """
        self._adapter.close()

    def close(self) -> None:
        self._session.close()

    def _prepare(
        self, address: str, request: Request
    ) -> requests.PreparedRequest:
        try:
            return self._session.prepare_request(_to_send(address, request))
        except (TypeError, ValueError, requests.RequestException) as exc:
            raise errors.InvalidArgument(
                f"{request.method} {request.path} cannot be sent: {exc}"
            ) from exc

    def _read(
        self,
        response: requests.Response,
        address: str,
        deadline: timing.Deadline,
    ) -> Reply:
        _refuse_redirect(response, address)
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise errors.ProtocolError(
                f"{address} sent a body encoded as {encoding!r}, which was "
                "not requested",
                status=response.status_code,
            )
        body = bytearray()
        for chunk in response.iter_content(_CHUNK_BYTES):
            body += chunk
            if len(body) > self._max_reply_bytes:
                raise errors.ProtocolError(
                    f"{address} sent more than {self._max_reply_bytes} "
                    "bytes in one reply",
                    status=response.status_code,
                )
            if deadline.passed:
                raise _too_slow(address, deadline)
        return Reply(response.status_code, response.headers, bytes(body))

    def _classify(
        self, exc: Exception, address: str, deadline: timing.Deadline
    ) -> errors.TransportError:
        causes = list(_causes(exc))
        tls = next((cause for cause in causes if _is_handshake(cause)), None)
        if tls is not None:
            return self._tls_error(tls, address)
        if any(isinstance(cause, _NEVER_SENT) for cause in causes):
            return errors.NotSent(f"{address} cannot be reached: {causes[-1]}")
        if deadline.passed:
            return _too_slow(address, deadline)
        return errors.OutcomeUnknown(
            f"the connection to {address} was lost before the reply "
            f"had arrived: {causes[-1]}"
        )

    def _tls_error(
        self, cause: BaseException, address: str
    ) -> errors.TlsError:
        if self._names_cas:
            trusted = f"the CA file {self._verify!r} that it names"
        else:
            trusted = (
                f"the system's CAs in {self._verify}, used because it names "
                "none"
            )
        return errors.TlsError(
            f"no trusted TLS connection to {address}: {cause}. Check the "
            f"option {self._ca_option} ({trusted}), the host name in the "
            "address, and that the port speaks TLS"
        )


def _too_slow(
    address: str, deadline: timing.Deadline
) -> errors.OutcomeUnknown:
    return errors.OutcomeUnknown(
        f"the reply of {address} came too slowly to end within "
        f"{deadline.seconds:.0f} s"
    )


def _to_send(address: str, request: Request) -> requests.Request:
    url = address + request.path
    if request.query:
        url = f"{url}?{urllib.parse.urlencode(request.query)}"
    headers = dict(request.headers)
    data = None
    if request.body is not None:
        headers["Content-Type"] = request.media_type
        data = json.dumps(request.body, allow_nan=False).encode()
    return requests.Request(request.method, url, headers=headers, data=data)


#: The connection failed, so nothing was sent.
_NEVER_SENT = (
    requests.exceptions.ConnectTimeout,
    urllib3.exceptions.ClosedPoolError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.LocationValueError,
    urllib3.exceptions.NewConnectionError,
)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """``exc`` and its causes, the innermost last.

    requests and urllib3 store the cause as an argument, as ``reason`` or as
    ``__cause__``.
    """
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = _inner(current)


def _inner(exc: BaseException) -> BaseException | None:
    reason = getattr(exc, "reason", None)
    for candidate in (reason, *exc.args, exc.__cause__, exc.__context__):
        if isinstance(candidate, BaseException):
            return candidate
    return None


def _is_handshake(exc: BaseException) -> bool:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return True
    return isinstance(exc, ssl.SSLError) and (exc.reason in _HANDSHAKE_REASONS)


def _refuse_redirect(response: requests.Response, address: str) -> None:
    if 300 <= response.status_code < 400 and response.status_code != 304:
        raise errors.ProtocolError(
            f"{address} answered {response.status_code}, a redirect; these "
            "are not followed, give the appliance's own address",
            status=response.status_code,
        )
