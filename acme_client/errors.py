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

"""Everything the client raises, one tree with :class:`ApiError` on top.

Two questions decide what a caller may do, so the tree answers both: did the
appliance answer (:class:`ProblemError`) or not (:class:`TransportError`),
and where it did not, may the request have been carried out all the same
(:class:`OutcomeUnknown`) or is it certain that it was not
(:class:`NotSent`)? Problems are told apart by their machine code, never by
their prose; a code that this version does not know falls to the class of
its HTTP status.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any
from typing import Final


class ApiError(Exception):
    """The base of all errors of this package.

    :ivar request_id: the X-Request-Id of the call, to be looked up in the
        appliance's log; None where nothing was ever sent.
    :ivar may_have_been_applied: this call may have changed something all
        the same. What to do then is to repeat it, or to read the object by
        its id.
    """

    may_have_been_applied = False

    def __init__(self, message: str, *, request_id: str | None = None):
        super().__init__(message)
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        if self.request_id is None:
            return self.message
        return f"{self.message} (request id {self.request_id})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Keyword-only arguments would break copying and pickling."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    cls: type[ApiError], args: tuple[Any, ...], state: dict[str, Any]
) -> ApiError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class ConfigurationError(ApiError, ValueError):
    """What the client was made with cannot work: address, CA file, ..."""


class InvalidArgument(ApiError, ValueError):
    """An argument of a call cannot be sent; nothing was."""


class TransportError(ApiError):
    """No answer of the appliance arrived."""


class NotSent(TransportError):
    """The request never reached the appliance: nothing has changed."""


class TlsError(NotSent):
    """No trusted connection could be made; trying again does not help."""


class OutcomeUnknown(TransportError):
    """The request was sent and its reply was lost: it may have been done."""

    may_have_been_applied = True


class JobUnfinished(OutcomeUnknown):
    """The end of the job was not learnt in time; ``job_id`` tells which."""

    def __init__(
        self, message: str, *, job_id: str, request_id: str | None = None
    ):
        super().__init__(message, request_id=request_id)
        self.job_id = job_id


class ProtocolError(ApiError):
    """Something answered, but not as this API does.

    Another service at the address, a proxy's page, a broken body.
    """

    may_have_been_applied = True

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
    ):
        super().__init__(message, request_id=request_id)
        self.status = status


@dataclasses.dataclass(frozen=True)
class FieldError:
    """One field at fault, named by a JSON pointer."""

    pointer: str
    code: str
    detail: str


class ProblemError(ApiError):
    """The appliance answered with a problem (RFC 9457).

    :ivar code: the machine code; ``http.<status>`` where a gateway on the
        way answered without one.
    :ivar status: the HTTP status.
    :ivar detail: one sentence for a human being.
    :ivar retryable: the same request may succeed later. The client has
        retried it already, as long as its deadline allowed.
    :ivar retry_after_seconds: when, as far as the appliance knows.
    :ivar errors: the fields at fault.
    :ivar job_id: the job that ended so, where the work was done in one.
    """

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        status: int,
        retryable: bool = False,
        retry_after_seconds: float | None = None,
        errors: tuple[FieldError, ...] = (),
        request_id: str | None = None,
        job_id: str | None = None,
    ):
        super().__init__(f"{code}: {detail}", request_id=request_id)
        self.code = code
        self.status = status
        self.detail = detail
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds
        self.errors = errors
        self.job_id = job_id

    @property
    def is_gateways(self) -> bool:
        """Something on the way answered, not the appliance."""
        return self.code.startswith("http.")

    def __str__(self) -> str:
        fields = "; ".join(
            f"{error.pointer}: {error.detail}" for error in self.errors
        )
        text = super().__str__()
        return f"{text} [{fields}]" if fields else text


class BadRequest(ProblemError):
    """400, 405, 413, 415, 422: the client and the appliance disagree."""


class AuthenticationFailed(ProblemError):
    """401: the credential is not valid, or expired and not renewable."""


class Forbidden(ProblemError):
    """403: the credential's scope or namespace does not allow this."""


class NotFound(ProblemError):
    """404: ``code`` says what is not there (``share.not_found``, ...)."""


class Conflict(ProblemError):
    """409: the state of the object is against it."""


class AlreadyExists(Conflict):
    """The id, or the name, is taken by something else."""


