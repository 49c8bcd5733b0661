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

"""The event log."""

from typing import Any

from acme_appliance.api.handlers import common
from acme_appliance.api.requests import ApiRequest
from acme_appliance.api.requests import ApiResponse


def list_events(request: ApiRequest) -> ApiResponse:
    def ask(seconds: float) -> dict[str, Any]:
        return request.service.events.read(
            request.caller,
            request.query["after"],
            seconds,
            request.query["limit"],
        )

    return ApiResponse(
        common.poll(request, ask, lambda found: bool(found["events"]))
    )
