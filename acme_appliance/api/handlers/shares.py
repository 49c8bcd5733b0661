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

from acme_appliance.api.calls import Call
from acme_appliance.api.calls import Reply
from acme_appliance.api.handlers import common


def list_shares(call: Call) -> Reply:
    return common.page(call, "shares", call.service.shares.page)


def get_share(call: Call) -> Reply:
    return common.show(
        call.service.shares.get(call.caller, call.path["share_id"])
    )


def put_share(call: Call) -> Reply:
    return common.change(call, call.service.shares.put, "share_id")


def patch_share(call: Call) -> Reply:
    return common.change(call, call.service.shares.patch, "share_id")


def delete_share(call: Call) -> Reply:
    return common.change(
        call,
        call.service.shares.delete,
        "share_id",
        snapshots=call.query["snapshots"],
    )
