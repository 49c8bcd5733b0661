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

"""The event log."""

import time

from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes.context import Context
from acme_appliance.db import models
from acme_appliance.service import pages


class Events:
    """The use case of events; see :mod:`acme_appliance.service`."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def read(
        self,
        caller: types.Caller,
        after: int,
        wait_seconds: float,
        limit: int,
    ) -> types.Body:
        """``{events, next_after}``; waits for the first new event."""
        end = time.monotonic() + wait_seconds
        while True:
            version = self.context.events.version
            events = self._read(caller, after, limit)
            left = end - time.monotonic()
            if events or left <= 0:
                break
            self.context.events.wait(version, left)
        last = events[-1]["seq"] if events else after
        return {"events": events, "next_after": last}

    def _read(
        self, caller: types.Caller, after: int, limit: int
    ) -> list[types.Body]:
        statement = (
            pages.visible(models.Event, caller)
            .where(models.Event.seq > after)
            .order_by(models.Event.seq)
        )
        with self.context.database.read() as session:
            events, _ = pages.read_part(
                session, statement, limit=limit, show=pages.each(views.event)
            )
        return events
