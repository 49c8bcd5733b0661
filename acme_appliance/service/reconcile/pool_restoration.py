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

"""The restoration of one pool."""

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
from acme_appliance.changes import claimrows
from acme_appliance.changes import jobrows
from acme_appliance.changes.context import Context
from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.service import descriptions
from acme_appliance.service import rules as access_rules
from acme_appliance.service.reconcile import group_restoration
from acme_appliance.service.reconcile import moving
from acme_appliance.service.reconcile.reports import RestorationReport
from acme_appliance.service.shares import moves
from acme_appliance.service.shares import operations as share_operations
from acme_appliance.service.shares import reverts
from acme_appliance.storage import identity
from acme_appliance.storage.identity import Relation

_TABLES: Final[dict[engines.Kind, Any]] = {
    engines.Kind.SHARE: models.Share,
    engines.Kind.SNAPSHOT: models.Snapshot,
}
_STEADY: Final = (
    types.State.AVAILABLE,
    types.State.DEGRADED,
    types.State.ERROR,
)
_SUPERSEDED: Final = problems.Problem(
    "job.cancelled",
    "The database was an older copy: this change came to its end after the"
    " copy was made.",
)


@dataclasses.dataclass
class Inventory:
    """What the database and the exports have, of all pools."""

    #: The pool of every share and snapshot that has a row.
    places: dict[references.Reference, str]
    #: The access rules of the database, by id and holder.
    rules: Mapping[engines.Kind, dict[str, dict[str, models.AccessRule]]]
    #: The access rules that stand with the exports.
    exported: Mapping[references.Reference, exporters.Rules]
    moves: moving.Found

    @classmethod
    def read(
        cls,
        session: orm.Session,
        exported: Mapping[references.Reference, exporters.Rules],
        moves: moving.Found,
    ) -> "Inventory":
        places = {
            references.Reference(kind, row.id): row.pool
            for kind, table in _TABLES.items()
            for row in session.execute(sa.select(table.id, table.pool))
        }
        rules = {
            kind: access_rules.rows(session, kind) for kind in engines.Kind
        }
        return cls(places, rules, exported, moves)


def _jobs_beside(pool: str) -> Any:
    """Select the jobs that touch a share or snapshot of another pool."""
    found = []
    for kind, table in _TABLES.items():
        claims = sa.select(models.JobClaim.job_id).join(
            table, table.id == models.JobClaim.object_id
        )
        found += [
            claims.where(
                models.JobClaim.kind == kind.value, table.pool != pool
            ),
            sa.select(table.job_id).where(
                table.pool != pool, table.job_id.is_not(None)
            ),
        ]
    return sa.union(*found)


