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
So the writers that queue share a transaction: each runs in a savepoint of
its own, and the last of them commits for all. Nobody returns, and nobody
acts on what was written, before that commit is on disk.
"""

import collections
from collections.abc import Iterator
from concurrent import futures
import contextlib
import threading
from typing import Final

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy import orm

#: So many changes share a commit at most: the first waits for the last.
MOST: Final = 64


class FairLock:
    """A lock for whoever has waited longest."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held = False
        #: A closed gate for each that waits.
        self._waiting: collections.deque[threading.Lock] = collections.deque()

    def acquire(self, timeout_seconds: float) -> bool:
        """False: it was not to be had in time."""
        with self._mutex:
            if not self._held:
                self._held = True
                return True
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        if gate.acquire(timeout=max(0.0, timeout_seconds)):
            return True
        with self._mutex:
            if gate in self._waiting:
                self._waiting.remove(gate)
                return False
        # It was passed on in this very moment.
        return True

    def pass_on(self) -> bool:
        """Give it to the first that waits. False: nobody does, and the
        caller still has it."""
        with self._mutex:
            if not self._waiting:
                return False
            self._waiting.popleft().release()
            return True

    def release(self) -> None:
        """Let the next one have it."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
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
        #: Done when it is on disk; has the error if it is not.
        self.committed: futures.Future[None] = futures.Future()

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


class GroupCommit:
    """The write transactions of one database; safe to share.

    :param engine: whose transactions are begun to write.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._turn = FairLock()
        #: Open while the turn is passed on; only who has the turn has it.
        self._group: _Group | None = None
        # Flushes and commits end at the member's savepoint.
        self._sessions = orm.sessionmaker(
            join_transaction_mode="create_savepoint", expire_on_commit=False
        )

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
        try:
            group = self._group = self._group or _Group(self._engine)
        except BaseException:
            self._turn.release()
            raise
        group.size += 1
        try:
            with (
                self._sessions(bind=group.connection) as session,
                session.begin(),
            ):
                yield session
        finally:
            self._leave(group)
        group.committed.result()

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

    def _take_turn(self, wait_seconds: float) -> None:
        if not self._turn.acquire(wait_seconds):
            raise exc.TimeoutError(
                f"others have written for {wait_seconds:g} seconds"
            )

    def _leave(self, group: _Group) -> None:
        more = group.size < MOST and group.is_alive()
        if more and self._turn.pass_on():
            return
        self._commit(group)
        self._turn.release()

    def _commit(self, group: _Group) -> None:
        self._group = None
        group.commit()
