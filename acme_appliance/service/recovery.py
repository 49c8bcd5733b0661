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

"""After a stop: the journal's open entries, then a comparison of all.

Unknown subvolumes are listed and never deleted: they may be somebody's only
copy, restored by hand or left by another database.
"""

import dataclasses
import logging
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.service import access
from acme_appliance.service import changes
from acme_appliance.service import core
from acme_appliance.service import types

LOG = logging.getLogger(__name__)

#: How long one share's turn is waited for, while serving.
WAIT_SECONDS = 60.0

_STEADY = (types.State.AVAILABLE, types.State.DEGRADED)


@dataclasses.dataclass
class Report:
    """What a comparison found; ``pool/id`` for things in a pool."""

    #: In the database, not in the pool.
    missing_shares: list[str] = dataclasses.field(default_factory=list)
    missing_snapshots: list[str] = dataclasses.field(default_factory=list)
    #: The share is there, its volume file is not as it should be.
    damaged_shares: list[str] = dataclasses.field(default_factory=list)
    #: In the pool, not in the database.
    unknown_shares: list[str] = dataclasses.field(default_factory=list)
    unknown_snapshots: list[str] = dataclasses.field(default_factory=list)
    #: ``{share_id, wanted, found}``; repaired if ``applied``.
    export_differences: list[types.Body] = dataclasses.field(
        default_factory=list
    )
    #: Ids of jobs that were cut off and cannot be finished yet.
    open_jobs: list[str] = dataclasses.field(default_factory=list)
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
    """Run once at start, and its comparison whenever an operator asks."""

    def __init__(self, changer: changes.Changer) -> None:
        self.changer = changer
        self.core = changer.core

    def start(self) -> Report:
        """Finish or undo what was cut off; then compare and repair."""
        for job in self.changer.journal.open_jobs():
            ticket = self.changer.hold(
                changes.alone(job.share_id), core.Deadline(WAIT_SECONDS)
            )
            try:
                self.changer.journal.recover(job.id, ticket)
            finally:
                self.core.queue.release(ticket)
        report = self._compare(apply=True)
        wanted = self._wanted_exports()
        differences = self.core.exporter.reconcile(wanted, apply=True)
        report.export_differences = [_plain(each) for each in differences]
        return report

    def reconcile(self, apply: bool) -> Report:
        """Compare while serving; with ``apply``, repair share by share."""
        report = self._compare(apply)
        differences = self.core.exporter.reconcile(
            self._wanted_exports(), apply=False
        )
        for difference in differences:
            if self._export_differs(difference.share_id, apply):
                report.export_differences.append(_plain(difference))
        return report

    # -- pools

    def _compare(self, apply: bool) -> Report:
        report = Report(applied=apply)
        report.open_jobs = [
            job.id
            for job in self.changer.journal.open_jobs()
            if not self.changer.journal.is_ours(job.id)
        ]
        for pool, engine in self.core.pools.items():
            try:
                self.core.check_pool(pool)
                self._compare_pool(report, pool, engine, apply)
            except engines.EngineError as error:
                report.unusable_pools[pool] = str(error)
        return report

    def _compare_pool(
        self, report: Report, pool: str, engine: engines.Engine, apply: bool
    ) -> None:
        # The pool first: whatever it holds by then, a row was there before.
        found = {kind: engine.ids(kind) for kind in engines.Kind}
        with self.core.database.read() as session:
            rows = _rows(session, models.Share, pool)
            snapshots = _rows(session, models.Snapshot, pool)
        for row in rows:
            self._compare_share(report, row.id, apply)
        for snapshot in snapshots:
            reference = engines.Reference(engines.Kind.SNAPSHOT, snapshot.id)
            if snapshot.state in _STEADY and not engine.exists(reference):
                report.missing_snapshots.append(f"{pool}/{snapshot.id}")
        shares = found[engines.Kind.SHARE] - {row.id for row in rows}
        for id_ in sorted(shares):
            if engine.exists(engines.Reference(engines.Kind.SHARE, id_)):
                report.unknown_shares.append(f"{pool}/{id_}")
        kept = found[engines.Kind.SNAPSHOT] - {row.id for row in snapshots}
        for id_ in sorted(kept):
            if engine.exists(engines.Reference(engines.Kind.SNAPSHOT, id_)):
                report.unknown_snapshots.append(f"{pool}/{id_}")

    def _compare_share(
        self, report: Report, share_id: str, apply: bool
    ) -> None:
        ticket = self.changer.hold(
            changes.alone(share_id), core.Deadline(WAIT_SECONDS)
        )
        try:
            with self.core.database.read() as session:
                row = session.get(models.Share, share_id)
                if row is None or row.state not in _STEADY:
                    return
                state = self._condition(report, row)
                changed = state != row.state
            if apply and changed:
                self._set_state(share_id, state)
        finally:
            self.core.queue.release(ticket)

    def _condition(self, report: Report, row: models.Share) -> types.State:
        engine = self.core.engine(row.pool)
        if not engine.exists(engines.Reference(engines.Kind.SHARE, row.id)):
            report.missing_shares.append(f"{row.pool}/{row.id}")
            return types.State.DEGRADED
        if row.file is not None and not engine.file_intact(
            row.id, row.file["name"]
        ):
            report.damaged_shares.append(f"{row.pool}/{row.id}")
            return types.State.DEGRADED
        return types.State.AVAILABLE

    def _set_state(self, share_id: str, state: types.State) -> None:
        LOG.warning("Share %s is %s", share_id, state)
        with self.core.database.write() as session:
            row = session.get_one(models.Share, share_id)
            row.state = state
            self.core.touch(row)
            self.core.add_event(
                session, f"share.{state}", _our_own(row), job=False
            )
        self.core.announce()

    # -- exports

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
                (
                    self.core.exported_share(row),
                    access.clients_of(row.access_rules),
                )
                for row in session.scalars(statement)
                if row.pool in self.core.pools
            ]

    def _export_differs(self, share_id: str, apply: bool) -> bool:
        """Look again, at one share that nobody changes meanwhile."""
        ticket = self.changer.hold(
            changes.alone(share_id), core.Deadline(WAIT_SECONDS)
        )
        try:
            with self.core.database.read() as session:
                row = session.get(models.Share, share_id)
                clients = access.clients_of(row.access_rules) if row else {}
                share = self.core.exported_share(row) if row else None
            found = self.core.exporter.exported().get(share_id, {})
            if dict(clients) == found:
                return False
            if apply and share is not None:
                self.core.exporter.apply(share, clients)
            elif apply:
                self.core.exporter.withdraw(share_id)
            return True
        finally:
            self.core.queue.release(ticket)


def _our_own(row: models.Share) -> types.Intent:
    """What nobody asked for: the appliance found it out."""
    return types.Intent(
        id=core.new_id(),
        kind="recovery",
        namespace=row.namespace,
        share_id=row.id,
        snapshot_id=None,
        arguments={},
        actor="acme-appliance",
        request_id="",
    )


@dataclasses.dataclass(frozen=True)
class _Brief:
    id: str
    state: str


def _rows(
    session: orm.Session,
    table: type[models.Share] | type[models.Snapshot],
    pool: str,
) -> list[_Brief]:
    statement = sa.select(table.id, table.state).where(table.pool == pool)
    return [_Brief(*row) for row in session.execute(statement)]


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
