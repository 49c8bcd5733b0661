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

"""Helpers for bodies and preconditions of requests."""

from acme_appliance import problems
from acme_appliance import types


def check_precondition(
    if_match: int | None, generation: int | None, what: str
) -> None:
    """Check a request's ``If-Match``.

    ``generation`` None: the object does not exist.
    :raises problems.Problem: ``precondition.failed``.
    """
    if if_match is None or if_match == generation:
        return
    now = f'is at "{generation}"' if generation else "does not exist"
    raise problems.Problem(
        "precondition.failed",
        f'If-Match is "{if_match}", but the {what} {now}.',
        pointer="/header/If-Match",
    )


def merge_labels(labels: types.Body, patch: types.Body) -> types.Body:
    """Merge-patch labels (RFC 7396): null removes one.

    :raises problems.Problem: ``request.invalid``: too many labels.
    """
    merged = {
        key: value
        for key, value in {**labels, **patch}.items()
        if value is not None
    }
    if len(merged) > types.MAX_LABELS:
        raise problems.Problem(
            "request.invalid",
            f"At most {types.MAX_LABELS} labels are allowed; with these there"
            f" would be {len(merged)}.",
            pointer="/labels",
        )
    return merged


def without_nulls(body: types.Body) -> types.Body:
    """A create's body for comparison, without nulls and empty objects."""
    given = {
        key: without_nulls(value) if isinstance(value, dict) else value
        for key, value in body.items()
    }
    return {
        key: value for key, value in given.items() if value not in (None, {})
    }


def check_fields(body: types.Body, known: frozenset[str]) -> None:
    """:raises problems.Problem: ``request.unknown_field``, with pointers."""
    unknown = sorted(body.keys() - known)
    if unknown:
        raise problems.Problem(
            "request.unknown_field",
            f"Unknown to this appliance: {', '.join(unknown)}.",
            errors=[
                {
                    "pointer": f"/{field}",
                    "code": "request.unknown_field",
                    "detail": "Unknown to this appliance.",
                }
                for field in unknown
            ],
        )
