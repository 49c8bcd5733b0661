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

"""Group commit: writers that queue at the same time share a commit.

A commit waits for the disk, and on SQLite no one else can write meanwhile.
So queued writers share a transaction: each has its own savepoint, and the
last one commits for all. No writer returns before that commit is on disk.

Waking a thread costs more than most statements. So the thread that has the
turn also runs the writes of queued writers, and each of them wakes once, after
the commit.
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

#: Maximum number of changes per commit: the first waits for the last.
MAX_MEMBERS: Final = 64

_T = TypeVar("_T")


class _Waiter:
    """A place in the queue for the turn.

    :param write: for the thread that has the turn to run; None: only the
        waiting thread can do its work.
    """

    def __init__(self, write: "_Write[Any] | None") -> None:
        self.write = write
        #: Locked while it waits.
        self.turn = threading.Lock()
        self.turn.acquire()


class FairLock:
    """A lock with a first-in, first-out queue."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held = False
        self._waiting: collections.deque[_Waiter] = collections.deque()

    def acquire(
        self, timeout_seconds: float, write: "_Write[Any] | None" = None
    ) -> bool:
        """False: timed out.

        Another thread may have run the write by then: see ``write.group``.
        """
        with self._mutex:
            if not self._held:
                self._held = True
                return True
            waiter = _Waiter(write)
            self._waiting.append(waiter)
        if waiter.turn.acquire(timeout=max(0.0, timeout_seconds)):
            return True
        with self._mutex:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                return False
        # The turn was passed on just now, or the write is running.
        waiter.turn.acquire()
        return True

    def take_write(self) -> "tuple[_Write[Any], threading.Lock] | None":
        """Remove the first waiter; return its write and its turn, which the
        caller must release. None: no waiter, or the first has no write."""
        with self._mutex:
            first = self._waiting[0] if self._waiting else None
            if first is None or first.write is None:
                return None
            self._waiting.popleft()
            return first.write, first.turn

    def pass_on(self) -> bool:
        """Pass the lock to the first waiter. False: there is none, and the
        caller keeps the lock."""
        with self._mutex:
            if not self._waiting:
                return False
            self._waiting.popleft().turn.release()
            return True

    def release(self) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().turn.release()
            else:
                self._held = False


class _Group:
    """An open transaction that further members can join."""

    def __init__(self, engine: sa.Engine) -> None:
        """:raises sqlalchemy.exc.SQLAlchemyError: it cannot begin."""
        self.connection = engine.connect()
        try:
            self._transaction = self.connection.begin()
        except BaseException:
            self.connection.close()
            raise
        self.size = 0
        #: Of waiters whose writes ran in this group; released at the end.
        self.turns: list[threading.Lock] = []
        #: Done when the commit is on disk or has failed.
        self.committed: futures.Future[None] = futures.Future()

    @contextlib.contextmanager
    def member(self) -> Iterator[orm.Session]:
        """A session in a new savepoint. Statements executed on its ``bind``
        are also in the savepoint, without a transaction of the session."""
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
        """SQLite rolls a transaction back after some errors (see "Response
        To Errors Within A Transaction" in its documentation). Statements
        after that would be committed one by one."""
        if self.connection.invalidated:
            return False
        driver = self.connection.connection.driver_connection
        return bool(getattr(driver, "in_transaction", True))

    def commit(self) -> None:
        """Commit and report the outcome to all members. Raises nothing."""
        try:
            if not self.is_alive():
                raise exc.OperationalError(
                    "COMMIT",
                    None,
                    RuntimeError("an error ended the shared transaction"),
                )
            self._transaction.commit()
        except BaseException as error:
            # Close the connection, which rolls back: after a failed commit
            # the pool would reuse it with its transaction open.
            self.connection.invalidate()
            self.committed.set_exception(error)
        else:
            self.committed.set_result(None)
        finally:
            self.connection.close()
            for turn in self.turns:
                turn.release()


class _Write(Generic[_T]):
    """A member's work, for any thread to run."""

    def __init__(self, work: Callable[[orm.Session], _T]) -> None:
        self._work = work
        #: The group that it ran in; None: not yet.
        self.group: _Group | None = None
        self._done: futures.Future[_T] = futures.Future()

    def run(self, group: _Group) -> None:
        """Run the work. :meth:`result` raises its error."""
        self.group = group
        try:
            with group.member() as session:
                result = self._work(session)
        except BaseException as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(result)

    def result(self, group: _Group) -> _T:
        """The result of the work, after the commit."""
        result = self._done.result()
        group.committed.result()
        return result


class GroupCommit:
    """The write transactions of one database; thread-safe.

    :param engine: creates write transactions.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._turn = FairLock()
        #: The open group, if any; guarded by the turn.
        self._group: _Group | None = None

    @contextlib.contextmanager
    def member(self, wait_seconds: float) -> Iterator[orm.Session]:
        """A session whose changes are on disk when the block ends.

        An error in the block rolls back only the changes of the block.

        :param wait_seconds: to wait for the turn; the commit may take longer.
        :raises sqlalchemy.exc.TimeoutError: the wait took longer.
        :raises sqlalchemy.exc.SQLAlchemyError: the commit failed, for all
            members.
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
        """Like :meth:`member`, with a function instead of a block; another
        member's thread may run it."""
        write = _Write(work)
        self._take_turn(wait_seconds, write)
        group = write.group
        if group is None:
            group = self._open_group()
            write.run(group)
            self._leave(group)
        return write.result(group)

    @contextlib.contextmanager
    def exclusive(self, wait_seconds: float) -> Iterator[None]:
        """Run the block while no transaction is open here.

        :raises sqlalchemy.exc.TimeoutError: the wait took longer.
        """
        self._take_turn(wait_seconds)
        try:
            if self._group is not None:
                self._commit(self._group)
            yield
        finally:
            self._turn.release()

    def _take_turn(
        self, wait_seconds: float, write: _Write[Any] | None = None
    ) -> None:
        if not self._turn.acquire(wait_seconds, write):
            raise exc.TimeoutError(
                f"other writers took longer than {wait_seconds:g} seconds"
            )

    def _open_group(self) -> _Group:
        try:
            self._group = self._group or _Group(self._engine)
        except BaseException:
            self._turn.release()
            raise
        return self._group

    def _leave(self, group: _Group) -> None:
        while self._has_room(group) and (taken := self._turn.take_write()):
            write, turn = taken
            group.turns.append(turn)
            write.run(group)
        if self._has_room(group) and self._turn.pass_on():
            return
        self._commit(group)
        self._turn.release()

    def _has_room(self, group: _Group) -> bool:
        return group.size < MAX_MEMBERS and group.is_alive()

    def _commit(self, group: _Group) -> None:
        self._group = None
        group.commit()