class HasSnapshots(Conflict):
    """The share has snapshots, and was to be deleted without them."""


class InUse(Conflict):
    """Access rules, or something else, still use the object."""


class ShrinkRefused(Conflict):
    """A share can only grow."""


class WrongState(Conflict):
    """The share or snapshot is in a state that does not allow this."""


class Degraded(Conflict):
    """The share's volume file was moved or replaced by one of its users."""


class Busy(Conflict):
    """Another operation had the object for the whole of the deadline."""


class PreconditionFailed(ProblemError):
    """412, 428: the object has changed; read it again, decide again."""


class NoSpace(ProblemError):
    """The pool is full."""


class LimitReached(ProblemError):
    """A published limit of the appliance is reached."""


class RateLimited(ProblemError):
    """429: too many failed log-ins from here."""


class Unavailable(ProblemError):
    """502, 503, 504: the appliance could not serve this in the deadline."""


class InternalError(ProblemError):
    """500: the state is unknown; read the object by its id."""

    may_have_been_applied = True


class JobFailed(ProblemError):
    """A job ended without success and left no problem to say why."""


_BY_CODE: Final[Mapping[str, type[ProblemError]]] = {
    "share.exists_mismatch": AlreadyExists,
    "snapshot.exists_mismatch": AlreadyExists,
    "name.taken": AlreadyExists,
    "share.has_snapshots": HasSnapshots,
    "share.in_use": InUse,
    "snapshot.in_use": InUse,
    "share.shrink_refused": ShrinkRefused,
    "share.wrong_state": WrongState,
    "snapshot.wrong_state": WrongState,
    "share.degraded": Degraded,
    "share.busy": Busy,
    "job.in_progress": Busy,
    "job.cancelled": JobFailed,
    "pool.no_space": NoSpace,
    "limit.bytes": LimitReached,
    "limit.shares": LimitReached,
    "limit.snapshots": LimitReached,
    "limit.access_rules": LimitReached,
}

_BY_STATUS: Final[Mapping[int, type[ProblemError]]] = {
    401: AuthenticationFailed,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    428: PreconditionFailed,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
    507: NoSpace,
}

#: What a gateway between us and the appliance answers by itself.
GATEWAY_STATUSES: Final = frozenset({429, 502, 503, 504})


def class_for(code: str, status: int) -> type[ProblemError]:
    """The class of a problem: by its code, else by its HTTP status."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    if code.startswith("limit."):
        return LimitReached
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return BadRequest if status < 500 else InternalError


def from_problem(
    body: Mapping[str, Any],
    *,
    status: int | None = None,
    request_id: str | None = None,
    job_id: str | None = None,
) -> ProblemError:
    """The typed error of a problem+json body.

    :param status: the reply's; without one (a job's problem) the body's.
    :raises ValueError: the body has no ``code``, so it is no problem of
        this API.
    """
    code = body.get("code")
    if not isinstance(code, str) or not code:
        raise ValueError("a problem without a code")
    http = status if status is not None else _status_of(body)
    return class_for(code, http)(
        str(body.get("detail") or body.get("title") or "no detail given"),
        code=code,
        status=http,
        retryable=body.get("retryable") is True,
        retry_after_seconds=_seconds(body.get("retry_after_seconds")),
        errors=_field_errors(body.get("errors")),
        request_id=_text(body.get("request_id")) or request_id,
        job_id=job_id,
    )


def from_gateway(status: int, *, request_id: str | None) -> ProblemError:
    """The error of a gateway's answer, which has no problem in it."""
    code = f"http.{status}"
    error = class_for(code, status)(
        f"something on the way to the appliance answered {status}",
        code=code,
        status=status,
        retryable=True,
        request_id=request_id,
    )
    # It may have passed the request on, and given up on the reply.
    error.may_have_been_applied = status in (502, 504)
    return error


def _status_of(body: Mapping[str, Any]) -> int:
    status = body.get("status")
    return status if isinstance(status, int) else 500


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return max(0.0, float(value))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _field_errors(value: object) -> tuple[FieldError, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(
        FieldError(
            pointer=str(item.get("pointer", "")),
            code=str(item.get("code", "")),
            detail=str(item.get("detail", "")),
        )
        for item in value
        if isinstance(item, dict)
    )
