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

"""The commands that look at what a server works on."""

import contextlib
import dataclasses
import datetime
import json
import os
import sqlite3
import unittest.mock
import uuid

from acme_appliance import composition
from acme_appliance import conf as options
from acme_appliance import locks
from acme_appliance import problems
from acme_appliance.db import models
from acme_appliance.db.session import Database
from acme_appliance.service.reconcile import reports
from acme_appliance.service.reconcile.reconciliation import Reconciliation
from acme_appliance.service.system import System
from acme_appliance.storage import identity
from acme_appliance.storage.pools import Pools
from tests.unit.appliance.cmd import test_commands

DATABASE = options.DATABASE_NAME


class Case(test_commands.Case):
    def begin(self) -> None:
        """Leave what a first start leaves."""
        conf = options.load(["--config-file", str(self.file)])
        composition.build_database(conf).close()
        composition.build_settings(conf)

    def set_revision(self, revision: str) -> None:
        with self.connection() as connection:
            query = "UPDATE alembic_version SET version_num = ?"
            connection.execute(query, [revision])
            connection.commit()

    def revision(self) -> str:
        with self.connection() as connection:
            query = "SELECT version_num FROM alembic_version"
            return connection.execute(query).fetchone()[0]

    def connection(self) -> contextlib.closing[sqlite3.Connection]:
        file = self.directory / "state" / DATABASE
        return contextlib.closing(sqlite3.connect(file))


class StatusTest(Case):
    def test_before_the_first_start(self):
        """It makes nothing, not even the state directory."""
        state = self.directory / "state"
        self.fails(1, "has not been started yet", "status")
        self.assertFalse(state.exists())
        self.ok("token", "list")
        self.fails(1, "has not been started yet", "status")
        self.assertEqual([DATABASE], os.listdir(state))

    def test_the_tables_of_another_release(self):
        self.begin()
        for revision in ("0000", "9999"):
            with self.subTest(revision=revision):
                self.set_revision(revision)
                error = self.fails(1, "another release", "status")
                self.assertIn(revision, error)
                self.assertEqual(revision, self.revision())

    def test_a_state_directory_that_cannot_be_read(self):
        text = self.file.read_text()
        state = f"{self.directory}/state"
        self.file.write_text(text.replace(state, "/proc/version"))
        self.fails(1, "[DEFAULT] state_path", "status")

    def test_a_first_start(self):
        self.begin()
        out = self.ok("status")
        self.assertIn("server: not running", out)
        self.assertIn("not created yet", out)
        self.assertIn("| gold | up ", out)
        self.assertIn("Shares: none", out)

    def test_json(self):
        self.begin()
        status = json.loads(self.ok("status", "--json"))
        self.assertIsNone(status["serving_pid"])
        self.assertEqual("gold", status["pools"][0]["name"])

    def test_what_there_is_to_see(self):
        self.begin()
        ids = [str(uuid.uuid4()) for _ in range(60)]
        status = {
            "system": {
                "name": "n",
                "id": "i",
                "product": "p",
                "version": "v",
            },
            "pools": [],
            "share_states": {"available": 60, "error": 1},
            "exports": {id_: {"192.0.2.1": "rw"} for id_ in ids},
            "snapshot_exports": {"kept": {"192.0.2.9": "ro"}},
            "open_jobs": [
                {
                    "id": ids[0],
                    "kind": "share.create",
                    "state": "running",
                    "share_id": ids[1],
                    "snapshot_id": None,
                    "undo": True,
                    "attempts": 3,
                    "last_problem": {"detail": "The disk is gone."},
                    "created_at": "2026-01-01T00:00:00Z",
                }
            ],
        }
        with unittest.mock.patch.object(System, "status", return_value=status):
            out = self.ok("status")
        self.assertIn("60 available, 1 error", out)
        self.assertIn("192.0.2.1 (rw)", out)
        self.assertRegex(out, r"snapshot kept .*192\.0\.2\.9 \(ro\)")
        self.assertIn("11 more exports", out)
        self.assertIn("being undone", out)
        self.assertIn("The disk is gone.", out)

    def test_a_failure_is_told(self):
        self.begin()
        problem = problems.Problem("engine.unavailable", "The disk is gone.")
        with unittest.mock.patch.object(System, "status", side_effect=problem):
            self.fails(1, "The disk is gone.", "status")


