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

"""Jobs and events: what is being done, and what was."""

from collections.abc import Mapping
import time
from typing import Any

import sqlalchemy as sa

from acme_appliance import problems
from acme_appliance.db import models
from acme_appliance.service import core
from acme_appliance.service import failures
from acme_appliance.service import jobrows
from acme_appliance.service import journal
from acme_appliance.service import pages
from acme_appliance.service import types
from acme_appliance.service import views

#: Who waits for a job that nobody is at work on looks so often.
_LOOK_SECONDS = 1.0


class Jobs:
    """The use cases; see the facade for what callers may rely on."""

    def __init__(self, shared: core.Core, log: journal.Journal) -> None:
        self.core = shared
        self.journal = log

    def get(
        self, caller: types.Caller, job_id: str, wait_seconds: float
    ) -> types.Body:
        deadline = core.Deadline(wait_seconds)
        while True:
            body = self._read(caller, job_id)
            left = deadline.remaining()
            if left <= 0 or body["state"] in types.ENDED_JOB_STATES:
                return body
            if not self.journal.wait(job_id, min(left, _LOOK_SECONDS)):
                return body

    def page(
        self,
        caller: types.Caller,
        filters: Mapping[str, Any],
        limit: int,
        marker: str | None,
    ) -> types.Page:
        statement = _statement(caller, filters)

        def read(wanted: sa.Select[Any], show: pages.Show) -> types.Page:
            return pages.read_page(
                self.core.database,
                wanted,
                models.Job.id,
                limit=limit,
                marker=marker,
                show=show,
            )

        try:
            return read(
                statement,
                pages.each(lambda row: views.job(jobrows.checked(row))),
            )
        except jobrows.BROKEN:
            return read(
                statement.with_only_columns(models.Job.id),
                lambda session, ids: (
                    views.job(jobrows.read(session, id_)) for id_ in ids
                ),
            )

    def cancel(self, caller: types.Caller, job_id: str) -> types.Body:
        body = self._read(caller, job_id)
        if body["state"] not in types.ENDED_JOB_STATES:
            try:
                self.journal.cancel(job_id)
            except Exception as error:
                raise failures.to_problem(error) from error
            body = self._read(caller, job_id)
        if body["state"] != types.JobState.CANCELLED:
            raise problems.Problem(
                "job.not_cancellable", f"The job {job_id} is {body['state']}."
            )
        return body

    def _read(self, caller: types.Caller, job_id: str) -> types.Body:
        with self.core.database.read() as session:
            found = jobrows.read_all(session, models.Job.id == job_id)
            if not found or not caller.sees(found[0].namespace):
                raise problems.Problem(
                    "job.not_found", f"There is no job {job_id}."
                )
            return views.job(found[0])


def _statement(
    caller: types.Caller, filters: Mapping[str, Any]
) -> sa.Select[Any]:
    if filters.get("state") != types.JobState.RUNNING:
        return pages.visible(models.Job, caller, filters)
    # As clients see it: also jobs in a state that is not known here.
    others = {k: v for k, v in filters.items() if k != "state"}
    return pages.visible(models.Job, caller, others).where(
        jobrows.IS_OPEN, models.Job.state != types.JobState.QUEUED
    )


class Events:
    """The change log."""

    def __init__(self, shared: core.Core) -> None:
        self.core = shared

    def read(
        self,
        caller: types.Caller,
        after: int,
        wait_seconds: float,
        limit: int,
    ) -> types.Body:
        end = time.monotonic() + wait_seconds
        while True:
            version = self.core.events_version
            events = self._read(caller, after, limit)
            left = end - time.monotonic()
            if events or left <= 0:
                break
            self.core.wait_for_events(version, left)
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
        with self.core.database.read() as session:
            events, _ = pages.read_part(
                session, statement, limit=limit, show=pages.each(views.event)
            )
        return events
