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

"""The event log, and waits for its next entry."""

import threading
from typing import TYPE_CHECKING

from sqlalchemy import orm

from acme_appliance import types
from acme_appliance.db import models
from acme_appliance.db import rows

if TYPE_CHECKING:
    from acme_appliance.changes.context import Clock


class EventLog:
    """Thread-safe."""

    def __init__(self, clock: "Clock") -> None:
        self._clock = clock
        self._changed = threading.Condition()
        #: Counts announcements, so that readers miss none.
        self.version = 0

    def add(
        self,
        session: orm.Session,
        type_: str,
        intent: types.Intent,
        *,
        job: bool = True,
        detail: types.Body | None = None,
    ) -> None:
        """Log a change in the transaction that makes it."""
        rows.insert(
            session,
            models.Event,
            {
                "time": self._clock(),
                "type": type_,
                "namespace": intent.namespace,
                "share_id": intent.share_id,
                "snapshot_id": intent.snapshot_id,
                "group_id": intent.group_id,
                "group_snapshot_id": intent.group_snapshot_id,
                "actor": intent.actor,
                "request_id": intent.request_id,
                "job_id": intent.id if job else None,
                "detail": detail or {},
            },
        )

    def announce(self) -> None:
        """Wake waiters; call it after the commit."""
        with self._changed:
            self.version += 1
            self._changed.notify_all()

    def wait(self, version: int, timeout_seconds: float) -> None:
        """Wait for an announcement after that version."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.version != version, timeout_seconds
            )
