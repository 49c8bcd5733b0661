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

import pathlib
import sqlite3
import tempfile
import unittest

from acme_appliance.db import probe
from acme_appliance.db import session
from acme_appliance.db import sqlite


class WriteProbeTest(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.file = pathlib.Path(temporary.name, "a.db")
        self.database = session.Database(f"sqlite:///{self.file}")
        self.addCleanup(self.database.close)
        self.database.upgrade()
        self.now = 0.0
        self.probe = probe.WriteProbe(
            self.database, clock=lambda: self.now, wait_seconds=0.01
        )

    def other_process(self) -> sqlite3.Connection:
        other = sqlite3.connect(self.file, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        return other

    def test_the_change_reaches_the_disk(self):
        log = self.file.with_name("a.db-wal")
        with sqlite3.connect(self.file) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
        self.assertEqual(0, log.stat().st_size)
        self.assertTrue(self.probe.works())
        self.assertGreater(log.stat().st_size, 0)

    def test_another_process_has_it(self):
        other = self.other_process()
        self.assertFalse(self.probe.works())
        other.execute("ROLLBACK")
        self.assertFalse(self.probe.works())
        self.now += probe.INTERVAL_SECONDS
        self.assertTrue(self.probe.works())

    def test_the_patience_of_others_stays(self):
        self.other_process()
        self.assertFalse(self.probe.works())
        with self.database.writers.connect() as connection:
            # Not by SQLAlchemy, which would begin to write.
            driver = connection.connection.driver_connection
            (wait,) = driver.execute("PRAGMA busy_timeout").fetchone()
        self.assertEqual(sqlite.BUSY_TIMEOUT_MS, wait)

    def test_a_transaction_of_this_process(self):
        with self.database.write():
            self.assertFalse(self.probe.works())
        self.now += probe.INTERVAL_SECONDS
        self.assertTrue(self.probe.works())

    def test_whoever_asks_meanwhile_does_not_wait(self):
        answers = []
        check = self.database.check_writable

        def check_and_ask(wait_seconds: float) -> None:
            self.now += probe.INTERVAL_SECONDS
            answers.append(self.probe.works())
            check(wait_seconds)

        self.database.check_writable = check_and_ask
        self.assertTrue(self.probe.works())
        self.assertEqual([True], answers)

    def test_a_database_that_is_gone(self):
        self.database.close()
        for file in self.file.parent.iterdir():
            file.unlink()
        self.assertFalse(self.probe.works())
