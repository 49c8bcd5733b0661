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

"""Manage and unmanage with the cinder command, as the documentation has it."""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import time
from typing import Any
import uuid

from cinderclient import exceptions

import acme_client
from tests.e2e import base
from tests.harness import content
from tests.harness import scenario

GIB = scenario.GIB
WAIT_SECONDS = 120


class ManageTestCase(base.E2ETestCase):
    def setUp(self) -> None:
        super().setUp()
        self.settings = self._folder / "settings.sh"
        self.machine.write_settings(self.settings)
        name = f"operator-{uuid.uuid4().hex[:8]}"
        token = self.machine.appliance.token(name, "driver:cinder-demo")
        self.operator = acme_client.Client(
            [self.machine.appliance.url],
            acme_client.BearerToken(token),
            verify=str(self.machine.appliance.ca_file),
        )
        self.addCleanup(self.operator.close)
        (pool,) = self.cinder.pools.list()
        self.pool = str(pool.name)

    def legacy(self, size_bytes: int = GIB) -> acme_client.Share:
        """A share with a file that holds a pattern."""
        share = self.operator.create_share(
            str(uuid.uuid4()),
            name="legacy-db",
            size_bytes=size_bytes,
            file=acme_client.VolumeFileSpec(name="disk.img"),
        )
        content.write_pattern(str(self.file(share)), "A")
        return share

    def file(self, share: acme_client.Share) -> pathlib.Path:
        """The share's one file, on the appliance's own file system."""
        (found,) = (self.view.pool / "shares" / share.id).iterdir()
        return found

    def command(self, *words: str) -> str:
        """Run ``cinder``; returns what it printed."""
        line = f". {self.settings} && cinder {shlex.join(words)}"
        done = subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
        )
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout

    def manage(self, kind: str, reference: str) -> Any:
        """Returns the volume when Cinder has done what it could.

        Of ``error_managing``, Cinder's API says ``error``.
        """
        name = f"managed-{uuid.uuid4()}"
        self.command(
            *("manage", "--id-type", kind, "--name", name),
            *(self.pool, reference),
        )
        (volume,) = self.cinder.volumes.list(search_opts={"name": name})
        return self.settled(self.cinder.volumes, volume.id)

    def settled(self, manager: Any, known_id: str) -> Any:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            found = manager.get(known_id)
            if found.status in ("available", "error"):
                return found
            time.sleep(scenario.POLL_SECONDS)
        self.fail(f"{known_id} is still {found.status}")

    def gone(self, manager: Any, known_id: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                status = manager.get(known_id).status
            except exceptions.NotFound:
                return
            self.assertIn(status, ("deleting", "unmanaging"))
            time.sleep(scenario.POLL_SECONDS)
        self.fail(f"{known_id} is still there")

    def manageable(self, manager: Any, known_id: str) -> Any:
        (found,) = [
            each
            for each in manager.list_manageable(self.pool)
            if each.reference == {"source-id": known_id}
        ]
        return found

    def delete(self, volume: Any) -> None:
        self.cinder.volumes.delete(volume.id)
        self.gone(self.cinder.volumes, volume.id)

    def test_a_share_becomes_a_volume_and_a_share_again(self) -> None:
        share = self.legacy(GIB + (1 << 20))
        before = content.digest(str(self.file(share)))
        older = self.operator.create_snapshot(
            str(uuid.uuid4()), share.id, name="nightly"
        )
        volumes, snapshots = self.cinder.volumes, self.cinder.volume_snapshots
        self.assertIn(share.id, self.command("manageable-list", self.pool))
        found = self.manageable(volumes, share.id)
        self.assertEqual((2, True), (found.size, found.safe_to_manage))
        found = self.manageable(snapshots, older.id)
        self.assertIn("manage its share first", found.reason_not_safe)

        volume = self.manage("source-name", "legacy-db")
        self.assertEqual(("available", 2), (volume.status, volume.size))
        self.assertEqual(volume.id, self.found_owner(share))
        attached = self.host.attach(volume.id)
        self.assertEqual(2 * GIB, content.size(str(attached.path)))
        content.write_pattern(str(attached.path), "B")
        self.host.detach(attached)
        self.settled(volumes, volume.id)

        self.assertIn(
            older.id, self.command("snapshot-manageable-list", self.pool)
        )
        self.command(
            *("snapshot-manage", "--id-type", "source-id"),
            *("--name", "nightly", volume.id, older.id),
        )
        (snapshot,) = snapshots.list(search_opts={"volume_id": volume.id})
        snapshot = self.settled(snapshots, snapshot.id)
        self.assertEqual(("available", 2), (snapshot.status, snapshot.size))
        restored = volumes.create(2, snapshot_id=snapshot.id)
        self.assertEqual(
            "available", self.settled(volumes, restored.id).status
        )
        self.check_beginning(restored.id, before, share.size_bytes)
        self.command("snapshot-unmanage", snapshot.id)
        self.gone(snapshots, snapshot.id)

        self.command("unmanage", volume.id)
        self.gone(volumes, volume.id)
        left = self.operator.get_share(share.id)
        self.assertEqual(({}, {}), (dict(left.labels), dict(left.access)))
        self.operator.delete_snapshot(older.id)

        again = self.manage("source-id", share.id)
        self.assertEqual("available", again.status)
        self.delete(again)
        self.delete(restored)
        self.assertIsNone(self.view.share(share.id))
        self.assert_nothing_left()

    def found_owner(self, share: acme_client.Share) -> Any:
        found = self.manageable(self.cinder.volumes, share.id)
        self.assertFalse(found.safe_to_manage)
        return found.cinder_id

    def check_beginning(
        self, volume_id: str, digest: str, size_bytes: int
    ) -> None:
        """As large as it was, it has what it had."""
        copy = self._folder / "beginning"
        share = self.operator.get_share(volume_id)
        subprocess.run(
            ["cp", "--sparse=always", str(self.file(share)), str(copy)],
            check=True,
        )
        os.truncate(copy, size_bytes)
        self.assertEqual(digest, content.digest(str(copy)))
        copy.unlink()

    def test_an_image_in_another_format(self) -> None:
        share = self.legacy()
        image = self._folder / "image.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1G"],
            check=True,
        )
        with open(self.file(share), "r+b") as file:
            file.write(image.read_bytes())
        volume = self.manage("source-id", share.id)
        self.assertEqual("error", volume.status)
        self.assertEqual("disk.img", self.file(share).name)
        log = (self.machine.logs / "cinder.log").read_text()
        self.assertIn("convert it with 'qemu-img convert -O raw'", log)
        self.delete(volume)
        self.assertIsNotNone(self.view.share(share.id))
        self.operator.delete_share(share.id)
        self.assert_nothing_left()

    def test_a_share_that_is_in_use_or_a_volume(self) -> None:
        share = self.legacy()
        self.operator.grant_access(share.id, "esx-1", ["192.0.2.7"], "rw")
        found = self.manageable(self.cinder.volumes, share.id)
        self.assertIn("esx-1 may mount it", found.reason_not_safe)
        refused = self.manage("source-id", share.id)
        self.assertEqual("error", refused.status)
        self.delete(refused)
        self.operator.revoke_access(share.id, "esx-1")
        volume = self.manage("source-id", share.id)
        self.assertEqual("available", volume.status)
        refused = self.manage("source-id", share.id)
        self.assertEqual("error", refused.status)
        for each in (refused, volume):
            self.delete(each)
        self.assert_nothing_left()
