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

"""The operations that create, change and delete a share."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from acme_appliance.changes import operation
from acme_appliance.changes import states
from acme_appliance.changes.context import Context
from acme_appliance.db import models
from acme_appliance.db import rows
from acme_appliance.engines import base as engines
from acme_appliance.service import descriptions
from acme_appliance.service import membership
from acme_appliance.service import rules
from acme_appliance.service.shares import bodies
from acme_appliance.service.shares import qos
from acme_appliance.service.shares import quotas
from acme_appliance.storage import watch


def volume_file(file: types.Body, size_bytes: int) -> engines.VolumeFile:
    """Convert a row's file for the engine."""
    return engines.VolumeFile(
        name=file["name"],
        size_bytes=size_bytes,
        allocation=file["allocation"],
        owner=engines.Owner(file["uid"], file["gid"]),
        mode=int(file["mode"], 8),
    )


def set_labels(row: models.Share, labels: types.Body) -> None:
    """Set a share's labels in both tables."""
    row.labels = labels
    kept = {label.key: label for label in row.label_rows}
    for key in kept.keys() - labels.keys():
        row.label_rows.remove(kept[key])
    for key, value in labels.items():
        if key in kept:
            kept[key].value = value
        else:
            row.label_rows.append(models.ShareLabel(key=key, value=value))


def check_regroup(
    context: Context,
    session: orm.Session,
    row: models.Share,
    group_id: str | None,
) -> None:
    """Check that a share may go into a group, or into none.

    :raises problems.Problem: as :func:`membership.check_join`.
    """
    if group_id is not None and group_id != row.group_id:
        membership.check_join(
            context, session, group_id, namespace=row.namespace, pool=row.pool
        )


def _count(session: orm.Session) -> int:
    statement = sa.select(sa.func.count()).select_from(models.Share)
    return session.scalar(statement) or 0


class ShareOperation(operation.Operation):
    """Base of operations on a share."""

    #: The undo found that the share is gone from its pool.
    _is_gone = False

    @property
    def engine(self) -> engines.Engine:
        return self.context.pools.engine(self.pool)

    def row(self, session: orm.Session) -> models.Share:
        return session.get_one(models.Share, self.intent.share_id)

    def check_quota(self, session: orm.Session, added: quotas.Usage) -> None:
        """:raises problems.Problem: it exceeds the namespace's quota."""
        quotas.check(
            session,
            self.context.settings,
            self.intent.namespace,
            added,
            job_id=self.intent.id,
        )

    def write_metadata(self) -> None:
        """Write the share's metadata from the database to the pool."""
        metadata = descriptions.of_share(self.read_row())
        self.engine.metadata.write(self.reference, metadata)

    def read_row(self) -> Any:
        with self.context.database.read_rows() as connection:
            return rows.get(connection, models.Share, self.intent.share_id)

    def qos_steps(
        self, new: types.Body | None, old: types.Body | None
    ) -> list[operation.Step]:
        """None where the limits stay as they are."""
        if new == old:
            return []
        engine, share_id = self.engine, self.intent.share_id
        return [
            operation.Step(
                "set qos",
                lambda: engine.set_qos(share_id, qos.for_engine(new)),
                lambda: self._if_there(
                    lambda: engine.set_qos(share_id, qos.for_engine(old))
                ),
            )
        ]

    def _if_there(self, undo: Callable[[], None]) -> None:
        """Undo a step, unless the share is gone."""
        try:
            undo()
        except engines.NotFound:
            if self.engine.exists(self.reference):
                raise
            self._is_gone = True

    def delete_metadata(self) -> None:
        self.engine.metadata.delete(self.reference)

    @property
    def reference(self) -> engines.Reference:
        return references.share(self.intent.share_id)


