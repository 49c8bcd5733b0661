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

"""Tables, migrations, and what a commit is worth."""

import datetime
import functools
import itertools
import pathlib
import tempfile
import threading
import unittest

from alembic import command
import sqlalchemy as sa

from acme_appliance.db import models
from acme_appliance.db.session import Database
from acme_appliance.service import pages
from acme_appliance.service.shares import shares
from tests.unit.appliance import fixtures

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=datetime.UTC)


class DatabaseCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name, "test.db")
        self.database = Database(f"sqlite:///{self.path}")
        self.addCleanup(self.database.close)


def event(type_="share.created"):
    return models.Event(
        time=NOW,
        type=type_,
        namespace="a",
        share_id="x",
        actor="a",
        request_id="r",
        detail={},
    )


class TestMigrations(DatabaseCase):
    def test_empty_to_newest(self):
        self.assertIsNone(self.database.revision())
        self.database.upgrade()
        newest = self.database.revision()
        self.assertRegex(newest, "^[0-9]{4}$")
        self.database.upgrade()
        self.assertEqual(newest, self.database.revision())

    def test_migrations_make_what_the_models_say(self):
        self.database.upgrade()
        # Raises if a new migration would have anything to do.
        command.check(self.database._alembic())

    def test_content_survives_an_upgrade(self):
        self.database.upgrade()
        with self.database.write() as session:
            session.add(event())
        self.database.upgrade()
        with self.database.read() as session:
            self.assertEqual(
                1, session.scalar(sa.select(sa.func.count(models.Event.seq)))
            )

    def test_types_are_portable(self):
        for table in models.Base.metadata.sorted_tables:
            for column in table.columns:
                column.type.compile(sa.dialects.postgresql.dialect())


class TestSessions(DatabaseCase):
    def setUp(self):
        super().setUp()
        self.database.upgrade()

    def types(self):
        with self.database.read() as session:
            return list(session.scalars(sa.select(models.Event.type)))

    def test_error_rolls_back(self):
        with self.assertRaises(ZeroDivisionError):
            with self.database.write() as session:
                session.add(event())
                session.flush()
                raise ZeroDivisionError
        self.assertEqual([], self.types())

    def test_reader_neither_waits_nor_sees_half(self):
        with self.database.write() as session:
            session.add(event())
            session.flush()
            self.assertEqual([], self.types())
        self.assertEqual(["share.created"], self.types())

    def test_writers_take_turns(self):
        errors = []

        def work(number):
            try:
                for _ in range(10):
                    with self.database.write() as session:
                        # Reads first: a deferred transaction would fail
                        # with "database is locked" at its write.
                        session.scalar(sa.select(sa.func.count()))
                        session.add(event(f"e.{number}"))
            except sa.exc.OperationalError as error:
                errors.append(error)

        threads = [
            threading.Thread(target=work, args=[number]) for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual([], errors)
        self.assertEqual(40, len(self.types()))

    def test_settings_of_every_connection(self):
        with self.database.engine.connect() as connection:
            for pragma, expected in (
                ("journal_mode", "wal"),
                ("synchronous", 2),
                ("foreign_keys", 1),
                ("busy_timeout", 30_000),
            ):
                found = connection.exec_driver_sql(f"PRAGMA {pragma}")
                self.assertEqual(expected, found.scalar(), pragma)

    def test_times_keep_their_zone(self):
        with self.database.write() as session:
            session.add(event())
        with self.database.read() as session:
            self.assertEqual(
                NOW, session.scalars(sa.select(models.Event.time)).one()
            )
        with self.assertRaises(sa.exc.StatementError):
            with self.database.write() as session:
                naive = event()
                naive.time = NOW.replace(tzinfo=None)
                session.add(naive)

    def test_event_numbers_are_never_given_twice(self):
        with self.database.write() as session:
            session.add(event())
        with self.database.write() as session:
            session.execute(sa.delete(models.Event))
        with self.database.write() as session:
            session.add(event())
        with self.database.read() as session:
            self.assertEqual(2, session.scalar(sa.select(models.Event.seq)))

    def test_database_in_memory_is_refused(self):
        for url in ("sqlite://", "sqlite:///:memory:"):
            self.assertRaises(ValueError, Database, url)


class TestPlans(DatabaseCase):
    """No list and no sum may read rows that it does not want."""

    def setUp(self):
        super().setUp()
        self.database.upgrade()

    def plan(self, statement):
        text = statement.compile(
            self.database.engine, compile_kwargs={"literal_binds": True}
        )
        with self.database.engine.connect() as connection:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")
            return [row[3] for row in rows]

    def check(self, statement, *, sorts=False):
        plan = self.plan(statement)
        for line in plan:
            self.assertNotRegex(line, r"^SCAN \w+$", plan)
            if not sorts:
                self.assertNotIn("TEMP B-TREE", line, plan)

    def test_sums_read_an_index_alone(self):
        share = models.Share
        plan = self.plan(
            sa.select(
                share.pool, sa.func.sum(share.size_bytes), sa.func.count()
            ).group_by(share.pool)
        )
        self.assertIn("COVERING INDEX", plan[0])

    def test_what_is_pruned(self):
        for statement in (
            sa.select(models.Job.id).where(models.Job.finished_at < NOW),
            sa.select(models.Event.seq).where(models.Event.time < NOW),
        ):
            self.check(statement)
        self.check(
            sa.select(models.Job).where(
                models.Job.state.in_(["queued", "running"])
            ),
        )


class TestListPlans(TestPlans):
    """Every filter of every list, by itself and with the others."""

    VALUES = {
        "name": "n",
        "pool": "gold",
        "origin_id": "o",
        "state": "error",
        "holder": "host:cmp-1",
        "share_id": "x",
        "labels": {"k": "v"},
    }

    def check_lists(self, names, statement_of, key):
        callers = (fixtures.CALLER, fixtures.ADMIN)
        for count in range(len(names) + 1):
            for chosen in itertools.combinations(names, count):
                filters = {name: self.VALUES[name] for name in chosen}
                for caller in callers:
                    with self.subTest(chosen, scope=caller.scope):
                        statement = statement_of(caller, filters)
                        self.check_page(statement, key, chosen)

    def check_page(self, statement, key, chosen):
        """It reads rows by an index that has one of the filters in it."""
        statement = statement.order_by(key).limit(201)
        for page in (statement, statement.where(key > key.type.python_type())):
            self.check(page)
            if chosen:
                # These two are in other tables, which tell the ids.
                columns = {
                    "id" if name in ("labels", "holder") else name
                    for name in chosen
                }
                found = "|".join(f"\\b{name}=\\?" for name in columns)
                self.assertRegex(self.plan(page)[0], found)

    def test_shares(self):
        self.check_lists(
            ("name", "pool", "origin_id", "state", "labels", "holder"),
            shares.page_statement,
            models.Share.id,
        )

    def test_snapshots(self):
        self.check_lists(
            ("share_id", "name", "state"),
            functools.partial(pages.visible, models.Snapshot),
            models.Snapshot.id,
        )

    def test_jobs(self):
        self.check_lists(
            ("share_id", "state"),
            functools.partial(pages.visible, models.Job),
            models.Job.id,
        )

    def test_events(self):
        seq = models.Event.seq
        for caller in (fixtures.CALLER, fixtures.ADMIN):
            statement = pages.visible(models.Event, caller).where(seq > 5)
            self.check(statement.order_by(seq).limit(201))
