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

"""All use cases of one appliance, and its start and stop."""

from collections.abc import Mapping
import functools
import logging
from typing import Final

from acme_appliance import references
from acme_appliance import types
from acme_appliance.changes import background
from acme_appliance.changes import context
from acme_appliance.changes import failures
from acme_appliance.changes import journal
from acme_appliance.changes import openjobs
from acme_appliance.changes import operation
from acme_appliance.changes.runner import Runner
from acme_appliance.db.session import Database
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.service import access
from acme_appliance.service import snapshots
from acme_appliance.service.events import Events
from acme_appliance.service.figures import Figures
from acme_appliance.service.groups import groupcreation
from acme_appliance.service.groups import snapshotoperations
from acme_appliance.service.groups.groups import Groups
from acme_appliance.service.groups.groupsnapshots import GroupSnapshots
from acme_appliance.service.jobs import Jobs
from acme_appliance.service.pools import PoolFigures
from acme_appliance.service.reconcile import comparison
from acme_appliance.service.reconcile import reports
from acme_appliance.service.reconcile.marks import Marks
from acme_appliance.service.reconcile.reconciliation import Reconciliation
from acme_appliance.service.reconcile.recovery import Recovery
from acme_appliance.service.retention import INTERVAL_SECONDS
from acme_appliance.service.retention import Retention
from acme_appliance.service.shares import moves
from acme_appliance.service.shares import operations as share_operations
from acme_appliance.service.shares import reverts
from acme_appliance.service.shares.shares import Shares
from acme_appliance.service.system import System
from acme_appliance.storage.exports import Exports
from acme_appliance.storage.pools import Pools

LOG = logging.getLogger(__name__)

#: Every kind of journal entry, of this release and of those before.
OPERATIONS: Final[Mapping[str, type[operation.Operation]]] = {
    kind.kind: kind
    for kind in (
        share_operations.CreateShare,
        share_operations.UpdateShare,
        share_operations.DeleteShare,
        reverts.RevertShare,
        moves.MoveShare,
        access.PutAccess,
        access.DeleteAccess,
        snapshots.CreateSnapshot,
        snapshots.DeleteSnapshot,
        groupcreation.CreateGroup,
        snapshotoperations.CreateGroupSnapshot,
        snapshotoperations.DeleteGroupSnapshot,
    )
}


class Service:
    """The use cases, one attribute per noun.

    :param database: upgraded to this release's tables.
    :param pools: name to engine; the order is that of the lists.
    :param on_step: see :class:`acme_appliance.changes.context.Context`.
    """

    def __init__(
        self,
        database: Database,
        pools: Mapping[str, engines.Engine],
        exporter: exporters.Exporter,
        settings: types.ServiceSettings,
        *,
        clock: context.Clock = context.utc_now,
        on_step: context.OnStep = context.ignore_step,
    ) -> None:
        self.context = context.Context(
            database,
            Pools(database, pools, settings, clock),
            Exports(exporter, settings.answer_seconds),
            settings,
            clock=clock,
            on_step=on_step,
        )
        self.journal = journal.Journal(self.context, OPERATIONS)
        self.runner = Runner(self.context, self.journal)
        self.recovery = Recovery(self.runner)
        self.retention = Retention(self.context)
        self.shares = Shares(self.runner)
        self.reverts = reverts.Reverts(self.runner)
        self.snapshots = snapshots.Snapshots(self.runner)
        self.groups = Groups(self.runner, self.shares)
        self.group_snapshots = GroupSnapshots(self.runner)
        self.access = access.Access(self.runner, references.Kind.SHARE)
        self.snapshot_access = access.Access(
            self.runner, references.Kind.SNAPSHOT
        )
        self.jobs = Jobs(self.context, self.journal)
        self.events = Events(self.context)
        self.pools = PoolFigures(self.context)
        self.system = System(self.runner, self.pools)
        self.context.metrics.registry.register(
            Figures(self.system, self.pools)
        )
        self.reconciliation = Reconciliation(self.recovery)
        self._marks = Marks(self.context)
        self._after_start = comparison.AfterStart(self.recovery.compare_pool)
        self._background = background.Background(*self._tasks())

    def _tasks(self) -> list[background.Task]:
        """The periodic tasks."""
        return [
            background.Task(
                "open jobs",
                openjobs.LOOK_SECONDS,
                self.recovery.open_jobs.resume_due,
            ),
            background.Task(
                "retention", INTERVAL_SECONDS, self.retention.prune
            ),
            *(
                background.Task(
                    f"compare {pool}",
                    comparison.RETRY_SECONDS,
                    functools.partial(self._after_start.run, pool),
                    at_once=True,
                )
                for pool in self.context.pools
            ),
        ]

    def start(self) -> reports.Report:
        """Recover, then accept changes and compare the pools, see
        :meth:`wait_until_compared`.

        Until then changes are refused with ``system.starting``; reads work.
        """
        try:
            report = self.recovery.start()
        except Exception as error:
            raise failures.to_problem(error) from error
        self.runner.started = True
        self._marks.start()
        for line in (*report.lines(), *self.system.warnings()):
            LOG.warning("At start: %s", line)
        self._background.start()
        return report

    def warnings(self) -> list[str]:
        """What an operator should look at although changes are accepted.
        Names no shares or clients, because anyone may ask."""
        return self.system.export_warnings() + self._background.overdue()

    def wait_until_compared(self, seconds: float) -> reports.Report | None:
        """The result of the comparison of the pools after a start; None: it
        takes longer."""
        return self._after_start.wait([*self.context.pools], seconds)

    def stop(self) -> None:
        """Refuse new changes and wait for running ones."""
        self.runner.started = False
        self._background.stop()
        self.journal.stop()
        self._marks.stop()
        self.context.stop()