class ReconcileTest(Case):
    def report(self, **found):
        empty = dataclasses.asdict(reports.Report())
        return unittest.mock.patch.object(
            Reconciliation,
            "run",
            side_effect=lambda apply, close_jobs=(): (
                empty | found | {"applied": apply}
            ),
        )

    def test_looking_makes_nothing(self):
        self.fails(1, "has not been started yet", "reconcile")
        self.assertFalse((self.directory / "state").exists())

    def test_who_else_is_at_work(self):
        self.begin()
        lock = locks.Lock(self.directory / "state" / "serve.lock")
        lock.take()
        self.fails(1, f"process {os.getpid()}", "reconcile", "--apply")
        self.assertIn("agree", self.ok("reconcile"))
        lock.leave()
        self.assertIn("agree", self.ok("reconcile", "--apply"))
        self.assertFalse(lock.is_held())

    def test_a_database_that_is_not_the_pools(self):
        self.begin()
        with unittest.mock.patch.object(
            Pools,
            "check_identities",
            side_effect=identity.Mismatch("pool gold: it is another one"),
        ):
            with self.assertNoLogs(level="WARNING"):
                self.fails(5, "it is another one", "reconcile", "--apply")
            self.assertIn("NOT READY: pool gold", self.ok("status"))

    def test_all_is_well(self):
        self.assertIn("agree", self.ok("reconcile", "--apply"))
        self.assertIn("agree", self.ok("reconcile"))
        report = json.loads(self.ok("reconcile", "--json"))
        self.assertEqual([], report["unknown_shares"])

    def test_differences_are_shown_and_change_the_exit_code(self):
        self.begin()
        with self.report(
            unknown_shares=["gold/x"], unusable_pools={"lead": "gone"}
        ):
            code, out, _ = self.run_command("reconcile")
        self.assertEqual(4, code)
        self.assertIn("gold/x", out)
        self.assertIn("never deleted", out)
        self.assertIn("lead: gone", out)

    def test_journal_entry_that_cannot_be_read(self):
        """It is shown by both commands, and closed by its id."""
        job_id = str(uuid.uuid4())
        self.begin()
        database = Database(f"sqlite:///{self.directory}/state/appliance.db")
        self.addCleanup(database.close)
        now = datetime.datetime.now(datetime.UTC)
        with database.write() as session:
            session.add(
                models.Job(
                    id=job_id,
                    kind="share.levitate",
                    namespace="a",
                    share_id=str(uuid.uuid4()),
                    arguments={},
                    state="running",
                    undo=False,
                    attempts=0,
                    request_id="r",
                    actor="a",
                    created_at=now,
                )
            )
        code, out, _ = self.run_command("reconcile", "--apply")
        self.assertEqual(4, code)
        self.assertIn(f"--close-job {job_id}", out)
        self.assertIn(f"--close-job {job_id}", self.ok("status"))
        self.fails(1, "--apply", "reconcile", "--close-job", job_id)
        self.fails(
            1, "no open job", "reconcile", "--apply", "--close-job", "other"
        )
        out = self.ok("reconcile", "--apply", "--close-job", job_id)
        self.assertIn("agree", out)
        self.assertNotIn(job_id, self.ok("status"))

    def test_repaired_exports_are_no_difference_any_more(self):
        difference = {
            "share_id": "s",
            "wanted": {"192.0.2.1": "rw"},
            "found": {},
        }
        self.begin()
        with self.report(export_differences=[difference]):
            self.assertEqual(4, self.run_command("reconcile")[0])
            out = self.ok("reconcile", "--apply")
        self.assertIn("(repaired)", out)
        self.assertIn("wanted 192.0.2.1 (rw), found nobody", out)

    def test_unexplained_exports_are_withdrawn_by_apply_only(self):
        entry = {"share_id": "s", "clients": {"192.0.2.1": "rw"}}
        self.begin()
        with self.report(unexplained_exports=[entry]):
            code, out, _ = self.run_command("reconcile")
            self.assertEqual(4, code)
            self.assertIn("s: 192.0.2.1 (rw)", out)
            self.assertNotIn("(withdrawn)", out)
            self.assertIn("(withdrawn)", self.ok("reconcile", "--apply"))
