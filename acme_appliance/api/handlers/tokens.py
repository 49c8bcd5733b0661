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

"""Logging in and out."""

import datetime
from typing import Any

from acme_appliance import problems
from acme_appliance.api.calls import Call
from acme_appliance.api.calls import Reply
from acme_appliance.service import tokens


def create_token(call: Call) -> Reply:
    credential = call.credential
    assert credential is not None  # noqa: S101 - its security is not empty
    lifetime = call.settings.session_lifetime
    if call.body and "expires_in_seconds" in call.body:
        lifetime = min(
            lifetime,
            datetime.timedelta(seconds=call.body["expires_in_seconds"]),
        )
    secret, session = call.tokens.start_session(credential, lifetime)
    body = {"token": secret, "token_type": "bearer", **_show(session)}
    return Reply(body, 201, {"Cache-Control": "no-store"})


def get_own_token(call: Call) -> Reply:
    assert call.credential is not None  # noqa: S101 - its security is not empty
    return Reply(_show(call.credential), 200, {"Cache-Control": "no-store"})


def delete_own_token(call: Call) -> Reply:
    credential = call.credential
    assert credential is not None  # noqa: S101 - its security is not empty
    if credential.kind != "session":
        raise problems.Problem(
            "auth.forbidden",
            "This is a long-lived token: it is revoked on the appliance, by"
            f" acme-appliance token revoke {credential.id}.",
        )
    call.tokens.end_session(credential.id)
    return Reply(None, 204)


def _show(credential: tokens.Credential) -> dict[str, Any]:
    expires_at = credential.expires_at
    return {
        "name": credential.name,
        "scope": credential.scope,
        "namespace": credential.namespace,
        "expires_at": expires_at
        and expires_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
