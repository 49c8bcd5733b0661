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

"""A volume goes to another project, and its labels with it."""

import dataclasses

from cinder import exception
from cinder.db import api as db
import ddt

from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb

NEW_PROJECT = "c0ffee" * 5 + "11"
NEW_USER = "0a" * 16


@ddt.ddt
class TransferTest(base.DriverTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.volume = self.create()
        self.snapshots = [self.snapshot(self.volume) for _ in range(2)]
        self.log.clear()

    def offer(self, **values):
        """As cinder-api records it."""
        return db.transfer_create(
            self.context,
            {
                "volume_id": self.volume.id,
                "display_name": "gift",
                "salt": "salt",
                "crypt_hash": "hash",
                "no_snapshots": False,
                "source_project_id": self.volume.project_id,
                **values,
            },
        )

    def fail(self, *faults):
        """From now on, with the changes that are sent."""
        self.driver = self.new_driver(
            faults,
            matches=lambda request: request.method == "PATCH",
        )

    def accept(self):
        """As Cinder's manager does: with a row, not an object."""
        row = db.volume_get(self.context, self.volume.id)
        return self.driver.accept_transfer(
            self.context, row, NEW_USER, NEW_PROJECT
        )

    def projects(self):
        """What the labels say: of the share, and of each snapshot."""
        with self.client(self.appliance.admin_token) as api:
            labels = [
                api.get_share(self.volume.name_id).labels,
                *(
                    api.update_snapshot(each.id, labels={}).labels
                    for each in self.snapshots
                ),
            ]
        return [each["cinder.project_id"] for each in labels]

    def test_with_its_snapshots(self):
        transfer = self.offer()
        self.assertEqual({}, self.accept())
        self.assertEqual(
            {"PATCH /v1/shares/{id}": 1, "PATCH /v1/snapshots/{id}": 2},
            dict(self.log.counts),
        )
        db.transfer_accept(
            self.context, transfer["id"], NEW_USER, NEW_PROJECT, False
        )
        self.assertEqual([NEW_PROJECT] * 3, self.projects())
        after = cinderdb.reloaded(self.volume)
        self.assertEqual(NEW_PROJECT, after.project_id)
        self.assertEqual(
            [NEW_PROJECT] * 2, [each.project_id for each in after.snapshots]
        )
        self.assertEqual(
            after.id, self.share(after).labels["cinder.volume_id"]
        )

    def test_without_them(self):
        self.offer(no_snapshots=True)
        self.accept()
        self.assertEqual(
            [NEW_PROJECT] + [self.volume.project_id] * 2, self.projects()
        )

    def test_every_reply_lost_once(self):
        self.offer()
        self.fail(*[transports.ReplyLost(), transports.Fault()] * 3)
        self.accept()
        self.assertEqual([NEW_PROJECT] * 3, self.projects())

    @ddt.data(1, 2, 3)
    def test_where_it_fails_nothing_has_changed(self, which):
        """Though the change that fails was made, as far as anybody knows."""
        self.offer()
        self.fail(
            *[transports.Fault()] * (which - 1),
            dataclasses.replace(transports.garbage(), applied=True),
        )
        with (
            self.assertRaises(exception.VolumeBackendAPIException),
            self.assertNoLogs("acme_cinder.transfers"),
        ):
            self.accept()
        self.assertEqual([self.volume.project_id] * 3, self.projects())

    def test_a_second_time(self):
        self.offer()
        self.accept()
        self.accept()
        self.assertEqual([NEW_PROJECT] * 3, self.projects())

    def test_where_undoing_fails(self):
        """The error is the one of the call, and the log says what is left."""
        self.offer()
        self.fail(transports.Fault(), *[transports.garbage()] * 3)
        with (
            self.assertRaises(exception.VolumeBackendAPIException),
            self.assertLogs("acme_cinder.transfers", "ERROR") as logs,
        ):
            self.accept()
        self.assertEqual(2, len(logs.output))

    def test_a_share_that_is_gone(self):
        self.offer()
        for each in self.snapshots:
            self.driver.delete_snapshot(each)
        self.driver._api.delete_share(self.volume.name_id)
        with self.assertRaises(exception.VolumeNotFound):
            self.accept()
