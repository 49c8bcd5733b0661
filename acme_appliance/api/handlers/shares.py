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

"""Shares."""

from acme_appliance.api.handlers import common
from acme_appliance.api.requests import ApiRequest
from acme_appliance.api.requests import ApiResponse


def list_shares(request: ApiRequest) -> ApiResponse:
    return common.page(request, "shares", request.service.shares.page)


def get_share(request: ApiRequest) -> ApiResponse:
    return common.show(
        request.service.shares.get(request.caller, request.path["share_id"])
    )


def put_share(request: ApiRequest) -> ApiResponse:
    return common.change(request, request.service.shares.put, "share_id")


def patch_share(request: ApiRequest) -> ApiResponse:
    return common.change(request, request.service.shares.patch, "share_id")


def delete_share(request: ApiRequest) -> ApiResponse:
    return common.change(
        request,
        request.service.shares.delete,
        "share_id",
        snapshots=request.query["snapshots"],
    )


def put_revert(request: ApiRequest) -> ApiResponse:
    return common.change(
        request, request.service.reverts.put, "share_id", "revert_id"
    )
