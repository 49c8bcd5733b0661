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

import contextlib
import datetime
import pathlib
import sqlite3
import tempfile
import threading
import unittest

import sqlalchemy as sa

from acme_appliance.db import groupcommit
from acme_appliance.db import models
from acme_appliance.db import rows
from acme_appliance.db.session import Database

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
#: For what hangs, and not for what is slow.
PATIENCE = 60


def event(type_):
    return models.Event(
        time=NOW,
        type=type_,
        namespace="a",
        share_id="x",
        actor="a",
        request_id="r",
        detail={},
    )


class GroupCommitTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name, "test.db")
        self.database = Database(f"sqlite:///{self.path}")
        self.addCleanup(self.database.close)
        self.database.upgrade()
        self.commits = 0
        sa.event.listen(self.database.writers, "commit", self.count_commit)
        #: By name: None, or the error that the member got.
        self.outcomes = {}

    def count_commit(self, connection):
        self.commits += 1

    def on_disk(self):
        """What another process would find."""
        with contextlib.closing(sqlite3.connect(self.path)) as other:
            rows = other.execute("SELECT type FROM events ORDER BY seq")
            return [row[0] for row in rows]

    def member(self, name, act=None):
        try:
            with self.database.write() as session:
                session.add(event(name))
                session.flush()
                if act is not None:
                    act(session)
        except Exception as error:
            self.outcomes[name] = error
        else:
            # Whoever returns finds it on disk, whoever else is at work.
            found = name in self.on_disk()
            self.outcomes[name] = None if found else AssertionError(name)

    def queue_up(self, *members):
        """Members that queue behind a first one, in this order; returns
        when all have their outcome."""
        threads = []

        def start(session):
            for number, member in enumerate(members, 1):
                thread = threading.Thread(target=self.member, args=member)
                thread.start()
                threads.append(thread)
                self.wait_for_queue(number)

        self.member("first", start)
        for thread in threads:
            thread.join(PATIENCE)
            self.assertFalse(thread.is_alive())

    def wait_for_queue(self, length):
        lock = self.database._commits._turn
        joined = threading.Event()
        for _ in range(PATIENCE * 100):
            if len(lock._waiting) >= length:
                return
            joined.wait(0.01)
        self.fail(f"{length} members do not queue")

    def test_one_commit_for_all_that_queue(self):
        self.queue_up(("a",), ("b",), ("c",))
        self.assertEqual(dict.fromkeys(["first", *"abc"]), self.outcomes)
        self.assertEqual(["first", "a", "b", "c"], self.on_disk())
        self.assertEqual(1, self.commits)

    def test_an_error_takes_back_one_members_changes(self):
        self.queue_up(("a",), ("b", self.break_off), ("c",))
        self.assertIsInstance(self.outcomes.pop("b"), ZeroDivisionError)
        self.assertEqual(dict.fromkeys(["first", "a", "c"]), self.outcomes)
        self.assertEqual(["first", "a", "c"], self.on_disk())

    def test_the_last_one_commits_even_if_it_fails_itself(self):
        self.queue_up(("a",), ("b", self.break_off))
        self.assertIsInstance(self.outcomes.pop("b"), ZeroDivisionError)
        self.assertEqual(dict.fromkeys(["first", "a"]), self.outcomes)
        self.assertEqual(["first", "a"], self.on_disk())

    def break_off(self, session):
        raise ZeroDivisionError

    def test_a_commit_that_fails_is_everybodys_error(self):
        def promise(session):
            # Found out at the commit, and not before.
            session.execute(sa.text("PRAGMA defer_foreign_keys = ON"))
            session.execute(
                sa.text("INSERT INTO share_labels VALUES ('none', 'k', 'v')")
            )

        self.queue_up(("a",), ("b", promise), ("c",))
        self.assertEqual({"first", *"abc"}, self.outcomes.keys())
        for error in self.outcomes.values():
            self.assertIsInstance(error, sa.exc.IntegrityError)
        self.assertEqual([], self.on_disk())
        self.member("later")
        self.assertEqual(["later"], self.on_disk())

    def test_the_database_ends_the_transaction_by_itself(self):
        """As it may when its disk is full: nobody's change is there, and
        nobody's later statement is committed by itself."""

        def lose(session):
            session.execute(
                sa.text("INSERT OR ROLLBACK INTO alembic_version VALUES (:v)"),
                {"v": self.database.revision()},
            )

        self.queue_up(("a",), ("b", lose), ("c",), ("d",))
        for name in ("first", "a", "b"):
            self.assertIsInstance(
                self.outcomes[name], sa.exc.SQLAlchemyError, name
            )
        self.assertEqual(
            [None, None], [self.outcomes[name] for name in ("c", "d")]
        )
        self.assertEqual(["c", "d"], self.on_disk())

    def test_a_large_queue_takes_several_commits(self):
        names = [f"m{number}" for number in range(groupcommit.MAX_MEMBERS + 1)]
        self.queue_up(*([name] for name in names))
        self.assertEqual(dict.fromkeys(["first", *names]), self.outcomes)
        self.assertEqual(["first", *names], self.on_disk())
        self.assertEqual(2, self.commits)

    def test_who_waits_too_long_has_done_nothing(self):
        def overtake(session):
            with self.assertRaises(sa.exc.TimeoutError):
                with self.database._commits.member(0.01):
                    self.fail("this is not its turn")

        self.member("first", overtake)
        self.assertEqual({"first": None}, self.outcomes)
        self.member("second")
        self.assertEqual(["first", "second"], self.on_disk())

    def test_the_write_check_does_not_meet_an_open_group(self):
        errors = []

        def check():
            try:
                self.database.check_writable(PATIENCE)
            except sa.exc.SQLAlchemyError as error:
                errors.append(error)

        checker = threading.Thread(target=check)

        def start(session):
            checker.start()
            self.wait_for_queue(1)

        self.member("first", start)
        checker.join(PATIENCE)
        self.assertEqual([], errors)
        self.assertEqual({"first": None}, self.outcomes)

    def test_a_transaction_that_cannot_begin(self):
        with contextlib.closing(sqlite3.connect(self.path)) as other:
            other.execute("BEGIN IMMEDIATE")
            with self.database.writers.connect() as connection:
                # The pool gives this one again.
                connection.connection.driver_connection.execute(
                    "PRAGMA busy_timeout = 10"
                )
            self.member("early")
        self.assertIsInstance(self.outcomes["early"], sa.exc.OperationalError)
        self.member("later")
        self.assertEqual(["later"], self.on_disk())


