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

"""A credential of another namespace, and an appliance that was replaced.

Nothing may be told to be gone that is only not to be seen from here.
"""

import unittest.mock

from cinder import context as cinder_context
from cinder import exception
from cinder import objects
from cinder.db import api as db
import ddt
from sqlalchemy import event

from acme_cinder import recognition
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb

HOST = base.connector("cmp-1")
LIST = "GET /v1/shares"


class ForeignCase(base.DriverTestCase):
    def setUp(self):
        super().setUp()
        self.volume, self.other = self.create(), self.create()

    def attached(self):
        self.attach(self.volume, HOST)
        volume = cinderdb.reloaded(self.volume)
        volume.status = "in-use"
        volume.save()
        return volume

    def make_foreign(self):
        token = self.appliance.make_token("driver", "cinder-b")
        self.ours = self.driver
        self.driver = self.new_driver(acme_api_token=token)
        self.log.clear()

    def lose(self, *volumes):
        for volume in volumes:
            self.driver._api.delete_share(volume.name_id)
        self.log.clear()

    def forget(self, *volumes):
        for volume in volumes:
            volume.destroy()

    def state(self):
        stats = self.driver.get_volume_stats(refresh=True)
        return stats["backend_state"]


@ddt.ddt
class ForeignTest(ForeignCase):
    def test_volumes_are_kept(self):
        self.make_foreign()
        with (
            self.assertLogs("acme_cinder", "ERROR") as logs,
            self.assertRaisesRegex(
                exception.VolumeIsBusy, "acme_api_token.*acme_api_addresses"
            ),
        ):
            self.driver.delete_volume(self.volume)
        self.assertIn(self.volume.name, logs.output[0])
        self.assertEqual(
            {"DELETE /v1/shares/{id}": 1, LIST: 1}, dict(self.log.counts)
        )
        self.assertIsNotNone(self.find_share(self.volume.name_id))
        self.ours.delete_volume(self.volume)
        self.assertIsNone(self.find_share(self.volume.name_id))

    def test_snapshots_are_kept(self):
        snapshot = self.snapshot(self.volume)
        self.make_foreign()
        with self.assertRaisesRegex(
            exception.SnapshotIsBusy, "acme_api_token"
        ):
            self.driver.delete_snapshot(snapshot)
        self.ours.delete_snapshot(snapshot)
        self.lose(self.volume)

    @ddt.data(HOST, None)
    def test_attachments_stay(self, where):
        volume = self.attached()
        self.make_foreign()
        with self.assertRaisesRegex(
            exception.VolumeBackendAPIException, "not detached"
        ):
            self.driver.terminate_connection(volume, where)
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))
        self.ours.terminate_connection(volume, where)
        self.assertEqual({}, self.exported(volume))

    def test_attachments_stay_beside_others_of_the_host(self):
        volume = self.create(multiattach=True)
        for _ in range(2):
            self.attach(volume, HOST)
        self.make_foreign()
        with self.assertRaises(exception.CinderException):
            self.driver.terminate_connection(cinderdb.reloaded(volume), HOST)

    def test_an_appliance_that_was_replaced_while_the_service_runs(self):
        self.state()
        self.lose(self.volume, self.other)
        with self.assertRaises(exception.VolumeIsBusy):
            self.driver.delete_volume(self.volume)

    def test_what_was_not_made_does_not_become_available(self):
        volume = cinderdb.volume()
        self.make_foreign()
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.driver.delete_volume(volume)


