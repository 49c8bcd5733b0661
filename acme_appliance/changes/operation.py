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

"""The interface of a change that the journal runs."""

import abc
from collections.abc import Callable
import dataclasses
import secrets
import time
from typing import Any
from typing import ClassVar
import uuid

from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.changes.context import Context


class Stopped(BaseException):
    """The service stops. The job stays open, and the next start resumes it.

    Not an error, which would undo the job.
    """


def _nothing() -> None:
    return None


@dataclasses.dataclass(frozen=True)
class Step:
    """``do`` can be called again after an interruption; ``undo`` can be
    called whether or not ``do`` was."""

    name: str
    do: Callable[[], None]
    undo: Callable[[], None] = _nothing


@dataclasses.dataclass(frozen=True)
class Work:
    """Work in a pool, or on its exports, that needs no journal: after an
    interruption the same request completes it.

    :param do: called in one of the pool's workers, while the request's
        claims are held.
    """

    pool: str
    do: Callable[[], types.Done]


class Operation(abc.ABC):
    """One kind of change. Built only from its intent, so that a restart can
    rebuild it."""

    kind: ClassVar[str]
    #: False: it cannot be undone (deletes, revokes). After a failure the job
    #: stays open and is retried forward.
    undoable: bool = True
    #: It copies data, which can take hours. Nobody waits for its end: neither
    #: a start nor a stop.
    copies_data: ClassVar[bool] = False

    def __init__(self, context: Context, intent: types.Intent) -> None:
        self.context = context
        self.intent = intent

    @property
    def pool(self) -> str:
        """The pool that the operation works in."""
        pool: str = self.intent.arguments["pool"]
        return pool

    @property
    def lane(self) -> str:
        """The threads that run it; see :class:`storage.workers.Workers`."""
        return self.pool

    @property
    def progress(self) -> types.Body | None:
        """The schema Progress."""
        return None

    def cancel(self, problem: problems.Problem) -> bool:
        """Begin to undo it while it runs; called in another thread.

        :return: False: it is too late. True: this is on disk, so a restart
            would undo it, too.
        """
        return False

    def interrupt(self) -> None:
        """Raise :class:`Stopped` soon, if it copies; called in another
        thread."""
        return

    def check(self) -> None:
        """Check whether resuming it makes sense now.

        :raises engines.EngineError: the pool cannot be used.
        """
        self.context.pools.check(self.pool)

    def take(self, row: Any) -> None:
        """The job is at work on a share or snapshot."""
        row.job_id = self.intent.id
        self.context.touch(row)

    def end(self, row: Any) -> None:
        """The job is over."""
        row.job_id = None
        self.context.touch(row)

    @abc.abstractmethod
    def begin(self, session: orm.Session) -> None:
        """Write what clients see during the change."""

    @abc.abstractmethod
    def steps(self) -> list[Step]:
        """The steps, in order."""

    @abc.abstractmethod
    def finish(self, session: orm.Session) -> types.Done:
        """Write the result and its event. Must not touch storage: all other
        changes wait for this transaction."""

    @abc.abstractmethod
    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        """Restore the previous state: all steps are undone, or none began."""

    def give_up(self, session: orm.Session) -> None:
        """Write what holds if the change is closed where it stands, beside
        the states, which follow from the contents of the pool."""
        return

    def settle(self) -> None:
        """Sync the effects of steps or their undo to disk."""
        self.context.pools.sync(self.pool)


#: The outcome of a request: a change for the journal, work that needs no
#: journal, or an immediate answer.
Decision = Operation | Work | types.Done


def new_id() -> str:
    """A UUID of version 7: ids sort by creation time."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def new_intent(
    caller: types.Caller,
    kind: str,
    share_id: str,
    *,
    namespace: str,
    arguments: types.Body,
    snapshot_id: str | None = None,
    group_id: str | None = None,
    group_snapshot_id: str | None = None,
) -> types.Intent:
    """A new intent of this caller.

    :param share_id: empty for a change of a group or group snapshot.
    """
    return types.Intent(
        id=new_id(),
        kind=kind,
        namespace=namespace,
        share_id=share_id,
        snapshot_id=snapshot_id,
        group_id=group_id,
        group_snapshot_id=group_snapshot_id,
        arguments=arguments,
        actor=caller.name,
        request_id=caller.request_id,
    )
