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

"""Map exceptions of lower layers to problems for clients."""

import logging

from sqlalchemy import exc

from acme_appliance import moments
from acme_appliance import problems
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters

LOG = logging.getLogger(__name__)

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (engines.NoSpace, "pool.no_space"),
    (engines.TooLarge, "request.invalid"),
    (engines.FileChanged, "share.degraded"),
    (moments.Unattainable, "pool.unsupported"),
    (moments.MomentError, "moment.unavailable"),
    (engines.EngineError, "engine.unavailable"),
    (exporters.ExporterError, "engine.unavailable"),
    (OSError, "engine.unavailable"),
    # The database is full, read-only or gone.
    (exc.OperationalError, "system.readonly"),
    # No database connection is free.
    (exc.TimeoutError, "system.readonly"),
)


def to_problem(error: Exception) -> problems.Problem:
    """The problem for an error; logs unexpected ones."""
    if isinstance(error, problems.Problem):
        return error
    for kind, code in _CODES:
        if isinstance(error, kind):
            LOG.warning("%s: %s", code, error)
            return problems.Problem(code, _sentence(error))
    LOG.error("Unexpected failure", exc_info=error)
    return problems.Problem(
        "internal", "See the appliance's log for the request id."
    )


def _sentence(error: Exception) -> str:
    if isinstance(error, exc.OperationalError | exc.TimeoutError):
        return "The appliance's database cannot be used."
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
