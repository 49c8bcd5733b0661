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

"""The features of the appliance's pools."""

from collections.abc import Callable
import time
from typing import Final

import acme_client

VOLUME_FILE: Final = "share.volume_file"
GROW_ONLINE: Final = "share.grow_online"
THICK: Final = "share.thick"
SNAPSHOT_EXPORT: Final = "snapshot.export"
REVERT: Final = "share.revert"
MOVE_POOL: Final = "share.move_pool"
#: For Cinder's consistent groups, a pool needs both.
CONSISTENT_GROUPS: Final = frozenset(
    {"share.group", "group.snapshot_crash_consistent"}
)
#: How long to believe what a pool can do; also refreshed by the stats.
_FEATURES_SECONDS = 300.0


class PoolFeatures:
    """The features of each pool; only a cache."""

    def __init__(
        self,
        api: acme_client.Client,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._clock = clock
        self._by_pool: dict[str, frozenset[str]] = {}
        self._system_id: str | None = None
        self._learnt_at = -_FEATURES_SECONDS

    def learn(self, found: acme_client.Stats) -> None:
        self._by_pool = {pool.name: pool.features for pool in found.pools}
        self._system_id = found.system_id
        self._learnt_at = self._clock()

    def system_id(self) -> str:
        """The id of the appliance."""
        if self._system_id is None:
            self.learn(self._api.get_stats())
        return str(self._system_id)

    def has(self, pool: str | None, feature: str) -> bool:
        """Whether a pool has a feature; without a name: whether all have
        it."""
        stale = self._clock() - self._learnt_at >= _FEATURES_SECONDS
        if stale or (pool is not None and pool not in self._by_pool):
            self.learn(self._api.get_stats())
        if pool is not None and pool in self._by_pool:
            return feature in self._by_pool[pool]
        return bool(self._by_pool) and all(
            feature in features for features in self._by_pool.values()
        )

    def is_anywhere(self, feature: str) -> bool:
        """Whether any known pool has a feature."""
        return any(feature in features for features in self._by_pool.values())

    def distrust(self) -> None:
        """Refresh the cache before the next answer."""
        self._learnt_at = self._clock() - _FEATURES_SECONDS
