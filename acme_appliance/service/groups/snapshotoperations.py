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

"""The operations that create and delete a group snapshot."""

from typing import ClassVar

from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes import operation
from acme_appliance.changes import states
from acme_appliance.db import models
from acme_appliance.service import snapshots
from acme_appliance.service.groups import groupoperation


class CreateGroupSnapshot(groupoperation.GroupOperation):
    """Arguments: snapshots (by share: id, and the arguments of
    :class:`snapshots.CreateSnapshot`), and those of the base."""

    kind: ClassVar[str] = "group.snapshot"

    @property
    def members(self) -> list[tuple[str, str]]:
        """Share and snapshot."""
        given = self.intent.arguments["snapshots"]
        return [(share_id, given[share_id]["id"]) for share_id in given]

    @property
    def creates(self) -> list[snapshots.CreateSnapshot]:
        given = self.intent.arguments["snapshots"]
        return [
            snapshots.CreateSnapshot(
                self.context,
                self.of_member(share_id, given[share_id], snapshot_id),
            )
            for share_id, snapshot_id in self.members
        ]

    def begin(self, session: orm.Session) -> None:
        groupoperation.check_count(self.context, session, models.GroupSnapshot)
        session.add(
            models.GroupSnapshot(
                **self.new_row(), group_id=self.intent.group_id
            )
        )
        for each in self.creates:
            each.begin(session)

    def steps(self) -> list[operation.Step]:
        return [
            operation.Step("set limits", self._set_limits),
            *self.moment_steps(self.members),
            *(
                operation.Step(
                    "write metadata", each.write_metadata, each.delete_metadata
                )
                for each in self.creates
            ),
            # Last: a group snapshot without all its snapshots is none.
            operation.Step(
                "describe group", self.describe, self.delete_metadata
            ),
        ]

    def _set_limits(self) -> None:
        given = self.intent.arguments["snapshots"]
        for share_id, _ in self.members:
            self.engine.set_limit(share_id, given[share_id]["size_bytes"])

    def finish(self, session: orm.Session) -> types.Done:
        for each in self.creates:
            each.finish(session)
        row = self.finish_create(session)
        self.context.events.add(
            session,
            "group.snapshot_created",
            self.intent,
            detail={
                "name": row.name,
                "snapshots": dict(self.members),
                "moment": self.moment,
            },
        )
        body = views.group_snapshot(row, dict(self.members))
        return types.Done(body, created=True)

    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        for each in self.creates:
            each.abandon(session, problem)
        self.abandon_create(session)


class DeleteGroupSnapshot(groupoperation.GroupOperation):
    """Arguments: pool, state (the one before), snapshots (by id: share_id
    and state)."""

    kind: ClassVar[str] = "group.snapshot_delete"
    undoable = False

    @property
    def deletes(self) -> list[snapshots.DeleteSnapshot]:
        return [
            snapshots.DeleteSnapshot(
                self.context,
                self.of_member(
                    given["share_id"], {"state": given["state"]}, id_
                ),
            )
            for id_, given in self.intent.arguments["snapshots"].items()
        ]

    def begin(self, session: orm.Session) -> None:
        row = self.row(session)
        states.move(row, types.State.DELETING)
        self.take(row)
        for each in self.deletes:
            each.begin(session)

    def steps(self) -> list[operation.Step]:
        return [
            # First: what is left of it is no group snapshot.
            operation.Step("forget group", self.delete_metadata),
            *(step for each in self.deletes for step in each.steps()),
        ]

    def finish(self, session: orm.Session) -> types.Done:
        for each in self.deletes:
            each.finish(session)
        row = self.row(session)
        self.context.events.add(
            session,
            "group.snapshot_deleted",
            self.intent,
            detail={
                "name": row.name,
                "snapshots": [*self.intent.arguments["snapshots"]],
            },
        )
        session.delete(row)
        return types.Done(None)

    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        for each in self.deletes:
            each.abandon(session, problem)
        row = self.row(session)
        states.move(row, types.State(self.intent.arguments["state"]))
        self.end(row)
