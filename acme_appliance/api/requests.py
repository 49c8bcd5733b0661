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

"""Input and output of handlers."""

from collections.abc import Callable
import dataclasses
import datetime
import json
from typing import Any
from typing import TYPE_CHECKING

from acme_appliance import types

if TYPE_CHECKING:
    from acme_appliance.service import Service
    from acme_appliance.service.tokens import Credential
    from acme_appliance.service.tokens import TokenStore


@dataclasses.dataclass(frozen=True)
class ApiSettings:
    """Limits of the API.

    ``changes`` and ``long_polls`` are numbers of threads; together they must
    leave some for reads, which never wait.
    """

    max_body_bytes: int = 65_536
    default_wait_seconds: int = 20
    max_wait_seconds: int = 60
    changes: int = 200
    long_polls: int = 80
    session_lifetime: datetime.timedelta = datetime.timedelta(hours=1)
    max_failed_logins: int = 20
    failed_login_window_seconds: int = 60


@dataclasses.dataclass
class ApiRequest:
    """One valid, authorised request.

    ``path``, ``query`` and ``body`` contain only what the contract allows.
    ``credential`` is None if the operation needs none. ``url`` is the path
    as the client sent it.
    """

    service: "Service"
    tokens: "TokenStore"
    settings: ApiSettings
    caller: types.Caller
    credential: "Credential | None"
    url: str
    path: dict[str, str]
    query: dict[str, Any]
    body: Any
    #: The generation of an ETag.
    if_match: int | None
    #: How long to wait for a change.
    wait_seconds: int
    #: Whether the server is stopping; end all waits then.
    is_stopping: Callable[[], bool]


@dataclasses.dataclass
class ApiResponse:
    """``body``: bytes are sent unchanged, anything else as JSON."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    media_type: str = "application/json"

    def data(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return to_json(self.body)


def to_json(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
