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

"""The use cases: what the API and the commands can have done.

One module or folder for each noun. Every use case blocks, is thread-safe,
and raises :class:`acme_appliance.problems.Problem` and nothing else.

Changes may be sent again, after whatever went wrong: they end in the
same state. ``wait_seconds`` bounds the queue and the work together:
past it the queue gives ``share.busy``, and work goes on as a job
(:class:`acme_appliance.types.Accepted`). ``if_match`` is the generation
that the share or snapshot must have, for access rules the share's; None:
any.
"""

from acme_appliance.service.service import Service
from acme_appliance.types import Accepted
from acme_appliance.types import Caller
from acme_appliance.types import Done
from acme_appliance.types import FileDefaults
from acme_appliance.types import Limits
from acme_appliance.types import Page
from acme_appliance.types import Portal
from acme_appliance.types import ServiceSettings

__all__ = (
    "Accepted",
    "Caller",
    "Done",
    "FileDefaults",
    "Limits",
    "Page",
    "Portal",
    "Service",
    "ServiceSettings",
)
