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

"""What keeps clients within their share, put back where it is missing.

A client may write the volume file of its share, and nothing else: the
directory is root's. Shares that an earlier release made have a directory of
their clients; it becomes root's at the first start, while they are attached.
Where there is no volume file, clients make one, and the directory is theirs.
"""

from collections.abc import Sequence
import logging
from typing import Any

import sqlalchemy as sa

from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.service import core

LOG = logging.getLogger(__name__)


def restore(shared: core.Core, pool: str) -> None:
    """Bring all shares of a pool within bounds.

    One that cannot be is logged and keeps no other from it.
    """
    engine = shared.engine(pool)
    for row in _rows(shared, pool):
        try:
            engine.set_directory(row.id, None)
        except engines.NotFound:
            # The comparison reports it as missing.
            continue
        except engines.EngineError as error:
            LOG.error("Share %s: its directory stays: %s", row.id, error)


def _rows(shared: core.Core, pool: str) -> Sequence[Any]:
    """Those with a volume file, in whatever state."""
    table = models.Share
    statement = sa.select(table.id).where(
        table.pool == pool, table.file.is_not(None)
    )
    with shared.database.read() as session:
        return session.execute(statement).all()
