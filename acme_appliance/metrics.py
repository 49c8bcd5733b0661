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

"""The appliance's metrics.

Names and units follow Prometheus' conventions
(https://prometheus.io/docs/practices/naming/). No client can choose a label's
value, so the number of series is bounded.
"""

from collections.abc import Iterator
import contextlib
import time
from typing import Final

import prometheus_client
from prometheus_client import registry

#: The media type of :meth:`Metrics.exposition`.
MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: In seconds: from a fast read to a change that waits for a hanging disk.
_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)


class Metrics:
    """The instruments of one service; thread-safe."""

    def __init__(self) -> None:
        self.registry = registry.CollectorRegistry(auto_describe=True)
        self._requests = prometheus_client.Histogram(
            "acme_http_request_duration_seconds",
            "Time to answer requests, by the contract's operation and status",
            ["operation", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._steps = prometheus_client.Histogram(
            "acme_change_step_duration_seconds",
            "Time that the steps of changes take in pools and exports",
            ["change", "step"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._failures = prometheus_client.Counter(
            "acme_change_step_failures",
            "Steps of changes that failed",
            ["change", "step"],
            registry=self.registry,
        )
        self._changes = prometheus_client.Counter(
            "acme_changes",
            "Changes by how they ended: succeeded, failed or left open",
            ["change", "outcome"],
            registry=self.registry,
        )
        prometheus_client.ProcessCollector(registry=self.registry)

    def request(self, operation: str, status: int, seconds: float) -> None:
        self._requests.labels(operation, str(status)).observe(seconds)

    @contextlib.contextmanager
    def step(self, change: str, step: str) -> Iterator[None]:
        """Time a step, and count it if it fails."""
        started = time.perf_counter()
        try:
            yield
        except BaseException:
            self._failures.labels(change, step).inc()
            raise
        finally:
            seconds = time.perf_counter() - started
            self._steps.labels(change, step).observe(seconds)

    def change(self, change: str, outcome: str) -> None:
        self._changes.labels(change, outcome).inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)
