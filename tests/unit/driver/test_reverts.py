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

"""Reverting volumes, called by Cinder's own manager."""

from __future__ import annotations

from typing import Any
from unittest import mock
import uuid

from cinder import exception
from cinder import objects
from cinder.volume import manager

from acme_appliance.engines import base as engines
from acme_appliance.engines.memory import engine as memory
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb
from tests.unit.driver import managing

OLD, NEW = b"o" * memory.BLOCK_BYTES, b"n" * memory.BLOCK_BYTES


class Manager(manager.VolumeManager):
    """Cinder's, without all that starts a service."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.generic: list[str] = []

    def _notify_about_volume_usage(self, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    _notify_about_snapshot_usage = _notify_about_volume_usage

    def _revert_to_snapshot_generic(
        self, ctxt: Any, volume: objects.Volume, snapshot: objects.Snapshot
    ) -> None:
        self.generic.append(snapshot.id)

    def create_snapshot(self, context: Any, snapshot: Any) -> Any:
        """As far as the driver sees it."""
        self.driver.create_snapshot(snapshot)
        snapshot.status = "available"
        snapshot.save()

    def delete_snapshot(self, context: Any, snapshot: Any) -> Any:
        self.driver.delete_snapshot(snapshot)
        snapshot.destroy()


class RevertCase(base.DriverTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.volume = self.create()
        self.write(OLD)
        self.kept = self.snapshot(self.volume)
        self.write(NEW)
        self.log.clear()

    def file(self) -> memory.Entry:
        return self.entries(self.volume)[self.volume.name]

    def write(self, data: bytes) -> None:
        self.file().write(0, data)

    def content(self) -> bytes:
        return self.file().read(0, memory.BLOCK_BYTES)

    def revert(self, context: Any = None) -> Manager:
        """As from the message of cinder-api, which leaves these states."""
        self.set_status("reverting", "restoring")
        made = Manager(self.driver)
        made.revert_to_snapshot(
            context or cinderdb.context(), self.volume, self.kept
        )
        return made

    def set_status(self, volume: str, snapshot: str) -> None:
        self.volume.status, self.kept.status = volume, snapshot
        self.volume.save()
        self.kept.save()

    def check_status(self, volume: str) -> None:
        found = cinderdb.reloaded(self.volume)
        self.assertEqual(volume, found.status)
        self.kept.refresh()
        self.assertEqual("available", self.kept.status)


class RevertTest(RevertCase):
    def test_one_request(self):
        made = self.revert()
        self.assertEqual([], made.generic)
        self.assertEqual(OLD, self.content())
        self.check_status("available")
        (sent,) = self.log.sent
        self.assertEqual("PUT", sent.method)
        self.assertRegex(sent.path, f"/{self.volume.id}/reverts/[0-9a-f-]+$")
        self.assert_unmounted()

    def test_the_volume_keeps_its_size_and_later_snapshots(self):
        later = self.snapshot(self.volume)
        self.driver.extend_volume(self.volume, 2)
        self.revert()
        self.assertEqual(OLD, self.content())
        self.assertEqual(2 * base.GIB, self.file().size_bytes)
        self.kept = later
        self.revert()
        self.assertEqual(NEW, self.content())

    def test_the_same_message_again_reverts_nothing(self):
        """Its first delivery had done it, and a guest has written since."""
        context = cinderdb.context()
        self.revert(context)
        self.write(NEW)
        self.revert(context)
        self.assertEqual(NEW, self.content())

    def test_a_user_who_asks_again_gets_it_again(self):
        self.revert()
        self.write(NEW)
        self.revert()
        self.assertEqual(OLD, self.content())

    def test_a_lost_reply(self):
        """While the same call sends it again, a guest cannot write; but
        the appliance must know it for the same."""
        self.driver = self.new_driver(
            [transports.ReplyLost()] * 3,
            matches=lambda request: request.method == "PUT",
        )
        self.log.clear()
        self.revert()
        self.assertEqual(OLD, self.content())
        self.check_status("available")
        paths = {sent.path for sent in self.log.sent if sent.method == "PUT"}
        self.assertEqual(1, len(paths))

    def test_all_replies_lost(self):
        """It was done; the next message with the same id changes nothing,
        and a user who reverts anew does."""
        context = cinderdb.context()
        self.driver = self.new_driver(
            [transports.ReplyLost()] * 100,
            matches=lambda request: request.method == "PUT",
        )
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.revert(context)
        self.check_status("error")
        self.assertEqual(OLD, self.content())
        self.write(NEW)
        self.driver = self.new_driver()
        self.revert(context)
        self.assertEqual(NEW, self.content())
        self.revert()
        self.assertEqual(OLD, self.content())

    def test_without_an_api_request(self):
        for context in (None, mock.Mock(request_id=None)):
            self.write(NEW)
            self.driver.revert_to_snapshot(context, self.volume, self.kept)
            self.assertEqual(OLD, self.content())

    def test_a_rule_of_somebody_else(self):
        self.driver._api.grant_access(
            self.volume.id, "backup-robot", ["192.0.2.77"], "ro"
        )
        with self.assertRaises(exception.VolumeIsBusy):
            self.revert()
        self.assertEqual(NEW, self.content())
        self.check_status("error")

    def test_a_left_over_rule_of_ours(self):
        self.driver.initialize_connection(self.volume, base.connector("cmp-1"))
        self.revert()
        self.assertEqual(OLD, self.content())
        self.assertEqual({}, self.exported(self.volume))

    def test_a_snapshot_that_is_gone(self):
        self.driver.delete_snapshot(self.kept)
        with self.assertRaises(exception.SnapshotNotFound):
            self.revert()
        self.assertEqual(NEW, self.content())
        self.check_status("error")

    def test_a_full_pool_leaves_the_old_content(self):
        engine = self.appliance.engines["gold"]
        with (
            mock.patch.object(
                engine,
                "create_snapshot",
                autospec=True,
                side_effect=engines.NoSpace("full"),
            ),
            self.assertRaises(exception.VolumeBackendAPIException),
        ):
            self.revert()
        self.assertEqual(NEW, self.content())
        self.assertEqual("available", self.share(self.volume).state)


class ManagedTest(managing.ManageCase):
    """Neither share nor snapshot has the id that Cinder has."""

    def test_share_and_snapshot_are_found(self):
        share = self.legacy()
        taken = self.operator.create_snapshot(
            str(uuid.uuid4()), share.id, name="nightly"
        )
        volume = self.manage_share(share)
        kept = cinderdb.snapshot(volume)
        self.manager.manage_existing_snapshot(
            self.context, kept, {"source-id": taken.id}
        )
        kept = objects.Snapshot.get_by_id(self.context, kept.id)
        file = self.files(share)[volume.name]
        file.write(0, NEW)
        self.log.clear()
        self.driver.revert_to_snapshot(self.context, volume, kept)
        self.assert_content(volume)
        (sent,) = self.log.sent
        self.assertIn(f"/{share.id}/reverts/", sent.path)


class WithoutRevertTest(RevertCase):
    """Cinder copies, and keeps the old content in a snapshot meanwhile."""

    def setUp(self) -> None:
        super().setUp()
        self.set_capability(revert=False)

    def set_capability(self, **able: bool) -> None:
        for engine in self.appliance.engines.values():
            engine.capabilities = engines.Capabilities(**able)
        self.driver._shares.features.distrust()

    def check_copied(self) -> None:
        self.log.clear()
        made = self.revert()
        self.assertEqual([self.kept.id], made.generic)
        self.assertEqual(NEW, self.content())
        self.check_status("available")

    def test_cinder_copies(self):
        self.assertIs(True, self.driver.snapshot_revert_use_temp_snapshot())
        self.check_copied()
        self.assertNotIn("reverts", str(self.log.sent))

    def test_it_could_a_moment_ago(self):
        self.set_capability()
        self.assertIs(False, self.driver.snapshot_revert_use_temp_snapshot())
        with mock.patch.object(
            self.driver._shares.features, "distrust", autospec=True
        ):
            self.set_capability(revert=False)
        self.check_copied()
        self.assertIs(True, self.driver.snapshot_revert_use_temp_snapshot())


class MinimalVendorTest(base.WithoutVolumeFile, base.DriverTestCase):
    def test_cinder_copies(self):
        volume = self.create()
        kept = self.snapshot(volume)
        with self.assertRaises(NotImplementedError):
            self.driver.revert_to_snapshot(self.context, volume, kept)
