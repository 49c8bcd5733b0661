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

"""Taking up jobs that could neither be finished nor undone."""

from collections.abc import Sequence
from concurrent import futures
import logging
import random
from typing import Final

from acme_appliance import problems
from acme_appliance.changes import entries
from acme_appliance.changes.runner import Runner

LOG = logging.getLogger(__name__)

#: The timer looks so often whether a job is due.
LOOK_SECONDS: Final = 5.0
#: After the first failed attempt a job waits so long; after each further
#: one twice as long, up to the most.
FIRST_DELAY_SECONDS: Final = 5.0
MOST_DELAY_SECONDS: Final = 600.0
#: How long a start waits for jobs of the last run. What takes longer goes
#: on beside other changes, and holds its share alone.
START_SECONDS: Final = 60.0


class OpenJobs:
    """Finds them; the runner takes them up."""

    def __init__(self, runner: Runner) -> None:
        self.context = runner.context
        self.runner = runner
        self.entries = runner.journal.entries

    def take_up_all(self, wait_seconds: float = START_SECONDS) -> None:
        """Take up every open job, and wait for them so long."""
        self._take_up(self.entries.open(), wait_seconds)

    def take_up_due(self) -> None:
        """Take up the open jobs whose time has come; waits for nothing."""
        self._take_up(
            [job for job in self.entries.open() if self._is_due(job)],
            wait_seconds=0,
        )

    def close(self, job_id: str) -> None:
        """End an open job as failed, by an operator's word.

        The next comparison judges what it touched by what is in the pool.
        :raises problems.Problem: ``job.not_found``: there is no such job,
            or it is not open.
        """
        problem = problems.Problem(
            "job.cancelled", "An operator closed the job, unfinished."
        )
        for job in self.entries.open():
            if job.id == job_id:
                self.entries.give_up(job_id, problem)
                LOG.warning("Job %s was closed by an operator", job_id)
                return
        raise problems.Problem(
            "job.not_found", f"There is no open job {job_id}."
        )

    def _take_up(
        self, jobs: Sequence[entries.Open], wait_seconds: float
    ) -> None:
        """Of jobs that touch the same, the later ones wait for the time
        after."""
        begun = [self.runner.try_take_up(job) for job in jobs]
        done, _ = futures.wait(
            [each for each in begun if each is not None], wait_seconds
        )
        for each in done:
            error = each.exception()
            if isinstance(error, Exception):
                LOG.warning("An open job is left for later: %s", error)
            elif error is not None:
                raise error

    def _is_due(self, job: entries.Open) -> bool:
        if self.runner.journal.is_running(job.id):
            return False
        if job.attempted_at is None:
            return True
        passed = (self.context.clock() - job.attempted_at).total_seconds()
        # A clock that was set back must not put it off.
        return passed < 0 or passed >= _delay_seconds(job.attempts)


def _delay_seconds(attempts: int) -> float:
    """Exponential, with jitter: jobs that failed together come apart."""
    doubled = FIRST_DELAY_SECONDS * 2.0 ** min(attempts - 1, 16)
    return min(MOST_DELAY_SECONDS, doubled) * random.uniform(  # noqa: S311 - no secret
        0.5, 1.0
    )
