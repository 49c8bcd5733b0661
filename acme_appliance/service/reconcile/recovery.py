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

"""After a start: finish the journal's open entries, and compare everything.

The repair at start only adds: it finishes open jobs and adds missing exports.
It reports unknown subvolumes and clients with access but no rule, but does
not remove them: they may be an only copy or a guest's disk, and the database
may be wrong. Only an operator withdraws exports without a rule
(``acme-appliance reconcile --apply``); subvolumes are never deleted.
"""

from collections.abc import Sequence
from concurrent import futures
import dataclasses
import functools
import logging
from typing import Any

import sqlalchemy as sa

from acme_appliance import moments
from acme_appliance import references
from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes import openjobs
from acme_appliance.changes.runner import Runner
from acme_appliance.db import models
from acme_appliance.db import rows
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.service import access
from acme_appliance.service import lookup
from acme_appliance.service.reconcile import comparison
from acme_appliance.service.reconcile.reports import Report
from acme_appliance.storage import workers

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """An export that the access rules require."""

    pool: str
    #: The share itself, or the snapshot's share.
    share_id: str
    directory: exporters.ExportedDirectory
    clients: exporters.Clients

    @property
    def export(self) -> tuple[exporters.ExportedDirectory, exporters.Clients]:
        return self.directory, self.clients


