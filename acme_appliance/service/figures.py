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

"""Metrics that are collected on each scrape: pools, jobs, exports, health."""

from collections.abc import Iterator
from collections.abc import Sequence
import datetime
import logging

from prometheus_client import core
from prometheus_client import registry

from acme_appliance import types
from acme_appliance.changes import entries
from acme_appliance.exporters import base as exporters
from acme_appliance.references import Kind
from acme_appliance.service.pools import PoolFigures
from acme_appliance.service.system import System
from acme_appliance.storage import watch

LOG = logging.getLogger(__name__)

_POOL_FIGURES = (
    ("total_bytes", "Size of the pool"),
    ("free_bytes", "Space that is free in the pool"),
    ("used_bytes", "Space that is used in the pool"),
    ("provisioned_bytes", "Sizes of the pool's shares together"),
)
_POOL_COUNTS = (
    ("share_count", "acme_pool_shares", "Shares in the pool"),
    ("snapshot_count", "acme_pool_snapshots", "Snapshots in the pool"),
)


class Figures(registry.Collector):
    """Answers in time even if a pool or the NFS server hangs: then a pool has
    its last known figures, and ``acme_pool_up`` is 0."""

    def __init__(self, system: System, pools: PoolFigures) -> None:
        self._system = system
        self._pools = pools
        self._context = system.context

    def describe(self) -> list[core.Metric]:
        """Collect nothing before the first scrape."""
        return []

    def collect(self) -> Iterator[core.Metric]:
        reasons = self._system.readiness()
        jobs = self._system.runner.journal.entries.open()
        yield self._info()
        yield _gauge(
            "acme_ready",
            "Whether changes are served",
            float(not reasons),
        )
        yield from _pools(self._pools.all())
        yield from _jobs(jobs, self._context.clock())
        yield from self._exports()

    def _info(self) -> core.Metric:
        settings = self._context.settings
        family = core.InfoMetricFamily("acme_appliance", "The appliance")
        family.add_metric(
            [],
            {
                "version": settings.version,
                "system_id": settings.system_id,
                "system_name": settings.system_name,
            },
        )
        return family

    def _exports(self) -> Iterator[core.Metric]:
        """Nothing if the NFS server does not answer: an alert on an absent
        series is better than one on an old figure."""
        exports = self._context.exports
        try:
            exported = exports.watch.ask(exports.exporter.exported)
            unexplained = exports.still_unexplained()
        except (exporters.ExporterError, watch.NotAnswering) as error:
            LOG.warning("Exports cannot be read: %s", error)
            return
        for kind in Kind:
            yield _gauge(
                f"acme_exported_{kind}s",
                f"The {kind}s that some client may mount",
                sum(each.kind == kind for each in exported),
            )
        yield _gauge(
            "acme_unexplained_exports",
            "Shares and snapshots with an export that no rule explains",
            len(unexplained),
        )


def _pools(pools: list[types.Body]) -> Iterator[core.Metric]:
    up = core.GaugeMetricFamily(
        "acme_pool_up", "Whether the pool can be used", labels=["pool"]
    )
    for pool in pools:
        up.add_metric([pool["name"]], float(pool["state"] == "up"))
    yield up
    named = [
        *((key, f"acme_pool_{key}", text) for key, text in _POOL_FIGURES),
        *_POOL_COUNTS,
    ]
    for key, name, text in named:
        family = core.GaugeMetricFamily(name, text, labels=["pool"])
        for pool in pools:
            family.add_metric([pool["name"]], pool[key])
        yield family


def _jobs(
    jobs: Sequence[entries.Open], now: datetime.datetime
) -> Iterator[core.Metric]:
    open_jobs = core.GaugeMetricFamily(
        "acme_open_jobs",
        "Changes at work; stuck: those whose last attempt failed",
        labels=["stuck"],
    )
    stuck = sum(bool(job.attempts) for job in jobs)
    open_jobs.add_metric(["true"], stuck)
    open_jobs.add_metric(["false"], len(jobs) - stuck)
    yield open_jobs
    ages = [(now - job.created_at).total_seconds() for job in jobs]
    yield _gauge(
        "acme_oldest_open_job_seconds",
        "Age of the oldest change at work; 0: none is",
        max(ages, default=0.0),
    )


def _gauge(name: str, text: str, value: float) -> core.Metric:
    return core.GaugeMetricFamily(name, text, value=value)
