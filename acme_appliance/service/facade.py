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

"""The service as the API and the commands see it."""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import logging
from typing import Any

import sqlalchemy as sa

from acme_appliance import problems
from acme_appliance.db import models
from acme_appliance.db import probe
from acme_appliance.db.session import Database
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.service import access
from acme_appliance.service import background
from acme_appliance.service import changes
from acme_appliance.service import comparison
from acme_appliance.service import core
from acme_appliance.service import failures
from acme_appliance.service import history
from acme_appliance.service import identity
from acme_appliance.service import journal
from acme_appliance.service import marks
from acme_appliance.service import openjobs
from acme_appliance.service import operation
from acme_appliance.service import owners
from acme_appliance.service import pools as pool_views
from acme_appliance.service import quotas
from acme_appliance.service import recovery
from acme_appliance.service import reports
from acme_appliance.service import restoration
from acme_appliance.service import retention
from acme_appliance.service import share_creation
from acme_appliance.service import share_operations
from acme_appliance.service import shares
from acme_appliance.service import snapshots
from acme_appliance.service import types
from acme_appliance.service import watch

LOG = logging.getLogger(__name__)

#: Every kind of journal entry, of this release and of those before.
OPERATIONS: Mapping[str, type[operation.Operation]] = {
    kind.kind: kind
    for kind in (
        share_operations.CreateShare,
        share_operations.UpdateShare,
        share_operations.DeleteShare,
        access.PutAccess,
        access.DeleteAccess,
        snapshots.CreateSnapshot,
        snapshots.DeleteSnapshot,
    )
}


def _ignore_step(job_id: str, step: str) -> None:
    return


