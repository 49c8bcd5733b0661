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

from acme_appliance.api.calls import Call
from acme_appliance.api.calls import Reply
from acme_appliance.api.handlers import common


def list_snapshots(call: Call) -> Reply:
    part = call.service.list_snapshots(
        call.caller,
        common.filters(call),
        call.query["limit"],
        call.query.get("marker"),
    )
    return common.page(call, "snapshots", part)


def get_snapshot(call: Call) -> Reply:
    return common.show(
        call.service.get_snapshot(call.caller, call.path["snapshot_id"])
    )


def put_snapshot(call: Call) -> Reply:
    return common.changed(
        call.service.put_snapshot(
            call.caller,
            call.path["snapshot_id"],
            call.body,
            wait_seconds=call.wait_seconds,
            if_match=call.if_match,
        )
    )


def patch_snapshot(call: Call) -> Reply:
    return common.changed(
        call.service.patch_snapshot(
            call.caller,
            call.path["snapshot_id"],
            call.body,
            wait_seconds=call.wait_seconds,
            if_match=call.if_match,
        )
    )


def delete_snapshot(call: Call) -> Reply:
    return common.changed(
        call.service.delete_snapshot(
            call.caller,
            call.path["snapshot_id"],
            wait_seconds=call.wait_seconds,
            if_match=call.if_match,
        )
    )
