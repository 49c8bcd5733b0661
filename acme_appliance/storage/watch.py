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
"""Calls with a time limit to a disk or server that may hang.

A call on a disk that hangs does not return and cannot be stopped. So one
thread per pool makes such calls, and requests wait for its answer for a
limited time. While that thread hangs, new questions are refused at once. When
the disk answers again, the thread continues.
"""

from collections.abc import Callable
from collections.abc import Iterable
from concurrent import futures
import dataclasses
import datetime
import logging
import queue
import threading
import time
from typing import Any
from typing import Generic
from typing import TypeVar

from acme_appliance.engines import base as engines
from acme_appliance.storage import workers

LOG = logging.getLogger(__name__)

T = TypeVar("T")


#: None: the end.
_Question = tuple[Callable[[], Any], "futures.Future[Any]"] | None
_Questions = queue.SimpleQueue[_Question]

_SILENT = ("it does not answer",)


class NotAnswering(Exception):
    """There was no answer in time; there may be one later."""


class Answer(Generic[T]):
    """A future answer, awaited until ``end`` on the monotonic clock."""

    def __init__(self, who: str, future: "futures.Future[T]", end: float):
        self._who = who
        self._future = future
        self._end = end

    def get(self) -> T:
        """Wait for it.

        :raises NotAnswering: the time was up.
        :raises Exception: the question's own.
        """
        seconds = self._end - time.monotonic()
        if not workers.wait(self._future, seconds):
            # Drop the question if it has not begun.
            self._future.cancel()
            raise NotAnswering(f"{self._who} does not answer")
        return self._future.result()


class Watch:
    """Asks questions of one disk or server, one at a time, in one thread.

    :param who: its name in messages.
    :param limit_seconds: how long callers wait for an answer.
    """

    def __init__(self, who: str, limit_seconds: float) -> None:
        self.who = who
        self._limit = limit_seconds
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._questions = _Questions()
        #: When the current question began; None: idle.
        self._began: float | None = None

    def start(self, question: Callable[[], T]) -> Answer[T]:
        """Ask without waiting. Does nothing if the thread hangs."""
        future: futures.Future[T] = futures.Future()
        end = time.monotonic() + self._limit
        if self.hangs():
            return Answer(self.who, future, 0.0)
        with self._lock:
            self._questions.put((question, future))
            self._ensure_thread()
        return Answer(self.who, future, end)

    def ask(self, question: Callable[[], T]) -> T:
        """:raises NotAnswering: there was no answer in time."""
        return self.start(question).get()

    def hangs(self) -> bool:
        """Whether the current question takes longer than the limit."""
        began = self._began
        return began is not None and time.monotonic() - began > self._limit

    def stop(self) -> None:
        """Let the thread end when it can; the next question starts a new
        one."""
        with self._lock:
            self._questions.put(None)
            self._questions, self._thread = _Questions(), None

    def _ensure_thread(self) -> None:
        if self._thread is None:
            # A daemon: a hanging call must not block the process's exit.
            self._thread = threading.Thread(
                target=self._run,
                args=(self._questions,),
                name=f"watch {self.who}",
                daemon=True,
            )
            self._thread.start()

    def _run(self, questions: _Questions) -> None:
        while (entry := questions.get()) is not None:
            question, future = entry
            if not future.set_running_or_notify_cancel():
                continue
            self._began = time.monotonic()
            try:
                future.set_result(question())
            except BaseException as error:
                future.set_exception(error)
            finally:
                self._began = None


@dataclasses.dataclass(frozen=True)
class PoolStatus:
    """The status of a pool. ``usage`` and ``observed_at`` are those of the
    last answer with figures, or None."""

    answers: bool
    reasons: tuple[str, ...]
    usage: engines.Usage | None = None
    observed_at: datetime.datetime | None = None


class PoolWatch(Watch):
    """Asks one pool's engine."""

    def __init__(
        self,
        name: str,
        engine: engines.Engine,
        limit_seconds: float,
        clock: Callable[[], datetime.datetime],
    ) -> None:
        super().__init__(f"the pool {name}", limit_seconds)
        self._engine = engine
        self._clock = clock
        self._last = PoolStatus(False, _SILENT)
        #: The reasons that were logged last.
        self._logged: tuple[str, ...] = ()

    def start_look(self) -> Answer[PoolStatus]:
        return self.start(self._look)

    def finish_look(self, answer: Answer[PoolStatus]) -> PoolStatus:
        """The status; the last figures if the pool does not answer."""
        try:
            status = answer.get()
        except NotAnswering:
            status = dataclasses.replace(
                self._last, answers=False, reasons=_SILENT
            )
        self._tell(status.reasons)
        return status

    def obstacles(self) -> tuple[str, ...]:
        """Why the pool is not writable; does not read its figures."""
        try:
            reasons = self.ask(self._check)
        except NotAnswering:
            reasons = _SILENT
        self._tell(reasons)
        return reasons

    def start_measuring(
        self, files: Iterable[tuple[str, str]]
    ) -> Answer[dict[str, int | None]]:
        """What the volume files of shares occupy, in bytes.

        :param files: share ids and file names.
        :return: by share; left out or None: it cannot be told.
        """
        end = time.monotonic() + self._limit
        return self.start(lambda: self._measure(files, end))

    def _look(self) -> PoolStatus:
        reasons = self._check()
        if reasons:
            return PoolStatus(True, reasons)
        try:
            usage = self._engine.usage()
        except engines.EngineError as error:
            return PoolStatus(True, (str(error),))
        self._last = PoolStatus(True, (), usage, self._clock())
        return self._last

    def _check(self) -> tuple[str, ...]:
        try:
            return tuple(self._engine.check())
        except engines.EngineError as error:
            return (str(error),)

    def _tell(self, reasons: tuple[str, ...]) -> None:
        """Log only when a pool goes down or comes up."""
        before, self._logged = self._logged, reasons
        if reasons and reasons != before:
            LOG.warning("%s is down: %s", self.who, reasons[0])
        elif before and not reasons:
            LOG.warning("%s is up again", self.who)

    def _measure(
        self, files: Iterable[tuple[str, str]], end: float
    ) -> dict[str, int | None]:
        """Measure until ``end``; a slow disk counts as answering."""
        found: dict[str, int | None] = {}
        for share_id, name in files:
            if time.monotonic() > end:
                break
            found[share_id] = used_bytes(self._engine, share_id, name)
        return found


def used_bytes(engine: engines.Engine, share_id: str, name: str) -> int | None:
    """The space that a share's volume file occupies; None: unknown."""
    try:
        return engine.used_bytes(share_id, name)
    except (engines.EngineError, OSError) as error:
        LOG.debug("No usage of share %s: %s", share_id, error)
        return None