@ddt.ddt
class GoneTest(ForeignCase):
    """Only the share is gone, or nothing can be said: as before."""

    def assert_deleted(self):
        self.driver.delete_volume(self.volume)
        self.forget(self.volume)

    def test_one_lost_share(self):
        volume = self.attached()
        self.driver.terminate_connection(volume, HOST)
        self.lose(volume)
        self.assertIs(False, self.driver.terminate_connection(volume, HOST))
        self.assertIs(False, self.driver.terminate_connection(volume, None))
        self.assert_deleted()

    def test_a_lost_snapshot(self):
        snapshot = self.snapshot(self.volume)
        self.driver._api.delete_snapshot(snapshot.id)
        self.driver.delete_snapshot(snapshot)

    def test_the_last_volume(self):
        snapshot = self.snapshot(self.volume)
        self.driver.delete_volume(self.other)
        self.forget(self.other)
        self.make_foreign()
        self.driver.delete_snapshot(snapshot)
        self.assert_deleted()
        self.assertEqual(0, self.log.counts[LIST])

    def test_a_lost_reply(self):
        self.lose(self.other)
        third = self.create()
        self.log.clear()
        self.adapter.add(transports.ReplyLost())
        self.assert_deleted()
        self.assertEqual(
            {"DELETE /v1/shares/{id}": 2, LIST: 1}, dict(self.log.counts)
        )
        self.assertIsNotNone(self.find_share(third.name_id))

    @ddt.data("creating", "error", "deleting", "error_deleting")
    def test_volumes_that_may_never_have_had_a_share(self, status):
        self.lose(self.volume, self.other)
        self.other.status = status
        self.other.save()
        self.assert_deleted()

    def test_volumes_without_a_share(self):
        self.lose(self.volume, self.other)
        self.other.provider_location = None
        self.other.save()
        self.assert_deleted()

    def test_volumes_of_other_back_ends(self):
        self.lose(self.volume, self.other)
        for host in ("ctl-1@acme2#gold", "ctl-1@lvm#lvm"):
            self.other.host = host
            self.other.save()
            self.driver.delete_volume(self.volume)

    def test_volumes_of_the_cluster(self):
        """On whichever of its hosts they were made."""
        self.lose(self.volume, self.other)
        self.other.host = "ctl-2@acme#gold"
        self.other.cluster_name = "cluster@acme#gold"
        self.other.save()
        known = recognition.Recognition(
            self.driver._api, cinderdb.HOST, "cluster@acme"
        )
        self.assertTrue(known.is_foreign(besides=self.volume.id))
        self.assertFalse(known.is_foreign(besides=self.other.id))


class QueriesTest(ForeignCase):
    def queries(self):
        """What one question costs Cinder's database."""
        known = recognition.Recognition(
            self.driver._api, self.driver.host, None
        )
        statements = []

        def count(connection, cursor, statement, *others):
            statements.append(statement)

        engine = db.get_engine()
        event.listen(engine, "before_cursor_execute", count)
        try:
            self.assertFalse(known.is_foreign())
        finally:
            event.remove(engine, "before_cursor_execute", count)
        return [each for each in statements if each.startswith("SELECT")]

    def test_as_many_however_many_are_attached(self):
        before = len(self.queries())
        for volume in (self.volume, self.other):
            self.attach(volume, HOST)
        self.assertEqual(before, len(self.queries()))


class StartTest(ForeignCase):
    def restart(self, **changes):
        self.driver = self.new_driver(**changes)
        self.driver._initialized = False
        context = cinder_context.get_admin_context()
        for volume in objects.VolumeList.get_all(context):
            if volume.status == "in-use":
                self.driver.ensure_export(self.context, volume)
        self.driver.set_initialized()
        self.log.clear()

    def test_volumes_that_are_not_attached(self):
        token = self.appliance.make_token("driver", "cinder-b")
        with self.assertLogs("acme_cinder", "ERROR") as logs:
            self.restart(acme_api_token=token)
            self.assertEqual("down", self.state())
            self.assertEqual("down", self.state())
        self.assertEqual(1, len(logs.records), logs.output)
        self.assertIn("acme_api_token", logs.output[0])

    def test_one_request_once(self):
        self.restart()
        for _ in range(2):
            self.assertEqual("up", self.state())
        self.assertEqual(1, self.log.counts[LIST])

    def test_the_only_attached_share_is_lost(self):
        volume = self.attached()
        self.driver.terminate_connection(volume, None)
        self.lose(volume)
        with self.assertLogs("acme_cinder", "ERROR") as logs:
            self.restart()
            for _ in range(2):
                self.assertEqual("up", self.state())
        self.assertEqual(1, len(logs.records), logs.output)
        self.assertIn(volume.id, logs.output[0])

    def test_no_volumes(self):
        self.forget(self.volume, self.other)
        self.restart()
        self.assertEqual("up", self.state())
        self.assertEqual(0, self.log.counts[LIST])

    def test_an_appliance_that_does_not_answer_then(self):
        token = self.appliance.make_token("driver", "cinder-b")
        self.restart(acme_api_token=token)
        with unittest.mock.patch.object(
            recognition.Recognition, "is_foreign", side_effect=RuntimeError
        ):
            self.assertEqual("up", self.state())
        self.assertEqual("down", self.state())

    def test_given_up_for_good(self):
        """As the documentation says: one share, with a volume's id."""
        self.appliance = self.start_appliance()
        self.restart()
        self.assertEqual("down", self.state())
        self.driver._api.create_share(
            self.volume.name_id, name="given-up", size_bytes=base.GIB
        )
        self.assertEqual("up", self.state())
        for volume in (self.other, self.volume):
            self.driver.delete_volume(volume)
