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

"""Rebuild a lost database from the pools, or bring an older copy up to date.

Shares and snapshots come from the metadata in the pools, access rules from
the export files. Everything happens in one transaction, which a dry run does
not commit. The rules:

* Objects with metadata and data, but no row, get a row.
* In an older copy, metadata that is at least as new as a row replaces it: a
  change writes it with the generation that its beginning gave the row. A row
  whose metadata and data are both gone was deleted since.
* The access rules of the exports replace those of an older copy.
* Jobs that are open in an older copy ended since, except a revert or a move
  that the metadata of its share describes: its job is opened again.
* An id has one place. What was deleted goes first, in all pools, since it may
  have been made again in another one. Data whose id a row of another pool has
  is only listed.
* Groups and group snapshots come from their metadata, see
  :mod:`group_restoration`.
* Data without metadata is only listed, unless the operator adopts it.
* Metadata without data is only listed.
"""

from typing import Any
from typing import Final

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.changes.context import Context
from acme_appliance.db import models
from acme_appliance.service.reconcile import moving
from acme_appliance.service.reconcile import pool_restoration
from acme_appliance.service.reconcile.reports import RestorationReport
from acme_appliance.storage import identity
from acme_appliance.storage.identity import Relation

#: Of the event about the database itself.
_NO_ID: Final = "00000000-0000-0000-0000-000000000000"


class Restoration:
    """Must not run while a service runs.

    :raises engines.EngineError, exporters.ExporterError: from :meth:`run`;
        nothing was changed.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    def run(self, *, apply: bool, adopt_into: str | None) -> RestorationReport:
        """Restore all pools.

        :param apply: False: only report what would be done.
        :param adopt_into: a namespace for shares without metadata that hold
            one regular file; None: they are listed.
        :raises problems.Problem: ``engine.unavailable``: a pool cannot be
            read, and the database is an older copy. What happened there since
            could not be told any more, once events go on.
        """
        report = RestorationReport(applied=apply)
        pools = self._usable_pools(report)
        rules = self.context.exports.exporter.rules()
        if apply:
            _check_complete(report)
            self.context.generations.reserve()
        opened = self.context.database.write if apply else self._dry_run
        with opened() as session:
            inventory = pool_restoration.Inventory.read(
                session, rules, moving.find(self.context, pools)
            )
            found = [
                pool_restoration.PoolRestoration(
                    self.context,
                    session,
                    report,
                    pool,
                    inventory,
                    adopt_into,
                )
                for pool in pools
            ]
            for each in found:
                each.remove_deleted()
            for each in found:
                each.restore()
            namespaces = session.scalars(
                sa.select(models.Share.namespace).distinct()
            )
            report.namespaces = sorted({*report.namespaces, *namespaces})
            if apply:
                self._pass_by(session, pools)
        if apply:
            for pool in pools:
                self.context.pools.identities.adopt(
                    pool, system_id=report.system_id
                )
        return report

    # A session that is never flushed or committed changes nothing.
    @property
    def _dry_run(self) -> Any:
        return self.context.database.read

    def _usable_pools(self, report: RestorationReport) -> list[str]:
        usable = []
        for pool, engine in self.context.pools.items():
            reasons = engine.check()
            if not reasons and not engine.capabilities.durable:
                reasons = ["its shares are lost at each stop"]
            if not reasons:
                relation = self.context.pools.identities.relation(pool)
                report.pools[pool] = relation.value
                if relation == Relation.OTHER:
                    reasons = [
                        "the database knows another pool by this name: mount"
                        " the right disk, or move the database away to use"
                        " the contents of this pool"
                    ]
            if reasons:
                report.skipped_pools[pool] = reasons[0]
            else:
                usable.append(pool)
        return usable

    def _pass_by(self, session: orm.Session, pools: list[str]) -> None:
        """Continue after the newest event that any pool has seen, so that no
        number repeats and the database is current."""
        found = [identity.read(self.context.pools[pool]) for pool in pools]
        seen = [each["sequence"] for each in found if each is not None]
        number = max([identity.newest_event(session), *seen]) + 1
        session.add(
            models.Event(
                seq=number,
                time=self.context.clock(),
                type="database.recovered",
                namespace=types.DEFAULT_NAMESPACE,
                share_id=_NO_ID,
                snapshot_id=None,
                actor="acme-appliance",
                request_id="",
                job_id=None,
                detail={},
            )
        )
        if not self.context.database.sqlite:
            session.execute(
                sa.text(
                    "SELECT setval(pg_get_serial_sequence('events', 'seq'),"
                    " :number)"
                ),
                {"number": number},
            )


def _check_complete(report: RestorationReport) -> None:
    unread = [
        pool for pool in report.skipped_pools if pool not in report.pools
    ]
    if unread and Relation.OLDER.value in report.pools.values():
        raise problems.Problem(
            "engine.unavailable",
            f"Cannot read pool {unread[0]}: {report.skipped_pools[unread[0]]}."
            " The database is an older copy, so all pools are needed: mount"
            " it, or remove it from the configuration if it is lost.",
        )
