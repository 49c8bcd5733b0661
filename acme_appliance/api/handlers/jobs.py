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

"""Jobs."""

from typing import Any

from acme_appliance.api.handlers import common
from acme_appliance.api.requests import ApiRequest
from acme_appliance.api.requests import ApiResponse


def list_jobs(request: ApiRequest) -> ApiResponse:
    return common.page(request, "jobs", request.service.jobs.page)


def get_job(request: ApiRequest) -> ApiResponse:
    def ask(seconds: float) -> dict[str, Any]:
        return request.service.jobs.get(
            request.caller, request.path["job_id"], seconds
        )

    return ApiResponse(
        common.poll(request, ask, lambda job: job["finished_at"] is not None)
    )


def cancel_job(request: ApiRequest) -> ApiResponse:
    return ApiResponse(
        request.service.jobs.cancel(request.caller, request.path["job_id"])
    )
