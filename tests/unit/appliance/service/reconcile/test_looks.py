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

"""What only looks writes nothing: the database cannot be written here."""

import hashlib
import pathlib

from acme_appliance import references
from acme_appliance.db import session as db
from acme_appliance.service import Service
from tests.unit.appliance import case
from tests.unit.appliance import fixtures


class TestLooks(case.ServiceCase):
    def setUp(self):
        super().setUp()
        self.share_id = self.make_share()
        self.fixture.put_access(self.share_id)
        self.make_snapshot(self.share_id)
        self.fixture.steps.hooks["grow file:before"] = self.die
        with self.assertRaises(fixtures.Crash):
            self.fixture.patch_share(
                self.share_id, size_bytes=2 * fixtures.MIB
            )
        self.fixture.service.stop()
        file = self.fixture.database.url.database
        self.file = pathlib.Path(file)
        database = db.Database(f"sqlite:///file:{file}?mode=ro&uri=true")
        self.addCleanup(database.close)
        self.looker = Service(
            database,
            self.fixture.engines,
            self.fixture.exporter,
            self.fixture.settings,
            clock=self.fixture.clock,
        )
        self.addCleanup(self.looker.stop)

    def die(self):
        raise fixtures.Crash

    def content(self):
        wal = self.file.with_name(f"{self.file.name}-wal")
        return [
            hashlib.sha256(each.read_bytes()).hexdigest()
            for each in (self.file, wal)
            if each.exists()
        ]

    def test_reconcile(self):
        before = self.content()
        report = self.looker.reconciliation.run(False)
        self.assertEqual(1, len(report["open_jobs"]))
        self.assertEqual(before, self.content())

    def test_reconcile_finds_differences(self):
        self.fixture.exporter.withdraw(references.share(self.share_id))
        report = self.looker.reconciliation.run(False)
        self.assertEqual(1, len(report["export_differences"]))

    def test_restore(self):
        self.looker.reconciliation.restore(apply=False, adopt_into=None)

    def test_status(self):
        before = self.content()
        self.looker.reconciliation.compare_exports()
        status = self.looker.system.status()
        self.looker.system.obstacles()
        self.looker.system.warnings()
        self.assertEqual(1, len(status["open_jobs"]))
        self.assertEqual(before, self.content())
