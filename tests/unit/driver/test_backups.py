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

"""Backups of attached volumes, with the code of Cinder's two managers."""

from __future__ import annotations

import contextlib
import os
from typing import Any
from unittest import mock as unittest_mock
import uuid

from cinder import exception
from cinder import objects
from cinder.backup import manager as backup_manager
from cinder.db import api as db
from cinder.volume import manager as volume_manager
import ddt
from os_brick.remotefs import remotefs as brick_client

from acme_cinder import holders
import acme_client
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb
from tests.unit.driver import managing

SERVICE = holders.of_service(base.own_connector()["host"])
THEN = b"then".ljust(4096, b".")


class VolumeManager(volume_manager.VolumeManager):
    """Cinder's, without all that starts a service."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.db = db

    def _notify_about_snapshot_usage(self, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""


class VolumeApi:
    """cinder-volume's RPC, without a queue."""

    def __init__(self, manager: VolumeManager) -> None:
        self._manager = manager

    def initialize_connection_snapshot(self, ctxt, snapshot, connector):
        return self._manager.initialize_connection_snapshot(
            ctxt, snapshot.id, connector
        )

    def terminate_connection_snapshot(
        self, ctxt, snapshot, connector, force=False
    ):
        self._manager.terminate_connection_snapshot(
            ctxt, snapshot.id, connector, force=force
        )

    def remove_export_snapshot(self, ctxt, snapshot, sync=False):
        self._manager.remove_export_snapshot(ctxt, snapshot.id)

    def delete_snapshot(self, ctxt, snapshot):
        self._manager.driver.delete_snapshot(snapshot)
        snapshot.destroy()


class BackupService:
    """Reads as a backup driver does, and calls back in the middle."""

    def __init__(self, during: Any = lambda: None) -> None:
        self.during = during
        self.data = b""

    def __call__(self, context: Any) -> BackupService:
        return self

    def backup(self, backup: Any, volume_file: Any) -> dict[str, Any]:
        self.data = volume_file.read(len(THEN))
        self.during()
        return {}


