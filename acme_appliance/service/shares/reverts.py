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

"""Revert a share to one of its snapshots.

The volume file gets the snapshot's content in place, because clients that had
access before may still have it open. This is not atomic. So a temporary
snapshot, named by the job, keeps the old content until the new content is on
disk. Until then the change can be undone, after that it is only retried
forward. No client has access during the change.

The share's metadata has a marker while it is being reverted. If the database
is lost meanwhile, rebuilding it restores the job; see :func:`reopen`.
"""

from typing import ClassVar
from typing import Final

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from acme_appliance.changes import claimrows
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
from acme_appliance.service.shares import bodies
from acme_appliance.service.shares import operations

#: Number of reverts that a share remembers; ``openapi.yaml`` documents it.
_REMEMBERED: Final = 32
_FIELDS: Final = frozenset({"snapshot_id"})


class RevertShare(operations.ShareOperation):
    """Arguments: pool, state (the one before), revert_id, snapshot_file
    (its name), file, size_bytes, and ``reverted`` when it cannot be undone any
    more."""

    kind: ClassVar[str] = "share.revert"

    def __init__(self, context: Context, intent: types.Intent) -> None:
        super().__init__(context, intent)
        self.undoable = not intent.arguments.get("reverted", False)

    @property
    def kept(self) -> engines.Reference:
        """The temporary snapshot with the old content."""
        return engines.Reference(engines.Kind.SNAPSHOT, self.intent.id)

    @property
    def snapshot_id(self) -> str:
        assert self.intent.snapshot_id is not None  # noqa: S101
        return self.intent.snapshot_id

    def begin(self, session: orm.Session) -> None:
        row = self.row(session)
        states.move(row, types.State.REVERTING)
        self.take(row)

    def steps(self) -> list[operation.Step]:
        given, exporter = self.intent.arguments, self.context.exports.exporter
        old_file, snapshot_file = given["file"]["name"], given["snapshot_file"]
        last = operation.Step("drop old content", self._drop_old)
        if not self.undoable:
            return [last]
        return [
            operation.Step(
                "withdraw exports",
                lambda: exporter.withdraw(self.reference),
            ),
            operation.Step("keep old content", self._keep_old, self._forget),
            operation.Step(
                "revert file",
                lambda: self._revert(self.snapshot_id, snapshot_file),
                lambda: self._revert_back(old_file),
            ),
            operation.Step("write metadata", self._describe_new),
            operation.Step("pass the point of no return", self._pass),
            last,
        ]

    # -- forward

    def _keep_old(self) -> None:
        share_id, given = self.intent.share_id, self.intent.arguments
        engine = self.engine
        if not engine.exists(self.kept):
            name = given["file"]["name"]
            if not engine.file_intact(share_id, name):
                raise engines.FileChanged(f"the volume file {name!r} is gone")
            engine.set_limit(share_id, given["size_bytes"])
            engine.create_snapshot(share_id, self.intent.id)
        self._describe_both()
        engine.sync()

    def _revert(self, snapshot_id: str, snapshot_file: str) -> None:
        given = self.intent.arguments
        self.engine.revert_file(
            self.intent.share_id,
            operations.volume_file(given["file"], given["size_bytes"]),
            snapshot_id,
            snapshot_file,
        )
        self.engine.sync()

    def _pass(self) -> None:
        """The new content is complete and on disk."""
        self.engine.sync()
        reverted = {**self.intent.arguments, "reverted": True}
        with self.context.database.write() as session:
            session.execute(
                sa.update(models.Job)
                .where(models.Job.id == self.intent.id)
                .values(arguments=reverted)
            )
        self.undoable = False

    def _drop_old(self) -> None:
        self.engine.delete_snapshot(self.intent.id)

    # -- back

    def _revert_back(self, old_file: str) -> None:
        # Without a temporary snapshot nothing began, or everything is undone.
        if self.engine.exists(self.kept):
            self._describe_both()
            self._revert(self.intent.id, old_file)

    def _forget(self) -> None:
        self.write_metadata()
        self._drop_old()

    # -- metadata

    def _describe_both(self) -> None:
        """Write metadata for content that may be old, new, or a mixture."""
        self._write(descriptions.of_share(self.read_row()), _marker(self))

    def _describe_new(self) -> None:
        with self.context.database.read() as session:
            row = self.row(session)
            # Only in this session, which is never committed.
            row.reverts = self._reverts(row)
            metadata = descriptions.of_share(row)
        self._write(metadata)

    def _write(
        self, metadata: types.Body, marker: types.Body | None = None
    ) -> None:
        if marker is not None:
            metadata = {**metadata, descriptions.REVERT: marker}
        self.engine.metadata.write(self.reference, metadata)

    def _reverts(self, row: models.Share) -> types.Body:
        """The remembered reverts, including this one, oldest first."""
        known = [*row.reverts.items()][1 - _REMEMBERED :]
        return {
            **dict(known),
            self.intent.arguments["revert_id"]: self.snapshot_id,
        }

    # -- the end

    def finish(self, session: orm.Session) -> types.Done:
        row = self.row(session)
        states.move(row, types.State.AVAILABLE)
        row.reverts = self._reverts(row)
        self.end(row)
        self.context.events.add(
            session,
            "share.reverted",
            self.intent,
            detail={"revert_id": self.intent.arguments["revert_id"]},
        )
        return types.Done(bodies.of(self.context, row), created=True)

    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        row = self.row(session)
        states.move(row, types.State(self.intent.arguments["state"]))
        self.end(row)


