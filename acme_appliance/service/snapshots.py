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

"""Snapshots: use cases, and the operations behind them."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes import claims
from acme_appliance.changes import operation
from acme_appliance.changes import states
from acme_appliance.changes.context import Context
from acme_appliance.changes.runner import Runner
from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.service import descriptions
from acme_appliance.service import fields
from acme_appliance.service import lookup
from acme_appliance.service import membership
from acme_appliance.service import objects
from acme_appliance.service import pages
from acme_appliance.service import rules
from acme_appliance.service.shares import bodies
from acme_appliance.service.shares import quotas

_CREATABLE = frozenset({"share_id", "name", "labels"})
_PATCHABLE = frozenset({"name", "labels"})


class SnapshotOperation(operation.Operation):
    """Base of both operations. Arguments: pool and more."""

    @property
    def snapshot_id(self) -> str:
        assert self.intent.snapshot_id is not None  # noqa: S101
        return self.intent.snapshot_id

    def row(self, session: orm.Session) -> models.Snapshot:
        return session.get_one(models.Snapshot, self.snapshot_id)

    @property
    def reference(self) -> engines.Reference:
        return references.snapshot(self.snapshot_id)

    def delete(self) -> None:
        self.context.pools.engine(self.pool).delete_snapshot(self.snapshot_id)

    def write_metadata(self) -> None:
        """Write the snapshot's metadata from the database to the pool."""
        with self.context.database.read() as session:
            metadata = descriptions.of_snapshot(self.row(session))
        self.context.pools.engine(self.pool).metadata.write(
            self.reference, metadata
        )

    def delete_metadata(self) -> None:
        self.context.pools.engine(self.pool).metadata.delete(self.reference)


class CreateSnapshot(SnapshotOperation):
    """Arguments: pool, name, labels, size_bytes, file, group_snapshot_id or
    None, request."""

    kind: ClassVar[str] = "snapshot.create"

    def begin(self, session: orm.Session) -> None:
        self._check_limit(session)
        quotas.check(
            session,
            self.context.settings,
            self.intent.namespace,
            quotas.Usage(snapshots=1),
        )
        given = self.intent.arguments
        now = self.context.clock()
        session.add(
            models.Snapshot(
                id=self.snapshot_id,
                share_id=self.intent.share_id,
                group_snapshot_id=given.get("group_snapshot_id"),
                namespace=self.intent.namespace,
                name=given["name"],
                pool=self.pool,
                state=types.State.CREATING,
                generation=self.context.generations.next(),
                size_bytes=given["size_bytes"],
                file=given["file"],
                labels=given["labels"],
                create_request=given["request"],
                created_at=now,
                updated_at=now,
                job_id=self.intent.id,
            )
        )

    def steps(self) -> list[operation.Step]:
        return [
            operation.Step("create snapshot", self.create, self.delete),
            operation.Step(
                "write metadata", self.write_metadata, self.delete_metadata
            ),
        ]

    def create(self) -> None:
        share_id = self.intent.share_id
        engine = self.context.pools.engine(self.pool)
        engine.set_limit(share_id, self.intent.arguments["size_bytes"])
        engine.create_snapshot(share_id, self.snapshot_id)

    def finish(self, session: orm.Session) -> types.Done:
        row = self.row(session)
        states.move(row, types.State.AVAILABLE)
        self.end(row)
        self.context.events.add(
            session,
            "snapshot.created",
            self.intent,
            detail={"name": row.name},
        )
        # No one can have access to it yet.
        return types.Done(_body(self.context, row, {}), created=True)

    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        session.delete(self.row(session))

    def _check_limit(self, session: orm.Session) -> None:
        limit = self.context.settings.limits.max_snapshots_per_share
        count = session.scalar(
            sa.select(sa.func.count())
            .select_from(models.Snapshot)
            .where(models.Snapshot.share_id == self.intent.share_id)
        )
        if (count or 0) >= limit:
            raise problems.Problem(
                "limit.snapshots", f"A share has {limit} snapshots at most."
            )


class DeleteSnapshot(SnapshotOperation):
    """Arguments: pool, state (the one before)."""

    kind: ClassVar[str] = "snapshot.delete"
    undoable = False

    def begin(self, session: orm.Session) -> None:
        row = self.row(session)
        states.move(row, types.State.DELETING)
        self.take(row)

    def steps(self) -> list[operation.Step]:
        return [
            operation.Step(
                "withdraw exports",
                lambda: self.context.exports.withdraw_unexplained(
                    self.reference
                ),
            ),
            operation.Step("delete snapshot", self.delete),
            operation.Step("delete metadata", self.delete_metadata),
        ]

    def finish(self, session: orm.Session) -> types.Done:
        row = self.row(session)
        self.context.events.add(
            session,
            "snapshot.deleted",
            self.intent,
            detail={"name": row.name},
        )
        membership.touch_group_snapshot(
            self.context, session, row.group_snapshot_id
        )
        self.context.exports.unexplained.pop(self.reference, None)
        rules.delete(session, self.reference)
        session.delete(row)
        return types.Done(None)

    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        row = self.row(session)
        states.move(row, types.State(self.intent.arguments["state"]))
        self.end(row)


