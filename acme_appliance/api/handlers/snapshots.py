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

"""Snapshots."""

from acme_appliance.api.handlers import common
from acme_appliance.api.requests import ApiRequest
from acme_appliance.api.requests import ApiResponse


def list_snapshots(request: ApiRequest) -> ApiResponse:
    return common.page(request, "snapshots", request.service.snapshots.page)


def get_snapshot(request: ApiRequest) -> ApiResponse:
    return common.show(
        request.service.snapshots.get(
            request.caller, request.path["snapshot_id"]
        )
    )


def put_snapshot(request: ApiRequest) -> ApiResponse:
    return common.change(request, request.service.snapshots.put, "snapshot_id")


def patch_snapshot(request: ApiRequest) -> ApiResponse:
    return common.change(
        request, request.service.snapshots.patch, "snapshot_id"
    )


def delete_snapshot(request: ApiRequest) -> ApiResponse:
    return common.change(
        request, request.service.snapshots.delete, "snapshot_id"
    )
