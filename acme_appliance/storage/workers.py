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

"""Worker threads for changes, separate for each pool.

A pool whose disk hangs blocks only its own threads. Changes of two pools have
a lane of their own, with a few threads: so they block neither pool's. The
threads are daemons, which concurrent.futures does not support: a hanging call
must not block the process's exit. The journal handles such an exit.
"""

from collections.abc import Callable
from concurrent import futures
import logging
import queue
import threading
import time
from typing import Any
from typing import TypeVar

from acme_appliance import problems

LOG = logging.getLogger(__name__)

_Result = TypeVar("_Result")
#: A call to make, and the future that gets its result; None: the end.
_Item = tuple["futures.Future[Any]", Callable[[], Any]] | None


def wait(future: "futures.Future[Any]", seconds: float) -> bool:
    """Whether a future is done in time. Several times cheaper than
    ``concurrent.futures.wait``."""
    try:
        future.exception(max(0.0, seconds))
    except futures.CancelledError:
        return True
    except TimeoutError:
        return False
    return True


class _PoolWorkers:
    """One lane's threads, started when needed."""

    def __init__(self, pool: str, most: int) -> None:
        self._pool = pool
        self._most = most
        self._items = queue.SimpleQueue[_Item]()
        self._threads: list[threading.Thread] = []
        #: Number of idle threads, less waiting items.
        self._idle = threading.Semaphore(0)

    def put(self, item: _Item) -> None:
        self._items.put(item)
        if self._idle.acquire(blocking=False):
            return
        if len(self._threads) < self._most:
            thread = threading.Thread(
                target=self._run, name=f"change {self._pool}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self, end: float) -> bool:
        """Wait for what was put, until a time of the monotonic clock."""
        for _ in self._threads:
            self._items.put(None)
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            future, call = item
            try:
                future.set_result(call())
            except BaseException as error:
                # Also if it is no Exception: the waiting caller needs it.
                future.set_exception(error)
            self._idle.release()


class Workers:
    """:param most: the threads of each pool, unless ``submit`` says less."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._stopped = False
        self._pools: dict[str, _PoolWorkers] = {}

    def submit(
        self,
        pool: str,
        work: Callable[..., _Result],
        *arguments: Any,
        most: int | None = None,
    ) -> "futures.Future[_Result]":
        """:param pool: or another lane.
        :param most: the threads of this lane, the same in each call.
        :raises problems.Problem: ``system.starting`` after a stop."""
        future: futures.Future[_Result] = futures.Future()
        with self._lock:
            if self._stopped:
                raise problems.Problem(
                    "system.starting", "The appliance is stopping."
                )
            if pool not in self._pools:
                self._pools[pool] = _PoolWorkers(
                    pool, min(self._most, most or self._most)
                )
            self._pools[pool].put((future, lambda: work(*arguments)))
        return future

    def stop(self, wait_seconds: float) -> None:
        """Wait for what was submitted, so long."""
        with self._lock:
            self._stopped = True
        end = time.monotonic() + wait_seconds
        for name, pool in self._pools.items():
            if not pool.stop(end):
                LOG.warning("Changes of the pool %s outlast the stop", name)
