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

"""The request loop: choose an address, send, classify, decide, repeat.

One call is one :meth:`Requester.perform`. It loops until there is a reply to
return or an error to raise, at most until the call's deadline:

1. *address*: the one that answered last, then the others in turn;
2. *send*: once, by :mod:`transport`;
3. *classify*: answered, answered by something else, never sent, or
   possibly applied;
4. *decide*: return, raise, or send again, after a pause or at once.

It repeats requests that were never sent or are repeatable: every GET, PUT,
PATCH and DELETE of this API, and the log-in. It does not try an address again
within the call if something other than this API answered there.
"""

from collections.abc import Callable
import dataclasses
import datetime
import time
from typing import Any
from typing import TypeVar

from oslo_log import log as logging

from acme_client import authenticator
from acme_client import credentials
from acme_client import endpoints
from acme_client import errors
from acme_client import redaction
from acme_client import timing
from acme_client import transport

LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
#: Reads the result from a reply; raises KeyError, TypeError or ValueError if
#: the reply does not conform to this API.
Reader = Callable[[transport.Reply], _T]

TOKENS_PATH = "/v1/tokens"
#: How long the reply to a held request may take after the hold, at most a
#: quarter of the timeout.
_HOLD_MARGIN_SECONDS = 5.0
#: A request fails faster than this on a connection that the server closed.
_AT_ONCE_SECONDS = 1.0


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclasses.dataclass
class _CallState:
    """The state of one call between attempts."""

    request: transport.Request
    call: timing.CallContext
    backoff: timing.Backoff
    order: tuple[str, ...]
    sending: timing.Deadline
    header: authenticator.AuthHeader | None = None
    place: int = 0
    sendings: int = 0
    renewed: bool = False
    lost_replies: int = 0  # attempts that may have been applied

    @property
    def address(self) -> str:
        return self.order[self.place]

    @property
    def what(self) -> str:
        return f"{self.request.method} {self.request.path}"


@dataclasses.dataclass(frozen=True)
class _Retry:
    """The decision to send again."""

    pause_seconds: float
    why: errors.ApiError


