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

"""What is old is forgotten: ended jobs, and events."""

import datetime
from typing import Any
from typing import Final

import sqlalchemy as sa

from acme_appliance.db import models
from acme_appliance.service import core

#: Old rows are looked for so often.
INTERVAL_SECONDS: Final = 60.0
#: Forget at most so many rows of a table at a time.
BATCH: Final = 1_000


class Retention:
    """A background task."""

    def __init__(self, shared: core.Core) -> None:
        self.core = shared

    def prune(self) -> None:
        """Forget all rows that are too old, a batch at a time: changes
        wait while one is being deleted."""
        settings = self.core.settings
        for key, time, days in (
            (
                models.Job.id,
                models.Job.finished_at,
                settings.job_retention_days,
            ),
            (
                models.Event.seq,
                models.Event.time,
                settings.event_retention_days,
            ),
        ):
            while self._delete(key, time, days) == BATCH:
                pass

    def _delete(self, key: Any, time: Any, days: int) -> int:
        oldest = self.core.clock() - datetime.timedelta(days=days)
        old = sa.select(key).where(time < oldest).order_by(time).limit(BATCH)
        with self.core.database.read() as session:
            # The newest event stays: it says how far the database has come.
            newest = session.scalar(sa.select(sa.func.max(key)))
            keys = [k for k in session.scalars(old) if k != newest]
        if not keys:
            return 0
        with self.core.database.write() as session:
            session.execute(sa.delete(key.class_).where(key.in_(keys)))
        return len(keys)
