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

"""Read and validate request bodies."""

from typing import Any

import falcon

from acme_appliance import problems
from acme_appliance.api import contract
from acme_appliance.api import validation


def read(
    operation: contract.Operation, req: falcon.Request, max_bytes: int
) -> Any:
    """The body, checked against the contract; None if there is none.

    :raises Problem: too large, of another media type, not JSON, invalid.
    """
    if operation.body is None:
        return None
    data = _read_bytes(req, max_bytes)
    if not data and not operation.body.required:
        return None
    media_type = (req.content_type or "").partition(";")[0].strip().lower()
    validator = operation.body.validators.get(media_type)
    if validator is None:
        wanted = " or ".join(operation.body.validators)
        raise problems.Problem(
            "request.media_type",
            f"Content-Type must be {wanted}; it is"
            f" {media_type[:100] or 'not given'}.",
            pointer="/header/Content-Type",
        )
    body = validation.parse_json(data)
    validation.check_body(validator, body)
    return body


def _read_bytes(req: falcon.Request, max_bytes: int) -> bytes:
    length = req.content_length
    if length is None and not req.env.get("wsgi.input_terminated"):
        return b""
    if length is not None and length > max_bytes:
        raise _too_large(max_bytes)
    # The server provides the complete body; without a length, read to its end.
    wanted = max_bytes + 1 if length is None else length
    data: bytes = req.env["wsgi.input"].read(wanted)
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    if length is not None and len(data) < length:
        raise problems.Problem(
            "request.bad_json",
            f"The body is incomplete: {len(data)} of {length} bytes.",
        )
    return data


def _too_large(max_bytes: int) -> problems.Problem:
    return problems.Problem(
        "request.too_large", f"A body has at most {max_bytes} bytes."
    )
