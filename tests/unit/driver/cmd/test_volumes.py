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

"""``acme-cinder volumes``."""

import json
import re

from acme_cinder import overview
from acme_cinder.cmd import volumes
from tests.unit.driver import base as driver_base
from tests.unit.driver import cinderdb
from tests.unit.driver.cmd import base

_WHERE = {"host": "ctl-1@acme"}


class OverviewTest(driver_base.DriverTestCase):
    def read(self):
        return list(overview.read(self.driver._api, _WHERE))

    def one(self):
        [entry] = self.read()
        return entry

    def test_attached(self):
        volume = self.create(display_name="data")
        self.attach(volume, driver_base.connector("cmp-1"))
        entry = self.one()
        self.assertEqual(
            (volume.id, "data", 1, "available", "gold", volume.id),
            (
                entry.id,
                entry.name,
                entry.size_gib,
                entry.status,
                entry.pool,
                entry.share_id,
            ),
        )
        self.assertEqual((("cmp-1",), ()), (entry.hosts, entry.differences))

    def test_access_without_an_attachment(self):
        volume = self.create()
        self.driver._api.grant_access(
            volume.id, "cinder:cmp-2", ["192.0.2.9"], "rw"
        )
        self.assertIn("cmp-2 has access", self.one().differences[0])

    def test_an_attachment_without_access(self):
        volume = self.create()
        self.attach(volume, driver_base.connector("cmp-1"))
        self.driver._api.revoke_access(volume.id, "cinder:cmp-1")
        self.assertIn("cmp-1", self.one().differences[0])

    def test_no_share(self):
        volume = self.create()
        self.driver._api.delete_share(volume.id)
        self.assertEqual(("the share is gone",), self.one().differences)

    def test_another_size(self):
        volume = self.create()
        volume.size = 2
        volume.save()
        self.assertIn(str(driver_base.GIB), self.one().differences[0])

    def test_what_is_being_made_differs_in_nothing(self):
        cinderdb.volume(status="creating")
        self.assertEqual((), self.one().differences)

    def test_other_back_ends(self):
        self.create(host="ctl-1@other#gold")
        self.assertEqual([], self.read())

    def test_requests(self):
        for _ in range(4):
            self.create()
        self.log.clear()
        self.read()
        self.assertEqual({"GET /v1/shares": 1}, dict(self.log.counts))

    def test_the_table(self):
        """What the documentation shows."""
        first = self.create(display_name="database")
        self.attach(first, driver_base.connector("compute-1"))
        second = self.create(display_name="scratch", size=20)
        self.driver._api.grant_access(
            second.id, "cinder:compute-2", ["192.0.2.9"], "rw"
        )
        text = volumes.table("acme-1", self.read(), 79)
        for number, volume in enumerate((first, second)):
            plain = f"9c6d1c1e-8d3c-4c5e-9a57-1f2f0d7a6b4{number}"
            text = re.sub(volume.id, plain, text)
        base.assert_example(self, "volumes.txt", text)
        self.assertEqual({79}, {len(x) for x in text.splitlines()[1:]})


class CommandTest(base.ApplianceCase):
    def test_for_scripts(self):
        volume = cinderdb.volume(status="error")
        done = self.run_with_cinder("volumes", "-f", "json")
        self.assertEqual(0, done.returncode, done.stderr)
        [entry] = json.loads(done.stdout)
        self.assertEqual(("acme", volume.id), (entry["backend"], entry["id"]))

    def test_differences(self):
        cinderdb.volume(
            status="available", provider_location="127.0.0.1:/shares/x"
        )
        cinderdb.volume(status="available")
        done = self.run_with_cinder("volumes")
        # Of the only volume with a share, the appliance has none.
        self.assertEqual(2, done.returncode, done.stdout)
        self.assertIn("namespace", done.stderr)

    def test_no_appliance(self):
        done = self.run_with_cinder(
            "volumes",
            url="https://127.0.0.1:1",
            more="acme_api_deadline_seconds = 2\n",
        )
        self.assertEqual(2, done.returncode, done.stdout)
        self.assertIn("https://127.0.0.1:1", done.stderr)
        self.assertNotIn("Traceback", done.stderr)
