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

"""Problem codes, and the exception that carries them.

Clients decide by ``code``, never by text. So a released code never changes its
name, HTTP status or meaning; new codes can be added. ``openapi.yaml`` lists
the same codes, and a test compares them.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
from typing import Any
from typing import Final

#: Prefix of a problem's ``type``: RFC 9457 requires a URI.
TYPE_PREFIX: Final = "urn:acme-appliance:problem:"


@dataclasses.dataclass(frozen=True)
class Code:
    """One row of the table.

    ``retryable``: the same request may succeed later, unchanged.
    """

    code: str
    http: int
    title: str
    retryable: bool = False


_TABLE: Final = (
    Code("request.invalid", 400, "The request is not valid"),
    Code("request.unknown_field", 400, "The request has an unknown field"),
    Code("request.bad_json", 400, "The request body is not valid JSON"),
    Code("auth.invalid", 401, "The credential is not valid"),
    Code("auth.expired", 401, "The credential has expired"),
    Code("auth.forbidden", 403, "The credential does not allow this"),
    Code("route.not_found", 404, "There is nothing at this path"),
    Code("share.not_found", 404, "The share does not exist"),
    Code("snapshot.not_found", 404, "The snapshot does not exist"),
    Code("group.not_found", 404, "The group does not exist"),
    Code("group_snapshot.not_found", 404, "The group snapshot does not exist"),
    Code("pool.not_found", 404, "The pool does not exist"),
    Code("access.not_found", 404, "The access rule does not exist"),
    Code("job.not_found", 404, "The job does not exist"),
    Code("route.method_not_allowed", 405, "The path has no such method"),
    Code("share.exists_mismatch", 409, "The id is taken by another share"),
    Code(
        "snapshot.exists_mismatch", 409, "The id is taken by another snapshot"
    ),
    Code("revert.exists_mismatch", 409, "The id is taken by another revert"),
    Code("group.exists_mismatch", 409, "The id is taken by another group"),
    Code(
        "group_snapshot.exists_mismatch",
        409,
        "The id is taken by another group snapshot",
    ),
    Code("share.has_snapshots", 409, "The share has snapshots"),
    Code("share.in_use", 409, "The share has access rules"),
    Code("snapshot.in_use", 409, "The snapshot has access rules"),
    Code("share.in_group", 409, "The share is in another group, or in none"),
    Code("group.other_pool", 409, "The shares of a group are in one pool"),
    Code("group.shares_left", 409, "Shares of the group were not deleted"),
    Code("share.shrink_refused", 409, "A share cannot be made smaller"),
    Code("share.wrong_state", 409, "The share's state does not allow this"),
    Code(
        "snapshot.wrong_state",
        409,
        "The snapshot's state does not allow this",
    ),
    Code("group.wrong_state", 409, "The group's state does not allow this"),
    Code(
        "group_snapshot.wrong_state",
        409,
        "The group snapshot's state does not allow this",
    ),
    Code("share.degraded", 409, "The share's volume file was tampered with"),
    Code("pool.unsupported", 409, "The pool does not have this feature"),
    Code("job.not_cancellable", 409, "The job can no longer be cancelled"),
    Code("job.cancelled", 409, "The job was cancelled"),
    Code("job.unreadable", 409, "An open job cannot be read"),
    Code("share.busy", 409, "Another operation uses the share", True),
    Code("precondition.failed", 412, "If-Match does not match"),
    Code("request.too_large", 413, "The request body is too large"),
    Code("request.media_type", 415, "The media type is not supported"),
    Code("rate.limited", 429, "Too many requests", True),
    Code("internal", 500, "The appliance failed"),
    Code("system.starting", 503, "The appliance is starting", True),
    Code("system.readonly", 503, "The appliance is read-only", True),
    Code("engine.unavailable", 503, "The storage is not available", True),
    Code("moment.unavailable", 503, "There is no common moment now", True),
    Code("pool.no_space", 507, "The pool is full"),
    Code("limit.bytes", 507, "The size limit is reached"),
    Code("limit.shares", 507, "The maximum number of shares is reached"),
    Code("limit.snapshots", 507, "The maximum number of snapshots is reached"),
    Code(
        "limit.access_rules",
        507,
        "The maximum number of access rules is reached",
    ),
    Code("limit.groups", 507, "The maximum number of groups is reached"),
    Code(
        "limit.group_shares",
        507,
        "The maximum number of shares in a group is reached",
    ),
)

CODES: Final[Mapping[str, Code]] = {row.code: row for row in _TABLE}


class Problem(Exception):
    """The error response to a request.

    :param code: a code of the table.
    :param detail: one sentence for people: names the object and the solution.
    :param pointer: JSON pointer of the invalid field, if there is only one: in
        the body, or ``/query/NAME``, ``/path/NAME``, ``/header/NAME``.
    :param errors: for several fields: dicts of pointer, code and detail.
    :param retry_after_seconds: also sent as ``Retry-After``.
    :raises KeyError: the code is unknown.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        pointer: str | None = None,
        errors: Iterable[Mapping[str, str]] = (),
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.row = CODES[code]
        self.detail = detail
        self.errors = [dict(error) for error in errors]
        if pointer is not None and not self.errors:
            self.errors.append(
                {"pointer": pointer, "code": code, "detail": detail}
            )
        if retry_after_seconds is None and self.row.retryable:
            retry_after_seconds = 1
        self.retry_after_seconds = retry_after_seconds

    @property
    def code(self) -> str:
        return self.row.code

    @property
    def http_status(self) -> int:
        return self.row.http

    def to_dict(
        self, *, request_id: str | None = None, instance: str | None = None
    ) -> dict[str, Any]:
        """The body, in RFC 9457's format. Failed jobs store it too."""
        return {
            "type": TYPE_PREFIX + self.code,
            "code": self.code,
            "title": self.row.title,
            "status": self.http_status,
            "detail": self.detail,
            "instance": instance,
            "request_id": request_id,
            "retryable": self.row.retryable,
            "retry_after_seconds": self.retry_after_seconds,
            "errors": self.errors,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> "Problem":
        """The inverse of ``to_dict``."""
        return cls(
            body["code"],
            body["detail"],
            errors=body.get("errors", ()),
            retry_after_seconds=body.get("retry_after_seconds"),
        )
