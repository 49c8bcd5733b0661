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

"""Operations on many shares or snapshots of a pool, as one job.

They are made of the operations on one, which write the rows, the metadata and
the events; only the common moment is of its own.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import moments
from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from acme_appliance.changes import operation
from acme_appliance.changes import states
from acme_appliance.changes.context import Context
from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.service import descriptions
from acme_appliance.service import lookup


class GroupOperation(operation.Operation):
    """Base of operations on a group or group snapshot.

    Arguments: pool, and more. A create: name, labels, request, and ``moment``
    (method, pause_ms) when the snapshots are taken and on disk.
    """

    def __init__(self, context: Context, intent: types.Intent) -> None:
        super().__init__(context, intent)
        #: None: it has not been taken, or its snapshots may be incomplete.
        self.moment: types.Body | None = intent.arguments.get("moment")
        self._taken: moments.Moment | None = None

    @property
    def engine(self) -> engines.Engine:
        return self.context.pools.engine(self.pool)

    @property
    def reference(self) -> references.GroupReference:
        if self.intent.group_snapshot_id is not None:
            return references.group_snapshot(self.intent.group_snapshot_id)
        assert self.intent.group_id is not None  # noqa: S101
        return references.group(self.intent.group_id)

    def row(self, session: orm.Session) -> Any:
        return session.get_one(
            lookup.TABLES[self.reference.kind], self.reference.id
        )

    def new_row(self) -> types.Body:
        """The columns of the row that a create begins with."""
        given = self.intent.arguments
        now = self.context.clock()
        return {
            "id": self.reference.id,
            "namespace": self.intent.namespace,
            "name": given["name"],
            "pool": self.pool,
            "state": types.State.CREATING,
            "generation": self.context.generations.next(),
            "moment": None,
            "labels": given["labels"],
            "create_request": given["request"],
            "created_at": now,
            "updated_at": now,
            "job_id": self.intent.id,
        }

    def of_member(
        self,
        share_id: str,
        arguments: types.Body,
        snapshot_id: str | None = None,
    ) -> types.Intent:
        """The intent of the operation on one member."""
        return dataclasses.replace(
            self.intent,
            share_id=share_id,
            snapshot_id=snapshot_id,
            arguments={"pool": self.pool, **arguments},
        )

    # -- the moment

    def moment_steps(
        self, members: Sequence[tuple[str, str]]
    ) -> list[operation.Step]:
        """Take snapshots of shares at one moment, once.

        After an interruption they are taken again, unless the job says that
        all are on disk.

        :param members: share and snapshot.
        """
        return [
            operation.Step(
                "take moment",
                lambda: self._take_moment(members),
                lambda: self.drop_snapshots(members),
            ),
            operation.Step("keep moment", self._keep_moment),
        ]

    def _take_moment(self, members: Sequence[tuple[str, str]]) -> None:
        if self.moment is None:
            self._taken = moments.take(
                self.engine, self.context.exports.exporter, members
            )

    def _keep_moment(self) -> None:
        if self.moment is not None:
            return
        assert self._taken is not None  # noqa: S101
        self.engine.sync()
        moment = {
            "method": self._taken.method,
            "pause_ms": round(self._taken.pause_seconds * 1000),
        }
        arguments = {**self.intent.arguments, "moment": moment}
        with self.context.database.write() as session:
            session.execute(
                sa.update(models.Job)
                .where(models.Job.id == self.intent.id)
                .values(arguments=arguments)
            )
        self.moment = moment

    def drop_snapshots(self, members: Sequence[tuple[str, str]]) -> None:
        for _, snapshot_id in members:
            self.engine.delete_snapshot(snapshot_id)

    # -- metadata, and the end of a create

    def describe(self) -> None:
        """Write the metadata that the row will have."""
        with self.context.database.read() as session:
            row = self.row(session)
            # Only in this session, which is never committed.
            row.moment = self.moment
            metadata = descriptions.of(row, self.reference.kind)
        self.engine.metadata.write(self.reference, metadata)

    def delete_metadata(self) -> None:
        self.engine.metadata.delete(self.reference)

    def finish_create(self, session: orm.Session) -> Any:
        """Return the row."""
        row = self.row(session)
        states.move(row, types.State.AVAILABLE)
        row.moment = self.moment
        self.end(row)
        return row

    def abandon_create(self, session: orm.Session) -> None:
        session.delete(self.row(session))


def check_count(
    context: Context, session: orm.Session, model: type[models.Base]
) -> None:
    """:raises problems.Problem: ``limit.groups``."""
    limit = context.settings.limits.max_groups
    count = session.scalar(sa.select(sa.func.count()).select_from(model))
    if (count or 0) >= limit:
        raise problems.Problem(
            "limit.groups",
            f"This appliance has {limit} groups at most, and as many group"
            " snapshots.",
        )


def check_feature(
    context: Context, pool: str, feature: str = types.FEATURE_GROUP
) -> None:
    """:raises problems.Problem: ``pool.unsupported``."""
    if feature not in context.pools.features(pool):
        raise problems.Problem(
            "pool.unsupported", f"The pool {pool} does not have {feature}."
        )


def twice(id_: str, pointer: str) -> problems.Problem:
    """A request has an id for two objects."""
    return problems.Problem(
        "request.invalid",
        f"The id {id_} is used twice.",
        pointer=pointer,
    )
