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

"""What the appliance does by time, and not because a request came.

futurist's PeriodicWorker does the same, but imports eventlet where that is
installed, and with it much that a start has to wait for.
"""

from collections.abc import Callable
import dataclasses
import logging
import random
import threading
from typing import Final

LOG = logging.getLogger(__name__)

#: A stop waits so long for a task that is at work.
STOP_SECONDS: Final = 5.0
#: An interval is up to such a part longer, so that tasks come apart.
JITTER: Final = 0.1


@dataclasses.dataclass(frozen=True)
class Task:
    """``run`` is called again and again, never twice at the same time; the
    interval is from an end to the next begin. An exception is logged, and
    it is called again all the same."""

    name: str
    interval_seconds: float
    run: Callable[[], None]
    #: The first time without an interval before it.
    at_once: bool = False


class Background:
    """Runs tasks from :meth:`start` to :meth:`stop`, each in a thread of
    its own: one that hangs delays no other."""

    def __init__(self, *tasks: Task) -> None:
        self._stopped = threading.Event()
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
        """No task begins after this. May be called without a start."""
        self._stopped.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(STOP_SECONDS)

    def _repeat(self, task: Task) -> None:
        seconds = 0.0 if task.at_once else _with_jitter(task.interval_seconds)
        while not self._stopped.wait(seconds):
            try:
                task.run()
            except Exception:
                LOG.exception("The background task %s failed", task.name)
            seconds = _with_jitter(task.interval_seconds)


def _with_jitter(seconds: float) -> float:
    return seconds * random.uniform(1, 1 + JITTER)  # noqa: S311 - no secret
