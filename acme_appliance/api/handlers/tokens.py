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
from acme_appliance.api.requests import ApiRequest
from acme_appliance.api.requests import ApiResponse
from acme_appliance.service import tokens


def create_token(request: ApiRequest) -> ApiResponse:
    credential = request.credential
    assert credential is not None  # noqa: S101 - its security is not empty
    lifetime = request.settings.session_lifetime
    if request.body and "expires_in_seconds" in request.body:
        lifetime = min(
            lifetime,
            datetime.timedelta(seconds=request.body["expires_in_seconds"]),
        )
    secret, session = request.tokens.start_session(credential, lifetime)
    body = {"token": secret, "token_type": "bearer", **_show(session)}
    return ApiResponse(body, 201, {"Cache-Control": "no-store"})


def get_own_token(request: ApiRequest) -> ApiResponse:
    assert request.credential is not None  # noqa: S101 - its security is not empty
    return ApiResponse(
        _show(request.credential), 200, {"Cache-Control": "no-store"}
    )


def delete_own_token(request: ApiRequest) -> ApiResponse:
    credential = request.credential
    assert credential is not None  # noqa: S101 - its security is not empty
    if credential.kind != "session":
        raise problems.Problem(
            "auth.forbidden",
            "This is a long-lived token: revoke it on the appliance with"
            f" acme-appliance token revoke {credential.id}.",
        )
    request.tokens.end_session(credential.id)
    return ApiResponse(None, 204)


def _show(credential: tokens.Credential) -> dict[str, Any]:
    expires_at = credential.expires_at
    return {
        "name": credential.name,
        "scope": credential.scope,
        "namespace": credential.namespace,
        "expires_at": expires_at
        and expires_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
