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

"""What several resources' handlers have in common."""

from collections.abc import Callable
import hashlib
import time
from typing import Any
from typing import Final
import urllib.parse

from acme_appliance import types
from acme_appliance.api.calls import Call
from acme_appliance.api.calls import Reply
from acme_appliance.api.calls import to_json

#: How late a long poll notices that the server stops.
_SLICE_SECONDS: Final = 1.0


def show(body: dict[str, Any], status: int = 200) -> Reply:
    """One thing, whose ETag is its generation where it has one."""
    reply = Reply(body, status)
    if "generation" in body:
        reply.headers["ETag"] = f'"{body["generation"]}"'
    return reply


def show_hashed(body: Any, media_type: str = "application/json") -> Reply:
    """One thing without a generation: its ETag is its hash."""
    data = body if isinstance(body, bytes) else to_json(body)
    digest = hashlib.sha256(data).hexdigest()[:32]
    return Reply(data, 200, {"ETag": f'"{digest}"'}, media_type)


def change(
    call: Call,
    use_case: Callable[..., types.Done | types.Accepted],
    *names: str,
    **arguments: Any,
) -> Reply:
    """Have something put, patched or deleted.

    :param names: the parameters of the path that say what.
    """
    given = [call.path[name] for name in names]
    if call.body is not None:
        given.append(call.body)
    return _changed(
        use_case(
            call.caller,
            *given,
            wait_seconds=call.wait_seconds,
            if_match=call.if_match,
            **arguments,
        )
    )


def _changed(outcome: types.Done | types.Accepted) -> Reply:
    """The reply to a change: done, gone, or still being made."""
    if isinstance(outcome, types.Accepted):
        return Reply(
            outcome.job,
            202,
            {"Location": f"/v1/jobs/{outcome.job['id']}", "Retry-After": "1"},
        )
    if outcome.body is None:
        return Reply(
            None, 204, {"Was-Absent": "true"} if outcome.absent else {}
        )
    return show(outcome.body, 201 if outcome.created else 200)


def page(call: Call, name: str, use_case: Callable[..., types.Page]) -> Reply:
    """A part of a list, and where the next one is."""
    part = use_case(
        call.caller,
        _filters(call),
        call.query["limit"],
        call.query.get("marker"),
    )
    reply = Reply({name: part.items, "next_marker": part.next_marker})
    if part.next_marker is not None:
        query = {k: v for k, v in call.query.items() if k != "labels"}
        query |= call.query.get("labels", {})
        query["marker"] = part.next_marker
        link = f"{call.url}?{urllib.parse.urlencode(query)}"
        reply.headers["Link"] = f'<{link}>; rel="next"'
    return reply


def poll(
    call: Call,
    ask: Callable[[float], dict[str, Any]],
    is_news: Callable[[dict[str, Any]], bool],
) -> dict[str, Any]:
    """A long poll of the query's ``wait``, cut short by a stop.

    :param ask: the service's answer, after at most so many seconds.
    """
    end = time.monotonic() + call.query["wait"]
    while True:
        left = max(0.0, end - time.monotonic())
        answer = ask(min(left, _SLICE_SECONDS))
        if is_news(answer) or call.is_stopping() or left <= _SLICE_SECONDS:
            return answer


def _filters(call: Call) -> dict[str, Any]:
    """The query's filters; ``labels`` as a dict of the plain keys."""
    chosen = {
        name: value
        for name, value in call.query.items()
        if name not in ("limit", "marker", "labels")
    }
    if labels := call.query.get("labels"):
        chosen["labels"] = {
            key.removeprefix("label."): value for key, value in labels.items()
        }
    return chosen
