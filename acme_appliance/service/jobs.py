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

"""Jobs: changes in progress and in the past."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from acme_appliance import problems
from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes import failures
from acme_appliance.changes import jobrows
from acme_appliance.changes import journal
from acme_appliance.changes.context import Context
from acme_appliance.changes.deadline import Deadline
from acme_appliance.db import models
from acme_appliance.service import pages

#: Polling interval for an open job that is not running.
_LOOK_SECONDS = 1.0
#: How long a cancellation waits until the job is undone.
_CANCEL_SECONDS = 20.0


class Jobs:
    """The use cases of jobs; see :mod:`acme_appliance.service`."""

    def __init__(self, context: Context, log: journal.Journal) -> None:
        self.context = context
        self.journal = log

    def get(
        self, caller: types.Caller, job_id: str, wait_seconds: float = 0
    ) -> types.Body:
        """A job, when it has ended or at the timeout.
        ``job.not_found``.
        """
        deadline = Deadline(wait_seconds)
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
        """Oldest first. ``filters``: state, share_id."""
        statement = _statement(caller, filters)

        def read(wanted: sa.Select[Any], show: pages.Show) -> types.Page:
            return pages.read_page(
                self.context.database,
                wanted,
                models.Job.id,
                limit=limit,
                marker=marker,
                show=show,
            )

        try:
            return read(
                statement,
                pages.each(lambda row: self._view(jobrows.checked(row))),
            )
        except jobrows.BROKEN:
            return read(
                statement.with_only_columns(models.Job.id),
                lambda session, ids: (
                    self._view(jobrows.read(session, id_)) for id_ in ids
                ),
            )

    def cancel(self, caller: types.Caller, job_id: str) -> types.Body:
        """Cancel a queued job, or one that copies; success if it is already
        cancelled. It is open if undoing it takes longer than this waits.
        ``job.not_found``, ``job.not_cancellable``.
        """
        body = self._read(caller, job_id)
        begun = False
        if body["state"] not in types.ENDED_JOB_STATES:
            try:
                begun = self.journal.cancel(job_id)
            except Exception as error:
                raise failures.to_problem(error) from error
            body = self._read(caller, job_id)
        if begun and body["state"] not in types.ENDED_JOB_STATES:
            body = self.get(caller, job_id, _CANCEL_SECONDS)
            if body["state"] not in types.ENDED_JOB_STATES:
                return body
        if body["state"] != types.JobState.CANCELLED:
            raise problems.Problem(
                "job.not_cancellable", f"The job {job_id} is {body['state']}."
            )
        return body

    def _read(self, caller: types.Caller, job_id: str) -> types.Body:
        with self.context.database.read() as session:
            found = jobrows.find(session, job_id)
            if found is None or not caller.sees(found.namespace):
                raise problems.Problem(
                    "job.not_found", f"There is no job {job_id}."
                )
            return self._view(found)

    def _view(self, row: Any) -> types.Body:
        return views.job(row, self.journal.progress(row.id))


def _statement(
    caller: types.Caller, filters: Mapping[str, Any]
) -> sa.Select[Any]:
    if filters.get("state") != types.JobState.RUNNING:
        return pages.visible(models.Job, caller, filters)
    # As clients see it, including jobs in unknown states.
    others = {k: v for k, v in filters.items() if k != "state"}
    return pages.visible(models.Job, caller, others).where(
        jobrows.IS_OPEN, models.Job.state != types.JobState.QUEUED
    )