class Service:
    """All use cases. Every method blocks, is thread-safe, and raises
    :class:`acme_appliance.problems.Problem` and nothing else.

    Changes may be sent again, after whatever went wrong: they end in the
    same state. ``wait_seconds`` bounds the queue and the work together:
    past it the queue gives ``share.busy``, and work goes on as a job
    (:class:`types.Accepted`). ``if_match`` is the generation that the
    share or snapshot must have, for access rules the share's; None: any.

    :param database: upgraded to this release's tables.
    :param pools: name to engine; the order is that of the lists.
    :param on_step: called with a job's id and a step's name before and
        after each step and both commits; for tests, which die there.
    """

    def __init__(
        self,
        database: Database,
        pools: Mapping[str, engines.Engine],
        exporter: exporters.Exporter,
        settings: types.Settings,
        *,
        clock: core.Clock = core.utc_now,
        on_step: core.OnStep = _ignore_step,
    ) -> None:
        self.core = core.Core(
            database,
            pools,
            exporter,
            settings,
            clock=clock,
            on_step=on_step,
        )
        self._probe = probe.WriteProbe(database)
        self._journal = journal.Journal(self.core, OPERATIONS)
        self._changer = changes.Changer(self.core, self._journal)
        self._recovery = recovery.Recovery(self._changer)
        self._after_start = comparison.AfterStart(self._recovery.compare_pool)
        self._marks = marks.Marks(self.core)
        self._creation = share_creation.ShareCreation(self._changer)
        self._shares = shares.Shares(self._changer)
        self._snapshots = snapshots.Snapshots(self._changer)
        self._access = access.Access(self._changer)
        self._jobs = history.Jobs(self.core, self._journal)
        self._events = history.Events(self.core)
        self._retention = retention.Retention(self.core)
        self._background = background.Background(
            background.Task(
                "open jobs",
                openjobs.LOOK_SECONDS,
                self._recovery.open_jobs.take_up_due,
            ),
            background.Task(
                "retention", retention.INTERVAL_SECONDS, self._retention.prune
            ),
            *(
                background.Task(
                    f"compare {pool}",
                    comparison.RETRY_SECONDS,
                    functools.partial(self._after_start.run, pool),
                    at_once=True,
                )
                for pool in pools
            ),
        )
        self._pools = pool_views.Pools(self.core)

    # -- life

    def start(self) -> reports.Report:
        """Recover, then accept changes; until then they are refused with
        ``system.starting``. Reads work before.

        The pools are compared after that, see :meth:`wait_until_compared`.
        """
        try:
            report = self._recovery.start()
        except Exception as error:
            raise failures.to_problem(error) from error
        self._changer.started = True
        self._marks.start()
        for line in report.lines():
            LOG.warning("At start: %s", line)
        for line in self.warnings():
            LOG.warning("At start: %s", line)
        self._background.start()
        return report

    def wait_until_compared(self, seconds: float) -> reports.Report | None:
        """What the comparison of the pools after a start has found; None:
        it takes longer than this."""
        return self._after_start.wait([*self.core.pools], seconds)

    def stop(self) -> None:
        """Refuse changes, and wait for those at work."""
        self._changer.started = False
        self._background.stop()
        self._journal.stop()
        self._marks.stop()
        self.core.stop_watching()

    def reconcile(
        self, apply: bool, close_jobs: Sequence[str] = ()
    ) -> types.Body:
        """Compare database, pools and exports. With ``apply``, finish or
        undo open jobs, and make exports and states what the database says;
        that also withdraws exports that it does not explain. Unknown
        subvolumes are only listed.

        :param close_jobs: ids of open jobs that an operator gives up; what
            they touched is judged by what is in the pool. ``job.not_found``.
        """
        try:
            report = self._recovery.reconcile(apply, close_jobs)
            return dataclasses.asdict(report)
        except identity.Mismatch as error:
            # The operator is told, and needs no log to say it once more.
            raise problems.Problem("engine.unavailable", str(error)) from error
        except Exception as error:
            raise failures.to_problem(error) from error

    def restore(self, *, apply: bool, adopt_into: str | None) -> types.Body:
        """Rebuild the database from the pools, or bring an older copy up to
        date; see :class:`restoration.Restoration`. Never while a service is
        at work."""
        try:
            return dataclasses.asdict(
                restoration.Restoration(self.core).run(
                    apply=apply, adopt_into=adopt_into
                )
            )
        except Exception as error:
            raise failures.to_problem(error) from error

    def readiness(self) -> list[str]:
        """Why changes cannot be served; empty: they can."""
        return self._readiness(self.core.look_at_pools())

    def obstacles(self) -> list[str]:
        """Why pools and exports cannot be served; empty: they can.

        Pools that are not the database's are among them: a start would
        refuse them. Changes nothing.
        """
        found = self._obstacles(self.core.look_at_pools())
        try:
            self.core.check_identities(adopt=False)
        except engines.EngineError as error:
            found += str(error).splitlines()
        return found

    def _readiness(self, sightings: pool_views.Sightings) -> list[str]:
        reasons = []
        if not self._changer.started:
            reasons.append("recovery is not finished")
        elif not self._probe.works():
            reasons.append("the database cannot be written")
        return reasons + self._obstacles(sightings)

    def _obstacles(self, sightings: pool_views.Sightings) -> list[str]:
        reasons = [
            f"pool {name}: {reason}"
            for name, sighting in sightings.items()
            for reason in sighting.reasons
        ]
        return reasons + self.core.check_exporter()

    def warnings(self) -> list[str]:
        """What an operator should change although all works."""
        found = self.export_warnings()
        for name, engine in self.core.pools.items():
            # One that does not answer is among the obstacles.
            with contextlib.suppress(watch.NotAnswering):
                lines = self.core.watches[name].ask(engine.warnings)
                found += [f"pool {name}: {line}" for line in lines]
        with self.core.database.read() as session:
            others = owners.not_allowed(session, self.core.settings)
        return found + [
            f"{count} shares belong to uid {uid}, gid {gid}, which no create"
            " may name: allow both ([nfs] allowed_uids, allowed_gids), or"
            " replace the shares by clones, which have the default owner"
            for (uid, gid), count in sorted(others.items())
        ]

    def export_warnings(self) -> list[str]:
        """Whether there are exports that no access rule explains. Anybody
        may ask, so it names no share and no client."""
        try:
            exports = self.core.still_unexplained()
        except exporters.ExporterError as error:
            LOG.warning("Exports cannot be read: %s", error)
            exports = self.core.unexplained_exports
        if not exports:
            return []
        return [
            "No access rule explains why some clients have access (shares"
            f" concerned: {len(exports)}); see: acme-appliance reconcile"
        ]

    def compare_exports(self) -> None:
        """Look for what :meth:`export_warnings` reports, in a process whose
        service is not started."""
        try:
            self._recovery.compare_exports()
        except Exception as error:
            raise failures.to_problem(error) from error

    def status(self) -> types.Body:
        """All that an operator wants to see at once; not paged."""
        with self.core.database.read() as session:
            states = session.execute(
                sa.select(models.Share.state, sa.func.count()).group_by(
                    models.Share.state
                )
            )
            share_states = {state: count for state, count in states}
        jobs = self._journal.entries.open()
        try:
            exports = self.core.exporter_watch.ask(self.core.exporter.exported)
        except (exporters.ExporterError, watch.NotAnswering) as error:
            LOG.warning("Exports cannot be read: %s", error)
            exports = {}
        return {
            "system": self.system(),
            "reasons": self.readiness(),
            "pools": self.list_pools(),
            "share_states": share_states,
            "exports": exports,
            "open_jobs": [
                {
                    "id": job.id,
                    "kind": job.kind,
                    "state": job.state,
                    "share_id": job.share_id,
                    "snapshot_id": job.snapshot_id,
                    "undo": job.undo,
                    "attempts": job.attempts,
                    "last_problem": job.last_problem,
                    "created_at": job.created_at.isoformat(),
                }
                for job in jobs
            ],
        }

    # -- the appliance

    def system(self, caller: types.Caller | None = None) -> types.Body:
        """With what the caller's namespace may have and has."""
        body = self._pools.system(self._health(self.core.look_at_pools()))
        return {**body, "namespace": self._namespace(caller)}

    def _namespace(self, caller: types.Caller | None) -> types.Body | None:
        if caller is None or caller.namespace is None:
            return None
        with self.core.database.read() as session:
            return quotas.body(session, self.core.settings, caller.namespace)

    def stats(self) -> types.Body:
        """All that a scheduler wants, in one; the same for everybody."""
        sightings = self.core.look_at_pools()
        return self._pools.stats(self._health(sightings), sightings)

    def list_pools(self) -> list[types.Body]:
        return self._pools.all(self.core.look_at_pools())

    def get_pool(self, name: str) -> types.Body:
        """``pool.not_found``."""
        return self._pools.get(name)

    def _health(self, sightings: pool_views.Sightings) -> str:
        if not self._changer.started:
            return "starting"
        return "degraded" if self._readiness(sightings) else "ok"

    # -- shares

    def put_share(
        self,
        caller: types.Caller,
        share_id: str,
        body: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Create a share; ``body`` is the schema ShareCreate.

        The same body again: the share as it is now, ``created`` False.
        ``share.exists_mismatch``, ``share.not_found``,
        ``snapshot.not_found``, ``pool.not_found``, ``pool.no_space``,
        ``limit.shares``, ``limit.bytes``, ``request.invalid``.
        """
        return self._creation.put(
            caller,
            share_id,
            body,
            wait_seconds=wait_seconds,
            if_match=if_match,
        )

    def get_share(self, caller: types.Caller, share_id: str) -> types.Body:
        """``share.not_found``, also for another namespace's."""
        return self._shares.get(caller, share_id)

    def list_shares(
        self,
        caller: types.Caller,
        filters: Mapping[str, Any],
        limit: int,
        marker: str | None,
    ) -> types.Page:
        """``filters``: name, pool, origin_id, state, group_id, and labels,
        a mapping of which all must match."""
        return self._shares.page(caller, filters, limit, marker)

    def patch_share(
        self,
        caller: types.Caller,
        share_id: str,
        patch: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Merge-patch a share; ``patch`` is the schema SharePatch.

        What changes nothing leaves the generation. ``share.not_found``,
        ``share.shrink_refused``, ``share.degraded``, ``pool.no_space``.
        """
        return self._shares.patch(
            caller,
            share_id,
            patch,
            wait_seconds=wait_seconds,
            if_match=if_match,
        )

    def delete_share(
        self,
        caller: types.Caller,
        share_id: str,
        *,
        snapshots: str = "fail",
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Delete a share, with ``cascade`` its snapshots too; success if
        it is gone. ``share.has_snapshots``, ``share.in_use``."""
        return self._shares.delete(
            caller,
            share_id,
            snapshots=snapshots,
            wait_seconds=wait_seconds,
            if_match=if_match,
        )

    # -- access rules

    def get_access(
        self, caller: types.Caller, share_id: str, holder: str
    ) -> types.Body:
        """``share.not_found``, ``access.not_found``."""
        return self._access.get(caller, share_id, holder)

    def put_access(
        self,
        caller: types.Caller,
        share_id: str,
        holder: str,
        body: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Set one holder's rule; it holds when this returns.

        The same rule again changes nothing, but repairs the export.
        ``share.not_found``, ``request.invalid`` for a bad client.
        """
        return self._access.put(
            caller,
            share_id,
            holder,
            body,
            wait_seconds=wait_seconds,
            if_match=if_match,
        )

    def delete_access(
        self,
        caller: types.Caller,
        share_id: str,
        holder: str,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Take one holder's rule away; success if there is none.

        The body has the rules that are left; None without the share.
        """
        return self._access.delete(
            caller,
            share_id,
            holder,
            wait_seconds=wait_seconds,
            if_match=if_match,
        )

    # -- snapshots

    def put_snapshot(
        self,
        caller: types.Caller,
        snapshot_id: str,
        body: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Snapshot a share; ``body`` is the schema SnapshotCreate.

        ``snapshot.exists_mismatch``, ``share.not_found``,
        ``limit.snapshots``, ``pool.no_space``.
        """
        return self._snapshots.put(
            caller,
            snapshot_id,
            body,
            wait_seconds=wait_seconds,
            if_match=if_match,
        )

    def get_snapshot(
        self, caller: types.Caller, snapshot_id: str
    ) -> types.Body:
        """``snapshot.not_found``."""
        return self._snapshots.get(caller, snapshot_id)

    def list_snapshots(
        self,
        caller: types.Caller,
        filters: Mapping[str, Any],
        limit: int,
        marker: str | None,
    ) -> types.Page:
        """``filters``: share_id, name, state."""
        return self._snapshots.page(caller, filters, limit, marker)

    def patch_snapshot(
        self,
        caller: types.Caller,
        snapshot_id: str,
        patch: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Merge-patch name and labels. ``snapshot.not_found``."""
        return self._snapshots.patch(
            caller,
            snapshot_id,
            patch,
            wait_seconds=wait_seconds,
            if_match=if_match,
        )

    def delete_snapshot(
        self,
        caller: types.Caller,
        snapshot_id: str,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Delete a snapshot, whatever was cloned from it; success if it is
        gone."""
        return self._snapshots.delete(
            caller,
            snapshot_id,
            wait_seconds=wait_seconds,
            if_match=if_match,
        )

    # -- jobs and events

    def get_job(
        self, caller: types.Caller, job_id: str, wait_seconds: float = 0
    ) -> types.Body:
        """A job, as soon as it has ended or the time is up.
        ``job.not_found``."""
        return self._jobs.get(caller, job_id, wait_seconds)

    def list_jobs(
        self,
        caller: types.Caller,
        filters: Mapping[str, Any],
        limit: int,
        marker: str | None,
    ) -> types.Page:
        """Oldest first. ``filters``: state, share_id."""
        return self._jobs.page(caller, filters, limit, marker)

    def cancel_job(self, caller: types.Caller, job_id: str) -> types.Body:
        """Cancel a queued job; success if it is cancelled already.
        ``job.not_found``, ``job.not_cancellable``."""
        return self._jobs.cancel(caller, job_id)

    def list_events(
        self,
        caller: types.Caller,
        after: int,
        wait_seconds: float,
        limit: int,
    ) -> types.Body:
        """``{events, next_after}``; waits for the first new event."""
        return self._events.read(caller, after, wait_seconds, limit)
