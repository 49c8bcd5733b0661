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

"""Versions, health, statistics, and the contract itself."""

from acme_appliance import metrics
from acme_appliance.api import contract
from acme_appliance.api.handlers import common
from acme_appliance.api.requests import ApiRequest
from acme_appliance.api.requests import ApiResponse


def list_versions(request: ApiRequest) -> ApiResponse:
    return ApiResponse(
        {"versions": [{"id": "v1", "status": "current", "path": "/v1"}]}
    )


def get_liveness(request: ApiRequest) -> ApiResponse:
    return ApiResponse({"status": "ok"})


def get_readiness(request: ApiRequest) -> ApiResponse:
    reasons = request.service.system.readiness()
    body = {
        "ready": not reasons,
        "reasons": reasons,
        "warnings": request.service.warnings(),
    }
    if reasons:
        return ApiResponse(body, 503, {"Retry-After": "1"})
    return ApiResponse(body)


def get_openapi(request: ApiRequest) -> ApiResponse:
    return common.show_hashed(
        contract.load().text.encode(), "application/yaml"
    )


def get_system(request: ApiRequest) -> ApiResponse:
    return ApiResponse(request.service.system.describe(request.caller))


def get_stats(request: ApiRequest) -> ApiResponse:
    return common.show_hashed(request.service.system.stats())


def get_metrics(request: ApiRequest) -> ApiResponse:
    return ApiResponse(
        request.service.context.metrics.exposition(),
        media_type=metrics.MEDIA_TYPE,
    )