class Reverts:
    """The use cases of reverts; see :mod:`acme_appliance.service`."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.context = runner.context

    def put(
        self,
        caller: types.Caller,
        share_id: str,
        revert_id: str,
        body: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Revert a share; ``body`` is the schema RevertPut.

        A repeated request returns the share's current state, ``created``
        False, whatever was written since. ``revert.exists_mismatch``,
        ``share.not_found``, ``snapshot.not_found``, ``share.in_use``,
        ``share.degraded``, ``share.wrong_state``, ``snapshot.wrong_state``,
        ``pool.unsupported``, ``pool.no_space``.
        """
        fields.check_fields(body, _FIELDS)
        snapshot_id = body["snapshot_id"]
        outcome = self.runner.run(
            lambda: {
                claims.share(share_id): claims.Claim.EXCLUSIVE,
                claims.snapshot(snapshot_id): claims.Claim.SHARED,
            },
            lambda: self._decide(
                caller, share_id, revert_id, snapshot_id, if_match
            ),
            wait_seconds,
        )
        return bodies.measured_outcome(self.context, outcome)

    def _decide(
        self,
        caller: types.Caller,
        share_id: str,
        revert_id: str,
        snapshot_id: str,
        if_match: int | None,
    ) -> operation.Decision:
        with self.context.database.read() as session:
            row = lookup.get_visible(
                session, caller, references.share(share_id)
            )
            if revert_id in row.reverts:
                return self._same(row, revert_id, snapshot_id)
            fields.check_precondition(if_match, row.generation, "share")
            snapshot = self._snapshot(session, row, snapshot_id)
            self._check_share(row)
            pool = row.pool
            arguments = {
                "pool": pool,
                "state": row.state,
                "revert_id": revert_id,
                "snapshot_file": snapshot.file and snapshot.file["name"],
                "file": row.file,
                "size_bytes": row.size_bytes,
            }
            namespace = row.namespace
        self.context.pools.check(pool)
        return RevertShare(
            self.context,
            operation.new_intent(
                caller,
                RevertShare.kind,
                share_id,
                namespace=namespace,
                snapshot_id=snapshot_id,
                arguments=arguments,
            ),
        )

    def _same(
        self, row: models.Share, revert_id: str, snapshot_id: str
    ) -> types.Done:
        if row.reverts[revert_id] != snapshot_id:
            raise problems.Problem(
                "revert.exists_mismatch",
                f"The revert {revert_id} of the share {row.id} was to the"
                f" snapshot {row.reverts[revert_id]}.",
                pointer="/snapshot_id",
            )
        return types.Done(bodies.of(self.context, row))

    def _snapshot(
        self, session: orm.Session, row: models.Share, snapshot_id: str
    ) -> models.Snapshot:
        snapshot = session.get(models.Snapshot, snapshot_id)
        if snapshot is None or snapshot.share_id != row.id:
            raise problems.Problem(
                "snapshot.not_found",
                f"The share {row.id} has no snapshot {snapshot_id}.",
                pointer="/snapshot_id",
            )
        if snapshot.state != types.State.AVAILABLE:
            raise problems.Problem(
                "snapshot.wrong_state",
                f"The snapshot {snapshot.id} is in state {snapshot.state}.",
            )
        if snapshot.file is None:
            raise _unsupported(
                f"The snapshot {snapshot.id} has no volume file."
            )
        return snapshot

    def _check_share(self, row: models.Share) -> None:
        """:raises problems.Problem: it cannot be reverted."""
        features = self.context.pools.features(row.pool)
        if row.file is None or types.FEATURE_REVERT not in features:
            raise _unsupported(
                f"The pool {row.pool} cannot revert shares, or the share"
                f" {row.id} has no volume file."
            )
        lookup.check_usable(row)
        if row.state == types.State.DEGRADED:
            raise problems.Problem(
                "share.degraded",
                f"The volume file of the share {row.id} is gone.",
            )
        self._check_unused(row)

    def _check_unused(self, row: models.Share) -> None:
        # Also readers, which would see a mixture of both contents.
        users = [rule.holder for rule in row.access_rules]
        users += self.context.exports.unexplained.get(
            references.share(row.id), {}
        )
        if users:
            raise problems.Problem(
                "share.in_use",
                f"The share {row.id} is exported for {', '.join(users)}.",
            )


def _unsupported(detail: str) -> problems.Problem:
    return problems.Problem("pool.unsupported", detail)


# -- recovery of a lost database


def _marker(revert: RevertShare) -> types.Body:
    intent = revert.intent
    return {
        "job_id": intent.id,
        "snapshot_id": intent.snapshot_id,
        "arguments": dict(intent.arguments),
    }


def reopen(
    context: Context,
    session: orm.Session,
    row: models.Share,
    marker: types.Body,
) -> None:
    """Restore the job of a share that was being reverted when the database was
    lost, or after its backup; the next start resumes it.

    :param marker: from the share's metadata.
    """
    job_id = marker["job_id"]
    session.merge(
        models.Job(
            id=job_id,
            kind=RevertShare.kind,
            namespace=row.namespace,
            share_id=row.id,
            snapshot_id=marker["snapshot_id"],
            arguments=marker["arguments"],
            state=types.JobState.RUNNING,
            undo=False,
            problem=None,
            attempts=0,
            request_id="",
            actor="acme-appliance",
            created_at=context.clock(),
            finished_at=None,
        )
    )
    session.flush()
    claimrows.delete(session, job_id)
    claimrows.insert(
        session,
        job_id,
        {
            claims.share(row.id): claims.Claim.EXCLUSIVE,
            claims.snapshot(marker["snapshot_id"]): claims.Claim.SHARED,
        },
    )
    row.state = types.State.REVERTING
    row.job_id = job_id
