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

"""Create a group with copies of the shares of another group, or of the
snapshots of a group snapshot."""

from typing import ClassVar
import uuid

from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes import operation
from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.service.groups import groupoperation
from acme_appliance.service.shares import operations as share_operations


def temporary_snapshot(share_id: str) -> str:
    """The id of the snapshot that a new share is a clone of. It follows from
    the share's, so that it can be claimed before there is a job."""
    return str(uuid.uuid5(uuid.UUID(share_id), "moment"))


class CreateGroup(groupoperation.GroupOperation):
    """Arguments: shares (by the id of each new share, the arguments of
    :class:`share_operations.CreateShare`), and those of the base.

    Shares of a group are cloned from temporary snapshots, which are taken at
    one moment and deleted at the end.
    """

    kind: ClassVar[str] = "group.create"

    @property
    def copies(self) -> list[tuple[str, str]]:
        """Source share and its temporary snapshot."""
        sources = [
            each["source"] for each in self.intent.arguments["shares"].values()
        ]
        return [
            (source["id"], source["snapshot_id"])
            for source in sources
            if source["type"] == engines.Kind.SHARE
        ]

    def begin(self, session: orm.Session) -> None:
        groupoperation.check_count(self.context, session, models.Group)
        session.add(models.Group(**self.new_row()))
        session.flush()
        for each in self._build():
            each.begin(session)

    def _build(self) -> list[share_operations.CreateShare]:
        given = self.intent.arguments["shares"]
        return [
            share_operations.CreateShare(
                self.context, self.of_member(share_id, given[share_id])
            )
            for share_id in given
        ]

    def steps(self) -> list[operation.Step]:
        first, last = [], []
        if self.copies:
            first = [
                operation.Step("set limits", self._set_limits),
                *self.moment_steps(self.copies),
            ]
            last = [operation.Step("drop snapshots", self._drop)]
        return [
            *first,
            *(step for each in self._build() for step in each.steps()),
            operation.Step(
                "describe group", self.describe, self.delete_metadata
            ),
            *last,
        ]

    def _set_limits(self) -> None:
        for each in self.intent.arguments["shares"].values():
            source = each["source"]
            self.engine.set_limit(source["id"], source["size_bytes"])

    def _drop(self) -> None:
        # The clones must be on disk before.
        self.engine.sync()
        self.drop_snapshots(self.copies)

    def finish(self, session: orm.Session) -> types.Done:
        for each in self._build():
            each.finish(session)
        row = self.finish_create(session)
        share_ids = sorted(self.intent.arguments["shares"])
        self.context.events.add(
            session,
            "group.created",
            self.intent,
            detail={
                "name": row.name,
                "shares": share_ids,
                "moment": self.moment,
            },
        )
        return types.Done(views.group(row, share_ids), created=True)

    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        for each in self._build():
            each.abandon(session, problem)
        self.abandon_create(session)
