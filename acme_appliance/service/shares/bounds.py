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

"""Restore missing limits and owners that confine clients to their share.

A client may write only the volume file of its share: root owns the directory.
In shares of earlier releases the clients own it; the first start changes
that, even while the shares are attached. If there is no volume file, clients
create one and own the directory.

A client can make its volume file larger than its share. This is reported. If
the pool has hard limits, they limit the space that the file can occupy.
"""

from collections.abc import Sequence
import logging
from typing import Any

import sqlalchemy as sa

from acme_appliance.changes.context import Context
from acme_appliance.changes.runner import Runner
from acme_appliance.db import models
from acme_appliance.engines import base as engines

LOG = logging.getLogger(__name__)

#: A file system allocates space in blocks.
_BLOCK_BYTES = 4096


def check(runner: Runner, pool: str, *, restore: bool) -> list[str]:
    """Find the shares of a pool whose file exceeds their size.

    :param restore: restore limits and owners of all shares; failures are
        logged and do not stop the others.
    """
    engine = runner.context.pools.engine(pool)
    oversized = []
    for row in _rows(runner.context, pool):
        try:
            if restore:
                _restore(runner, engine, row)
            if _is_oversized(engine, row):
                oversized.append(row.id)
        except engines.NotFound:
            # The comparison reports it as missing.
            continue
        except engines.EngineError as error:
            LOG.error("Cannot restore limits of share %s: %s", row.id, error)
    return oversized


def _restore(runner: Runner, engine: engines.Engine, row: Any) -> None:
    if row.file is not None:
        engine.set_directory(row.id, None)
    if engine.has_limit(row.id):
        return
    with runner.holding(row.id):
        # It may have grown, and then has a limit.
        if not engine.has_limit(row.id):
            engine.set_limit(row.id, row.size_bytes)


def _is_oversized(engine: engines.Engine, row: Any) -> bool:
    if row.file is None:
        return False
    used = engine.used_bytes(row.id, row.file["name"])
    return used is not None and used > row.size_bytes + _BLOCK_BYTES


def _rows(context: Context, pool: str) -> Sequence[Any]:
    """All shares, in whatever state."""
    table = models.Share
    statement = sa.select(table.id, table.file, table.size_bytes).where(
        table.pool == pool
    )
    with context.database.read() as session:
        return session.execute(statement).all()
