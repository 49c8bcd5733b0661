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

"""The exceptions of the client; :class:`ApiError` is their base.

The tree answers two questions that decide what a caller can do. Did the
appliance answer (:class:`ProblemError`) or not (:class:`TransportError`)? If
not, may the request have been applied (:class:`OutcomeUnknown`), or certainly
not (:class:`NotSent`)? The machine code of a problem determines its class,
never its text; an unknown code gets the class of its HTTP status.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any
from typing import Final


class ApiError(Exception):
    """The base of all errors of this package.

    :ivar request_id: the X-Request-Id of the call, as in the appliance's log;
        None if nothing was sent.
    :ivar may_have_been_applied: this call may have changed something. Repeat
        it, or read the object by its id.
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
    """An argument of the client is invalid: address, CA file, ..."""


class InvalidArgument(ApiError, ValueError):
    """An argument of a call cannot be sent; nothing was sent."""


class TransportError(ApiError):
    """No answer of the appliance arrived."""


class NotSent(TransportError):
    """The request never reached the appliance: nothing has changed."""


class TlsError(NotSent):
    """No trusted connection is possible; a retry does not help."""


class OutcomeUnknown(TransportError):
    """The request was sent but its reply was lost: it may have been
    applied."""

    may_have_been_applied = True


class JobUnfinished(OutcomeUnknown):
    """The job ``job_id`` did not end in time, as far as is known."""

    def __init__(
        self, message: str, *, job_id: str, request_id: str | None = None
    ):
        super().__init__(message, request_id=request_id)
        self.job_id = job_id


class ProtocolError(ApiError):
    """The answer does not conform to this API.

    Another service at the address, a proxy's page, or a broken body.
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
    """One invalid field, named by a JSON pointer."""

    pointer: str
    code: str
    detail: str


class ProblemError(ApiError):
    """The appliance answered with a problem (RFC 9457).

    :ivar code: the machine code; ``http.<status>`` if a gateway answered
        without one.
    :ivar status: the HTTP status.
    :ivar detail: one sentence for a human being.
    :ivar retryable: the same request may succeed later. The client has
        retried it already, as long as its deadline allowed.
    :ivar retry_after_seconds: when, as far as the appliance knows.
    :ivar errors: the invalid fields.
    :ivar job_id: the failed job, if there was one.
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
        """A gateway answered, not the appliance."""
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
    """404: ``code`` says what was not found (``share.not_found``, ...)."""


class Conflict(ProblemError):
    """409: the state of the object conflicts with the request."""


class AlreadyExists(Conflict):
    """The id, or the name, is taken by something else."""


class HasSnapshots(Conflict):
    """The share has snapshots, and the delete does not cascade."""


class InUse(Conflict):
    """Access rules, or something else, still use the object."""


class SharesLeft(Conflict):
    """Some shares of a group were not deleted: ``errors`` has each, with the
    pointer ``/shares/ID`` and the code of its problem."""


class ShrinkRefused(Conflict):
    """A share can only grow."""


class WrongState(Conflict):
    """The share or snapshot is in a state that does not allow this."""


class Unsupported(Conflict):
    """The pool does not have the feature; nothing was changed."""


class Degraded(Conflict):
    """The share's volume file was moved or replaced by one of its users."""


class Busy(Conflict):
    """Other operations used the object until the deadline."""


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
    "revert.exists_mismatch": AlreadyExists,
    "group.exists_mismatch": AlreadyExists,
    "group_snapshot.exists_mismatch": AlreadyExists,
    "name.taken": AlreadyExists,
    "share.has_snapshots": HasSnapshots,
    "share.in_use": InUse,
    "snapshot.in_use": InUse,
    "group.shares_left": SharesLeft,
    "share.shrink_refused": ShrinkRefused,
    "share.wrong_state": WrongState,
    "snapshot.wrong_state": WrongState,
    "group.wrong_state": WrongState,
    "group_snapshot.wrong_state": WrongState,
    "share.degraded": Degraded,
    "pool.unsupported": Unsupported,
    "share.busy": Busy,
    "job.in_progress": Busy,
    "job.cancelled": JobFailed,
    "pool.no_space": NoSpace,
    "limit.bytes": LimitReached,
    "limit.shares": LimitReached,
    "limit.snapshots": LimitReached,
    "limit.access_rules": LimitReached,
    "limit.groups": LimitReached,
    "limit.group_shares": LimitReached,
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

#: Statuses that gateways return.
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
    """The error of a gateway's answer, which contains no problem."""
    code = f"http.{status}"
    error = class_for(code, status)(
        f"something on the way to the appliance answered {status}",
        code=code,
        status=status,
        retryable=True,
        request_id=request_id,
    )
    # It may have forwarded the request and timed out.
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
