# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.
"""What depends on the database, with a real PostgreSQL."""

import sqlalchemy as sa

from acme_appliance.db import models
from acme_appliance.db.session import Database
from tests.harness import postgresql
from tests.unit.appliance.changes import test_claims
from tests.unit.appliance.db import test_migrations
from tests.unit.appliance.service import test_jobs_and_events
from tests.unit.appliance.service.reconcile import test_restoration


class Databases:
    """As tests.harness.databases, of a server."""

    def __init__(self, server):
        self._server = server
        self._free = []

    def take(self):
        if self._free:
            return self._free.pop()
        database = Database(self._server.new_database())
        database.upgrade()
        return database

    def give_back(self, database):
        with database.write() as session:
            for table in reversed(models.Base.metadata.sorted_tables):
                session.execute(table.delete())
            session.execute(sa.text("ALTER SEQUENCE events_seq_seq RESTART"))
        database.close()
        self._free.append(database)


class OnPostgresql:
    """A server for each class of tests."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = postgresql.Server()
        cls.addClassCleanup(cls.server.stop)
        cls.settings = {
            **getattr(cls, "settings", {}),
            "databases": Databases(cls.server),
        }

    def new_url(self):
        return self.server.new_database()


class MigrationTest(OnPostgresql, test_migrations.MigrationTest):
    broken_json = "null"


class TestClaims(OnPostgresql, test_claims.TestClaims):
    pass


class TestEvents(OnPostgresql, test_jobs_and_events.TestEvents):
    pass


class TestOlderCopy(OnPostgresql, test_restoration.TestOlderCopy):
    pass
