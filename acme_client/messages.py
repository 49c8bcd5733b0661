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

"""Builds the requests of this API."""

from collections.abc import Mapping
from typing import Any
import urllib.parse

from acme_client import errors
from acme_client import transport

#: How long a change request waits before it becomes a job.
WRITE_HOLD_SECONDS = 20


def path(*segments: str) -> str:
    """``/v1/...`` with each segment percent-encoded.

    :raises InvalidArgument: a segment is empty, not text, or a dot segment,
        which would name another resource.
    """
    return "/v1/" + "/".join(_encoded(segment) for segment in segments)


def _encoded(segment: str) -> str:
    if segment in ("", ".", ".."):
        raise errors.InvalidArgument(f"{segment!r} is no id or name")
    try:
        return urllib.parse.quote(segment, safe="")
    except (TypeError, UnicodeError) as exc:
        raise errors.InvalidArgument(f"{segment!r} is no text") from exc


def get(
    resource: str, query: Mapping[str, str] | None = None
) -> transport.Request:
    return transport.Request("GET", resource, query=query or {})


def held_get(
    resource: str, wait_seconds: int, **query: str
) -> transport.Request:
    """A long poll: a GET that the appliance may hold until news."""
    return transport.Request(
        "GET",
        resource,
        query=query,
        hold_seconds=wait_seconds,
        hold_by="query",
    )


def change(
    method: str,
    resource: str,
    body: Mapping[str, Any] | None = None,
    *,
    if_match: int | None = None,
    query: Mapping[str, str] | None = None,
) -> transport.Request:
    """A PUT, PATCH, DELETE or cancellation, all of which are repeatable."""
    headers = {} if if_match is None else {"If-Match": f'"{if_match}"'}
    merge = method == "PATCH"
    return transport.Request(
        method,
        resource,
        query=query or {},
        headers=headers,
        body=body,
        media_type=transport.MERGE_PATCH if merge else transport.JSON,
        hold_seconds=WRITE_HOLD_SECONDS,
    )


def without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def label_filters(labels: Mapping[str, str] | None) -> dict[str, str]:
    return {f"label.{key}": value for key, value in (labels or {}).items()}
