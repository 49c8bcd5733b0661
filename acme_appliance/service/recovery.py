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

"""After a stop: finish the journal's open entries, then compare everything.

The repair at start only adds. It finishes what the journal knows, and it
exports what the access rules say. What it cannot explain, it reports and
leaves alone: a subvolume, or a client that has access without a rule. That
may be somebody's only copy, or a guest's disk, and the database may be what
is wrong. Exports without a rule go when an operator says so
(``acme-appliance reconcile --apply``); subvolumes are never deleted.
"""

from collections.abc import Sequence
import dataclasses
import logging
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.service import access
from acme_appliance.service import bounds
from acme_appliance.service import changes
from acme_appliance.service import jobrows
from acme_appliance.service import metadata_repair
from acme_appliance.service import openjobs
from acme_appliance.service import types
from acme_appliance.service.inspection import Finding

LOG = logging.getLogger(__name__)


@dataclasses.dataclass
class Report:
    """What a comparison found; ``pool/id`` for things in a pool."""

    #: In the database, not in the pool.
    missing_shares: list[str] = dataclasses.field(default_factory=list)
    missing_snapshots: list[str] = dataclasses.field(default_factory=list)
    #: The share is there, its volume file is not as it should be.
    damaged_shares: list[str] = dataclasses.field(default_factory=list)
    #: The volume file takes more space than the share has: a client has
    #: made it longer.
    oversized_shares: list[str] = dataclasses.field(default_factory=list)
    #: In the pool, not in the database.
    unknown_shares: list[str] = dataclasses.field(default_factory=list)
    unknown_snapshots: list[str] = dataclasses.field(default_factory=list)
    #: ``{share_id, wanted, found}``: something was missing or had other
    #: options; repaired if ``applied``.
    export_differences: list[types.Body] = dataclasses.field(
        default_factory=list
    )
    #: ``{share_id, clients}``: clients that have access, now or after a
    #: restart of the machine, and that no access rule explains.
    unexplained_exports: list[types.Body] = dataclasses.field(
        default_factory=list
    )
    #: The metadata in the pool was missing or old; written if ``applied``.
    old_metadata: list[str] = dataclasses.field(default_factory=list)
    #: Parts of a share or snapshot whose create failed; to be deleted.
    unfinished_creates: list[str] = dataclasses.field(default_factory=list)
    #: Ids of jobs that can neither be finished nor undone yet.
    open_jobs: list[str] = dataclasses.field(default_factory=list)
    #: Open jobs that this release cannot read: id to reason.
    unreadable_jobs: dict[str, str] = dataclasses.field(default_factory=dict)
    #: Pools that could not be looked at, with the reason.
    unusable_pools: dict[str, str] = dataclasses.field(default_factory=dict)
    applied: bool = False

    def lines(self) -> list[str]:
        """What was found, for a log: a line for each kind; [] is well."""
        found = dataclasses.asdict(self)
        del found["applied"]
        return [
            f"{len(each)} {name.replace('_', ' ')}, such as {_example(each)}"
            for name, each in found.items()
            if each
        ]


