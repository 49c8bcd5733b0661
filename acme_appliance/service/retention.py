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
import itertools
import logging
from typing import Any

import sqlalchemy as sa

from acme_appliance.db import models
from acme_appliance.service import core

LOG = logging.getLogger(__name__)

#: Look for old rows once in so many changes.
EVERY = 256
#: Forget at most so many rows of a table at a time.
BATCH = 1_000


class Retention:
    """Prunes now and then, in the thread of a change that is done."""

    def __init__(self, shared: core.Core) -> None:
        self.core = shared
        self._count = itertools.count(1)

    def count(self) -> None:
        """Note one change, which is on disk: nothing may spoil its
        answer. What could not be forgotten is another time."""
        if next(self._count) % EVERY == 0:
            try:
                self.prune()
            except sa.exc.SQLAlchemyError as error:
                LOG.warning("Old jobs and events stay for now: %s", error)

    def prune(self) -> int:
        """Forget a batch of old rows; returns how many."""
        settings = self.core.settings
        return self._delete(
            models.Job.id,
            models.Job.finished_at,
            settings.job_retention_days,
        ) + self._delete(
            models.Event.seq,
            models.Event.time,
            settings.event_retention_days,
        )

    def _delete(self, key: Any, time: Any, days: int) -> int:
        oldest = self.core.clock() - datetime.timedelta(days=days)
        old = sa.select(key).where(time < oldest).order_by(time).limit(BATCH)
        with self.core.database.read() as session:
            keys = list(session.scalars(old))
        if not keys:
            return 0
        with self.core.database.write() as session:
            session.execute(sa.delete(key.class_).where(key.in_(keys)))
        return len(keys)
