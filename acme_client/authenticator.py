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

"""Authentication, and renewal of tokens."""

from collections.abc import Callable
import copy
import dataclasses
import threading

from acme_client import credentials
from acme_client import errors
from acme_client import timing


@dataclasses.dataclass(frozen=True)
class AuthHeader:
    """An Authorization header, and how many log-ins went before it."""

    authorization: str = dataclasses.field(repr=False)
    serial: int = 0


class TokenAuthenticator:
    """A long-lived token: a constant header, nothing to renew."""

    renewable = False

    def __init__(self, token: credentials.BearerToken):
        self._header = AuthHeader(token.authorization)

    def header(self, call: timing.CallContext) -> AuthHeader:
        return self._header

    def renew(self, used: AuthHeader, call: timing.CallContext) -> AuthHeader:
        return self._header


class LoginAuthenticator:
    """Logs in for a session token, once for all threads.

    :param login: gets a new token within the call's deadline, or raises.
    """

    renewable = True

    def __init__(self, login: Callable[[timing.CallContext], str]):
        self._login = login
        self._lock = threading.Lock()
        self._header: AuthHeader | None = None
        self._finished = 0  # log-ins that succeeded or failed
        self._refusal: errors.ProblemError | None = None

    def header(self, call: timing.CallContext) -> AuthHeader:
        """The current header; the first call logs in."""
        header = self._header
        return header if header is not None else self.renew(None, call)

    def renew(
        self, used: AuthHeader | None, call: timing.CallContext
    ) -> AuthHeader:
        """A header other than ``used``, which was refused.

        Other threads wait for a log-in in progress and share its header or
        its refusal, because a retry with the same password would only count
        as another failed log-in.
        """
        finished = self._finished
        if not self._lock.acquire(timeout=call.deadline.remaining()):
            raise errors.NotSent(
                "another thread's log-in took longer than this call may"
            )
        try:
            if self._header is not None and self._header != used:
                return self._header
            if self._finished != finished and self._refusal is not None:
                raise copy.copy(self._refusal)
            return self._log_in(call)
        finally:
            self._lock.release()

    def forget(self) -> AuthHeader | None:
        """Forget and return the current header."""
        with self._lock:
            header, self._header = self._header, None
            return header

    def _log_in(self, call: timing.CallContext) -> AuthHeader:
        self._refusal = None
        try:
            token = self._login(call)
            self._header = AuthHeader(f"Bearer {token}", self._finished)
            return self._header
        except errors.ProblemError as exc:
            self._refusal = exc
            raise
        finally:
            self._finished += 1


Authenticator = TokenAuthenticator | LoginAuthenticator
