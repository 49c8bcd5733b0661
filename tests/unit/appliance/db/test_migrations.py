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

"""Tables come from migrations, and migrations from the models."""

import subprocess
import sys
import tempfile
import unittest

from alembic import autogenerate
from alembic import command
from alembic import migration
from alembic import script
import sqlalchemy as sa

from acme_appliance.db import models
from acme_appliance.db import session


def described():
    """What shares and snapshots have in common."""
    return {
        "namespace": "a",
        "name": "n",
        "pool": "gold",
        "state": "available",
        "generation": 1,
        "size_bytes": 1,
        "labels": "{}",
        "create_request": "{}",
        "created_at": "2026-01-01",
        "updated_at": "2026-01-01",
    }


class MigrationTest(unittest.TestCase):
    #: What the database admits for JSON, and is none.
    broken_json = "{"

    def setUp(self) -> None:
        self.database = session.Database(self.new_url())
        self.addCleanup(self.database.close)

    def new_url(self) -> str:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        return f"sqlite:///{temporary.name}/a.db"

    def test_the_newest_is_the_one_that_is_wanted(self):
        directory = script.ScriptDirectory.from_config(
            self.database._alembic()
        )
        self.assertEqual([session.REVISION], directory.get_heads())

    def test_upgrading_once_and_again(self):
        self.assertIsNone(self.database.revision())
        self.database.upgrade()
        self.assertEqual(session.REVISION, self.database.revision())
        self.database.upgrade()

    def test_the_migrations_make_what_the_models_say(self):
        self.database.upgrade()
        with self.database.engine.connect() as connection:
            context = migration.MigrationContext.configure(connection)
            self.assertEqual(
                [],
                autogenerate.compare_metadata(context, models.Base.metadata),
            )

    def test_open_jobs_get_the_claims_of_their_release(self):
        """Also where arguments cannot be read; ended jobs get none."""
        self.upgrade_to("0004")
        clone = '{"source": {"type": "snapshot", "id": "snap"}}'
        self.insert("shares", {"id": "source", **described()})
        self.insert(
            "snapshots", {"id": "snap", "share_id": "source", **described()}
        )
        self.insert(
            "jobs",
            *(
                {
                    "id": id_,
                    "share_id": share_id,
                    "kind": kind,
                    "snapshot_id": snapshot_id,
                    "arguments": arguments,
                    "state": state,
                    "namespace": "a",
                    "undo": False,
                    "attempts": 0,
                    "request_id": "r",
                    "actor": "x",
                    "created_at": "2026-01-01",
                }
                for id_, share_id, kind, snapshot_id, arguments, state in [
                    ("1", "share-1", "share.create", None, clone, "running"),
                    (
                        "2",
                        "share-2",
                        "share.create",
                        None,
                        self.broken_json,
                        "queued",
                    ),
                    ("3", "share-3", "share.create", None, "[1]", "paused"),
                    ("4", "share-4", "snapshot.delete", "s4", "{}", "running"),
                    ("5", "share-5", "share.create", None, clone, "succeeded"),
                ]
            ),
        )
        self.database.upgrade()
        with self.database.read() as reader:
            found = {
                (row.job_id, row.kind, row.object_id, row.claim)
                for row in reader.scalars(sa.select(models.JobClaim))
            }
        self.assertEqual(
            {
                ("1", "share", "share-1", "exclusive"),
                ("1", "snapshot", "snap", "shared"),
                ("1", "share", "source", "shared"),
                ("2", "share", "share-2", "exclusive"),
                ("3", "share", "share-3", "exclusive"),
                ("4", "share", "share-4", "exclusive"),
                ("4", "snapshot", "s4", "exclusive"),
            },
            found,
        )

    def test_rules_of_shares_stay(self):
        self.upgrade_to("0006")
        for id_ in ("share-1", "share-2"):
            self.insert("shares", {"id": id_, **described()})
        self.insert(
            "access_rules",
            *(
                {
                    "share_id": share_id,
                    "holder": holder,
                    "clients": clients,
                    "level": level,
                }
                for share_id, holder, clients, level in [
                    ("share-1", "cmp-1", '["192.0.2.1"]', "rw"),
                    ("share-1", "cmp-2", '["192.0.2.2", "::1"]', "ro"),
                    ("share-2", "cmp-1", '["192.0.2.1"]', "rw"),
                ]
            ),
        )
        self.database.upgrade()
        with self.database.read() as reader:
            found = {
                (row.kind, row.object_id, row.holder): (row.clients, row.level)
                for row in reader.scalars(sa.select(models.AccessRule))
            }
        self.assertEqual(
            {
                ("share", "share-1", "cmp-1"): (["192.0.2.1"], "rw"),
                ("share", "share-1", "cmp-2"): (["192.0.2.2", "::1"], "ro"),
                ("share", "share-2", "cmp-1"): (["192.0.2.1"], "rw"),
            },
            found,
        )
        with self.database.engine.connect() as connection:
            tables = sa.inspect(connection).get_table_names()
        self.assertNotIn("access_rules_of_shares", tables)

    def insert(self, table, *rows):
        """As an earlier release, whose models are not here any more."""
        columns = map(sa.column, rows[0])
        with self.database.write() as writer:
            writer.execute(sa.table(table, *columns).insert(), list(rows))

    def upgrade_to(self, revision):
        command.upgrade(self.database._alembic(), revision)

    def test_a_database_of_a_later_release(self):
        self.database.upgrade()
        with self.database.write() as writer:
            writer.execute(
                sa.text("UPDATE alembic_version SET version_num = '9999'")
            )
        with self.assertRaisesRegex(session.TooNew, "9999"):
            self.database.upgrade()

    def test_what_is_slow_to_import_is_not_imported_to_serve(self):
        self.database.upgrade()
        program = (
            "import sys\n"
            "from acme_appliance import composition, server\n"
            "from acme_appliance.api import app\n"
            "from acme_appliance.db.session import Database\n"
            f"Database({str(self.database.url)!r}).upgrade()\n"
            "for name in ('alembic', 'cryptography', 'prettytable', 'mako'):\n"
            "    assert name not in sys.modules, name\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True)
