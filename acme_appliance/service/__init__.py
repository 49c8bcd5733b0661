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

"""The use cases: what the API and the commands can have done."""

from acme_appliance.service.facade import Service
from acme_appliance.service.types import Accepted
from acme_appliance.service.types import Caller
from acme_appliance.service.types import Done
from acme_appliance.service.types import FileDefaults
from acme_appliance.service.types import Limits
from acme_appliance.service.types import Page
from acme_appliance.service.types import Portal
from acme_appliance.service.types import Settings

__all__ = (
    "Accepted",
    "Caller",
    "Done",
    "FileDefaults",
    "Limits",
    "Page",
    "Portal",
    "Service",
    "Settings",
)
