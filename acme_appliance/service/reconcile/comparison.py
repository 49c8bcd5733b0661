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

"""Compare database and pools.

Runs after a start, in parallel with changes, in a thread per pool, so that a
pool that hangs delays no other. A difference may be a change in progress: so
each is checked again under a claim on its share before it is reported or
repaired.
"""

from collections.abc import Callable
from collections.abc import Sequence
import logging
import threading
from typing import Any
from typing import Final

import sqlalchemy as sa

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.changes import jobrows
from acme_appliance.changes.inspection import Finding
from acme_appliance.changes.runner import Runner
from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.service.reconcile import metadata_repair
from acme_appliance.service.reconcile.reports import Report
from acme_appliance.service.shares import bounds

LOG = logging.getLogger(__name__)

#: How soon to retry a pool that could not be compared.
RETRY_SECONDS: Final = 10.0

_TABLES: Final[dict[engines.Kind, Any]] = {
    engines.Kind.SHARE: models.Share,
    engines.Kind.SNAPSHOT: models.Snapshot,
}


class Comparison:
    """Compares one pool at a time; repairs if the report is ``applied``."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.context = runner.context
        self.inspector = runner.inspector

    def compare(self, pool: str, *, apply: bool) -> Report:
        """:raises engines.EngineError: the pool cannot be used.
        :raises problems.Problem: ``share.busy``: a change of a share takes
            too long.
        """
        if apply:
            self.context.generations.reserve()
        report = Report(applied=apply)
        self.context.pools.check(pool, adopt=apply)
        for kind in engines.Kind:
            self._compare_rows(report, pool, kind)
        report.old_metadata = metadata_repair.compare(
            self.runner, pool, apply=apply
        )
        report.oversized_shares = [
            f"{pool}/{share_id}"
            for share_id in bounds.check(self.runner, pool, restore=apply)
        ]
        return report

    def _compare_rows(
        self, report: Report, pool: str, kind: engines.Kind
    ) -> None:
        engine = self.context.pools.engine(pool)
        # Read the pool first: its contents already have rows, or an open job:
        # a revert keeps the old content by the job's id, a move has its share
        # in two pools, a copy of a group has claimed its temporary snapshots.
        found = engine.ids(kind)
        entries = self.runner.journal.entries
        jobs = entries.open()
        kept = {job.id for job in jobs}
        kept |= {job.share_id for job in jobs if entries.copies(job)}
        if kind == engines.Kind.SNAPSHOT:
            kept |= entries.claimed(kind)
        rows = self._rows(pool, kind)
        for row in rows:
            if not row.has_open_job and not _is_well(row, self._look(row)):
                with self.runner.holding(row.share_id):
                    self._judge(report, kind, row)
        unknown = [
            f"{pool}/{id_}"
            for id_ in sorted(found - kept - {row.id for row in rows})
            if engine.exists(engines.Reference(kind, id_))
        ]
        if kind == engines.Kind.SHARE:
            report.unknown_shares = unknown
        else:
            report.unknown_snapshots = unknown

    def _look(self, row: Any) -> Finding:
        if hasattr(row, "file"):
            return self.inspector.inspect_share(row)
        return self.inspector.inspect_snapshot(row)

    def _judge(self, report: Report, kind: engines.Kind, row: Any) -> None:
        """Report and repair a row whose share is held."""
        for now in self._rows(row.pool, kind, row.id):
            if not now.has_open_job:
                finding = self._look(now)
                _note(report, kind, now, finding)
                self._repair(report, kind, now, finding)

    def _rows(
        self, pool: str, kind: engines.Kind, id_: str | None = None
    ) -> Sequence[Any]:
        """The database's rows of a pool, in one query, because there may be
        very many."""
        table = _TABLES[kind]
        if kind == engines.Kind.SHARE:
            more = [table.id.label("share_id"), table.file, table.group_id]
        else:
            more = [table.share_id, table.group_snapshot_id]
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
            *more,
        ).where(table.pool == pool)
        if id_ is not None:
            statement = statement.where(table.id == id_)
        with self.context.database.read() as session:
            return session.execute(statement).all()

    def _repair(
        self, report: Report, kind: engines.Kind, row: Any, finding: Finding
    ) -> None:
        as_it_is = finding.state == row.state and row.job_id is None
        if as_it_is or not report.applied:
            return
        with self.context.database.write() as session:
            self.inspector.record(
                session, session.get_one(_TABLES[kind], row.id), finding
            )
        self.context.events.announce()


def _is_well(row: Any, finding: Finding) -> bool:
    return (
        finding.state == row.state == types.State.AVAILABLE
        and row.job_id is None
    )


def _note(
    report: Report, kind: engines.Kind, row: Any, finding: Finding
) -> None:
    name = f"{row.pool}/{row.id}"
    share = kind == engines.Kind.SHARE
    if not finding.exists:
        missing = report.missing_shares if share else report.missing_snapshots
        missing.append(name)
    elif finding.never_made:
        report.unfinished_creates.append(name)
    elif finding.state != types.State.AVAILABLE:
        report.damaged_shares.append(name)


class AfterStart:
    """Compares each pool once; retries unusable ones.

    :param compare: compares and repairs a pool.
    """

    def __init__(self, compare: Callable[[str], Report]) -> None:
        self._compare = compare
        self._changed = threading.Condition()
        self._reports: dict[str, Report] = {}
        self._done: set[str] = set()

    def run(self, pool: str) -> None:
        """The periodic task."""
        if pool in self._done:
            return
        try:
            report = self._compare(pool)
        except (engines.EngineError, problems.Problem) as error:
            report = Report(applied=True, unusable_pools={pool: str(error)})
        else:
            self._done.add(pool)
        before = self._reports.get(pool, Report())
        for line in report.lines():
            if line not in before.lines():
                LOG.warning("Comparison after the start: %s", line)
        with self._changed:
            self._reports[pool] = report
            self._changed.notify_all()

    def wait(self, pools: Sequence[str], seconds: float) -> Report | None:
        """The results for these pools so far; None: one was not tried in
        time."""
        with self._changed:
            tried = self._changed.wait_for(
                lambda: self._reports.keys() >= {*pools}, seconds
            )
            if not tried:
                return None
            found = Report(applied=True)
            for pool in pools:
                found.add(self._reports[pool])
            return found
