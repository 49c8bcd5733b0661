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

"""One writer at a time, and one commit for all that queue.

A commit waits for the disk, and on SQLite nobody else can write meanwhile.
So the writers that queue share a transaction: each has a savepoint of its
own, and the last of them commits for all. Nobody returns, and nobody acts on
what was written, before that commit is on disk.

To wake a thread costs more than most statements. So whoever has the turn
also makes the calls of those that queue with one, and each of them is woken
once, when it is all on disk.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
import contextlib
import threading
from typing import Any
from typing import Final
from typing import Generic
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy import orm

#: So many changes share a commit at most: the first waits for the last.
MOST: Final = 64

_T = TypeVar("_T")


class _Place:
    """A place in the line for the turn.

    :param call: what to do, by whoever has the turn; None: only who waits
        can do it.
    """

    def __init__(self, call: "_Call[Any] | None") -> None:
        self.call = call
        #: Closed while it waits.
        self.turn = threading.Lock()
        self.turn.acquire()


class FairLock:
    """A lock for whoever has waited longest."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held = False
        self._waiting: collections.deque[_Place] = collections.deque()

    def acquire(
        self, timeout_seconds: float, call: "_Call[Any] | None" = None
    ) -> bool:
        """False: it was not to be had in time.

        With a call, another may have made that by then: see ``call.group``.
        """
        with self._mutex:
            if not self._held:
                self._held = True
                return True
            place = _Place(call)
            self._waiting.append(place)
        if place.turn.acquire(timeout=max(0.0, timeout_seconds)):
            return True
        with self._mutex:
            if place in self._waiting:
                self._waiting.remove(place)
                return False
        # It was passed on in this very moment, or the call is being made.
        place.turn.acquire()
        return True

    def take_call(self) -> "tuple[_Call[Any], threading.Lock] | None":
        """The call of the first that waits, and its turn, to be released by
        whoever takes it. None: nobody waits, or the first has no call."""
        with self._mutex:
            first = self._waiting[0] if self._waiting else None
            if first is None or first.call is None:
                return None
            self._waiting.popleft()
            return first.call, first.turn

    def pass_on(self) -> bool:
        """Give it to the first that waits. False: nobody does, and the
        caller still has it."""
        with self._mutex:
            if not self._waiting:
                return False
            self._waiting.popleft().turn.release()
            return True

    def release(self) -> None:
        """Let the next one have it."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().turn.release()
            else:
                self._held = False


class _Group:
    """A transaction that is open for further members."""

    def __init__(self, engine: sa.Engine) -> None:
        """:raises sqlalchemy.exc.SQLAlchemyError: it cannot be begun."""
        self.connection = engine.connect()
        try:
            self._transaction = self.connection.begin()
        except BaseException:
            self.connection.close()
            raise
        self.size = 0
        #: Of those whose calls were made for them: opened at the end.
        self.turns: list[threading.Lock] = []
        #: Done when it is on disk; has the error if it is not.
        self.committed: futures.Future[None] = futures.Future()

    @contextlib.contextmanager
    def member(self) -> Iterator[orm.Session]:
        """A savepoint, which the session joins. What is executed on its
        ``bind`` is in it too, and costs no transaction of the session's."""
        self.size += 1
        with (
            self.connection.begin_nested(),
            orm.Session(
                self.connection,
                join_transaction_mode="rollback_only",
                expire_on_commit=False,
            ) as session,
        ):
            yield session
            if session.in_transaction():
                session.commit()

    def is_alive(self) -> bool:
        """SQLite ends a transaction by itself after some errors (see
        "Response To Errors Within A Transaction" in its documentation);
        what came after that would be committed at once, one by one."""
        if self.connection.invalidated:
            return False
        driver = self.connection.connection.driver_connection
        return bool(getattr(driver, "in_transaction", True))

    def commit(self) -> None:
        """The outcome goes to all members; this raises nothing."""
        try:
            if not self.is_alive():
                raise exc.OperationalError(
                    "COMMIT",
                    None,
                    RuntimeError("an error ended the transaction of all"),
                )
            self._transaction.commit()
        except BaseException as error:
            # Closed for good, which rolls back: after a commit that failed
            # the pool would give it to others with its transaction open.
            self.connection.invalidate()
            self.committed.set_exception(error)
        else:
            self.committed.set_result(None)
        finally:
            self.connection.close()
            for turn in self.turns:
                turn.release()


class _Call(Generic[_T]):
    """What a member does, in whichever thread."""

    def __init__(self, work: Callable[[orm.Session], _T]) -> None:
        self._work = work
        #: In whose transaction it was made; None: not yet.
        self.group: _Group | None = None
        self._done: futures.Future[_T] = futures.Future()

    def make(self, group: _Group) -> None:
        """An error is kept for :meth:`result`."""
        self.group = group
        try:
            with group.member() as session:
                result = self._work(session)
        except BaseException as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(result)

    def result(self, group: _Group) -> _T:
        """What it returned, when that is on disk."""
        result = self._done.result()
        group.committed.result()
        return result


class GroupCommit:
    """The write transactions of one database; safe to share.

    :param engine: whose transactions are begun to write.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._turn = FairLock()
        #: Open while the turn is passed on; only who has the turn has it.
        self._group: _Group | None = None

    @contextlib.contextmanager
    def member(self, wait_seconds: float) -> Iterator[orm.Session]:
        """A session whose changes are on disk when the block is left.

        An error in the block takes back what the block did, and no more.

        :param wait_seconds: for those before; the disk may take longer.
        :raises sqlalchemy.exc.TimeoutError: those before took longer.
        :raises sqlalchemy.exc.SQLAlchemyError: the commit failed, for all
            members alike.
        """
        self._take_turn(wait_seconds)
        group = self._open_group()
        try:
            with group.member() as session:
                yield session
        finally:
            self._leave(group)
        group.committed.result()

    def run(
        self, work: Callable[[orm.Session], _T], wait_seconds: float
    ) -> _T:
        """As :meth:`member`, with a call in place of the block: it may be
        made by the thread of another member."""
        call = _Call(work)
        self._take_turn(wait_seconds, call)
        group = call.group
        if group is None:
            group = self._open_group()
            call.make(group)
            self._leave(group)
        return call.result(group)

    @contextlib.contextmanager
    def alone(self, wait_seconds: float) -> Iterator[None]:
        """No transaction is open here while the block runs.

        :raises sqlalchemy.exc.TimeoutError: those before took longer.
        """
        self._take_turn(wait_seconds)
        try:
            if self._group is not None:
                self._commit(self._group)
            yield
        finally:
            self._turn.release()

    def _take_turn(
        self, wait_seconds: float, call: _Call[Any] | None = None
    ) -> None:
        if not self._turn.acquire(wait_seconds, call):
            raise exc.TimeoutError(
                f"others have written for {wait_seconds:g} seconds"
            )

    def _open_group(self) -> _Group:
        try:
            self._group = self._group or _Group(self._engine)
        except BaseException:
            self._turn.release()
            raise
        return self._group

    def _leave(self, group: _Group) -> None:
        while self._has_room(group) and (taken := self._turn.take_call()):
            call, turn = taken
            group.turns.append(turn)
            call.make(group)
        if self._has_room(group) and self._turn.pass_on():
            return
        self._commit(group)
        self._turn.release()

    def _has_room(self, group: _Group) -> bool:
        return group.size < MOST and group.is_alive()

    def _commit(self, group: _Group) -> None:
        self._group = None
        group.commit()
