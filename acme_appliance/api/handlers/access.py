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

"""Access rules of shares and of snapshots."""

from acme_appliance.api.handlers import common
from acme_appliance.api.requests import ApiRequest
from acme_appliance.api.requests import ApiResponse


def get_access(request: ApiRequest) -> ApiResponse:
    return ApiResponse(
        request.service.access.get(
            request.caller, request.path["share_id"], request.path["holder"]
        )
    )


def put_access(request: ApiRequest) -> ApiResponse:
    return common.change(
        request, request.service.access.put, "share_id", "holder"
    )


def delete_access(request: ApiRequest) -> ApiResponse:
    return common.change(
        request, request.service.access.delete, "share_id", "holder"
    )


def get_snapshot_access(request: ApiRequest) -> ApiResponse:
    return ApiResponse(
        request.service.snapshot_access.get(
            request.caller, request.path["snapshot_id"], request.path["holder"]
        )
    )


def put_snapshot_access(request: ApiRequest) -> ApiResponse:
    return common.change(
        request, request.service.snapshot_access.put, "snapshot_id", "holder"
    )


def delete_snapshot_access(request: ApiRequest) -> ApiResponse:
    return common.change(
        request,
        request.service.snapshot_access.delete,
        "snapshot_id",
        "holder",
    )
