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

"""Pools, and their figures for a scheduler."""

from collections.abc import Mapping
import dataclasses

import sqlalchemy as sa

from acme_appliance import problems
from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes.context import Context
from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.storage import watch

#: By the pool's name.
Sightings = Mapping[str, watch.PoolStatus]


@dataclasses.dataclass(frozen=True)
class _Content:
    """The contents of a pool according to the database."""

    provisioned_bytes: int = 0
    share_count: int = 0
    snapshot_count: int = 0


class PoolFigures:
    """The use cases of pools; see :mod:`acme_appliance.service`."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def all(self, sightings: Sightings | None = None) -> list[types.Body]:
        """:param sightings: default: check the pools now."""
        if sightings is None:
            sightings = self.context.pools.look()
        content = self._content()
        return [
            self._body(name, sighting, content.get(name, _Content()))
            for name, sighting in sightings.items()
        ]

    def get(self, name: str) -> types.Body:
        """``pool.not_found``."""
        if name not in self.context.pools:
            raise problems.Problem(
                "pool.not_found", f"There is no pool {name}."
            )
        each = self.context.pools.watches[name]
        sighting = each.finish_look(each.start_look())
        content = self._content().get(name, _Content())
        return self._body(name, sighting, content)

    def _body(
        self, name: str, sighting: watch.PoolStatus, content: _Content
    ) -> types.Body:
        # Without free space the scheduler does not choose the pool.
        usage = sighting.usage or engines.Usage(0, 0, 0)
        # Only old figures have a time: an unchanged reply must keep its ETag.
        observed_at = None if sighting.answers else sighting.observed_at
        return {
            "name": name,
            "state": _state(sighting),
            "observed_at": views.maybe_time(observed_at),
            "engine": self.context.pools[name].name,
            "total_bytes": usage.total_bytes,
            "free_bytes": usage.free_bytes,
            "used_bytes": usage.used_bytes,
            "provisioned_bytes": content.provisioned_bytes,
            "share_count": content.share_count,
            "snapshot_count": content.snapshot_count,
            "features": self.context.pools.features(name),
        }

    def _content(self) -> dict[str, _Content]:
        share, snapshot = models.Share, models.Snapshot
        shares = sa.select(
            share.pool, sa.func.sum(share.size_bytes), sa.func.count()
        ).group_by(share.pool)
        snapshots = sa.select(snapshot.pool, sa.func.count()).group_by(
            snapshot.pool
        )
        with self.context.database.read() as session:
            counts = {
                name: count for name, count in session.execute(snapshots)
            }
            # PostgreSQL sums big integers to a decimal.
            return {
                name: _Content(int(size), count, counts.get(name, 0))
                for name, size, count in session.execute(shares)
            }


def _state(sighting: watch.PoolStatus) -> str:
    if not sighting.answers:
        return "unavailable"
    return "down" if sighting.reasons else "up"
