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

"""Calls with a time limit, on a disk that may hang.

A call on a disk that hangs does not return and cannot be stopped. So each
call runs in a thread of its own, and what it still makes after its time is
undone by that thread.
"""

from collections.abc import Callable
import logging
import threading
from typing import Generic
from typing import TypeVar
import weakref

from acme_appliance.engines import base as engines

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class TookTooLong(Exception):
    """The call did not return in time, or an earlier one has not yet."""


class Limited:
    """Calls of one engine.

    After a call that took too long all further ones are refused until it
    has returned and its result was undone: otherwise it could undo what a
    later call made.
    """

    _lock = threading.Lock()
    #: The running calls that nobody waits for.
    _abandoned: "weakref.WeakKeyDictionary[engines.Engine, int]" = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self, engine: engines.Engine) -> None:
        self._engine = engine

    def call(
        self,
        call: Callable[[], T],
        seconds: float,
        late: Callable[[T], None] | None = None,
    ) -> T:
        """Call with a time limit.

        :param late: undoes a result that came too late.
        :raises TookTooLong: see the class.
        :raises Exception: the call's own.
        """
        with self._lock:
            if self._abandoned.get(self._engine):
                raise TookTooLong(
                    "the disk does not answer: an earlier call still waits"
                    " for it"
                )
        running = _Running(call, late, self._count)
        return running.get(seconds)

    def _count(self, change: int) -> None:
        with self._lock:
            count = self._abandoned.get(self._engine, 0) + change
            self._abandoned[self._engine] = count


class _Running(Generic[T]):
    """:param count: is told +1 when the call is abandoned, -1 when it and
    its undoing have ended."""

    def __init__(
        self,
        call: Callable[[], T],
        late: Callable[[T], None] | None,
        count: Callable[[int], None],
    ) -> None:
        self._call = call
        self._late = late
        self._count = count
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._abandoned = False
        self._results: list[T] = []
        self._error: BaseException | None = None

    def get(self, seconds: float) -> T:
        # A daemon: a hanging call must not block the process's exit.
        threading.Thread(target=self._run, name="limited", daemon=True).start()
        try:
            self._done.wait(seconds)
        finally:
            # Also if the waiting itself was interrupted.
            self._abandon()
        if self._abandoned:
            raise TookTooLong(
                f"the disk did not finish within {seconds:.1f} s; what it"
                " still makes will be removed"
            )
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _abandon(self) -> None:
        with self._lock:
            if not self._done.is_set():
                self._abandoned = True
                self._count(1)

    def _run(self) -> None:
        try:
            result = self._call()
        except BaseException as error:
            # Also if it is no Exception: the waiting caller needs it.
            self._end(error=error)
        else:
            self._end(result)

    def _end(self, *results: T, error: BaseException | None = None) -> None:
        with self._lock:
            if not self._abandoned:
                self._results, self._error = [*results], error
                self._done.set()
                return
        try:
            for result in results:
                if self._late is not None:
                    self._late(result)
            if error is not None:
                LOG.warning("A call failed after its time: %s", error)
        except engines.EngineError as late_error:
            # The sweep of a later call or start repeats it.
            LOG.error("Unfinished work is left: %s", late_error)
        finally:
            self._count(-1)
