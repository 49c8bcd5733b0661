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

"""Periodic background tasks.

futurist's PeriodicWorker does the same, but imports eventlet if that is
installed, which delays the start.
"""

from collections.abc import Callable
import dataclasses
import logging
import random
import threading
import time
from typing import Final

LOG = logging.getLogger(__name__)

#: How long a stop waits for a running task.
STOP_SECONDS: Final = 5.0
#: A task that has run for longer is reported: a disk may hang.
OVERDUE_SECONDS: Final = 600.0
#: Intervals are extended by up to this fraction, to spread tasks.
JITTER: Final = 0.1


@dataclasses.dataclass(frozen=True)
class Task:
    """``run`` is called repeatedly, never concurrently; the interval is from
    one end to the next start. Exceptions are logged and do not stop it."""

    name: str
    interval_seconds: float
    run: Callable[[], None]
    #: Whether the first run comes without an interval before it.
    at_once: bool = False


class Background:
    """Runs tasks from :meth:`start` to :meth:`stop`, each in its own thread,
    so that one that hangs delays no other."""

    def __init__(
        self, *tasks: Task, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._stopped = threading.Event()
        self._began: dict[str, float] = {}
        self._logged: set[str] = set()
        tasks += (
            Task("overdue tasks", OVERDUE_SECONDS / 10, self._log_overdue),
        )
        self._threads = [
            threading.Thread(
                target=self._repeat, args=(task,), name=task.name, daemon=True
            )
            for task in tasks
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin no more tasks. Can be called without a start."""
        self._stopped.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(STOP_SECONDS)

    def overdue(self) -> list[str]:
        """A sentence for each task that seems to hang. Names no shares."""
        return [
            f"The background task '{name}' has been running for"
            f" {seconds / 60:.0f} minutes. Does a disk hang?"
            for name, seconds in self._overdue()
        ]

    def _overdue(self) -> list[tuple[str, float]]:
        now = self._clock()
        # A copy: the tasks' threads change it meanwhile.
        began = sorted(self._began.copy().items())
        return [
            (name, now - at)
            for name, at in began
            if now - at > OVERDUE_SECONDS
        ]

    def _log_overdue(self) -> None:
        """Log each hanging run once."""
        hanging = {name for name, _ in self._overdue()}
        if hanging - self._logged:
            for line in self.overdue():
                LOG.warning("%s", line)
        self._logged = hanging

    def _repeat(self, task: Task) -> None:
        seconds = 0.0 if task.at_once else _with_jitter(task.interval_seconds)
        while not self._stopped.wait(seconds):
            self._began[task.name] = self._clock()
            try:
                task.run()
            except Exception:
                LOG.exception("The background task %s failed", task.name)
            finally:
                del self._began[task.name]
            seconds = _with_jitter(task.interval_seconds)


def _with_jitter(seconds: float) -> float:
    return seconds * random.uniform(1, 1 + JITTER)  # noqa: S311 - no secret
