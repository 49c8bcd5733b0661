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

"""Delete old events and ended jobs."""

import datetime
from typing import Any
from typing import Final

import sqlalchemy as sa

from acme_appliance.changes.context import Context
from acme_appliance.db import models

#: How often to look for old rows.
INTERVAL_SECONDS: Final = 60.0
#: Maximum number of rows to delete at a time.
BATCH: Final = 1_000


class Retention:
    """A background task."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def prune(self) -> None:
        """Delete all rows that are too old, in batches, because changes wait
        during a delete."""
        settings = self.context.settings
        job, event = models.Job, models.Event
        self._prune(job.id, job.finished_at, settings.job_retention_days)
        # Keep the newest event: storage.identity compares its number.
        newest = sa.select(sa.func.max(event.seq)).scalar_subquery()
        self._prune(
            event.seq,
            event.time,
            settings.event_retention_days,
            event.seq != newest,
        )

    def _prune(self, key: Any, time: Any, days: int, *conditions: Any) -> None:
        oldest = self.context.clock() - datetime.timedelta(days=days)
        old = (
            sa.select(key)
            .where(time < oldest, *conditions)
            .order_by(time)
            .limit(BATCH)
        )
        while True:
            with self.context.database.read() as session:
                keys = list(session.scalars(old))
            if not keys:
                return
            with self.context.database.write() as session:
                session.execute(sa.delete(key.class_).where(key.in_(keys)))
