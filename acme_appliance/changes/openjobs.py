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

"""Resume jobs that were neither finished nor undone."""

from collections.abc import Sequence
from concurrent import futures
import logging
import random
from typing import Final

from acme_appliance import problems
from acme_appliance.changes import entries
from acme_appliance.changes.runner import Runner

LOG = logging.getLogger(__name__)

Resumed = futures.Future[None]

#: How often the timer checks for due jobs.
LOOK_SECONDS: Final = 5.0
#: Delay after the first failed attempt; it doubles with each further one,
#: up to the maximum.
FIRST_DELAY_SECONDS: Final = 5.0
MAX_DELAY_SECONDS: Final = 600.0
#: How long a start waits for jobs of the last run. Longer ones continue in
#: parallel with other changes, holding their claims.
START_SECONDS: Final = 60.0
#: The same for jobs that copy data: small copies are done at once.
COPY_SECONDS: Final = 1.0


class OpenJobs:
    """Finds open jobs for the runner to resume."""

    def __init__(self, runner: Runner) -> None:
        self.context = runner.context
        self.runner = runner
        self.entries = runner.journal.entries

    def resume_all(
        self,
        wait_seconds: float = START_SECONDS,
        copy_seconds: float = START_SECONDS,
    ) -> None:
        """Resume all open jobs, and wait for them so long.

        :param copy_seconds: for those that copy data.
        """
        jobs = self.entries.open()
        copies = [job for job in jobs if self.entries.copies(job)]
        others = [job for job in jobs if not self.entries.copies(job)]
        begun = self._begin(copies)
        self._wait(self._begin(others), wait_seconds)
        self._wait(begun, copy_seconds)

    def resume_due(self) -> None:
        """Resume the open jobs that are due, without waiting."""
        due = [job for job in self.entries.open() if self._is_due(job)]
        self._wait(self._begin(due), 0)

    def close(self, job_id: str) -> None:
        """End an open job as failed, on behalf of an operator.

        The next comparison derives the states from the pool.

        :raises problems.Problem: ``job.not_found``: there is no such open
            job.
        """
        problem = problems.Problem(
            "job.cancelled", "An operator closed the unfinished job."
        )
        for job in self.entries.open():
            if job.id == job_id:
                self.entries.give_up(job_id, problem)
                LOG.warning("Job %s was closed by an operator", job_id)
                return
        raise problems.Problem(
            "job.not_found", f"There is no open job {job_id}."
        )

    def _begin(self, jobs: Sequence[entries.Open]) -> list[Resumed]:
        """Resume jobs; those with conflicting claims wait for the next
        time."""
        begun = [self.runner.try_resume(job) for job in jobs]
        return [each for each in begun if each is not None]

    def _wait(self, begun: Sequence[Resumed], seconds: float) -> None:
        done, _ = futures.wait(begun, seconds)
        for each in done:
            error = each.exception()
            if isinstance(error, Exception):
                LOG.warning("An open job will be retried: %s", error)
            elif error is not None:
                raise error

    def _is_due(self, job: entries.Open) -> bool:
        if self.runner.journal.is_running(job.id):
            return False
        if job.attempted_at is None:
            return True
        passed = (self.context.clock() - job.attempted_at).total_seconds()
        # Do not delay the job if the clock was set back.
        return passed < 0 or passed >= _delay_seconds(job.attempts)


def _delay_seconds(attempts: int) -> float:
    """Exponential backoff with jitter."""
    doubled = FIRST_DELAY_SECONDS * 2.0 ** min(attempts - 1, 16)
    return min(MAX_DELAY_SECONDS, doubled) * random.uniform(  # noqa: S311 - no secret
        0.5, 1.0
    )
