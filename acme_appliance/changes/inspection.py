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

"""Derive the state of a share or snapshot from the contents of its pool.

Used if no job determines the state: by the comparison after a start, for rows
that an earlier release left in ``error``, and for the shares of a job that an
operator closed.
"""

import dataclasses
import logging
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import types
from acme_appliance.changes import jobrows
from acme_appliance.changes import operation
from acme_appliance.changes import states
from acme_appliance.changes.context import Context
from acme_appliance.db import models
from acme_appliance.engines import base as engines

LOG = logging.getLogger(__name__)

#: Stands beside a share while it is being reverted.
REVERT = "revert"
#: The ends of the kinds of jobs that create something.
_CREATES = (".create", ".snapshot")
_STEADY = (types.State.AVAILABLE, types.State.DEGRADED)

Row = models.Share | models.Snapshot


@dataclasses.dataclass(frozen=True)
class Finding:
    """``exists``: the subvolume is there, in whatever condition.
    ``never_made``: it is part of a create that failed."""

    state: types.State
    size_bytes: int
    exists: bool = True
    never_made: bool = False


class Inspector:
    """Every method raises :class:`engines.EngineError` if the pool cannot be
    read: then nothing is proven."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def inspect_share(self, row: Any) -> Finding:
        """:param row: id, pool, state, file, size_bytes and group_id of a
        share.
        """
        engine = self.context.pools.engine(row.pool)
        reference = engines.Reference(engines.Kind.SHARE, row.id)
        found = None
        if row.file is not None:
            found = engine.file_size(row.id, row.file["name"])
        # If the file exists, so does the share: this saves a call per share
        # at a start with many shares.
        if found is None and not engine.exists(reference):
            return Finding(types.State.ERROR, row.size_bytes, exists=False)
        if row.state not in _STEADY:
            if self._was_never_made(row):
                return _half(row)
            if self._is_half_reverted(row):
                return Finding(types.State.ERROR, row.size_bytes)
        if row.file is None:
            return Finding(types.State.AVAILABLE, row.size_bytes)
        if row.state in _STEADY:
            # A client may have moved the file, and may move it back.
            state = types.State.DEGRADED
            if found is not None:
                state = types.State.AVAILABLE
            return Finding(state, row.size_bytes)
        if found is None or found < row.size_bytes:
            return Finding(types.State.ERROR, row.size_bytes)
        # An abandoned extend may have grown it.
        return Finding(types.State.AVAILABLE, found)

    def inspect_snapshot(self, row: Any) -> Finding:
        """:param row: id, share_id, pool, state, size_bytes and
        group_snapshot_id of one.
        """
        engine = self.context.pools.engine(row.pool)
        reference = engines.Reference(engines.Kind.SNAPSHOT, row.id)
        if not engine.exists(reference):
            return Finding(types.State.ERROR, row.size_bytes, exists=False)
        if row.state not in _STEADY and self._was_never_made(
            row, row.share_id, row.id
        ):
            return _half(row)
        return Finding(types.State.AVAILABLE, row.size_bytes)

    def _was_never_made(
        self,
        row: Any,
        share_id: str | None = None,
        snapshot_id: str | None = None,
    ) -> bool:
        """Whether its last job is a create that failed, of itself or of a
        group.

        :param share_id, snapshot_id: of a snapshot.

        Parts may be left. The client knows of the failure, so they must not
        become available.
        """
        job = models.Job
        statement = (
            sa.select(job.kind, job.state)
            .where(
                sa.or_(
                    sa.and_(
                        job.share_id == (share_id or row.id),
                        job.snapshot_id == snapshot_id,
                    ),
                    _created_with(row),
                )
            )
            .order_by(job.id.desc())
            .limit(1)
        )
        with self.context.database.read() as session:
            last = session.execute(statement).one_or_none()
        return (
            last is not None
            and last.state == types.JobState.FAILED
            and last.kind.endswith(_CREATES)
        )

    def _is_half_reverted(self, row: Any) -> bool:
        """Whether an operator closed the job that reverted it."""
        engine = self.context.pools.engine(row.pool)
        reference = engines.Reference(engines.Kind.SHARE, row.id)
        return REVERT in (engine.metadata.read(reference) or {})

    # -- writing it down

    def record(self, session: orm.Session, row: Row, finding: Finding) -> None:
        """Write a finding and clear the row's job; the caller announces."""
        LOG.warning("%s %s is %s", _kind(row), row.id, finding.state)
        states.move(row, finding.state)
        row.size_bytes = finding.size_bytes
        row.job_id = None
        self.context.touch(row)
        self.context.events.add(
            session, f"{_kind(row)}.{finding.state}", _our_own(row), job=False
        )

    def settle(self, share_id: str) -> None:
        """Set the states of a share and its snapshots that name a job that
        is not open. The caller holds the share."""
        with self.context.database.read() as session:
            findings = [
                (row, self._look(row)) for row in _marked(session, share_id)
            ]
        if not findings:
            return
        with self.context.database.write() as session:
            for row, finding in findings:
                self.record(session, _again(session, row), finding)
        self.context.events.announce()

    def _look(self, row: Row) -> Finding:
        self.context.pools.check(row.pool)
        if isinstance(row, models.Share):
            return self.inspect_share(row)
        return self.inspect_snapshot(row)


def _created_with(row: Any) -> sa.ColumnElement[bool]:
    """The create of the group that a share or snapshot is in, which made its
    members, too. Nothing can join a group whose create failed."""
    job = models.Job
    if hasattr(row, "group_snapshot_id"):
        return sa.and_(
            job.group_snapshot_id == row.group_snapshot_id,
            job.kind == "group.snapshot",
        )
    return sa.and_(job.group_id == row.group_id, job.kind == "group.create")


def _half(row: Any) -> Finding:
    return Finding(types.State.ERROR, row.size_bytes, never_made=True)


def _marked(session: orm.Session, share_id: str) -> list[Row]:
    """The share and its snapshots, as far as they name an ended job."""
    open_jobs = sa.select(models.Job.id).where(jobrows.IS_OPEN)
    found: list[Row] = []
    for table, key in (
        (models.Share, models.Share.id),
        (models.Snapshot, models.Snapshot.share_id),
    ):
        found += session.scalars(
            sa.select(table).where(
                key == share_id,
                table.job_id.is_not(None),
                table.job_id.not_in(open_jobs),
            )
        )
    return found


def _again(session: orm.Session, row: Row) -> Row:
    """The row of another session, in this one."""
    if isinstance(row, models.Share):
        return session.get_one(models.Share, row.id)
    return session.get_one(models.Snapshot, row.id)


def _kind(row: Row) -> str:
    return "share" if isinstance(row, models.Share) else "snapshot"


def _our_own(row: Row) -> types.Intent:
    """The intent of a change that the appliance itself makes."""
    share = isinstance(row, models.Share)
    return types.Intent(
        id=operation.new_id(),
        kind="recovery",
        namespace=row.namespace,
        share_id=row.id if isinstance(row, models.Share) else row.share_id,
        snapshot_id=None if share else row.id,
        arguments={},
        actor="acme-appliance",
        request_id="",
    )
