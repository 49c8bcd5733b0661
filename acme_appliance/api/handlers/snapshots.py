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
    return common.page(call, "snapshots", call.service.snapshots.page)


def get_snapshot(call: Call) -> Reply:
    return common.show(
        call.service.snapshots.get(call.caller, call.path["snapshot_id"])
    )


def put_snapshot(call: Call) -> Reply:
    return common.change(call, call.service.snapshots.put, "snapshot_id")


def patch_snapshot(call: Call) -> Reply:
    return common.change(call, call.service.snapshots.patch, "snapshot_id")


def delete_snapshot(call: Call) -> Reply:
    return common.change(call, call.service.snapshots.delete, "snapshot_id")
