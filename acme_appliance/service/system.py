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

"""The appliance as a whole: description, readiness and status."""

import contextlib
import dataclasses
import logging

import sqlalchemy as sa

from acme_appliance import types
from acme_appliance.changes.runner import Runner
from acme_appliance.db import models
from acme_appliance.db import probe
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.references import Kind
from acme_appliance.service.pools import PoolFigures
from acme_appliance.service.pools import Sightings
from acme_appliance.service.shares import owners
from acme_appliance.service.shares import quotas
from acme_appliance.storage import watch

LOG = logging.getLogger(__name__)

PRODUCT = "acme-appliance"


class System:
    """The use cases of the appliance itself; see
    :mod:`acme_appliance.service`."""

    def __init__(self, runner: Runner, pools: PoolFigures) -> None:
        self.runner = runner
        self.context = runner.context
        self._pools = pools
        self._probe = probe.WriteProbe(runner.context.database)

    def describe(self, caller: types.Caller | None = None) -> types.Body:
        """Includes quota and usage of the caller's namespace."""
        settings = self.context.settings
        pools = self.context.pools
        features = {each for pool in pools for each in pools.features(pool)}
        return {
            "id": settings.system_id,
            "name": settings.system_name,
            "product": PRODUCT,
            "version": settings.version,
            "health": self._health(pools.look()),
            "features": sorted(features),
            "limits": dataclasses.asdict(settings.limits),
            "portals": self._portals(),
            "nfs_versions": list(settings.nfs_versions),
            "namespace": self._namespace(caller),
        }

    def stats(self) -> types.Body:
        """All figures for a scheduler; the same for every caller."""
        settings = self.context.settings
        sightings = self.context.pools.look()
        return {
            "system_id": settings.system_id,
            "system_name": settings.system_name,
            "health": self._health(sightings),
            "portals": self._portals(),
            "nfs_versions": list(settings.nfs_versions),
            "pools": self._pools.all(sightings),
        }

    def _portals(self) -> list[str]:
        portals = sorted(
            self.context.settings.portals,
            key=lambda portal: not portal.preferred,
        )
        return [portal.address for portal in portals]

    def _namespace(self, caller: types.Caller | None) -> types.Body | None:
        if caller is None or caller.namespace is None:
            return None
        with self.context.database.read() as session:
            return quotas.body(
                session, self.context.settings, caller.namespace
            )

    def _health(self, sightings: Sightings) -> str:
        if not self.runner.started:
            return "starting"
        return "degraded" if self._readiness(sightings) else "ok"

    def readiness(self) -> list[str]:
        """Why changes cannot be served; empty: they can."""
        return self._readiness(self.context.pools.look())

    def obstacles(self) -> list[str]:
        """Why pools and exports cannot be served; empty: they can.

        Includes pools that do not match the database, which a start would
        refuse. Changes nothing.
        """
        found = self._obstacles(self.context.pools.look())
        try:
            self.context.pools.check_identities(adopt=False)
        except engines.EngineError as error:
            found += str(error).splitlines()
        return found

    def _readiness(self, sightings: Sightings) -> list[str]:
        reasons = []
        if not self.runner.started:
            reasons.append("recovery is not finished")
        elif not self._probe.works():
            reasons.append("the database cannot be written")
        return reasons + self._obstacles(sightings)

    def _obstacles(self, sightings: Sightings) -> list[str]:
        reasons = [
            f"pool {name}: {reason}"
            for name, sighting in sightings.items()
            for reason in sighting.reasons
        ]
        return reasons + self.context.exports.check()

    def warnings(self) -> list[str]:
        """Problems that an operator should fix although the service works."""
        found = self.export_warnings()
        for name, engine in self.context.pools.items():
            # Obstacles include pools that do not answer.
            with contextlib.suppress(watch.NotAnswering):
                lines = self.context.pools.watches[name].ask(engine.warnings)
                found += [f"pool {name}: {line}" for line in lines]
        with self.context.database.read() as session:
            others = owners.not_allowed(session, self.context.settings)
        return found + [
            f"{count} shares belong to uid {uid}, gid {gid}, which no create"
            " may name: allow both ([nfs] allowed_uids, allowed_gids), or"
            " replace the shares by clones, which have the default owner"
            for (uid, gid), count in sorted(others.items())
        ]

    def export_warnings(self) -> list[str]:
        """Warn of exports without an access rule. Names no shares or clients,
        because anyone may ask."""
        try:
            exports = self.context.exports.still_unexplained()
        except exporters.ExporterError as error:
            LOG.warning("Exports cannot be read: %s", error)
            exports = self.context.exports.unexplained
        if not exports:
            return []
        return [
            "No access rule explains why some clients have access (shares"
            f" and snapshots concerned: {len(exports)}); see: acme-appliance"
            " reconcile"
        ]

    def status(self) -> types.Body:
        """Everything for ``acme-appliance status``; not paged."""
        with self.context.database.read() as session:
            states = session.execute(
                sa.select(models.Share.state, sa.func.count()).group_by(
                    models.Share.state
                )
            )
            share_states = {state: count for state, count in states}
        jobs = self.runner.journal.entries.open()
        try:
            exports = self.context.exports.watch.ask(
                self.context.exports.exporter.exported
            )
        except (exporters.ExporterError, watch.NotAnswering) as error:
            LOG.warning("Exports cannot be read: %s", error)
            exports = {}
        by_kind: dict[str, types.Body] = {kind: {} for kind in Kind}
        for reference, clients in exports.items():
            by_kind[reference.kind][reference.id] = clients
        return {
            "system": self.describe(),
            "reasons": self.readiness(),
            "pools": self._pools.all(),
            "share_states": share_states,
            "exports": by_kind[Kind.SHARE],
            "snapshot_exports": by_kind[Kind.SNAPSHOT],
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
