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

"""The restoration of the groups and group snapshots of one pool.

Shares and snapshots say what they are in, and are restored first. A group
whose metadata is lost comes back with its id as its name, because the shares
in it prove that it existed. A group snapshot without metadata was not
complete: its snapshots come back as snapshots of no group snapshot.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import references
from acme_appliance import types
from acme_appliance.changes.context import Context
from acme_appliance.db import models
from acme_appliance.references import GroupKind
from acme_appliance.references import Kind
from acme_appliance.service import descriptions
from acme_appliance.service import lookup
from acme_appliance.service.reconcile.reports import RestorationReport


class GroupRestoration:
    """:param is_older: the database is an older copy."""

    def __init__(
        self,
        context: Context,
        session: orm.Session,
        report: RestorationReport,
        pool: str,
        *,
        is_older: bool,
    ) -> None:
        self.context = context
        self.session = session
        self.report = report
        self.pool = pool
        self.store = context.pools[pool].metadata
        self.is_older = is_older
        self.rows = {kind: self._rows(kind) for kind in GroupKind}
        self.described = {kind: self.store.ids(kind) for kind in GroupKind}

    def _rows(self, kind: GroupKind) -> dict[str, Any]:
        table = lookup.TABLES[kind]
        found = self.session.scalars(
            sa.select(table).where(table.pool == self.pool)
        )
        return {row.id: row for row in found}

    def _name(self, id_: str) -> str:
        return f"{self.pool}/{id_}"

    def remove_deleted(self) -> None:
        """What an older copy has, and the pool does not describe any more."""
        for kind, rows in self.rows.items():
            for id_, row in list(rows.items()):
                row.job_id = None
                if id_ in self.described[kind]:
                    row.state = types.State.AVAILABLE
                    continue
                self.session.delete(rows.pop(id_))
                self.report.removed_groups.append(self._name(id_))

    def restore(self, members: Mapping[Kind, Mapping[str, Any]]) -> None:
        """:param members: the rows of the pool's shares and snapshots."""
        for kind in GroupKind:
            for id_ in sorted(self.described[kind]):
                self._restore(references.GroupReference(kind, id_))
        for share in members[Kind.SHARE].values():
            if share.group_id not in (None, *self.rows[GroupKind.GROUP]):
                self._invent(share)
        known = self.rows[GroupKind.GROUP_SNAPSHOT]
        for snapshot in members[Kind.SNAPSHOT].values():
            if snapshot.group_snapshot_id not in (None, *known):
                self._release(snapshot)

    def _restore(self, reference: references.GroupReference) -> None:
        kind, name = reference.kind, self._name(reference.id)
        metadata = self.store.read(reference)
        try:
            values = descriptions.values(metadata or {}, kind)
        except ValueError as error:
            self.report.undescribed[name] = str(error)
            return
        row = self.rows[kind].get(reference.id)
        if row is None:
            self._add(lookup.TABLES[kind](**values, **self._steady()))
        elif self._is_newer(row, values, metadata):
            for column, value in values.items():
                setattr(row, column, value)
            self._renew(row)
            self.report.updated_groups.append(name)

    def _is_newer(
        self, row: Any, values: dict[str, Any], metadata: types.Body | None
    ) -> bool:
        if not self.is_older or values["generation"] < row.generation:
            return False
        kind = lookup.kind_of(row)
        return not descriptions.same(metadata, descriptions.of(row, kind))

    def _invent(self, share: models.Share) -> None:
        now = self.context.clock()
        self._add(
            models.Group(
                id=share.group_id,
                namespace=share.namespace,
                name=share.group_id,
                generation=0,
                moment=None,
                labels={},
                create_request={},
                created_at=now,
                updated_at=now,
                **self._steady(),
            )
        )

    def _release(self, snapshot: models.Snapshot) -> None:
        name = self._name(str(snapshot.group_snapshot_id))
        if name not in self.report.incomplete_groups:
            self.report.incomplete_groups.append(name)
        if self.report.applied:
            snapshot.group_snapshot_id = None

    def _steady(self) -> dict[str, Any]:
        return {"pool": self.pool, "state": types.State.AVAILABLE}

    def _add(self, row: Any) -> None:
        self._renew(row)
        self.rows[GroupKind(lookup.kind_of(row))][row.id] = row
        self.session.add(row)
        self.report.added_groups.append(self._name(row.id))

    def _renew(self, row: Any) -> None:
        """Set a new generation, so that clients see a change."""
        if self.report.applied:
            row.generation = self.context.generations.next()
