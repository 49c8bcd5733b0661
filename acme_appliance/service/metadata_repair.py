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

"""Metadata that is missing or old in a pool, and its repair.

It is missing for what an earlier release made, and old where a crash came
between a change of the database alone and the metadata of that change.
"""

from collections.abc import Iterator
import logging
from typing import Any
from typing import Final

import sqlalchemy as sa

from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.service import core
from acme_appliance.service import descriptions
from acme_appliance.service import types

LOG = logging.getLogger(__name__)

_PROGRESS: Final = 2_000


def compare(shared: core.Core, pool: str, *, apply: bool) -> list[str]:
    """The shares and snapshots whose metadata is not what the database
    says, ``pool/id``; with ``apply`` it is written.

    What has an open job is left alone: its job writes the metadata.
    :raises engines.EngineError: the pool cannot be used.
    """
    engine = shared.engine(pool)
    found: list[str] = []
    for reference, metadata in _differences(shared, pool, engine):
        if apply:
            engine.metadata.write(reference, metadata)
        found.append(f"{pool}/{reference.id}")
        if apply and len(found) % _PROGRESS == 0:
            LOG.info("Pool %s: wrote metadata of %s", pool, len(found))
    if apply and found:
        shared.sync(pool)
    return found


def _differences(
    shared: core.Core, pool: str, engine: engines.Engine
) -> Iterator[tuple[engines.Reference, types.Body]]:
    for kind in engines.Kind:
        described = engine.metadata.ids(kind)
        for row in _rows(shared, pool, kind):
            reference = engines.Reference(kind, row.id)
            wanted = descriptions.of(row, kind)
            known = row.id in described
            there = engine.metadata.read(reference) if known else None
            if not descriptions.same(there, wanted):
                yield reference, wanted


def _rows(shared: core.Core, pool: str, kind: engines.Kind) -> list[Any]:
    table: Any = models.Share
    if kind == engines.Kind.SNAPSHOT:
        table = models.Snapshot
    columns = [getattr(table, name) for name in descriptions.columns(kind)]
    statement = sa.select(*columns).where(
        table.pool == pool, table.job_id.is_(None)
    )
    with shared.database.read() as session:
        return list(session.execute(statement).all())
