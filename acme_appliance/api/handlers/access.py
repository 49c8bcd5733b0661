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

"""Access rules of shares."""

from acme_appliance.api.calls import Call
from acme_appliance.api.calls import Reply
from acme_appliance.api.handlers import common


def get_access(call: Call) -> Reply:
    return Reply(
        call.service.access.get(
            call.caller, call.path["share_id"], call.path["holder"]
        )
    )


def put_access(call: Call) -> Reply:
    return common.change(call, call.service.access.put, "share_id", "holder")


def delete_access(call: Call) -> Reply:
    return common.change(
        call, call.service.access.delete, "share_id", "holder"
    )
