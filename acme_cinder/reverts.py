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

"""Volumes get the content of a snapshot again.

A revert that is sent again must not be made again: the volume may have been
attached and written to since. The appliance makes one for each id, so the
id has to be the same whenever Cinder means the same revert, and another one
whenever a user asks anew.

That is what the id of the API request is. Cinder makes one for each request
of a user, and hands it on to the volume service. A reply that is lost, a
message that is delivered twice, or a service that is killed and gets the
message again, all have the same one. A user who reverts once more, to the
same snapshot, has another.
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
    """Give a volume the content of its snapshot again.

    :raises NotImplementedError: its pool reverts no shares. Nothing was
        done, and Cinder copies the snapshot into the volume.
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
        # The appliance was set up anew since we asked.
        pools.distrust()
        raise NotImplementedError(str(error)) from error


def _id_of(
    context: Any, volume: objects.Volume, snapshot: objects.Snapshot
) -> str:
    """The revert's id; without an API request one that is used once."""
    request_id = getattr(context, "request_id", None)
    if not request_id:
        return str(uuid.uuid4())
    name = f"{request_id}/{volume.id}/{snapshot.id}"
    return str(uuid.uuid5(_NAMESPACE, name))
