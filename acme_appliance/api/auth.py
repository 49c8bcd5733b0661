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

"""Who is asking: bearer tokens, Basic for logging in, and guessing limits."""

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

from acme_appliance import addresses
from acme_appliance import problems
from acme_appliance.service import tokens

LOG = logging.getLogger(__name__)

#: Addresses and good tokens that are remembered; the oldest is forgotten.
_REMEMBERED: Final = 10_000
#: For how long a token that was looked up is not looked up again. One that
#: is revoked here ends at once; by another process, this much later.
_TRUST_SECONDS: Final = 1.0


class FailureLimit:
    """Failed log-ins of each address in a sliding window of time.

    :param clock: seconds that never go backwards.
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
        """How long until this address may try again; 0: now."""
        with self._lock:
            times = self._failures.get(addresses.network(address))
            if not times:
                return 0
            now = self._clock()
            while times and times[0] <= now - self._window:
                times.popleft()
            if len(times) < self._allowed:
                return 0
            return int(times[0] + self._window - now) + 1

    def record(self, address: str) -> int:
        """Count a failure; returns how many there are in the window."""
        key = addresses.network(address)
        with self._lock:
            # No more times than the limit are kept for an address.
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
    """A token that was good when the store had seen ``revocations``."""

    credential: tokens.Credential
    revocations: int
    checked_at: float


class Authenticator:
    """Turns an Authorization header into a credential.

    Behind a proxy all clients are one address, and a wrong token of one must
    not lock the others out. So a token is looked up whatever failed before:
    256 bits cannot be guessed, and a wrong one costs one read by an index;
    what does not look like one costs none. Past the limit those that fail
    are told to wait, and do not fill the log.
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
                "This needs a token: send Authorization: Bearer TOKEN.",
            )
        return self._check(secret, address)

    def basic(self, header: str | None, address: str) -> tokens.Credential:
        """A long token shown as the password of its name.

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
            self._fail(address, "This name and token do not belong together.")
        return credential

    def was_valid(self, header: str | None) -> bool:
        """Whether the header's token was valid when it was last looked up.

        Says whom to serve first, and nothing about what is allowed. Reads
        no database.
        """
        return _digest(_secret_of(header)) in self._good

    def is_valid(self, header: str | None) -> bool:
        """As :meth:`was_valid`, after a look-up; counts no failure."""
        secret = _secret_of(header)
        if not tokens.TOKEN_PATTERN.fullmatch(secret):
            return False
        try:
            self._look_up(secret)
        except (problems.Problem, exc.SQLAlchemyError) as error:
            # The request itself looks it up once more, and tells.
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
        # Before the look-up: what is revoked meanwhile must not be missed.
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
                "Too many log-ins have failed from this address.",
                retry_after_seconds=wait,
            )
        count = self._failures.record(address)
        LOG.warning("Log-in failed from %s (%d lately)", address, count)
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
    """The token of a header, by either scheme; empty: there is none."""
    encoded = _split(header, "basic")
    if encoded is not None:
        return _name_and_secret(encoded)[1]
    return _split(header, "bearer") or ""


def _name_and_secret(encoded: str) -> tuple[str, str]:
    """Of HTTP Basic (RFC 7617); empty where it is none."""
    try:
        pair = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        pair = ""
    name, _, secret = pair.partition(":")
    return name, secret


def _split(header: str | None, wanted: str) -> str | None:
    """What follows the scheme; None: no header, or another scheme."""
    scheme, _, rest = (header or "").partition(" ")
    return rest.strip() if scheme.lower() == wanted else None
