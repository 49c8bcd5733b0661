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

"""The table of routes; ``openapi.yaml`` specifies each."""

from collections.abc import Callable
import dataclasses
from typing import Final

from acme_appliance.api.handlers import about
from acme_appliance.api.handlers import access
from acme_appliance.api.handlers import events
from acme_appliance.api.handlers import groups
from acme_appliance.api.handlers import jobs
from acme_appliance.api.handlers import pools
from acme_appliance.api.handlers import shares
from acme_appliance.api.handlers import snapshots
from acme_appliance.api.handlers import tokens
from acme_appliance.api.requests import ApiRequest
from acme_appliance.api.requests import ApiResponse

Handler = Callable[[ApiRequest], ApiResponse]


@dataclasses.dataclass(frozen=True)
class Route:
    """The handler's name is the operationId in the contract."""

    method: str
    path: str
    handler: Handler


_SHARE: Final = "/v1/shares/{share_id}"
_REVERT: Final = "/v1/shares/{share_id}/reverts/{revert_id}"
_ACCESS: Final = "/v1/shares/{share_id}/access/{holder}"
_SNAPSHOT: Final = "/v1/snapshots/{snapshot_id}"
_GROUP: Final = "/v1/groups/{group_id}"
_GROUP_SNAPSHOT: Final = "/v1/group-snapshots/{group_snapshot_id}"
_SNAPSHOT_ACCESS: Final = "/v1/snapshots/{snapshot_id}/access/{holder}"

ROUTES: Final = (
    Route("GET", "/", about.list_versions),
    Route("GET", "/healthz", about.get_liveness),
    Route("GET", "/readyz", about.get_readiness),
    Route("GET", "/v1/openapi.yaml", about.get_openapi),
    Route("GET", "/v1/system", about.get_system),
    Route("GET", "/v1/stats", about.get_stats),
    Route("GET", "/v1/metrics", about.get_metrics),
    Route("GET", "/v1/pools", pools.list_pools),
    Route("GET", "/v1/pools/{pool}", pools.get_pool),
    Route("GET", "/v1/shares", shares.list_shares),
    Route("GET", _SHARE, shares.get_share),
    Route("PUT", _SHARE, shares.put_share),
    Route("PATCH", _SHARE, shares.patch_share),
    Route("DELETE", _SHARE, shares.delete_share),
    Route("PUT", _REVERT, shares.put_revert),
    Route("GET", _ACCESS, access.get_access),
    Route("PUT", _ACCESS, access.put_access),
    Route("DELETE", _ACCESS, access.delete_access),
    Route("GET", "/v1/snapshots", snapshots.list_snapshots),
    Route("GET", _SNAPSHOT, snapshots.get_snapshot),
    Route("PUT", _SNAPSHOT, snapshots.put_snapshot),
    Route("PATCH", _SNAPSHOT, snapshots.patch_snapshot),
    Route("DELETE", _SNAPSHOT, snapshots.delete_snapshot),
    Route("GET", _SNAPSHOT_ACCESS, access.get_snapshot_access),
    Route("PUT", _SNAPSHOT_ACCESS, access.put_snapshot_access),
    Route("DELETE", _SNAPSHOT_ACCESS, access.delete_snapshot_access),
    Route("GET", "/v1/groups", groups.list_groups),
    Route("GET", _GROUP, groups.get_group),
    Route("PUT", _GROUP, groups.put_group),
    Route("PATCH", _GROUP, groups.patch_group),
    Route("DELETE", _GROUP, groups.delete_group),
    Route("GET", "/v1/group-snapshots", groups.list_group_snapshots),
    Route("GET", _GROUP_SNAPSHOT, groups.get_group_snapshot),
    Route("PUT", _GROUP_SNAPSHOT, groups.put_group_snapshot),
    Route("DELETE", _GROUP_SNAPSHOT, groups.delete_group_snapshot),
    Route("GET", "/v1/jobs", jobs.list_jobs),
    Route("GET", "/v1/jobs/{job_id}", jobs.get_job),
    Route("POST", "/v1/jobs/{job_id}/cancel", jobs.cancel_job),
    Route("GET", "/v1/events", events.list_events),
    Route("POST", "/v1/tokens", tokens.create_token),
    Route("GET", "/v1/tokens/self", tokens.get_own_token),
    Route("DELETE", "/v1/tokens/self", tokens.delete_own_token),
)
