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

"""Request ids, and a log line for every change and error."""

import logging
import re
import time
from typing import Any
from typing import Final
import uuid

import falcon

from acme_appliance.metrics import Metrics

LOG = logging.getLogger("acme_appliance.api.request")

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SECRET: Final = re.compile(r"acme_[A-Za-z0-9_-]{43}")


class RequestLog:
    """Sets the request id, and times and logs the request.

    :param metrics: also records the times.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def process_request(
        self, req: falcon.Request, resp: falcon.Response
    ) -> None:
        given = req.get_header("X-Request-Id") or ""
        if not _REQUEST_ID.fullmatch(given):
            given = f"req-{uuid.uuid4()}"
        req.context.request_id = given
        req.context.actor = "-"
        req.context.operation = "none"
        req.context.started = time.perf_counter()
        resp.set_header("X-Request-Id", given)

    def process_response(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        resource: object,
        req_succeeded: bool,
    ) -> None:
        status = falcon.http_status_to_code(resp.status)
        seconds = time.perf_counter() - req.context.started
        self._metrics.request(req.context.operation, status, seconds)
        quiet = req.method in ("GET", "HEAD") and status < 400
        LOG.log(
            logging.DEBUG if quiet else logging.INFO,
            "[%s] %s %s by %s from %s: %d in %.1f ms",
            req.context.request_id,
            req.method[:16],
            # A path may contain control characters.
            repr(req.path[:512]),
            req.context.actor,
            req.remote_addr,
            status,
            seconds * 1000,
        )


class MaskSecrets(logging.Filter):
    """Masks tokens in all log messages, as a last defence."""

    def filter(self, record: logging.LogRecord) -> bool:
        message: Any = record.getMessage()
        if "acme_" in message:
            masked = _SECRET.sub("acme_***", message)
            if masked != message:
                record.msg, record.args = masked, ()
        return True