class BackupManager(backup_manager.BackupManager):
    """Cinder's, without its service, and with mounts of the fake host."""

    def __init__(self, case: BackupCase) -> None:
        self._case = case
        self._semaphore = contextlib.nullcontext()
        self.host = "bak-1"
        self.db = db
        self.message_api = unittest_mock.Mock()
        self.volume_rpcapi = VolumeApi(case.manager)
        self.service = BackupService()

    def _connect_device(self, conn):
        return {
            "conn": conn,
            "device": {"path": self._case.brick_mount(conn)},
            "connector": unittest_mock.Mock(),
        }

    def _notify_about_backup_usage(self, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""


class BackupCase(base.DriverTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.volume = self.create()
        self.row = self.attach(self.volume, base.connector("cmp-1"))
        self.volume.status = "backing-up"
        self.volume.previous_status = "in-use"
        self.volume.save()
        entry = self.entries(self.volume)[self.volume.name]
        entry.write(0, THEN)
        self.use(self.driver)
        patch = unittest_mock.patch.object(
            backup_manager.volume_utils,
            "brick_get_connector_properties",
            lambda *arguments, **keywords: base.own_connector(),
        )
        patch.start()
        self.addCleanup(patch.stop)
        self.log.clear()

    def use(self, driver: Any) -> None:
        self.driver = driver
        self.manager = VolumeManager(driver)
        self.backups = BackupManager(self)

    def backup(self, **values: Any) -> objects.Backup:
        made = objects.Backup(
            context=self.context,
            volume_id=self.volume.id,
            user_id=cinderdb.USER,
            project_id=cinderdb.PROJECT,
            status="creating",
            size=1,
            **values,
        )
        made.create()
        return made

    def run_backup(self, backup: objects.Backup) -> None:
        """As the two services do, one after the other."""
        device = self.manager.get_backup_device(
            self.context, backup, want_objects=True
        )
        self.backups.continue_backup(self.context, backup, device)

    def brick_mount(self, info: dict[str, Any]) -> str:
        self.info = info
        export = info["data"]["export"]
        path = brick_client.RemoteFsClient(
            "nfs", "sudo", nfs_mount_point_base=self.base
        ).get_mount_point(export)
        os.makedirs(path, exist_ok=True)
        self.host.mount(export, path)
        return f"{path}/{info['data']['name']}"

    def snapshots(self) -> list[acme_client.Snapshot]:
        return list(self.driver._api.list_snapshots())

    def rules(self, snapshot: objects.Snapshot) -> set[str]:
        return {*self.driver._api.get_snapshot(snapshot.id).access}

    def cut_off(self) -> objects.Snapshot:
        """A backup whose service dies while it reads; its snapshot."""
        self.made = self.backup()
        self.backups.service = BackupService(_die)
        self.backups._detach_device = unittest_mock.Mock()
        self.backups._cleanup_temp_volumes_snapshots_when_backup_created = (
            unittest_mock.Mock()
        )
        with self.assertRaises(_Killed):
            self.run_backup(self.made)
        self.made.refresh()
        return objects.Snapshot.get_by_id(
            self.context, self.made.temp_snapshot_id
        )


class _Killed(BaseException):
    """The end of the process, as far as a test can have it."""


def _die() -> None:
    raise _Killed


class BackupTest(BackupCase):
    def test_the_snapshot_is_read_and_nothing_is_left(self):
        """Four requests, and no share."""
        seen = []
        self.backups.service = BackupService(
            lambda: seen.append(dict(self.log.counts))
        )
        backup = self.backup()
        self.run_backup(backup)
        self.assertEqual(THEN, self.backups.service.data)
        (during,) = seen
        changes = {k: n for k, n in during.items() if k.startswith("PUT")}
        self.assertEqual(2, sum(changes.values()), changes)
        self.assertEqual(4, self.log.total, self.log.counts)
        self.assertNotIn("POST", " ".join(self.log.counts))
        self.assertEqual([], self.snapshots())
        self.assert_unmounted()
        self.assertEqual("available", backup.status)
        self.assertEqual("in-use", cinderdb.reloaded(self.volume).status)
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(self.volume))

    def test_what_os_brick_is_told(self):
        self.use(self.new_driver(nfs_mount_options="hard,vers=4.2"))
        self.run_backup(self.backup())
        data = self.info["data"]
        self.assertEqual("-o hard,vers=4.2,ro", data["options"])
        self.assertEqual(self.volume.name, data["name"])
        self.assertEqual("raw", data["format"])
        self.assertIn("/snapshots/", data["export"])
        self.assertEqual(self.base, self.info["mount_point_base"])

    def test_what_is_written_meanwhile_is_not_in_it(self):
        entry = self.entries(self.volume)[self.volume.name]
        backup = self.backup()
        device = self.manager.get_backup_device(
            self.context, backup, want_objects=True
        )
        entry.write(0, b"now".ljust(4096, b"."))
        self.backups.continue_backup(self.context, backup, device)
        self.assertEqual(THEN, self.backups.service.data)

    def test_backup_of_a_snapshot(self):
        """It stays, and its file has the name that it had."""
        snapshot = self.snapshot(self.volume)
        snapshot.status = "backing-up"
        snapshot.save()
        self.run_backup(self.backup(snapshot_id=snapshot.id))
        self.assertEqual(THEN, self.backups.service.data)
        self.assertEqual(set(), self.rules(snapshot))
        self.assert_unmounted()

    def test_rule_while_it_is_read(self):
        seen = []
        self.backups.service = BackupService(
            lambda: seen.extend(self.snapshots())
        )
        self.run_backup(self.backup())
        (snapshot,) = seen
        self.assertEqual({SERVICE}, snapshot.access.keys())
        self.assertEqual("ro", snapshot.access[SERVICE].level)

    def test_the_clean_up_leaves_it_alone_while_it_is_read(self):
        def during():
            self.driver._reaper.run()
            self.driver._sweep.run()
            self.driver._sweep.run()
            self.assertEqual(1, len(self.host.table()))
            (snapshot,) = self.snapshots()
            self.assertEqual({SERVICE}, snapshot.access.keys())

        self.backups.service = BackupService(during)
        self.run_backup(self.backup())
        self.assert_unmounted()

    def test_a_grant_whose_reply_is_lost_is_taken_back(self):
        self.use(
            self.new_driver(
                [transports.ReplyLost()] * 100,
                matches=lambda request: (
                    "/access/" in request.path_url and request.method == "PUT"
                ),
            )
        )
        snapshot = self.snapshot(self.volume)
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.manager.initialize_connection_snapshot(
                self.context, snapshot.id, base.own_connector()
            )
        self.assertEqual(set(), self.rules(snapshot))

    def test_all_hosts_at_once(self):
        snapshot = self.snapshot(self.volume)
        for host in ("bak-1", "bak-2"):
            self.driver.initialize_connection_snapshot(
                snapshot, base.connector(host)
            )
        self.assertEqual(2, len(self.rules(snapshot)))
        self.driver.terminate_connection_snapshot(snapshot, None)
        self.assertEqual(set(), self.rules(snapshot))

    def test_connector_without_an_address(self):
        snapshot = self.snapshot(self.volume)
        with self.assertRaises(exception.InvalidInput):
            self.manager.initialize_connection_snapshot(
                self.context, snapshot.id, {"host": "bak-1"}
            )


class CutOffTest(BackupCase):
    """The backup service died: the mount and the rule are still there."""

    def test_the_start_of_the_backup_service_ends_it(self):
        snapshot = self.cut_off()
        self.assertEqual({SERVICE}, self.rules(snapshot))
        backups = BackupManager(self)
        backups._cleanup_one_backup(self.context, self.made)
        backups._cleanup_temp_volumes_snapshots_for_one_backup(
            self.context, self.made
        )
        self.assertEqual([], self.snapshots())
        self.assert_unmounted()

    def test_a_sweep_takes_the_rule_back(self):
        """Not while Cinder says that the volume is being backed up."""
        snapshot = self.cut_off()
        for _ in range(3):
            self.driver._sweep.run()
        self.assertEqual({SERVICE}, self.rules(snapshot))
        self.driver._reaper.run()
        self.assertEqual(1, len(self.host.table()))
        self.volume.status = "in-use"
        self.volume.save()
        self.driver._sweep.run()
        self.assertEqual({SERVICE}, self.rules(snapshot))
        with self.assertLogs("acme_cinder.sweep", "WARNING") as logs:
            self.driver._sweep.run()
        self.assertIn(snapshot.name, logs.output[0])
        self.assertEqual(set(), self.rules(snapshot))
        self.driver._reaper.run()
        self.assert_unmounted()

    def test_a_sweep_leaves_rules_of_others(self):
        snapshot = self.snapshot(self.volume)
        self.volume.status = "in-use"
        self.volume.save()
        api = self.driver._api
        api.grant_snapshot_access(snapshot.id, "auditor", ["192.0.2.9"])
        unknown = self.snapshot(self.volume)
        api.grant_snapshot_access(unknown.id, SERVICE, ["192.0.2.9"])
        unknown.destroy()
        for _ in range(3):
            self.driver._sweep.run()
        self.assertEqual({"auditor"}, self.rules(snapshot))
        self.assertEqual({SERVICE}, self.rules(unknown))

    def test_a_snapshot_that_is_read_is_not_deleted(self):
        snapshot = self.cut_off()
        with self.assertRaisesRegex(exception.SnapshotIsBusy, SERVICE):
            self.driver.delete_snapshot(snapshot)
        self.assertEqual({SERVICE}, self.rules(snapshot))

    def test_a_snapshot_that_others_read_is_not_deleted(self):
        snapshot = self.snapshot(self.volume)
        self.volume.status = "in-use"
        self.volume.save()
        self.driver._api.grant_snapshot_access(
            snapshot.id, "auditor", ["192.0.2.9"]
        )
        with self.assertRaisesRegex(exception.SnapshotIsBusy, "auditor"):
            self.driver.delete_snapshot(snapshot)


@ddt.ddt
class WhereTest(base.DriverTestCase):
    def test_where_pools_export_snapshots(self):
        with self.assertNoLogs("acme_cinder.driver", "WARNING"):
            self.assertIs(True, self.driver.backup_use_temp_snapshot())

    def test_not_where_the_file_has_to_change_its_owner_first(self):
        """It could not, in a snapshot."""
        self.driver = self.new_driver(
            nas_secure_file_operations="false", backup_use_temp_snapshot=True
        )
        with self.assertLogs("acme_cinder.driver", "WARNING") as logs:
            self.assertIs(False, self.driver.backup_use_temp_snapshot())
        self.assertIn("backup_use_temp_snapshot", logs.output[0])


class MinimalVendorTest(base.WithoutVolumeFile, base.DriverTestCase):
    def test_backups_are_made_of_a_clone(self):
        self.assertIs(False, self.driver.backup_use_temp_snapshot())

    def test_a_sweep_asks_for_no_snapshots(self):
        self.log.clear()
        self.driver._sweep.run()
        self.assertEqual({"GET /v1/shares": 1}, dict(self.log.counts))


class ManagedTest(managing.ManageCase):
    """A managed snapshot has another id on the appliance than in Cinder."""

    def setUp(self) -> None:
        super().setUp()
        share = self.legacy()
        self.taken = self.operator.create_snapshot(
            str(uuid.uuid4()), share.id, name="nightly"
        )
        volume = self.manage_share(share)
        row = cinderdb.snapshot(volume)
        self.manager.manage_existing_snapshot(
            self.context, row, {"source-id": self.taken.id}
        )
        self.kept = objects.Snapshot.get_by_id(self.context, row.id)
        self.connector = base.connector("bak-1")
        info = self.driver.initialize_connection_snapshot(
            self.kept, self.connector
        )
        # Taken before the file was renamed.
        self.assertEqual(managing.NAME, info["data"]["name"])
        self.assertEqual(["cinder-service:bak-1"], self.rules())

    def rules(self) -> list[str]:
        return list(self.operator.get_snapshot(self.taken.id).access)

    def set_status(self, status: str) -> None:
        self.kept.status = status
        self.kept.save()

    def test_detach(self):
        self.driver.terminate_connection_snapshot(self.kept, self.connector)
        self.assertEqual([], self.rules())

    def test_detach_from_all_hosts(self):
        self.driver.terminate_connection_snapshot(self.kept, None)
        self.assertEqual([], self.rules())

    def test_sweep(self):
        self.set_status("backing-up")
        for _ in range(3):
            self.driver._sweep.run()
        self.assertEqual(["cinder-service:bak-1"], self.rules())
        self.set_status("available")
        for _ in range(2):
            self.driver._sweep.run()
        self.assertEqual([], self.rules())

    def test_delete(self):
        self.set_status("deleting")
        self.driver.delete_snapshot(self.kept)
        with self.assertRaises(acme_client.NotFound):
            self.operator.get_snapshot(self.taken.id)

    def test_unmanage_takes_the_rule_back(self):
        self.driver.unmanage_snapshot(self.kept)
        left = self.operator.get_snapshot(self.taken.id)
        self.assertEqual(({}, {}), (dict(left.labels), dict(left.access)))
