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

"""Authentication: bearer tokens, Basic for logging in, failure limits."""

import base64
import binascii
import collections
from collections.abc import Callable
import dataclasses
import hashlib
import logging
import threading
import time
from typing import Final
from typing import NoReturn

from sqlalchemy import exc

from acme_appliance import clientaddress
from acme_appliance import problems
from acme_appliance.service import tokens

LOG = logging.getLogger(__name__)

#: Maximum number of cached addresses, and of cached valid tokens.
_REMEMBERED: Final = 10_000
#: How long to trust a looked-up token without another look-up. A revocation
#: by this process takes effect at once; by another, this much later.
_TRUST_SECONDS: Final = 1.0


class FailureLimit:
    """Counts failed log-ins per address in a sliding time window.

    :param clock: monotonic, in seconds.
    """

    def __init__(
        self,
        allowed: int,
        window_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed = allowed
        self._window = window_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: collections.OrderedDict[
            str, collections.deque[float]
        ] = collections.OrderedDict()

    def wait_seconds(self, address: str) -> int:
        """Seconds until this address may try again."""
        with self._lock:
            times = self._failures.get(clientaddress.network(address))
            if not times:
                return 0
            now = self._clock()
            while times and times[0] <= now - self._window:
                times.popleft()
            if len(times) < self._allowed:
                return 0
            return int(times[0] + self._window - now) + 1

    def record(self, address: str) -> int:
        """Count a failure; return the number of failures in the window."""
        key = clientaddress.network(address)
        with self._lock:
            times = self._failures.setdefault(
                key, collections.deque(maxlen=self._allowed)
            )
            times.append(self._clock())
            self._failures.move_to_end(key)
            while len(self._failures) > _REMEMBERED:
                self._failures.popitem(last=False)
            return len(times)


@dataclasses.dataclass(frozen=True)
class _Known:
    """A token that was valid when the store had seen ``revocations``."""

    credential: tokens.Credential
    revocations: int
    checked_at: float


class Authenticator:
    """Turns an Authorization header into a credential.

    Clients behind a proxy share one address, and a wrong token of one must
    not lock the others out. So every token is looked up, whatever failed
    before: 256 bits cannot be guessed, and a wrong token costs one indexed
    read, a malformed one none. Above the limit, failed attempts get
    ``rate.limited`` and are not logged.
    """

    def __init__(
        self,
        store: tokens.TokenStore,
        failures: FailureLimit,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._failures = failures
        self._clock = clock
        self._good: collections.OrderedDict[str, _Known] = (
            collections.OrderedDict()
        )
        self._lock = threading.Lock()

    def bearer(self, header: str | None, address: str) -> tokens.Credential:
        """:raises Problem: auth.invalid, auth.expired, rate.limited."""
        secret = _split(header, "bearer")
        if secret is None:
            raise problems.Problem(
                "auth.invalid",
                "A token is required: send Authorization: Bearer TOKEN.",
            )
        return self._check(secret, address)

    def basic(self, header: str | None, address: str) -> tokens.Credential:
        """Check a long-lived token that is sent as a password.

        :raises Problem: auth.invalid, auth.expired, rate.limited.
        """
        encoded = _split(header, "basic")
        if encoded is None:
            raise problems.Problem(
                "auth.invalid",
                "Logging in needs HTTP Basic: the name of a token, and the"
                " token as the password.",
            )
        name, secret = _name_and_secret(encoded)
        credential = self._check(secret, address)
        if credential.name != name or credential.kind != "long":
            self._fail(address, "The token does not match the name.")
        return credential

    def was_valid(self, header: str | None) -> bool:
        """Whether the header's token was valid when it was last looked up.

        A hint for scheduling, not an authorisation. Does not read the
        database.
        """
        return _digest(_secret_of(header)) in self._good

    def is_valid(self, header: str | None) -> bool:
        """Like :meth:`was_valid`, with a look-up; counts no failure."""
        secret = _secret_of(header)
        if not tokens.TOKEN_PATTERN.fullmatch(secret):
            return False
        try:
            self._look_up(secret)
        except (problems.Problem, exc.SQLAlchemyError) as error:
            # The request looks it up again and reports the error.
            LOG.debug("A token could not be verified: %s", error)
            return False
        return True

    def _check(self, secret: str, address: str) -> tokens.Credential:
        if not tokens.TOKEN_PATTERN.fullmatch(secret):
            self._fail(address, "This is not a token.")
        try:
            return self._look_up(secret)
        except problems.Problem as problem:
            if problem.code == "auth.invalid":
                self._fail(address, problem.detail)
            raise

    def _look_up(self, secret: str) -> tokens.Credential:
        digest = _digest(secret)
        known = self._good.get(digest)
        if known is not None and self._is_fresh(known):
            return known.credential
        # Before the look-up, so that no revocation is missed.
        revocations, now = self._store.revocations, self._clock()
        try:
            credential = self._store.authenticate_hash(digest)
        except problems.Problem:
            self._forget(digest)
            raise
        self._remember(digest, _Known(credential, revocations, now))
        return credential

    def _is_fresh(self, known: "_Known") -> bool:
        return (
            known.revocations == self._store.revocations
            and self._clock() - known.checked_at < _TRUST_SECONDS
            and self._store.is_valid(known.credential)
        )

    def _fail(self, address: str, detail: str) -> NoReturn:
        wait = self._failures.wait_seconds(address)
        if wait:
            raise problems.Problem(
                "rate.limited",
                "Too many failed log-ins from this address.",
                retry_after_seconds=wait,
            )
        count = self._failures.record(address)
        LOG.warning(
            "Log-in failed from %s (recent failures: %d)", address, count
        )
        raise problems.Problem("auth.invalid", detail)

    def _remember(self, digest: str, known: "_Known") -> None:
        with self._lock:
            self._good[digest] = known
            self._good.move_to_end(digest)
            while len(self._good) > _REMEMBERED:
                self._good.popitem(last=False)

    def _forget(self, digest: str) -> None:
        with self._lock:
            self._good.pop(digest, None)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _secret_of(header: str | None) -> str:
    """The token in a header of either scheme, or an empty string."""
    encoded = _split(header, "basic")
    if encoded is not None:
        return _name_and_secret(encoded)[1]
    return _split(header, "bearer") or ""


def _name_and_secret(encoded: str) -> tuple[str, str]:
    """Decode HTTP Basic (RFC 7617); empty strings if it is invalid."""
    try:
        pair = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        pair = ""
    name, _, secret = pair.partition(":")
    return name, secret


def _split(header: str | None, wanted: str) -> str | None:
    """The text after the scheme; None: no header, or another scheme."""
    scheme, _, rest = (header or "").partition(" ")
    return rest.strip() if scheme.lower() == wanted else None
