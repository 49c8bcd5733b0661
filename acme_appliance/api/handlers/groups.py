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

"""Groups and group snapshots."""

from acme_appliance.api.handlers import common
from acme_appliance.api.requests import ApiRequest
from acme_appliance.api.requests import ApiResponse


def list_groups(request: ApiRequest) -> ApiResponse:
    return common.page(request, "groups", request.service.groups.page)


def get_group(request: ApiRequest) -> ApiResponse:
    return common.show(
        request.service.groups.get(request.caller, request.path["group_id"])
    )


def put_group(request: ApiRequest) -> ApiResponse:
    return common.change(request, request.service.groups.put, "group_id")


def patch_group(request: ApiRequest) -> ApiResponse:
    return common.change(request, request.service.groups.patch, "group_id")


def delete_group(request: ApiRequest) -> ApiResponse:
    return common.change(
        request,
        request.service.groups.delete,
        "group_id",
        shares=request.query["shares"],
        snapshots=request.query["snapshots"],
    )


def list_group_snapshots(request: ApiRequest) -> ApiResponse:
    return common.page(
        request, "group_snapshots", request.service.group_snapshots.page
    )


def get_group_snapshot(request: ApiRequest) -> ApiResponse:
    return common.show(
        request.service.group_snapshots.get(
            request.caller, request.path["group_snapshot_id"]
        )
    )


def put_group_snapshot(request: ApiRequest) -> ApiResponse:
    return common.change(
        request, request.service.group_snapshots.put, "group_snapshot_id"
    )


def delete_group_snapshot(request: ApiRequest) -> ApiResponse:
    return common.change(
        request, request.service.group_snapshots.delete, "group_snapshot_id"
    )
