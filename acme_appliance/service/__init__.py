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

"""The use cases of the API and the commands.

One module or folder per noun. Every use case blocks, is thread-safe, and
raises only :class:`acme_appliance.problems.Problem`.

Changes can be repeated after any error and end in the same state.
``wait_seconds`` limits the queue and the work together: a change that is
still queued then fails with ``share.busy``, and one that has begun continues
as a job (:class:`acme_appliance.types.Accepted`). ``if_match`` is the
generation that the share or snapshot must have, for access rules the share's;
None: any.
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
