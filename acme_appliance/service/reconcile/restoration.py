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
  change writes it with the generation that its begin gave the row. A row
  whose metadata and data are both gone was deleted since.
* The access rules of the exports replace those of an older copy.
* Jobs that are open in an older copy ended since.
* Data without metadata is only listed, unless the operator adopts it.
* Metadata without data is only listed.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any
from typing import Final

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes import jobrows
from acme_appliance.changes.context import Context
from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.service import descriptions
from acme_appliance.service import rules as access_rules
from acme_appliance.service.shares import operations as share_operations
from acme_appliance.storage import identity
from acme_appliance.storage.identity import Relation

_STEADY: Final = (
    types.State.AVAILABLE,
    types.State.DEGRADED,
    types.State.ERROR,
)
#: Of the event about the database itself.
_NO_ID: Final = "00000000-0000-0000-0000-000000000000"
_SUPERSEDED: Final = problems.Problem(
    "job.cancelled",
    "The database was an older copy: this change came to its end after the"
    " copy was made.",
)


def _list() -> Any:
    return dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Report:
    """What was or would be done; ``pool/id`` for objects in a pool."""

    #: The database's relation to each pool: see identity.Relation.
    pools: dict[str, str] = dataclasses.field(default_factory=dict)
    #: Skipped pools, with the reason.
    skipped_pools: dict[str, str] = dataclasses.field(default_factory=dict)
    added_shares: list[str] = _list()
    added_snapshots: list[str] = _list()
    adopted_shares: list[str] = _list()
    updated_shares: list[str] = _list()
    updated_snapshots: list[str] = _list()
    removed_shares: list[str] = _list()
    removed_snapshots: list[str] = _list()
    #: ``{share_id or snapshot_id, granted, revoked}``: holders.
    changed_rules: list[types.Body] = _list()
    closed_jobs: list[str] = _list()
    #: Data without metadata, and why it was not adopted.
    undescribed: dict[str, str] = dataclasses.field(default_factory=dict)
    #: Metadata without data, or invalid.
    without_data: list[str] = _list()
    #: Snapshots whose share is missing.
    without_share: list[str] = _list()
    #: Of all shares; their tokens must be created again.
    namespaces: list[str] = _list()
    #: The appliance's id, by its pools; None: they say none.
    system_id: str | None = None
    applied: bool = False


