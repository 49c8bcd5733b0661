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

"""Helpers for handlers."""

from collections.abc import Callable
import hashlib
import time
from typing import Any
from typing import Final
import urllib.parse

from acme_appliance import types
from acme_appliance.api.requests import ApiRequest
from acme_appliance.api.requests import ApiResponse
from acme_appliance.api.requests import to_json

#: How often a long poll checks whether the server stops.
_SLICE_SECONDS: Final = 1.0


def show(body: dict[str, Any], status: int = 200) -> ApiResponse:
    """The reply with one resource; its generation, if any, is the ETag."""
    reply = ApiResponse(body, status)
    if "generation" in body:
        reply.headers["ETag"] = f'"{body["generation"]}"'
    return reply


def show_hashed(
    body: Any, media_type: str = "application/json"
) -> ApiResponse:
    """The reply with a resource without a generation; the ETag is a hash."""
    data = body if isinstance(body, bytes) else to_json(body)
    digest = hashlib.sha256(data).hexdigest()[:32]
    return ApiResponse(data, 200, {"ETag": f'"{digest}"'}, media_type)


def change(
    request: ApiRequest,
    use_case: Callable[..., types.Done | types.Accepted],
    *names: str,
    **arguments: Any,
) -> ApiResponse:
    """Put, patch or delete a resource.

    :param names: the path parameters that identify it.
    """
    given = [request.path[name] for name in names]
    if request.body is not None:
        given.append(request.body)
    return _changed(
        use_case(
            request.caller,
            *given,
            wait_seconds=request.wait_seconds,
            if_match=request.if_match,
            **arguments,
        )
    )


def _changed(outcome: types.Done | types.Accepted) -> ApiResponse:
    """The reply to a change: done, absent, or still in progress."""
    if isinstance(outcome, types.Accepted):
        return ApiResponse(
            outcome.job,
            202,
            {"Location": f"/v1/jobs/{outcome.job['id']}", "Retry-After": "1"},
        )
    if outcome.body is None:
        return ApiResponse(
            None, 204, {"Was-Absent": "true"} if outcome.absent else {}
        )
    return show(outcome.body, 201 if outcome.created else 200)


def page(
    request: ApiRequest, name: str, use_case: Callable[..., types.Page]
) -> ApiResponse:
    """One page of a list, with a link to the next page."""
    part = use_case(
        request.caller,
        _filters(request),
        request.query["limit"],
        request.query.get("marker"),
    )
    reply = ApiResponse({name: part.items, "next_marker": part.next_marker})
    if part.next_marker is not None:
        query = {k: v for k, v in request.query.items() if k != "labels"}
        query |= request.query.get("labels", {})
        query["marker"] = part.next_marker
        link = f"{request.url}?{urllib.parse.urlencode(query)}"
        reply.headers["Link"] = f'<{link}>; rel="next"'
    return reply


def poll(
    request: ApiRequest,
    ask: Callable[[float], dict[str, Any]],
    is_news: Callable[[dict[str, Any]], bool],
) -> dict[str, Any]:
    """Long-poll for the query's ``wait`` seconds, or until the server stops.

    :param ask: returns the service's answer within so many seconds.
    """
    end = time.monotonic() + request.query["wait"]
    while True:
        left = max(0.0, end - time.monotonic())
        answer = ask(min(left, _SLICE_SECONDS))
        if is_news(answer) or request.is_stopping() or left <= _SLICE_SECONDS:
            return answer


def _filters(request: ApiRequest) -> dict[str, Any]:
    """The query's filters; ``labels`` as a dict without key prefixes."""
    chosen = {
        name: value
        for name, value in request.query.items()
        if name not in ("limit", "marker", "labels")
    }
    if labels := request.query.get("labels"):
        chosen["labels"] = {
            key.removeprefix("label."): value for key, value in labels.items()
        }
    return chosen
