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

"""What this is, how it does, and the contract itself."""

from acme_appliance.api import contract
from acme_appliance.api.calls import Call
from acme_appliance.api.calls import Reply
from acme_appliance.api.handlers import common


def list_versions(call: Call) -> Reply:
    return Reply(
        {"versions": [{"id": "v1", "status": "current", "path": "/v1"}]}
    )


def get_liveness(call: Call) -> Reply:
    return Reply({"status": "ok"})


def get_readiness(call: Call) -> Reply:
    reasons = call.service.system.readiness()
    body = {
        "ready": not reasons,
        "reasons": reasons,
        "warnings": call.service.system.export_warnings(),
    }
    if reasons:
        return Reply(body, 503, {"Retry-After": "1"})
    return Reply(body)


def get_openapi(call: Call) -> Reply:
    return common.show_hashed(
        contract.load().text.encode(), "application/yaml"
    )


def get_system(call: Call) -> Reply:
    return Reply(call.service.system.describe(call.caller))


def get_stats(call: Call) -> Reply:
    return common.show_hashed(call.service.system.stats())