class Snapshots:
    """The use cases of snapshots; see :mod:`acme_appliance.service`."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.context = runner.context

    def get(self, caller: types.Caller, snapshot_id: str) -> types.Body:
        """``snapshot.not_found``."""
        with self.context.database.read() as session:
            return _body(
                self.context, _get_visible(session, caller, snapshot_id)
            )

    def page(
        self,
        caller: types.Caller,
        filters: Mapping[str, Any],
        limit: int,
        marker: str | None,
    ) -> types.Page:
        """``filters``: share_id, group_snapshot_id, name, state."""
        return pages.read_page(
            self.context.database,
            pages.visible(models.Snapshot, caller, filters),
            models.Snapshot.id,
            limit=limit,
            marker=marker,
            show=self._show,
        )

    def _show(
        self, reader: orm.Session | sa.Connection, found: Sequence[Any]
    ) -> Iterator[types.Body]:
        ids = [row.id for row in found]
        access = rules.read(reader, references.Kind.SNAPSHOT, ids)
        for row in found:
            yield _body(self.context, row, access.get(row.id, {}))

    def put(
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
        fields.check_fields(body, _CREATABLE)
        body = fields.without_nulls(body)
        return self.runner.run(
            lambda: claims.exclusive(
                claims.share(body["share_id"]), claims.snapshot(snapshot_id)
            ),
            lambda: self._decide_create(caller, snapshot_id, body, if_match),
            wait_seconds,
        )

    def _decide_create(
        self,
        caller: types.Caller,
        snapshot_id: str,
        body: types.Body,
        if_match: int | None,
    ) -> operation.Decision:
        with self.context.database.read() as session:
            row = session.get(models.Snapshot, snapshot_id)
            if row is not None:
                objects.check_same_create(caller, row, body, if_match)
                return types.Done(_body(self.context, row))
            fields.check_precondition(if_match, None, "snapshot")
            share = lookup.get_visible(
                session,
                caller,
                references.share(body["share_id"]),
                "/share_id",
            )
            lookup.check_usable(share)
            intent = operation.new_intent(
                caller,
                CreateSnapshot.kind,
                share.id,
                snapshot_id=snapshot_id,
                namespace=share.namespace,
                arguments={
                    "pool": share.pool,
                    "name": body.get("name", ""),
                    "labels": body.get("labels", {}),
                    "size_bytes": share.size_bytes,
                    "file": share.file,
                    "request": body,
                },
            )
            pool = share.pool
        self.context.pools.check(pool)
        reference = references.snapshot(snapshot_id)
        objects.check_free(self.context, pool, reference)
        return CreateSnapshot(self.context, intent)

    def patch(
        self,
        caller: types.Caller,
        snapshot_id: str,
        patch: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Merge-patch name and labels. ``snapshot.not_found``."""
        fields.check_fields(patch, _PATCHABLE)
        return self.runner.run(
            lambda: claimed(self.context, snapshot_id),
            lambda: self._decide_patch(caller, snapshot_id, patch, if_match),
            wait_seconds,
        )

    def _decide_patch(
        self,
        caller: types.Caller,
        snapshot_id: str,
        patch: types.Body,
        if_match: int | None,
    ) -> operation.Decision:
        with self.context.database.read() as session:
            row = _get_visible(session, caller, snapshot_id)
            fields.check_precondition(if_match, row.generation, "snapshot")
            lookup.check_usable(row)
            name = patch.get("name") or row.name
            labels = row.labels
            if "labels" in patch:
                labels = fields.merge_labels(labels, patch["labels"])
            if (name, labels) == (row.name, row.labels):
                return types.Done(_body(self.context, row))
            intent = operation.new_intent(
                caller,
                "snapshot.update",
                row.share_id,
                snapshot_id=row.id,
                namespace=row.namespace,
                arguments={},
            )
            pool = row.pool

        def change(row: models.Snapshot) -> None:
            row.name, row.labels = name, labels

        return operation.Work(
            pool,
            lambda: objects.update(
                self.context,
                references.snapshot(snapshot_id),
                intent,
                change,
                lambda row: _body(self.context, row),
            ),
        )

    def delete(
        self,
        caller: types.Caller,
        snapshot_id: str,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Delete a snapshot, even if it has clones; success if it does not
        exist. ``snapshot.in_use``.
        """
        return self.runner.run(
            lambda: claimed(self.context, snapshot_id),
            lambda: self._decide_delete(caller, snapshot_id, if_match),
            wait_seconds,
        )

    def _decide_delete(
        self, caller: types.Caller, snapshot_id: str, if_match: int | None
    ) -> operation.Decision:
        with self.context.database.read() as session:
            reference = references.snapshot(snapshot_id)
            row = lookup.find_visible(session, caller, reference)
            if row is None:
                return types.Done(None, absent=True)
            fields.check_precondition(if_match, row.generation, "snapshot")
            holders = [rule.holder for rule in row.access_rules]
            rules.check_unused(reference, holders)
            intent = operation.new_intent(
                caller,
                DeleteSnapshot.kind,
                row.share_id,
                snapshot_id=row.id,
                namespace=row.namespace,
                arguments={"pool": row.pool, "state": row.state},
            )
            pool = row.pool
        self.context.pools.check(pool)
        return DeleteSnapshot(self.context, intent)


def claimed(context: Context, snapshot_id: str) -> claims.Claims:
    """The claims of a change of a snapshot: the snapshot and its share."""
    wanted = [claims.snapshot(snapshot_id)]
    with context.database.read() as session:
        row = session.get(models.Snapshot, snapshot_id)
    if row is not None:
        wanted.append(claims.share(row.share_id))
    return claims.exclusive(*wanted)


def _get_visible(
    session: orm.Session, caller: types.Caller, snapshot_id: str
) -> models.Snapshot:
    row: models.Snapshot = lookup.get_visible(
        session, caller, references.snapshot(snapshot_id)
    )
    return row


def _body(
    context: Context,
    row: models.Snapshot,
    access_rules: types.Body | None = None,
) -> types.Body:
    """:param access_rules: default: the row's, which must be loadable."""
    if access_rules is None:
        access_rules = views.rules(row.access_rules)
    locations = bodies.export_locations(
        context, references.snapshot(row.id), row.pool
    )
    return views.snapshot(row, access_rules, locations)
