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

"""Move a share to another pool of the appliance.

The data is copied, so a share is in two pools for a while. Exactly one of
them has it at any time:

1. The share's metadata gets a marker, and the target's says that it has a copy
   that is not complete. Then the volume file is copied.
2. When the copy is on disk, the database says so: the point of no return.
   Until then the move can be undone, after that it is only retried forward.
3. The target's metadata becomes that of the share. From then on a rebuilt
   database takes the copy: a share with a marker is valid unless the other
   pool describes it, too.
4. The source is deleted, first its data, then its metadata.

No client has access meanwhile. Snapshots are not moved: a share that has any
is refused, because only the engine knows what they have in common, and a copy
of each would multiply the space.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import threading
from typing import ClassVar

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
from acme_appliance.engines import copies
from acme_appliance.service import descriptions
from acme_appliance.service import fields
from acme_appliance.service import lookup
from acme_appliance.service import objects
from acme_appliance.service.shares import bodies
from acme_appliance.service.shares import operations
from acme_appliance.service.shares import qos
from acme_appliance.storage import watch


class MoveShare(operations.ShareOperation):
    """Arguments: pool (the source), target, state (the one before), file,
    size_bytes, qos, and ``moved`` when it cannot be undone any more."""

    kind: ClassVar[str] = "share.move"
    copies_data: ClassVar[bool] = True

    def __init__(self, context: Context, intent: types.Intent) -> None:
        super().__init__(context, intent)
        self.undoable = not intent.arguments.get("moved", False)
        self.target: str = intent.arguments["target"]
        self._copy: copies.Copy | None = None
        #: Orders a cancellation and the point of no return.
        self._turn = threading.Lock()
        self._is_cancellable = self.undoable
        self._cancelled: problems.Problem | None = None
        self._interrupted = threading.Event()

    @property
    def lane(self) -> str:
        return f"{self.pool} to {self.target}"

    @property
    def progress(self) -> types.Body | None:
        copy = self._copy
        if copy is None:
            return None
        return {
            "done_bytes": copy.done_bytes,
            "total_bytes": max(copy.done_bytes, copy.total_bytes),
        }

    @property
    def _target_engine(self) -> engines.Engine:
        return self.context.pools.engine(self.target)

    def check(self) -> None:
        super().check()
        self.context.pools.check(self.target)

    def settle(self) -> None:
        self.context.pools.sync(self.target)
        self.context.pools.sync(self.pool)

    # -- called by other threads

    def cancel(self, problem: problems.Problem) -> bool:
        with self._turn:
            if not self._is_cancellable:
                return False
            self._is_cancellable = False
            body = problem.to_dict(request_id=self.intent.request_id)
            self._write_job(undo=True, problem=body)
            self._cancelled = problem
        return True

    def interrupt(self) -> None:
        self._interrupted.set()

    def _check_copy(self) -> None:
        """Called before each chunk is copied."""
        if self._cancelled is not None:
            raise self._cancelled
        if self._interrupted.is_set():
            raise operation.Stopped

    # -- the steps

    def begin(self, session: orm.Session) -> None:
        row = self.row(session)
        states.move(row, types.State.MOVING)
        self.take(row)

    def steps(self) -> list[operation.Step]:
        last = [
            operation.Step("describe target", self._describe_target),
            operation.Step("delete source", self._delete_source),
        ]
        if not self.undoable:
            return last
        exporter = self.context.exports.exporter
        return [
            operation.Step(
                "withdraw exports",
                lambda: exporter.withdraw(self.reference),
            ),
            operation.Step("mark source", self._mark, self.write_metadata),
            operation.Step("copy", self._make_copy, self._remove_copy),
            operation.Step("pass the point of no return", self._pass),
            *last,
        ]

    def _mark(self) -> None:
        metadata = descriptions.of_share(self.read_row())
        metadata[descriptions.MOVE] = _marker(self.intent)
        self.engine.metadata.write(self.reference, metadata)
        self.context.pools.sync(self.pool)

    def _make_copy(self) -> None:
        self._check_copy()
        target = self._target_engine
        marker = {descriptions.COPY: _marker(self.intent)}
        target.metadata.write(self.reference, marker)
        # Before there is anything to be taken for the share.
        self.context.pools.sync(self.target)
        try:
            with self._source() as (name, source):
                self._make_target(source.size_bytes)
                self._copy = copies.Copy()
                with target.open_file(
                    self.intent.share_id, name, write=True
                ) as file:
                    self._copy.run(source, file, self._check_copy)
        finally:
            self._copy = None

    @contextlib.contextmanager
    def _source(self) -> Iterator[tuple[str, engines.OpenFile]]:
        """The name of the volume file, and the open file."""
        share_id = self.intent.share_id
        name = self.intent.arguments["file"]["name"]
        with self.engine.open_file(share_id, name) as file:
            if self.engine.find_file(share_id) is None:
                raise problems.Problem(
                    "pool.unsupported",
                    f"The share {share_id} has files beside its volume file"
                    f" {name}, which a move would lose: remove them first.",
                )
            yield name, file

    def _make_target(self, file_bytes: int) -> None:
        """Make the share in the target, with an empty file."""
        share_id, given = self.intent.share_id, self.intent.arguments
        target = self._target_engine
        # What an earlier attempt left.
        target.delete_share(share_id)
        target.create_share(share_id, None)
        target.set_limit(share_id, given["size_bytes"])
        # A client may have made it larger than the share.
        size_bytes = max(given["size_bytes"], file_bytes)
        target.ensure_file(
            share_id, operations.volume_file(given["file"], size_bytes)
        )
        if given["qos"] is not None:
            target.set_qos(share_id, qos.for_engine(given["qos"]))

    def _remove_copy(self) -> None:
        with self._turn:
            self._is_cancellable = False
        target = self._target_engine
        target.delete_share(self.intent.share_id)
        # The metadata says what is left, as long as anything is.
        self.context.pools.sync(self.target)
        target.metadata.delete(self.reference)

    def _pass(self) -> None:
        """The copy is complete and on disk."""
        self.context.pools.sync(self.target)
        with self._turn:
            self._check_copy()
            self._is_cancellable = False
            # First: after an error it may be written nevertheless, so the
            # job stays open, and the next attempt reads which it is.
            self.undoable = False
            moved = {**self.intent.arguments, "moved": True}
            # A cancellation that failed may have been written, too.
            self._write_job(arguments=moved, undo=False, problem=None)

    def _describe_target(self) -> None:
        metadata = descriptions.of_share(self.read_row())
        self._target_engine.metadata.write(self.reference, metadata)
        self.context.pools.sync(self.target)

    def _delete_source(self) -> None:
        self.engine.delete_share(self.intent.share_id)
        self.context.pools.sync(self.pool)
        self.delete_metadata()

    def _write_job(self, **values: object) -> None:
        with self.context.database.write() as session:
            session.execute(
                sa.update(models.Job)
                .where(models.Job.id == self.intent.id)
                .values(**values)
            )

    # -- the end

    def finish(self, session: orm.Session) -> types.Done:
        row = self.row(session)
        states.move(row, types.State.AVAILABLE)
        row.pool = self.target
        self.end(row)
        self.context.events.add(
            session,
            "share.moved",
            self.intent,
            detail={"from": self.pool, "to": self.target},
        )
        return types.Done(bodies.of(self.context, row))

    def give_up(self, session: orm.Session) -> None:
        """The target has the share, once the move cannot be undone."""
        if not self.undoable:
            row = self.row(session)
            row.pool = self.target
            row.generation = self.context.generations.next()

    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        row = self.row(session)
        state = types.State(self.intent.arguments["state"])
        if problem.code == "share.degraded":
            state = types.State.DEGRADED
        states.move(row, types.State.AVAILABLE)
        states.move(row, state)
        self.end(row)


class Moves:
    """The use case of moves."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.context = runner.context

    def patch(
        self,
        caller: types.Caller,
        share_id: str,
        patch: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Move a share; ``patch`` has only the pool.

        The same again: the job that is at it, or the share, once it is done.
        ``share.not_found``, ``pool.not_found``, ``share.in_use``,
        ``share.has_snapshots``, ``share.in_group``, ``share.degraded``,
        ``share.wrong_state``, ``pool.unsupported``, ``pool.no_space``,
        ``request.invalid``.
        """
        target = patch["pool"]
        if len(patch) > 1:
            raise problems.Problem(
                "request.invalid",
                "A move changes nothing else: pool must be the only member.",
                pointer="/pool",
            )
        try:
            outcome = self.runner.run(
                lambda: claims.exclusive(claims.share(share_id)),
                lambda: self._decide(caller, share_id, target, if_match),
                wait_seconds,
            )
        except problems.Problem as problem:
            job_id = self._find_same(caller, share_id, target)
            if problem.code != "share.busy" or job_id is None:
                raise
            journal = self.runner.journal
            return types.Accepted(
                journal.entries.view(job_id, journal.progress(job_id))
            )
        return bodies.measured_outcome(self.context, outcome)

    def _find_same(
        self, caller: types.Caller, share_id: str, target: str
    ) -> str | None:
        """The open job that moves the share to this pool."""
        for job, found in self.runner.journal.entries.readable():
            if (
                isinstance(found, MoveShare)
                and job.share_id == share_id
                and found.target == target
                and caller.sees(found.intent.namespace)
            ):
                return job.id
        return None

    def _decide(
        self,
        caller: types.Caller,
        share_id: str,
        target: str,
        if_match: int | None,
    ) -> operation.Decision:
        with self.context.database.read() as session:
            row = lookup.get_visible(
                session, caller, references.share(share_id)
            )
            fields.check_precondition(if_match, row.generation, "share")
            lookup.check_usable(row)
            if row.pool == target:
                return types.Done(bodies.of(self.context, row))
            self._check_target(row, target)
            self._check_share(session, row)
            intent = operation.new_intent(
                caller,
                MoveShare.kind,
                share_id,
                namespace=row.namespace,
                arguments={
                    "pool": row.pool,
                    "target": target,
                    "state": row.state,
                    "file": row.file,
                    "size_bytes": row.size_bytes,
                    "qos": row.qos,
                },
            )
            file, size_bytes, pool = row.file, row.size_bytes, row.pool
        self.context.pools.check(pool)
        self.context.pools.check(target)
        objects.check_free(self.context, target, references.share(share_id))
        self._check_space(target, pool, share_id, file, size_bytes)
        return MoveShare(self.context, intent)

    def _check_target(self, row: models.Share, target: str) -> None:
        """:raises problems.Problem: one of the pools cannot do it."""
        if target not in self.context.pools:
            raise problems.Problem(
                "pool.not_found",
                f"There is no pool {target}.",
                pointer="/pool",
            )
        needed = {types.FEATURE_MOVE_POOL}
        if row.file is None:
            raise _unsupported(f"The share {row.id} has no volume file.")
        if types.FEATURE_MOVE_POOL not in self.context.pools.features(
            row.pool
        ):
            raise _unsupported(f"The pool {row.pool} cannot move shares.")
        if row.file["allocation"] == engines.ALLOCATION_FULL:
            needed.add(types.FEATURE_THICK)
        needed |= qos.needed(row.qos)
        lacking = needed - {*self.context.pools.features(target)}
        if lacking:
            raise _unsupported(
                f"The pool {target} does not have {', '.join(sorted(lacking))}"
                f", which the share {row.id} needs.",
            )

    def _check_share(self, session: orm.Session, row: models.Share) -> None:
        """:raises problems.Problem: it cannot be moved now."""
        if row.state == types.State.DEGRADED:
            raise problems.Problem(
                "share.degraded",
                f"The volume file of the share {row.id} is gone.",
            )
        users = [rule.holder for rule in row.access_rules]
        users += self.context.exports.unexplained.get(
            references.share(row.id), {}
        )
        if users:
            raise problems.Problem(
                "share.in_use",
                f"The share {row.id} is exported for {', '.join(users)}.",
            )
        if row.group_id is not None:
            raise problems.Problem(
                "share.in_group",
                f"The share {row.id} is in the group {row.group_id}, and a"
                " group is in one pool: take it out first.",
            )
        snapshots = session.scalars(
            sa.select(models.Snapshot.id)
            .where(models.Snapshot.share_id == row.id)
            .order_by(models.Snapshot.id)
        ).all()
        if snapshots:
            raise problems.Problem(
                "share.has_snapshots",
                "Snapshots cannot be moved to another pool. The share"
                f" {row.id} has {len(snapshots)}: {_some(snapshots)}.",
            )

    def _check_space(
        self,
        target: str,
        pool: str,
        share_id: str,
        file: types.Body,
        size_bytes: int,
    ) -> None:
        """Refuse what does not fit; it may run out of space later, too."""
        watches = self.context.pools.watches
        wanted: int | None = size_bytes
        if file["allocation"] != engines.ALLOCATION_FULL:
            answer = watches[pool].start_measuring([(share_id, file["name"])])
            wanted = None
            with contextlib.suppress(watch.NotAnswering):
                wanted = answer.get().get(share_id)
        usage = watches[target].finish_look(watches[target].start_look()).usage
        if usage is not None and (wanted or 0) > usage.free_bytes:
            raise problems.Problem(
                "pool.no_space",
                f"The pool {target} has {usage.free_bytes} free bytes; the"
                f" share {share_id} takes {wanted}.",
            )


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")


def _unsupported(detail: str) -> problems.Problem:
    return problems.Problem("pool.unsupported", detail)


# -- recovery of a lost database


def _marker(intent: types.Intent) -> types.Body:
    return {"job_id": intent.id, "arguments": dict(intent.arguments)}


def reopen(
    context: Context,
    session: orm.Session,
    row: models.Share,
    marker: types.Body,
    *,
    moved: bool,
) -> None:
    """Restore the job of a share that was being moved when the database was
    lost, or after its backup; the next start resumes it.

    :param marker: from the share's metadata in the source.
    :param moved: it passed the point of no return.
    """
    job_id, arguments = marker["job_id"], marker["arguments"]
    session.merge(
        models.Job(
            id=job_id,
            kind=MoveShare.kind,
            namespace=row.namespace,
            share_id=row.id,
            snapshot_id=None,
            arguments={**arguments, **({"moved": True} if moved else {})},
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
    claimrows.insert(session, job_id, claims.exclusive(claims.share(row.id)))
    row.state = types.State.MOVING
    row.job_id = job_id