class Recovery:
    """Run once at start, and its comparison whenever an operator asks.

    Nothing is locked here: at start all changes are refused, and the
    command that repairs has the lock of the process that serves. One that
    only looks, beside that process, may see changes that are under way.
    """

    def __init__(self, changer: changes.Changer) -> None:
        self.journal = changer.journal
        self.core = changer.core
        self.inspector = changer.inspector
        self.open_jobs = openjobs.OpenJobs(changer)

    def start(self) -> Report:
        """Finish or undo what was cut off; then compare and repair.

        :raises identity.Mismatch: the database is not that of the pools;
            nothing was done.
        """
        self.core.check_identities()
        if self.journal.entries.open():
            # Before a change of a share's rules is finished: it exports
            # the share to the clients of its rules only.
            self.compare_exports()
        self.open_jobs.take_up_all()
        return self._compare(apply=True, remove=False)

    def reconcile(self, apply: bool, close_jobs: Sequence[str]) -> Report:
        """Compare everything, for an operator.

        :param apply: finish or undo what is open, correct the states of
            shares, and make exports what the access rules say; that
            withdraws those that no rule explains.
        :param close_jobs: open jobs to be given up first.
        :raises identity.Mismatch: with ``apply``; nothing was done.
        """
        if apply:
            self.core.check_identities()
        for job_id in close_jobs:
            self.open_jobs.close(job_id)
        if apply:
            self.open_jobs.take_up_all()
        return self._compare(apply, remove=apply)

    def _compare(self, apply: bool, remove: bool) -> Report:
        if apply:
            self.core.generations.reserve()
        report = Report(applied=apply)
        for job in self.journal.entries.open():
            if job.unreadable:
                report.unreadable_jobs[job.id] = job.problem.detail
            else:
                report.open_jobs.append(job.id)
        for pool, engine in self.core.pools.items():
            try:
                self.core.check_pool(pool, adopt=apply)
                self._compare_shares(report, pool, engine)
                self._compare_snapshots(report, pool, engine)
                report.old_metadata += metadata_repair.compare(
                    self.core, pool, apply=apply
                )
                report.oversized_shares += [
                    f"{pool}/{share_id}"
                    for share_id in bounds.check(
                        self.core, pool, restore=apply
                    )
                ]
            except engines.EngineError as error:
                report.unusable_pools[pool] = str(error)
        differences = self.core.exporter.reconcile(
            self._wanted_exports(), apply=apply, remove=remove
        )
        self._note_unexplained(differences)
        report.export_differences = [
            _plain(each) for each in differences if each.is_lacking
        ]
        report.unexplained_exports = [
            {"share_id": share_id, "clients": dict(clients)}
            for share_id, clients in self.core.unexplained_exports.items()
        ]
        if apply and remove:
            self.core.unexplained_exports = {}
        return report

    def compare_exports(self) -> None:
        """Find the exports that no access rule explains; change nothing."""
        self._note_unexplained(
            self.core.exporter.reconcile(self._wanted_exports(), apply=False)
        )

    # -- pools

    def _compare_shares(
        self, report: Report, pool: str, engine: engines.Engine
    ) -> None:
        # The pool first: whatever it holds by then, a row was there before.
        found = engine.ids(engines.Kind.SHARE)
        table = models.Share
        rows = self._rows(pool, table, table.file)
        for row in rows:
            if not row.has_open_job:
                finding = self.inspector.look_at_share(row)
                if not finding.exists:
                    report.missing_shares.append(f"{pool}/{row.id}")
                elif finding.never_made:
                    report.unfinished_creates.append(f"{pool}/{row.id}")
                elif finding.state != types.State.AVAILABLE:
                    report.damaged_shares.append(f"{pool}/{row.id}")
                self._repair(report, table, row, finding)
        report.unknown_shares += _unknown(
            pool, engine, engines.Kind.SHARE, found, rows
        )

    def _compare_snapshots(
        self, report: Report, pool: str, engine: engines.Engine
    ) -> None:
        found = engine.ids(engines.Kind.SNAPSHOT)
        table = models.Snapshot
        rows = self._rows(pool, table, table.share_id)
        for row in rows:
            if not row.has_open_job:
                finding = self.inspector.look_at_snapshot(row)
                if not finding.exists:
                    report.missing_snapshots.append(f"{pool}/{row.id}")
                elif finding.never_made:
                    report.unfinished_creates.append(f"{pool}/{row.id}")
                self._repair(report, table, row, finding)
        report.unknown_snapshots += _unknown(
            pool, engine, engines.Kind.SNAPSHOT, found, rows
        )

    def _rows(self, pool: str, table: Any, more: Any) -> Sequence[Any]:
        """What the database has of a pool: there may be very many, and it
        is not asked again for each."""
        is_open = table.job_id.in_(
            sa.select(models.Job.id).where(jobrows.IS_OPEN)
        )
        statement = sa.select(
            table.id,
            table.pool,
            table.state,
            table.size_bytes,
            table.job_id,
            is_open.label("has_open_job"),
            more,
        ).where(table.pool == pool)
        with self.core.database.read() as session:
            return session.execute(statement).all()

    def _repair(
        self, report: Report, table: Any, row: Any, finding: Finding
    ) -> None:
        as_it_is = finding.state == row.state and row.job_id is None
        if as_it_is or not report.applied:
            return
        with self.core.database.write() as session:
            self.inspector.record(
                session, session.get_one(table, row.id), finding
            )
        self.core.announce()

    # -- exports

    def _note_unexplained(
        self, differences: Sequence[exporters.Difference]
    ) -> None:
        """Remember what changes of access rules must leave alone."""
        jobs = self._clients_of_open_jobs()
        self.core.unexplained_exports = {
            each.share_id: each.unexplained
            for each in differences
            if each.unexplained
        }
        for share_id, clients in jobs.items():
            self.core.explain_exports(share_id, clients)

    def _clients_of_open_jobs(self) -> dict[str, list[str]]:
        """Clients that an unfinished grant may have let in."""
        return {
            job.share_id: operation.intent.arguments["rule"]["clients"]
            for job, operation in self.journal.entries.readable()
            if job.kind == access.PutAccess.kind
        }

    def _wanted_exports(
        self,
    ) -> list[tuple[exporters.ExportedShare, exporters.Clients]]:
        statement = (
            sa.select(models.Share)
            .where(models.Share.access_rules.any())
            .options(orm.selectinload(models.Share.access_rules))
        )
        with self.core.database.read() as session:
            return [
                (share, exporters.clients_of(share.rules))
                for row in session.scalars(statement)
                if row.pool in self.core.pools
                for share in [
                    self.core.exported_share(
                        row, access.rules_of(row.access_rules)
                    )
                ]
            ]


def _unknown(
    pool: str,
    engine: engines.Engine,
    kind: engines.Kind,
    found: set[str],
    rows: Sequence[Any],
) -> list[str]:
    """What is in the pool, still, and has no row."""
    return [
        f"{pool}/{id_}"
        for id_ in sorted(found - {row.id for row in rows})
        if engine.exists(engines.Reference(kind, id_))
    ]


def _example(found: list[Any] | dict[str, Any]) -> str:
    first = next(iter(found))
    return (
        f"{first}: {found[first]}" if isinstance(found, dict) else f"{first}"
    )


def _plain(difference: exporters.Difference) -> types.Body:
    return {
        "share_id": difference.share_id,
        "wanted": dict(difference.wanted),
        "found": dict(difference.found),
    }
