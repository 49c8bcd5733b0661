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

"""Backups of an attached volume by a real cinder-backup."""

import pathlib
import time
from typing import Any

from tests.e2e import base
from tests.harness import compute
from tests.harness import content
from tests.harness import processes
from tests.harness import scenario
from tests.harness import stack

WAIT_SECONDS = 240
MIB = 1 << 20


class BackupTestCase(base.E2ETestCase):
    cinder_options = (
        "backup_driver = cinder.backup.drivers.posix.PosixBackupDriver\n"
        f"backup_file_size = {32 * MIB}\n"
    )

    def setUp(self) -> None:
        super().setUp()
        self.volume_id = str(self.cinder.volumes.create(1).id)
        self.wait_for(self.cinder.volumes, self.volume_id, "available")
        self.attached = self.host.attach(self.volume_id)

    def wait_for(self, manager: Any, ident: str, status: str) -> Any:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            found = manager.get(ident)
            if found.status == status:
                return found
            self.assertNotIn("error", found.status, found)
            time.sleep(scenario.POLL_SECONDS)
        self.fail(f"{ident} is {found.status}, not {status}")

    def write(self, pattern: str) -> str:
        path = str(self.attached.path)
        content.write_pattern(path, pattern)
        return content.digest(path)

    def backup(self, *, incremental: bool = False) -> str:
        """Back up without creating a share, and without leaving anything."""
        made = self.cinder.backups.create(
            self.volume_id, force=True, incremental=incremental
        )
        shares = self.view.all_ids("shares")
        seen = set()
        while self.cinder.backups.get(made.id).status == "creating":
            seen |= {*self.view.all_ids("shares")}
            time.sleep(scenario.POLL_SECONDS)
        self.assertEqual({*shares}, seen)
        self.wait_for(self.cinder.backups, made.id, "available")
        self.wait_for_snapshots_to_go()
        self.assertEqual([], compute.mounted_below(self.machine.mounts))
        self.wait_for(self.cinder.volumes, self.volume_id, "in-use")
        return str(made.id)

    def wait_for_snapshots_to_go(self) -> None:
        """cinder-backup does not wait for this."""
        processes.wait_until(
            lambda: not self.view.all_ids("snapshots"),
            "the end of the snapshot",
            timeout_seconds=WAIT_SECONDS,
        )

    def digest_of(self, volume_id: str) -> str:
        self.wait_for(self.cinder.volumes, volume_id, "available")
        attached = self.host.attach(volume_id)
        try:
            return content.digest(str(attached.path))
        finally:
            self.host.detach(attached)
            self.wait_for(self.cinder.volumes, volume_id, "available")

    def restore(self, backup_id: str, volume_id: str | None = None) -> str:
        made = self.cinder.restores.restore(backup_id, volume_id=volume_id)
        self.wait_for(self.cinder.backups, backup_id, "available")
        return str(made.volume_id)

    def delete(self, manager: Any, *idents: str) -> None:
        for ident in idents:
            manager.delete(ident)
            processes.wait_until(
                lambda ident=ident: (
                    ident not in {each.id for each in manager.list()}
                ),
                f"the end of {ident}",
                timeout_seconds=WAIT_SECONDS,
            )

    def test_full_and_incremental_and_back(self) -> None:
        first = self.write("A")
        full = self.backup()
        second = self.write("B")
        more = self.backup(incremental=True)
        self.assertNotEqual(first, second)
        restored = self.restore(more)
        self.assertEqual(second, self.digest_of(restored))
        self.restore(full, restored)
        self.assertEqual(first, self.digest_of(restored))
        self.assertEqual(second, content.digest(str(self.attached.path)))
        self.host.detach(self.attached)
        self.wait_for(self.cinder.volumes, self.volume_id, "available")
        self.delete(self.cinder.backups, more, full)
        self.delete(self.cinder.volumes, self.volume_id, restored)
        self.assert_nothing_left()

    def test_killed_in_the_middle_nothing_stays(self) -> None:
        self.write("A")
        made = self.cinder.backups.create(self.volume_id, force=True)
        processes.wait_until(
            lambda: compute.mounted_below(self.machine.mounts),
            "a snapshot that is read",
            timeout_seconds=WAIT_SECONDS,
        )
        self.machine.cinder_process.kill()
        self.assertEqual(1, len(self.view.all_ids("snapshots")))
        self.machine.cinder_process.start()
        self.machine.cinder_process.wait_ready(
            lambda: processes.listens(stack.CINDER_PORT),
            timeout_seconds=stack.START_SECONDS,
        )
        self.wait_for_snapshots_to_go()
        self.assertEqual("error", self.cinder.backups.get(made.id).status)
        self.assertEqual([], self.mounts())
        self.wait_for(self.cinder.volumes, self.volume_id, "in-use")
        self.host.detach(self.attached)
        self.wait_for(self.cinder.volumes, self.volume_id, "available")
        self.delete(self.cinder.backups, made.id)
        self.delete(self.cinder.volumes, self.volume_id)
        self.assert_nothing_left()

    def mounts(self) -> list[str]:
        return compute.mounted_below(pathlib.Path(self.machine.mounts))
