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

"""Threads that make changes, some for each pool.

A pool whose disk hangs holds its own threads and none of another pool's.
"""

from collections.abc import Callable
from concurrent import futures
import threading
from typing import Any
from typing import TypeVar

from acme_appliance import problems

_Result = TypeVar("_Result")


class Workers:
    """:param count: the threads of each pool; they start when needed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._stopped = False
        self._pools: dict[str, futures.ThreadPoolExecutor] = {}

    def submit(
        self, pool: str, work: Callable[..., _Result], *arguments: Any
    ) -> futures.Future[_Result]:
        """:raises problems.Problem: ``system.starting`` after a stop."""
        with self._lock:
            if self._stopped:
                raise problems.Problem(
                    "system.starting", "The appliance is stopping."
                )
            executor = self._pools.get(pool)
            if executor is None:
                executor = self._pools[pool] = futures.ThreadPoolExecutor(
                    self._count, thread_name_prefix=f"change-{pool}"
                )
            return executor.submit(work, *arguments)

    def stop(self) -> None:
        """Wait for what was submitted."""
        with self._lock:
            self._stopped = True
        for executor in self._pools.values():
            executor.shutdown(wait=True)