class CreateShare(ShareOperation):
    """Arguments: pool, name, size_bytes, labels, file or None, source
    (type, id, file_name, size_bytes; snapshot_id: of a share as it was at a
    moment) or None, qos or None, group_id or None, request."""

    kind: ClassVar[str] = "share.create"
    #: The initial row; None: another process began the create.
    _row: SimpleNamespace | None = None
    #: The space that the new volume file occupies.
    _used_bytes: int | None = None

    def begin(self, session: orm.Session) -> None:
        self._check_limit(session)
        given = self.intent.arguments
        self.check_quota(
            session, quotas.Usage(size_bytes=given["size_bytes"], shares=1)
        )
        self._join(session)
        values = self._new_row()
        self._row = SimpleNamespace(**values)
        rows.insert(session, models.Share, values)
        rows.insert(
            session,
            models.ShareLabel,
            *(
                {"share_id": self.intent.share_id, "key": key, "value": value}
                for key, value in given["labels"].items()
            ),
        )

    def _join(self, session: orm.Session) -> None:
        group_id = self.intent.arguments.get("group_id")
        if group_id is not None:
            membership.check_join(
                self.context,
                session,
                group_id,
                namespace=self.intent.namespace,
                pool=self.pool,
            )
            membership.touch_group(self.context, session, group_id)

    def _new_row(self) -> types.Body:
        given = self.intent.arguments
        source = given["source"] or {}
        now = self.context.clock()
        return {
            "id": self.intent.share_id,
            "namespace": self.intent.namespace,
            "name": given["name"],
            "pool": self.pool,
            "state": types.State.CREATING,
            "generation": self.context.generations.next(),
            "size_bytes": given["size_bytes"],
            "file": given["file"],
            "origin_type": source.get("type"),
            "origin_id": source.get("id"),
            "labels": given["labels"],
            "group_id": given.get("group_id"),
            "qos": given.get("qos"),
            "reverts": {},
            "create_request": given["request"],
            "created_at": now,
            "updated_at": now,
            "job_id": self.intent.id,
        }

    def read_row(self) -> Any:
        # Read the database only if an earlier process began it.
        return self._row or super().read_row()

    def steps(self) -> list[operation.Step]:
        share_id, given = self.intent.share_id, self.intent.arguments
        engine = self.engine

        def delete() -> None:
            engine.delete_share(share_id)

        if given["source"] is None:
            owner = self._directory_owner()
            first = operation.Step(
                "create share", lambda: self._create(owner), delete
            )
        else:
            source = self._source(given["source"])
            first = operation.Step(
                "clone share", lambda: self._clone(source), delete
            )
        return [
            first,
            *self.qos_steps(given.get("qos"), None),
            *self._file_steps(),
            operation.Step(
                "write metadata", self.write_metadata, self.delete_metadata
            ),
        ]

    def _source(self, given: types.Body) -> engines.Reference:
        if "snapshot_id" in given:
            return references.snapshot(given["snapshot_id"])
        return engines.Reference(engines.Kind(given["type"]), given["id"])

    def _create(self, owner: engines.Owner | None) -> None:
        self.engine.create_share(self.intent.share_id, owner)
        self._set_limit()

    def _clone(self, source: engines.Reference) -> None:
        # Intents of earlier releases lack the source's size.
        size = self.intent.arguments["source"].get("size_bytes")
        if source.kind == engines.Kind.SHARE and size is not None:
            self.engine.set_limit(source.id, size)
        self.engine.clone_share(source, self.intent.share_id)
        self._set_limit()

    def _set_limit(self) -> None:
        size_bytes = self.intent.arguments["size_bytes"]
        self.engine.set_limit(self.intent.share_id, size_bytes)

    def _file_steps(self) -> list[operation.Step]:
        share_id, given = self.intent.share_id, self.intent.arguments
        engine = self.engine
        if given["file"] is None:
            if given["source"] is None:
                return []
            owner = self._directory_owner()
            return [
                operation.Step(
                    "set directory",
                    lambda: engine.set_directory(share_id, owner),
                )
            ]
        file = volume_file(given["file"], given["size_bytes"])

        def create() -> None:
            engine.ensure_file(share_id, file)
            self._look_at(file)

        def adopt() -> None:
            engine.adopt(share_id, given["source"]["file_name"], file)
            self._look_at(file)

        if given["source"] is None:
            return [operation.Step("create file", create)]
        return [operation.Step("adopt file", adopt)]

    def _look_at(self, file: engines.VolumeFile) -> None:
        """Measure the file in this thread, which saves the reply a question
        to another thread."""
        self._used_bytes = watch.used_bytes(
            self.engine, self.intent.share_id, file.name
        )

    def _directory_owner(self) -> engines.Owner | None:
        """None if the appliance creates the only file; else the user that
        clients act as."""
        if self.intent.arguments["file"] is not None:
            return None
        defaults = self.context.settings.file_defaults
        return engines.Owner(defaults.uid, defaults.gid)

    def finish(self, session: orm.Session) -> types.Done:
        row = self._write_result(session)
        self.context.events.add(
            session,
            "share.created",
            self.intent,
            detail={"name": row.name, "size_bytes": row.size_bytes},
        )
        # No one can have access to it yet.
        body = bodies.of(self.context, row, {})
        body["used_bytes"] = self._used_bytes
        return types.Done(body, created=True)

    def _write_result(self, session: orm.Session) -> Any:
        """Return the new row."""
        values: types.Body = {
            "state": types.State.AVAILABLE,
            "job_id": None,
            "generation": self.context.generations.next(),
            "updated_at": self.context.clock(),
        }
        share_id = self.intent.share_id
        if self._row is None:
            return rows.update(session, models.Share, share_id, **values)
        rows.change(session, models.Share, share_id, **values)
        return SimpleNamespace(**{**vars(self._row), **values})

    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        row = self.row(session)
        membership.touch_group(self.context, session, row.group_id)
        session.delete(row)

    def _check_limit(self, session: orm.Session) -> None:
        limit = self.context.settings.limits.max_shares
        if not self.context.share_room.take(lambda: limit - _count(session)):
            raise problems.Problem(
                "limit.shares", f"This appliance has {limit} shares at most."
            )