class Recovery:
    """Runs once at start; an operator can run its comparison any time.

    At start all changes are refused until exports are correct and open jobs
    were resumed; then the pools are compared in parallel with changes. A
    command that repairs holds the lock of the serving process. One that only
    reads may see changes in progress.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.journal = runner.journal
        self.context = runner.context
        self.open_jobs = openjobs.OpenJobs(runner)
        self.comparison = comparison.Comparison(runner)
        #: How long a start waits for jobs that copy data.
        self.copy_seconds = openjobs.COPY_SECONDS
        #: Pools whose exports the start skipped.
        self._left: set[str] = set()

    def start(self) -> Report:
        """Finish or undo interrupted changes, and add missing exports.

        :raises identity.Mismatch: the database does not match the pools;
            nothing was done.
        """
        self.context.generations.reserve()
        report = Report(applied=True)
        report.unusable_pools = self.context.pools.check_identities()
        self._left = set(report.unusable_pools)
        self._sweep()
        if self.journal.entries.open():
            # Before open jobs are finished: a change of a share's rules
            # exports it only to the clients of its rules.
            self.compare_exports()
        self.open_jobs.resume_all(copy_seconds=self.copy_seconds)
        self._note_jobs(report)
        self._reconcile_exports(report, remove=False)
        return report

    def _sweep(self) -> None:
        """Remove what a killed process left of common moments. Pools that do
        not answer now are swept when the next moment is taken."""
        pools = self.context.pools
        usable = {
            name: pools[name] for name in pools if name not in self._left
        }
        for line in moments.sweep(usable, self.context.exports.exporter):
            LOG.warning("%s", line)

    def compare_pool(self, pool: str) -> Report:
        """Compare and repair one pool, in parallel with changes.

        :raises engines.EngineError: it cannot be used.
        :raises problems.Problem: a share in it is busy for too long.
        """
        report = self.comparison.compare(pool, apply=True)
        if pool in self._left:
            self._export_again(pool)
            self._left.discard(pool)
        return report

    def reconcile(self, apply: bool, close_jobs: Sequence[str]) -> Report:
        """Compare everything, for an operator.

        :param apply: finish or undo open jobs, correct the states of shares
            and the exports, and withdraw exports without a rule.
        :param close_jobs: open jobs to close first.
        :raises identity.Mismatch: with ``apply``; nothing was done.
        """
        if apply:
            self.context.pools.check_identities()
        for job_id in close_jobs:
            self.open_jobs.close(job_id)
        if apply:
            self.open_jobs.resume_all()
        report = Report(applied=apply)
        self._note_jobs(report)
        self._compare_pools(report)
        self._left = set(report.unusable_pools)
        self._reconcile_exports(report, remove=apply)
        if apply:
            self.context.exports.unexplained = {}
        return report

    def _note_jobs(self, report: Report) -> None:
        for job in self.journal.entries.open():
            if job.unreadable:
                report.unreadable_jobs[job.id] = job.problem.detail
            else:
                report.open_jobs.append(job.id)

    # -- pools

    def _compare_pools(self, report: Report) -> None:
        """Compare all pools concurrently; skip those that hang."""
        threads = workers.Workers(most=1)
        running = {
            pool: threads.submit(
                pool,
                functools.partial(
                    self.comparison.compare, pool, apply=report.applied
                ),
            )
            for pool in self.context.pools
        }
        for pool, future in running.items():
            try:
                report.add(self._result(pool, future))
            except engines.EngineError as error:
                report.unusable_pools[pool] = str(error)
        threads.stop(0)

    def _result(self, pool: str, future: "futures.Future[Report]") -> Report:
        """:raises engines.EngineError: the pool became unusable."""
        while not workers.wait(future, self.context.settings.answer_seconds):
            obstacles = self.context.pools.watches[pool].obstacles()
            if obstacles:
                raise engines.Unavailable(f"the pool {pool}: {obstacles[0]}")
        return future.result()

    # -- exports

    def _reconcile_exports(self, report: Report, *, remove: bool) -> None:
        # Before the rules are read: those that end meanwhile are left, too.
        at_work = self._at_work()
        wanted = self._wanted_exports()
        found = self.context.exports.exporter.reconcile(
            [each.export for each in wanted],
            apply=report.applied,
            remove=remove,
            leave=at_work
            | {
                each.directory.reference
                for each in wanted
                if each.pool in self._left
            },
        )
        differences = [each for each in found if each.reference not in at_work]
        self._note_unexplained(differences)
        report.export_differences = [
            _plain(each) for each in differences if each.is_lacking
        ]
        report.unexplained_exports = [
            {**views.named(reference), "clients": dict(clients)}
            for reference, clients in self.context.exports.unexplained.items()
        ]

    def _at_work(self) -> set[references.Reference]:
        """Whose rules are being changed still, by an open job that takes
        longer than anybody waits for it. The job exports what holds at its
        end; by the rules of now, a revoked client would get in again."""
        return {
            operation.reference
            for job, operation in self.journal.entries.readable()
            if isinstance(operation, access.ChangeAccess)
            and self.runner.is_at_work(job)
        }

    def _export_again(self, pool: str) -> None:
        """Add the exports of a pool that the start skipped."""
        shares = {
            each.share_id
            for each in self._wanted_exports()
            if each.pool == pool
        }
        if not shares:
            return
        with self.runner.holding(*shares):
            # The rules may have changed.
            self.context.exports.exporter.reconcile(
                [
                    each.export
                    for each in self._wanted_exports()
                    if each.share_id in shares
                ],
                apply=True,
            )

    def compare_exports(self) -> None:
        """Find exports without an access rule; change nothing."""
        wanted = [each.export for each in self._wanted_exports()]
        self._note_unexplained(
            self.context.exports.exporter.reconcile(wanted, apply=False)
        )

    def _note_unexplained(
        self, differences: Sequence[exporters.Difference]
    ) -> None:
        """Remember exports that changes of access rules must keep."""
        jobs = self._clients_of_open_jobs()
        self.context.exports.unexplained = {
            each.reference: each.unexplained
            for each in differences
            if each.unexplained
        }
        for reference, clients in jobs.items():
            self.context.exports.explain(reference, clients)

    def _clients_of_open_jobs(self) -> dict[references.Reference, list[str]]:
        """Clients that an unfinished grant may have given access."""
        return {
            operation.reference: operation.intent.arguments["rule"]["clients"]
            for _, operation in self.journal.entries.readable()
            if isinstance(operation, access.PutAccess)
        }

    def _wanted_exports(self) -> list[_Wanted]:
        return [
            each
            for kind in references.Kind
            for each in self._wanted_exports_of(kind)
        ]

    def _wanted_exports_of(self, kind: references.Kind) -> list[_Wanted]:
        """Plain rows: there may be very many."""
        found: dict[str, list[Any]] = {}
        with self.context.database.read_rows() as connection:
            for row in connection.execute(_rules(kind)):
                if row.pool in self.context.pools:
                    found.setdefault(row.id, []).append(row)
        return [self._wanted_export(kind, each) for each in found.values()]

    def _wanted_export(
        self, kind: references.Kind, found: list[Any]
    ) -> _Wanted:
        """:param found: a row for each rule of the same."""
        first, rules = found[0], access.rules_of(found)
        directory = access.exported_directory(
            self.context, references.Reference(kind, first.id), first, rules
        )
        return _Wanted(
            first.pool, first.share_id, directory, exporters.clients_of(rules)
        )


@functools.cache
def _rules(kind: references.Kind) -> sa.Select[Any]:
    """All access rules of shares or snapshots, with what they are for."""
    object_ = rows.table(lookup.TABLES[kind]).c
    rule = rows.table(models.AccessRule).c
    share_id = (
        object_.id if kind == references.Kind.SHARE else object_.share_id
    )
    return sa.select(
        object_.id,
        share_id.label("share_id"),
        object_.pool,
        object_.file,
        rule.holder,
        rule.clients,
        rule.level,
    ).join(
        rows.table(models.AccessRule),
        sa.and_(rule.object_id == object_.id, rule.kind == kind.value),
    )


def _plain(difference: exporters.Difference) -> types.Body:
    return {
        **views.named(difference.reference),
        "wanted": dict(difference.wanted),
        "found": dict(difference.found),
    }