class PoolRestoration:
    """Restores one pool; see :mod:`restoration` for the rules.

    :param inventory: kept up to date.
    """

    def __init__(
        self,
        context: Context,
        session: orm.Session,
        report: RestorationReport,
        pool: str,
        inventory: Inventory,
        adopt_into: str | None,
    ) -> None:
        self.context = context
        self.session = session
        self.report = report
        self.pool = pool
        self.engine = context.pools[pool]
        self.inventory = inventory
        self.adopt_into = adopt_into
        #: Of shares and snapshots that have had no row.
        self._new: set[references.Reference] = set()
        relation = Relation(report.pools[pool])
        self.is_older = relation == Relation.OLDER
        self.is_lost = relation == Relation.LOST
        self.is_new = relation == Relation.NEW
        self.held = {kind: self.engine.ids(kind) for kind in engines.Kind}
        self.described = {
            kind: self.engine.metadata.ids(kind) for kind in engines.Kind
        }
        self.rows = {kind: self._rows(kind) for kind in engines.Kind}
        self._groups = group_restoration.GroupRestoration(
            context, session, report, pool, is_older=self.is_older
        )
        self._leave_out_moves()

    def _leave_out_moves(self) -> None:
        """Do not restore what a move left of a share that is elsewhere."""
        found = self.inventory.moves
        unclear = {
            (pool, id_): reason
            for (pool, id_), reason in found.unclear.items()
            if references.share(id_) not in self.inventory.places
        }
        for pool, id_ in found.elsewhere | unclear.keys():
            if pool == self.pool:
                self.held[engines.Kind.SHARE].discard(id_)
                self.described[engines.Kind.SHARE].discard(id_)
        for (pool, id_), reason in unclear.items():
            self.report.undescribed[f"{pool}/{id_}"] = reason

    def remove_deleted(self) -> None:
        """What an older copy has, and the pool has no more."""
        if self.is_older:
            self._close_jobs()
            self._groups.remove_deleted()
            self._remove_rows(engines.Kind.SNAPSHOT, set())
            self._flush()
            self._remove_rows(engines.Kind.SHARE, self._shares_of_snapshots())
            self._flush()

    def restore(self) -> None:
        self._find_system_id()
        self._restore_shares()
        self._flush()
        self._restore_snapshots()
        self._groups.restore(self.rows)
        for kind, rows in self.rows.items():
            for id_, row in rows.items():
                self._restore_rules(references.Reference(kind, id_), row)
        for share in self.rows[engines.Kind.SHARE].values():
            self._reopen_revert(share)
            self._reopen_move(share)
        self.report.namespaces += [
            each.namespace for each in self.rows[engines.Kind.SHARE].values()
        ]

    def _flush(self) -> None:
        """SQLAlchemy does not know that snapshots refer to shares."""
        if self.report.applied:
            self.session.flush()

    def _find_system_id(self) -> None:
        """An interrupted recovery may have left a complete database, but an
        appliance with a new id."""
        if not self.is_new:
            found = identity.read(self.engine) or {}
            self.report.system_id = found.get(
                "system_id", self.report.system_id
            )

    def _rows(self, kind: engines.Kind) -> dict[str, Any]:
        table = _TABLES[kind]
        statement = sa.select(table).where(table.pool == self.pool)
        if table is models.Share:
            statement = statement.options(
                orm.selectinload(models.Share.label_rows)
            )
        return {row.id: row for row in self.session.scalars(statement)}

    def _name(self, id_: str) -> str:
        return f"{self.pool}/{id_}"

    # -- shares and snapshots

    def _restore_shares(self) -> None:
        kind = engines.Kind.SHARE
        rows = self.rows[kind]
        for id_ in sorted(self.described[kind]):
            values = self._values(kind, id_)
            if values is None:
                continue
            if id_ not in rows:
                self._new_share(values)
                self.report.added_shares.append(self._name(id_))
            elif self._replace(rows[id_], values, kind):
                self.report.updated_shares.append(self._name(id_))
        for id_ in sorted(self.held[kind] - rows.keys()):
            if not self._is_duplicate(kind, id_):
                self._restore_undescribed(id_)

    def _restore_snapshots(self) -> None:
        kind = engines.Kind.SNAPSHOT
        rows = self.rows[kind]
        for id_ in sorted(self.described[kind]):
            values = self._values(kind, id_)
            if values is None:
                continue
            if values["share_id"] not in self.rows[engines.Kind.SHARE]:
                self.report.without_share.append(self._name(id_))
            elif id_ not in rows:
                self._add(
                    kind,
                    models.Snapshot(
                        **values, pool=self.pool, state=types.State.AVAILABLE
                    ),
                )
                self.report.added_snapshots.append(self._name(id_))
            elif self._replace(rows[id_], values, kind):
                self.report.updated_snapshots.append(self._name(id_))
        for id_ in sorted(self.held[kind] - rows.keys()):
            name = self._name(id_)
            if (
                name not in self.report.without_share
                and not self._is_duplicate(kind, id_)
            ):
                self.report.undescribed[name] = (
                    "a snapshot of nobody knows what"
                )

    def _is_duplicate(self, kind: engines.Kind, id_: str) -> bool:
        """Whether another pool has this id; then it is reported."""
        other = self.inventory.places.get(
            references.Reference(kind, id_), self.pool
        )
        if other != self.pool:
            self.report.duplicates[self._name(id_)] = (
                f"pool {other} has a {kind} of this id"
            )
        return other != self.pool

    def _values(self, kind: engines.Kind, id_: str) -> dict[str, Any] | None:
        """The columns from metadata; None: metadata or data is missing,
        invalid, or of an id that another pool has."""
        if id_ not in self.held[kind]:
            self.report.without_data.append(self._name(id_))
            return None
        if self._is_duplicate(kind, id_):
            return None
        metadata = self.engine.metadata.read(engines.Reference(kind, id_))
        try:
            return descriptions.values(metadata or {}, kind)
        except ValueError as error:
            self.report.undescribed[self._name(id_)] = str(error)
            return None

    def _new_share(self, values: dict[str, Any]) -> None:
        row = models.Share(
            **values,
            pool=self.pool,
            state=types.State.AVAILABLE,
            label_rows=[],
        )
        share_operations.set_labels(row, values["labels"])
        self._add(engines.Kind.SHARE, row)

    def _add(self, kind: engines.Kind, row: Any) -> None:
        reference = references.Reference(kind, row.id)
        self._renew(row)
        self._new.add(reference)
        self.inventory.places[reference] = self.pool
        self.rows[kind][row.id] = row
        self.session.add(row)

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

    def _restore_undescribed(self, id_: str) -> None:
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
            self._new_share(self._adopted(id_, file))
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
            "reverts": {},
            "create_request": {},
            "origin_type": None,
            "origin_id": None,
            "created_at": now,
            "updated_at": now,
        }

    # -- what an older copy has wrong

    def _close_jobs(self) -> None:
        """Those that touch nothing of another pool."""
        # Read only what is needed of a row: it may be broken.
        statement = sa.select(models.Job.id, models.Job.request_id).where(
            jobrows.IS_OPEN, models.Job.id.not_in(_jobs_beside(self.pool))
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
                claimrows.delete(self.session, job.id)
            if job.id not in self.report.closed_jobs:
                self.report.closed_jobs.append(job.id)

    def _shares_of_snapshots(self) -> set[str]:
        """Of those that have a row, or metadata that will give them one."""
        kind = engines.Kind.SNAPSHOT
        shares = {each.share_id for each in self.rows[kind].values()}
        for id_ in self.described[kind] & self.held[kind]:
            reference = engines.Reference(kind, id_)
            metadata = self.engine.metadata.read(reference) or {}
            shares.add(metadata.get("share_id"))
        return shares

    def _remove_rows(self, kind: engines.Kind, needed: set[str]) -> None:
        """Those of which the pool has neither data nor metadata."""
        rows = self.rows[kind]
        removed = {
            engines.Kind.SHARE: self.report.removed_shares,
            engines.Kind.SNAPSHOT: self.report.removed_snapshots,
        }[kind]
        for id_, row in list(rows.items()):
            if id_ in self.held[kind] | self.described[kind] | needed:
                self._settle(row, id_ in self.described[kind])
                continue
            for rule in self.inventory.rules[kind].pop(id_, {}).values():
                self.session.delete(rule)
            self.session.delete(rows.pop(id_))
            del self.inventory.places[references.Reference(kind, id_)]
            removed.append(self._name(id_))

    def _settle(self, row: Any, is_described: bool) -> None:
        """End the change that the copy shows in progress."""
        row.job_id = None
        if row.state == types.State.CREATING and not is_described:
            row.state = types.State.ERROR
        elif row.state not in _STEADY:
            row.state = types.State.AVAILABLE

    def _is_restored(self, reference: references.Reference) -> bool:
        """Whether the database did not know it, or not as it is now."""
        return self.is_lost or self.is_older or reference in self._new

    def _reopen_revert(self, share: models.Share) -> None:
        """Open the job of an interrupted revert, which keeps the old content
        in a snapshot with the job's id."""
        reference = references.share(share.id)
        if not self._is_restored(reference):
            return
        metadata = self.engine.metadata.read(reference) or {}
        marker = metadata.get(descriptions.REVERT)
        if marker is None:
            return
        job_id = marker["job_id"]
        self.report.undescribed.pop(self._name(job_id), None)
        if job_id in self.report.closed_jobs:
            self.report.closed_jobs.remove(job_id)
        self.report.reopened_jobs.append(job_id)
        if self.report.applied:
            reverts.reopen(self.context, self.session, share, marker)

    def _reopen_move(self, share: models.Share) -> None:
        """Open the job of an interrupted move, from or to this pool."""
        move = self.inventory.moves.moves.get(share.id)
        if move is None or not self._is_restored(references.share(share.id)):
            return
        self.report.undescribed.pop(f"{move.target}/{share.id}", None)
        if move.job_id in self.report.closed_jobs:
            self.report.closed_jobs.remove(move.job_id)
        self.report.reopened_jobs.append(move.job_id)
        if self.report.applied:
            moves.reopen(
                self.context,
                self.session,
                share,
                move.marker,
                moved=move.is_moved,
            )

    # -- access

    def _restore_rules(
        self, reference: references.Reference, row: Any
    ) -> None:
        """Restore the rules of the exports, which are the newest."""
        if not self._is_restored(reference):
            return
        known = self.inventory.rules[reference.kind].get(reference.id, {})
        wanted = dict(self.inventory.exported.get(reference, {}))
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