class Requester:
    """Sends a request until it is answered or out of time; thread-safe."""

    def __init__(
        self,
        transport: transport.Transport,
        book: endpoints.Endpoints,
        proof: credentials.Credentials,
        *,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime.datetime] = _now,
        new_backoff: Callable[[], timing.Backoff] = timing.Backoff,
    ):
        self._transport = transport
        self._book = book
        self._proof = proof
        self._sleep = sleep
        self._now = now
        self._new_backoff = new_backoff
        self._redactor = redaction.Redactor(*proof.secrets)
        self._session_token = ""
        self._authenticator = self._make_authenticator(proof)

    def perform(
        self,
        request: transport.Request,
        call: timing.CallContext,
        reader: Reader[_T],
    ) -> _T:
        """The result that ``reader`` reads from a 2xx or 304 reply.

        :raises errors.ApiError: any of them, without secrets.
        """
        try:
            header = self._authenticator.header(call)
            return self._perform(self._start(request, call, header), reader)
        except errors.ApiError as exc:
            if exc.request_id is None:
                exc.request_id = call.request_id
            raise

    def clean(self, value: Any) -> Any:
        """A decoded JSON value with our secrets masked in its texts."""
        if isinstance(value, str):
            return self._redactor.clean(value)
        if isinstance(value, list):
            return [self.clean(item) for item in value]
        if isinstance(value, dict):
            return {key: self.clean(item) for key, item in value.items()}
        return value

    def close(self, call: timing.CallContext) -> None:
        """End the session and close the connections."""
        try:
            self._log_out(call)
        finally:
            self._transport.close()

    # -- the loop --------------------------------------------------------

    def _start(
        self,
        request: transport.Request,
        call: timing.CallContext,
        header: authenticator.AuthHeader | None,
    ) -> _CallState:
        return _CallState(
            request=request.with_headers(X_Request_Id=call.request_id),
            call=call,
            backoff=self._new_backoff(),
            order=self._book.in_order(),
            sending=call.deadline,
            header=header,
        )

    def _perform(self, state: _CallState, reader: Reader[_T]) -> _T:
        try:
            return self._try_once(state, reader)
        except errors.ApiError as exc:
            if state.lost_replies == 0:
                raise
            # Whatever the result of the last attempt, an earlier one may have
            # been applied.
            exc.may_have_been_applied = True
            if not isinstance(exc, errors.NotSent):
                raise
            raise errors.OutcomeUnknown(
                f"an earlier reply was lost, and now: {exc.message}",
                request_id=exc.request_id,
            ) from exc

    def _try_once(self, state: _CallState, reader: Reader[_T]) -> _T:
        while True:
            try:
                reply = self._send(state)
                if reply.status < 400:
                    return self._read(state, reply, reader)
                decision = self._after_problem(state, reply)
            except (errors.ProtocolError, errors.TlsError) as error:
                decision = self._after_foreign(state, error)
            except errors.TransportError as error:
                decision = self._after_loss(state, error)
            self._pause(state, decision)

    def _read(
        self, state: _CallState, reply: transport.Reply, reader: Reader[_T]
    ) -> _T:
        """:raises errors.ProtocolError: the reply does not conform."""
        try:
            value = reader(reply)
        except (KeyError, TypeError, ValueError) as exc:
            raise errors.ProtocolError(
                f"{state.address} answered {reply.status} with something "
                f"other than this API has there: {exc!r}",
                status=reply.status,
            ) from exc
        self._book.answered(state.address)
        return value

    def _send(self, state: _CallState) -> transport.Reply:
        # A silent address must leave time for the others.
        state.sending = state.call.deadline.share(
            len(state.order) - state.place
        )
        silence = min(
            self._transport.read_timeout_seconds, state.sending.remaining()
        )
        request = state.request.held(
            silence - min(_HOLD_MARGIN_SECONDS, silence / 4)
        )
        if state.header is not None:
            request = request.with_headers(
                Authorization=state.header.authorization
            )
        state.sendings += 1
        started = time.monotonic()
        outcome = "no reply"
        try:
            reply = self._transport.send(state.address, request, state.sending)
            outcome = str(reply.status)
            return reply
        finally:
            LOG.debug(
                "%(what)s at %(address)s, sending %(number)d: %(outcome)s "
                "after %(seconds).3f s (request id %(id)s)",
                {
                    "what": state.what,
                    "address": state.address,
                    "number": state.sendings,
                    "outcome": outcome,
                    "seconds": time.monotonic() - started,
                    "id": state.call.request_id,
                },
            )

    # -- decisions -------------------------------------------------------

    def _after_loss(
        self, state: _CallState, error: errors.TransportError
    ) -> _Retry:
        self._finish_error(state, error)
        if isinstance(error, errors.OutcomeUnknown):
            self._transport.drop_idle_connections()
            self._count_as_applied(state, error)
            at_once = state.sending.elapsed() < _AT_ONCE_SECONDS
            if state.lost_replies == 1 and at_once:
                # The usual reason is a pooled connection that the server
                # closed; a new connection solves it.
                return self._elsewhere(state, error, pause_seconds=0.0)
        self._book.failed(state.address, error)
        return self._elsewhere(state, error)

    def _after_foreign(
        self, state: _CallState, error: errors.ProtocolError | errors.TlsError
    ) -> _Retry:
        """Something other than the appliance answered: skip the address."""
        self._finish_error(state, error)
        self._book.failed(state.address, error)
        if error.may_have_been_applied:
            self._count_as_applied(state, error)
        state.order = tuple(
            address for address in state.order if address != state.address
        )
        if not state.order:
            raise error
        if state.place < len(state.order):
            return _Retry(0.0, error)
        state.place = 0
        return _Retry(state.backoff.next(), error)

    def _count_as_applied(
        self, state: _CallState, error: errors.ApiError
    ) -> None:
        """:raises errors.ApiError: sending again is not safe."""
        state.lost_replies += 1
        if not state.request.repeatable:
            raise error

    def _after_problem(
        self, state: _CallState, reply: transport.Reply
    ) -> _Retry:
        error = self._problem(state, reply)
        if reply.status == 401 and self._renew(state):
            return _Retry(0.0, error)
        if not (error.retryable and state.request.repeatable):
            raise error
        if reply.status in (502, 503, 504) or error.is_gateways:
            return self._elsewhere(state, error)
        return _Retry(state.backoff.next(error.retry_after_seconds), error)

    def _elsewhere(
        self,
        state: _CallState,
        error: errors.ApiError,
        pause_seconds: float | None = None,
    ) -> _Retry:
        """Try the next address, after a pause if all were tried."""
        state.place = (state.place + 1) % len(state.order)
        if state.place != 0:
            return _Retry(0.0, error)
        if pause_seconds is None:
            pause_seconds = state.backoff.next(
                getattr(error, "retry_after_seconds", None)
            )
        return _Retry(pause_seconds, error)

    def _pause(self, state: _CallState, decision: _Retry) -> None:
        """Pause, or raise the error if the deadline would pass."""
        if decision.pause_seconds >= state.call.deadline.remaining():
            raise decision.why
        LOG.info(
            "%(what)s is sent again in %(seconds).2f s: %(why)s",
            {
                "what": state.what,
                "seconds": decision.pause_seconds,
                "why": decision.why,
            },
        )
        if decision.pause_seconds > 0:
            self._sleep(decision.pause_seconds)

    # -- problems --------------------------------------------------------

    def _problem(
        self, state: _CallState, reply: transport.Reply
    ) -> errors.ProblemError:
        """The typed error of a reply of 400 or more.

        :raises errors.ProtocolError: it contains no problem and does not come
            from a gateway. A 404 of another server must never count as "the
            share is gone".
        """
        request_id = state.call.request_id
        try:
            error = errors.from_problem(
                self.clean(reply.json()),
                status=reply.status,
                request_id=request_id,
            )
        except ValueError as exc:
            if reply.status not in errors.GATEWAY_STATUSES:
                raise errors.ProtocolError(
                    f"{state.address} answered {reply.status} without a "
                    "problem of this API; is it the appliance?",
                    status=reply.status,
                ) from exc
            error = errors.from_gateway(reply.status, request_id=request_id)
        else:
            self._book.answered(state.address)
        asked = timing.parse_retry_after(
            reply.headers.get("Retry-After"), self._now()
        )
        if asked is not None:
            error.retry_after_seconds = asked
        if error.may_have_been_applied:
            state.lost_replies += 1
        return error

    def _finish_error(self, state: _CallState, error: errors.ApiError) -> None:
        """Add the call to an error, and mask secrets."""
        error.request_id = state.call.request_id
        error.message = self._redactor.clean(error.message)
        error.args = (error.message,)

    # -- log-in ----------------------------------------------------------

    def _make_authenticator(
        self, proof: credentials.Credentials
    ) -> authenticator.Authenticator:
        if isinstance(proof, credentials.BearerToken):
            return authenticator.TokenAuthenticator(proof)
        return authenticator.LoginAuthenticator(self._log_in)

    def _renew(self, state: _CallState) -> bool:
        """Renew the header once per call; return whether it worked."""
        if (
            state.renewed
            or state.header is None
            or not self._authenticator.renewable
        ):
            return False
        state.renewed = True
        state.header = self._authenticator.renew(state.header, state.call)
        return True

    def _log_in(self, call: timing.CallContext) -> str:
        """Get a new session token, with the same loop.

        Errors are those of a call that was not sent.
        """
        request = transport.Request("POST", TOKENS_PATH).with_headers(
            Authorization=self._proof.authorization
        )
        try:
            token = self._perform(
                self._start(request, call, None), _session_token
            )
        except errors.OutcomeUnknown as exc:
            raise errors.NotSent(f"not logged in: {exc.message}") from exc
        except (errors.ProblemError, errors.ProtocolError) as exc:
            exc.may_have_been_applied = False
            raise
        self._redactor.replace(self._session_token, token)
        self._session_token = token
        return token

    def _log_out(self, call: timing.CallContext) -> None:
        if not isinstance(
            self._authenticator, authenticator.LoginAuthenticator
        ):
            return
        header = self._authenticator.forget()
        if header is None:
            return
        request = transport.Request("DELETE", f"{TOKENS_PATH}/self")
        try:
            self._perform(self._start(request, call, header), nothing)
        except errors.ApiError as exc:
            # It expires anyway; closing must not fail.
            LOG.warning("The API session could not be closed: %s", exc)


def _session_token(reply: transport.Reply) -> str:
    return credentials.BearerToken(reply.json()["token"]).token


def nothing(reply: transport.Reply) -> None:
    """For a request whose reply has no body.

    :raises ValueError: the reply has a body.
    """
    if reply.status != 204:
        raise ValueError("204 expected")