class Restoration:
    """Must not run while a service runs.

    :raises engines.EngineError, exporters.ExporterError: from :meth:`run`;
        nothing was changed.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    def run(self, *, apply: bool, adopt_into: str | None) -> Report:
        """Restore all pools.

        :param apply: False: only report what would be done.
        :param adopt_into: a namespace for shares without metadata that hold
            one regular file; None: they are listed.
        """
        report = Report(applied=apply)
        pools = self._usable_pools(report)
        rules = self.context.exports.exporter.rules()
        if apply:
            self.context.generations.reserve()
        opened = self.context.database.write if apply else self._dry_run
        with opened() as session:
            for pool in pools:
                _Pool(
                    self.context, session, report, pool, rules, adopt_into
                ).restore()
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

    def _usable_pools(self, report: Report) -> list[str]:
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


class _Pool:
    """The restoration of one pool."""

    def __init__(
        self,
        context: Context,
        session: orm.Session,
        report: Report,
        pool: str,
        rules: Mapping[references.Reference, exporters.Rules],
        adopt_into: str | None,
    ) -> None:
        self.context = context
        self.session = session
        self.report = report
        self.pool = pool
        self.engine = context.pools[pool]
        self.rules = rules
        self.adopt_into = adopt_into
        #: Of shares and snapshots that have had no row.
        self._new: set[references.Reference] = set()
        relation = Relation(report.pools[pool])
        self.is_older = relation == Relation.OLDER
        self.is_lost = relation == Relation.LOST
        self.is_new = relation == Relation.NEW

    def restore(self) -> None:
        self._find_system_id()
        if self.is_older:
            self._close_jobs()
        shares = self._rows(models.Share)
        snapshots = self._rows(models.Snapshot)
        self._restore_shares(shares)
        self._restore_snapshots(snapshots, shares)
        if self.is_older:
            self._remove_deleted(shares, snapshots)
        for kind, rows in (
            (engines.Kind.SHARE, shares),
            (engines.Kind.SNAPSHOT, snapshots),
        ):
            known = access_rules.rows(self.session, kind)
            for id_, row in rows.items():
                reference = references.Reference(kind, id_)
                self._restore_rules(reference, row, known.get(id_, {}))
        self.report.namespaces += [each.namespace for each in shares.values()]

    def _find_system_id(self) -> None:
        """An interrupted recovery may have left a complete database, but an
        appliance with a new id."""
        if not self.is_new:
            found = identity.read(self.engine) or {}
            self.report.system_id = found.get(
                "system_id", self.report.system_id
            )

    def _rows(self, table: Any) -> dict[str, Any]:
        statement = sa.select(table).where(table.pool == self.pool)
        if table is models.Share:
            statement = statement.options(
                orm.selectinload(models.Share.label_rows)
            )
        return {row.id: row for row in self.session.scalars(statement)}

    def _name(self, id_: str) -> str:
        return f"{self.pool}/{id_}"

    # -- shares and snapshots

    def _restore_shares(self, rows: dict[str, Any]) -> None:
        kind = engines.Kind.SHARE
        held = self.engine.ids(kind)
        for id_ in sorted(self.engine.metadata.ids(kind)):
            values = self._values(kind, id_, held)
            if values is None:
                continue
            if id_ not in rows:
                rows[id_] = self._new_share(values)
                self.report.added_shares.append(self._name(id_))
            elif self._replace(rows[id_], values, kind):
                self.report.updated_shares.append(self._name(id_))
        for id_ in sorted(held - rows.keys()):
            self._restore_undescribed(id_, rows)

    def _restore_snapshots(
        self, rows: dict[str, Any], shares: Mapping[str, Any]
    ) -> None:
        kind = engines.Kind.SNAPSHOT
        held = self.engine.ids(kind)
        for id_ in sorted(self.engine.metadata.ids(kind)):
            values = self._values(kind, id_, held)
            if values is None:
                continue
            if values["share_id"] not in shares:
                self.report.without_share.append(self._name(id_))
            elif id_ not in rows:
                rows[id_] = models.Snapshot(
                    **values, pool=self.pool, state=types.State.AVAILABLE
                )
                self._renew(rows[id_])
                self._new.add(references.snapshot(id_))
                self.session.add(rows[id_])
                self.report.added_snapshots.append(self._name(id_))
            elif self._replace(rows[id_], values, kind):
                self.report.updated_snapshots.append(self._name(id_))
        for id_ in sorted(held - rows.keys()):
            if self._name(id_) not in self.report.without_share:
                self.report.undescribed[self._name(id_)] = (
                    "a snapshot of nobody knows what"
                )

    def _values(
        self, kind: engines.Kind, id_: str, held: set[str]
    ) -> dict[str, Any] | None:
        """The columns from metadata; None: metadata or data is missing or
        invalid."""
        if id_ not in held:
            self.report.without_data.append(self._name(id_))
            return None
        metadata = self.engine.metadata.read(engines.Reference(kind, id_))
        try:
            return descriptions.values(metadata or {}, kind)
        except ValueError as error:
            self.report.undescribed[self._name(id_)] = str(error)
            return None

    def _new_share(self, values: dict[str, Any]) -> models.Share:
        row = models.Share(
            **values,
            pool=self.pool,
            state=types.State.AVAILABLE,
            label_rows=[],
        )
        share_operations.set_labels(row, values["labels"])
        self._renew(row)
        self._new.add(references.share(row.id))
        self.session.add(row)
        return row

    def _replace(
        self, row: Any, values: dict[str, Any], kind: engines.Kind
    ) -> bool:
        """Bring a row of an older copy up to date; False: it is."""
        if not self.is_older or values["generation"] < row.generation:
            return False
        metadata = self.engine.metadata.read(engines.Reference(kind, row.id))
        if descriptions.same(metadata, descriptions.of(row, kind)):
            return False
        for name, value in values.items():
            setattr(row, name, value)
        if kind == engines.Kind.SHARE:
            share_operations.set_labels(row, values["labels"])
        self._renew(row)
        return True

    def _renew(self, row: Any) -> None:
        """Set a new generation, so that clients see a change."""
        if self.report.applied:
            row.generation = self.context.generations.next()

    # -- data without metadata

    def _restore_undescribed(self, id_: str, rows: dict[str, Any]) -> None:
        name = self._name(id_)
        file = self.engine.find_file(id_)
        if file is None or file.size_bytes == 0:
            self.report.undescribed.setdefault(
                name, "it does not hold exactly one file with something in it"
            )
        elif self.adopt_into is None:
            self.report.undescribed.setdefault(
                name, f"holds {file.name}, {file.size_bytes} bytes"
            )
        else:
            self.report.undescribed.pop(name, None)
            rows[id_] = self._new_share(self._adopted(id_, file))
            self.report.adopted_shares.append(name)

    def _adopted(self, id_: str, file: engines.VolumeFile) -> dict[str, Any]:
        now = self.context.clock()
        return {
            "id": id_,
            "namespace": self.adopt_into,
            "name": file.name,
            "generation": 0,
            "size_bytes": file.size_bytes,
            "file": {
                "name": file.name,
                "format": "raw",
                "allocation": file.allocation,
                "uid": file.owner.uid,
                "gid": file.owner.gid,
                "mode": f"{file.mode:04o}",
            },
            "labels": {},
            "create_request": {},
            "origin_type": None,
            "origin_id": None,
            "created_at": now,
            "updated_at": now,
        }

    # -- what an older copy has wrong

    def _close_jobs(self) -> None:
        # Read only what is needed of a row: it may be broken.
        statement = sa.select(models.Job.id, models.Job.request_id).where(
            jobrows.IS_OPEN
        )
        for job in self.session.execute(statement).all():
            # At once, not with a flush: a look must not.
            if self.report.applied:
                self.session.execute(
                    sa.update(models.Job)
                    .where(models.Job.id == job.id)
                    .values(
                        state=types.JobState.CANCELLED,
                        finished_at=self.context.clock(),
                        problem=_SUPERSEDED.to_dict(request_id=job.request_id),
                    )
                )
            if job.id not in self.report.closed_jobs:
                self.report.closed_jobs.append(job.id)

    def _remove_deleted(
        self, shares: dict[str, Any], snapshots: dict[str, Any]
    ) -> None:
        for rows, removed, kind in (
            (
                snapshots,
                self.report.removed_snapshots,
                engines.Kind.SNAPSHOT,
            ),
            (shares, self.report.removed_shares, engines.Kind.SHARE),
        ):
            held = self.engine.ids(kind)
            described = self.engine.metadata.ids(kind)
            known = access_rules.rows(self.session, kind)
            for id_, row in list(rows.items()):
                needed = {each.share_id for each in snapshots.values()}
                if id_ not in held | described | needed:
                    for rule in known.get(id_, {}).values():
                        self.session.delete(rule)
                    self.session.delete(rows.pop(id_))
                    removed.append(self._name(id_))
                else:
                    self._settle(row, id_ in described)

    def _settle(self, row: Any, is_described: bool) -> None:
        """End the change that the copy shows in progress."""
        row.job_id = None
        if row.state == types.State.CREATING and not is_described:
            row.state = types.State.ERROR
        elif row.state not in _STEADY:
            row.state = types.State.AVAILABLE

    # -- access

    def _restore_rules(
        self,
        reference: references.Reference,
        row: Any,
        known: dict[str, models.AccessRule],
    ) -> None:
        """Restore the rules of the exports, which are the newest."""
        is_new = reference in self._new
        if not (self.is_lost or self.is_older or is_new):
            return
        wanted = dict(self.rules.get(reference, {}))
        found = {
            rule.holder: exporters.Rule(tuple(rule.clients), rule.level)
            for rule in known.values()
        }
        if wanted == found:
            return
        self.report.changed_rules.append(
            {
                **views.named(reference),
                "granted": sorted(
                    h for h in wanted if wanted[h] != found.get(h)
                ),
                "revoked": sorted(found.keys() - wanted.keys()),
            }
        )
        for holder in found.keys() - wanted.keys():
            self.session.delete(known[holder])
        for holder, rule in wanted.items():
            if holder not in known:
                known[holder] = models.AccessRule(
                    kind=reference.kind.value,
                    object_id=reference.id,
                    holder=holder,
                )
                self.session.add(known[holder])
            known[holder].clients = list(rule.clients)
            known[holder].level = rule.level
        self._renew(row)
