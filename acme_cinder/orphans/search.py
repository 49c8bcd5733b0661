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

"""Find all orphans of a back end."""

from __future__ import annotations

from collections.abc import Iterator

from acme_cinder import recognition
from acme_cinder.orphans import lost
from acme_cinder.orphans import mounts
from acme_cinder.orphans import orphan
from acme_cinder.orphans import rules
from acme_cinder.orphans import shares
from acme_cinder.orphans import snapshots


class Foreign(Exception):
    """The appliance is not the one with Cinder's volumes."""


def find(
    scene: orphan.Scene, known: recognition.Recognition
) -> Iterator[orphan.Orphan]:
    """Everything that is found, snapshots before their shares.

    :raises Foreign: nothing can be said about what is missing where.
    :raises ApiError, DBError: from the appliance and from the database.
    """
    listed = list(scene.api.list_shares())
    listed_snapshots = list(scene.api.list_snapshots())
    share_ids = {each.id for each in listed}
    if known.is_foreign(listing=share_ids):
        raise Foreign(recognition.FOREIGN)
    # After the lists: what was made in between is known by then.
    claims = orphan.Claims.read()
    yield from mounts.find(scene)
    by_rules = rules.Rules(scene)
    yield from by_rules.find_of_snapshots(listed_snapshots, claims)
    yield from by_rules.find(listed, claims)
    yield from snapshots.Snapshots(scene).find(listed_snapshots, claims)
    yield from shares.Shares(scene).find(listed, claims)
    missing = lost.Lost(scene)
    yield from missing.find(share_ids, {each.id for each in listed_snapshots})
    yield from missing.find_forgotten()