class UpdateShare(ShareOperation):
    """Arguments: pool, state (the one before), name, labels, size_bytes,
    old_name and file_name (of the file; None: it has none), allocation,
    old_qos and qos (None: no limits), group_id (None: in no group)."""

    kind: ClassVar[str] = "share.update"

    def begin(self, session: orm.Session) -> None:
        row = self.row(session)
        added = self.intent.arguments["size_bytes"] - row.size_bytes
        self.check_quota(session, quotas.Usage(size_bytes=added))
        check_regroup(self.context, session, row, self._group_id(row))
        self.take(row)
        if added > 0:
            states.move(row, types.State.EXTENDING)

    def steps(self) -> list[operation.Step]:
        share_id, given = self.intent.share_id, self.intent.arguments
        engine = self.engine
        old, new = given["old_name"], given["file_name"]
        # Intents of earlier releases have no limits.
        last = [
            *self.qos_steps(given.get("qos"), given.get("old_qos")),
            operation.Step(
                "write metadata", self.write_new_metadata, self.write_metadata
            ),
        ]
        if new is None:
            return [
                operation.Step(
                    "set limit",
                    lambda: engine.set_limit(share_id, given["size_bytes"]),
                    lambda: self._if_there(
                        lambda: engine.set_limit(share_id, self._size())
                    ),
                ),
                *last,
            ]
        return [
            operation.Step(
                "rename file",
                lambda: engine.rename_file(share_id, old, new),
                lambda: self._if_there(lambda: self._rename_back(old, new)),
            ),
            operation.Step(
                "grow file",
                lambda: self._grow(new),
                lambda: self._if_there(
                    lambda: engine.drop_excess(share_id, new, self._size())
                ),
            ),
            *last,
        ]

    def write_new_metadata(self) -> None:
        """Write the share's future metadata to the pool."""
        with self.context.database.read() as session:
            row = self.row(session)
            # Only in this session, which is never committed.
            self._set_result(row)
            metadata = descriptions.of_share(row)
        self.engine.metadata.write(self.reference, metadata)

    def _set_result(self, row: models.Share) -> None:
        given = self.intent.arguments
        row.name = given["name"]
        row.size_bytes = given["size_bytes"]
        if row.file is not None:
            row.file = {**row.file, "name": given["file_name"]}
        row.labels = given["labels"]
        row.qos = given.get("qos", row.qos)
        row.group_id = self._group_id(row)

    def _group_id(self, row: models.Share) -> str | None:
        # Intents of earlier releases have none.
        group_id: str | None = self.intent.arguments.get(
            "group_id", row.group_id
        )
        return group_id

    def _size(self) -> int:
        """The old size, which the row has until the extend is finished."""
        with self.context.database.read() as session:
            return self.row(session).size_bytes

    def _grow(self, name: str) -> None:
        share_id, given = self.intent.share_id, self.intent.arguments
        self.engine.set_limit(share_id, given["size_bytes"])
        self.engine.grow_file(
            share_id, name, given["size_bytes"], given["allocation"]
        )

    def _rename_back(self, old: str, new: str) -> None:
        # If a client removed the file there is nothing to rename.
        if old != new and not self.engine.file_intact(
            self.intent.share_id, old
        ):
            try:
                self.engine.rename_file(self.intent.share_id, new, old)
            except engines.FileChanged:
                return

    def finish(self, session: orm.Session) -> types.Done:
        given = self.intent.arguments
        row = self.row(session)
        detail: types.Body = {}
        if given["size_bytes"] != row.size_bytes:
            detail["size_bytes"] = given["size_bytes"]
        states.move(row, types.State.AVAILABLE)
        if self._group_id(row) != row.group_id:
            membership.touch_group(
                self.context, session, row.group_id, self._group_id(row)
            )
        self._set_result(row)
        set_labels(row, given["labels"])
        self.end(row)
        self.context.events.add(
            session, "share.updated", self.intent, detail=detail
        )
        return types.Done(bodies.of(self.context, row))

    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        row = self.row(session)
        self.end(row)
        state = types.State(self.intent.arguments["state"])
        if problem.code == "share.degraded":
            state = types.State.DEGRADED
        if self._is_gone:
            state = types.State.ERROR
        states.move(row, state)