class CallsTest(GroupCommitTest):
    """The same, where members come with a call in place of a block."""

    def setUp(self):
        super().setUp()
        #: By name: the thread that made the call.
        self.threads = {}

    def member(self, name, act=None):
        def work(session):
            self.threads[name] = threading.current_thread()
            session.add(event(name))
            session.flush()
            if act is not None:
                act(session)
            return name

        try:
            result = self.database.run(work)
        except Exception as error:
            self.outcomes[name] = error
        else:
            found = result == name and name in self.on_disk()
            self.outcomes[name] = None if found else AssertionError(name)

    def test_one_thread_works_for_all_that_queue(self):
        self.queue_up(("a",), ("b", self.break_off), ("c",))
        self.assertEqual(
            {threading.current_thread()}, {*self.threads.values()}
        )
        self.assertIsInstance(self.outcomes["b"], ZeroDivisionError)

    def test_between_others_that_queue_with_a_block(self):
        def block():
            GroupCommitTest.member(self, "block")

        threads = []

        def start(session):
            for number, work in enumerate(
                (lambda: self.member("a"), block, lambda: self.member("b")), 1
            ):
                threads.append(threading.Thread(target=work))
                threads[-1].start()
                self.wait_for_queue(number)

        self.member("first", start)
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(
            dict.fromkeys(["first", "a", "block", "b"]), self.outcomes
        )
        self.assertEqual(["first", "a", "block", "b"], self.on_disk())
        self.assertEqual(1, self.commits)

    def test_who_waits_too_long_has_no_call_made(self):
        made = []

        def overtake(session):
            with self.assertRaises(sa.exc.TimeoutError):
                self.database._commits.run(made.append, 0.01)

        self.member("first", overtake)
        self.assertEqual({"first": None}, self.outcomes)
        self.assertEqual([], made)


class RowsTest(unittest.TestCase):
    """What is written as rows is in its member's savepoint."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.database = Database(f"sqlite:///{folder.name}/test.db")
        self.addCleanup(self.database.close)
        self.database.upgrade()

    def insert(self, session, name):
        rows.insert(session, models.Pool, {"name": name, "id": name})

    def test_taken_back_with_what_the_session_wrote(self):
        for first in (self.insert, self.add):

            def work(session, first=first):
                first(session, "a")
                self.insert(session, "b")
                raise ZeroDivisionError

            with self.assertRaises(ZeroDivisionError):
                self.database.run(work)
        self.assertEqual([], self.names())

    def test_kept_with_what_the_session_wrote(self):
        def work(session):
            self.insert(session, "a")
            self.add(session, "b")
            self.insert(session, "c")

        self.database.run(work)
        self.assertEqual(["a", "b", "c"], self.names())

    def add(self, session, name):
        session.add(models.Pool(name=name, id=name))
        session.flush()

    def names(self):
        with self.database.read() as session:
            query = sa.select(models.Pool.name).order_by(models.Pool.name)
            return [*session.scalars(query)]


class FairLockTest(unittest.TestCase):
    def test_in_order_of_arrival(self):
        lock = groupcommit.FairLock()
        self.assertTrue(lock.acquire(0))
        served = []

        def work(number):
            self.assertTrue(lock.acquire(PATIENCE))
            served.append(number)
            lock.release()

        threads = []
        for number in range(5):
            thread = threading.Thread(target=work, args=[number])
            thread.start()
            while len(lock._waiting) <= number:
                threading.Event().wait(0.001)
            threads.append(thread)
        lock.release()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual([0, 1, 2, 3, 4], served)

    def test_giving_up_leaves_the_line(self):
        lock = groupcommit.FairLock()
        self.assertTrue(lock.acquire(0))
        self.assertFalse(lock.acquire(0.01))
        self.assertFalse(lock.pass_on())
        lock.release()
        self.assertTrue(lock.acquire(0))
