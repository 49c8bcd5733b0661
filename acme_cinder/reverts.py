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

"""Revert volumes to a snapshot.

A repeated request must not revert again: the volume may have been attached and
written since. The appliance reverts once per id. So the id must be the same if
Cinder repeats a revert, and another one if a user requests a new one.

The id of the API request has this property. Cinder creates one per request of
a user, and passes it to the volume service. It is the same after a lost reply,
if a message is delivered twice, or if a service is killed and gets the message
again. If a user reverts again, to the same snapshot, it is another one.
"""

from __future__ import annotations

from typing import Any
import uuid

from cinder import objects

from acme_cinder import features
from acme_cinder import identity
from acme_cinder import shares
import acme_client

_NAMESPACE = uuid.UUID("5f0c6a0e-3a5b-4d0c-9c62-2d4f8a7e1b93")


def revert(
    volume_shares: shares.Shares,
    context: Any,
    volume: objects.Volume,
    snapshot: objects.Snapshot,
) -> None:
    """Revert a volume to a snapshot.

    :raises NotImplementedError: its pool cannot revert shares. Nothing was
        done, and Cinder copies the snapshot to the volume.
    """
    pools, api = volume_shares.features, volume_shares.api
    if not pools.has(shares.pool_of(volume), features.REVERT):
        raise NotImplementedError(f"the pool has no {features.REVERT}")
    share_id = identity.share_id(volume)
    snapshot_id = identity.snapshot_id(snapshot)
    revert_id = _id_of(context, volume, snapshot)
    try:
        volume_shares.when_unused(
            volume,
            lambda: api.revert_share(share_id, revert_id, snapshot_id),
        )
    except acme_client.Unsupported as error:
        # The appliance was reconfigured since the last check.
        pools.distrust()
        raise NotImplementedError(str(error)) from error


def _id_of(
    context: Any, volume: objects.Volume, snapshot: objects.Snapshot
) -> str:
    """The revert's id; a new one without an API request."""
    request_id = getattr(context, "request_id", None)
    if not request_id:
        return str(uuid.uuid4())
    name = f"{request_id}/{volume.id}/{snapshot.id}"
    return str(uuid.uuid5(_NAMESPACE, name))