class DeleteShare(ShareOperation):
    """Arguments: pool, state (the one before), snapshots: all that the
    share has, id to state."""

    kind: ClassVar[str] = "share.delete"
    undoable = False

    def begin(self, session: orm.Session) -> None:
        row = self.row(session)
        states.move(row, types.State.DELETING)
        self.take(row)
        self._take_snapshots(session)

    def steps(self) -> list[operation.Step]:
        share_id, engine = self.intent.share_id, self.engine
        return [
            operation.Step("withdraw exports", self._withdraw),
            *(
                self._delete_snapshot(snapshot_id)
                for snapshot_id in self.intent.arguments["snapshots"]
            ),
            operation.Step(
                "delete share", lambda: engine.delete_share(share_id)
            ),
            operation.Step("delete metadata", self._delete_all_metadata),
        ]

    def _withdraw(self) -> None:
        self.context.exports.exporter.withdraw(self.reference)
        for snapshot in self._snapshots():
            self.context.exports.withdraw_unexplained(snapshot)

    def _snapshots(self) -> list[engines.Reference]:
        ids = sorted(self.intent.arguments["snapshots"])
        return [references.snapshot(id_) for id_ in ids]

    def _delete_snapshot(self, snapshot_id: str) -> operation.Step:
        return operation.Step(
            f"delete snapshot {snapshot_id}",
            lambda: self.engine.delete_snapshot(snapshot_id),
        )

    def _delete_all_metadata(self) -> None:
        for snapshot in self._snapshots():
            self.engine.metadata.delete(snapshot)
        self.delete_metadata()

    def finish(self, session: orm.Session) -> types.Done:
        gone = [self.reference, *self._snapshots()]
        for each in gone:
            self.context.exports.unexplained.pop(each, None)
        rules.delete(session, *gone)
        membership.touch_group_snapshots_of(
            self.context, session, self.intent.share_id
        )
        self._delete_snapshot_rows(session)
        row = rows.delete(session, models.Share, self.intent.share_id)
        membership.touch_group(self.context, session, row.group_id)
        self.context.events.add(
            session,
            "share.deleted",
            self.intent,
            detail={
                "name": row.name,
                "snapshots": [each.id for each in self._snapshots()],
            },
        )
        return types.Done(None)

    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        # Only a cancelled job, which never began, is abandoned.
        row = self.row(session)
        states.move(row, types.State(self.intent.arguments["state"]))
        self.end(row)
        for snapshot_id, state in self.intent.arguments["snapshots"].items():
            snapshot = session.get_one(models.Snapshot, snapshot_id)
            states.move(snapshot, types.State(state))
            self.context.touch(snapshot)

    def _take_snapshots(self, session: orm.Session) -> None:
        session.execute(
            sa.update(models.Snapshot)
            .where(models.Snapshot.share_id == self.intent.share_id)
            .values(
                state=types.State.DELETING,
                generation=self.context.generations.next(),
                updated_at=self.context.clock(),
            )
            .execution_options(synchronize_session=False)
        )

    def _delete_snapshot_rows(self, session: orm.Session) -> None:
        session.execute(
            sa.delete(models.Snapshot).where(
                models.Snapshot.share_id == self.intent.share_id
            )
        )
