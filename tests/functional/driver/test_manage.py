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

"""Managing shares whose files are looked at through a mount of the kernel's,
with an appliance that knows about files and with one that does not."""

from __future__ import annotations

import os
import pathlib
import subprocess
from typing import Any
import uuid

from cinder import exception

import acme_client
from tests.functional.driver import test_nfs
from tests.unit.driver import base
from tests.unit.driver import cinderdb

NAME = "disk.img"
MIB = test_nfs.MIB
INVALID = exception.ManageExistingInvalidReference


class ManageTests(test_nfs.NfsCase):
    def setUp(self) -> None:
        super().setUp()
        self.operator = acme_client.Client(
            [self.appliance.url],
            acme_client.BearerToken(self.appliance.token),
            verify=self.appliance.ca_file or True,
        )
        self.addCleanup(self.operator.close)

    def legacy(self, size_bytes: int = test_nfs.GIB) -> acme_client.Share:
        """A share with a file of which Cinder knows nothing."""
        share = self.operator.create_share(
            str(uuid.uuid4()),
            name="legacy-db",
            size_bytes=size_bytes,
            pool="gold",
            file=acme_client.VolumeFileSpec(
                name=NAME, uid=os.geteuid() or None, mode="0660"
            )
            if self.volume_file
            else None,
        )
        path = self.file(share)
        with open(path, "ab") as file:
            file.truncate(size_bytes)
        self.give(path, self.folder(share))
        self.write(str(path), "before")
        return share

    def give(self, path: pathlib.Path, folder: pathlib.Path) -> None:
        """To whom clients act as on the share."""
        owner = folder.stat() if not self.volume_file else path.stat()
        os.chown(path, owner.st_uid, owner.st_gid)

    def folder(self, share: acme_client.Share) -> pathlib.Path:
        return pathlib.Path(self.pool.directory) / "shares" / share.id

    def file(self, share: acme_client.Share) -> pathlib.Path:
        return self.folder(share) / NAME

    def manage(self, reference: dict[str, Any]) -> Any:
        """As Cinder's manager does."""
        volume = cinderdb.volume(size=0, status="managing")
        size = self.driver.manage_existing_get_size(volume, reference)
        update = self.driver.manage_existing(volume, reference)
        cinderdb.save(volume, {**update, "size": size})
        return self.available(volume)

    def refused(self, share: acme_client.Share, text: str) -> None:
        with self.assertRaisesRegex(INVALID, text):
            self.manage({"source-id": share.id})
        self.assert_nothing_mounted()
        found = self.operator.get_share(share.id)
        self.assertEqual({}, dict(found.access))
        self.assertEqual({}, dict(found.labels))

    def test_life(self) -> None:
        share = self.legacy(test_nfs.GIB + MIB)
        older = self.operator.create_snapshot(str(uuid.uuid4()), share.id)
        volume = self.manage({"source-name": "legacy-db"})
        self.assertEqual((2, share.id), (volume.size, volume.provider_id))
        self.assert_nothing_mounted()
        self.assertEqual([volume.name], os.listdir(self.folder(share)))

        path = self.attached(volume)
        self.assertEqual(2 * test_nfs.GIB, os.path.getsize(path))
        self.check(path, "before")
        self.write(path, "after")
        self.end(volume, path)

        snapshot = cinderdb.snapshot(volume)
        reference = {"source-id": older.id}
        self.assertEqual(
            2,
            self.driver.manage_existing_snapshot_get_size(snapshot, reference),
        )
        snapshot.update(
            self.driver.manage_existing_snapshot(snapshot, reference)
        )
        snapshot.save()
        restored = cinderdb.volume(size=3, snapshot_id=snapshot.id)
        cinderdb.save(
            restored,
            self.driver.create_volume_from_snapshot(restored, snapshot),
        )
        path = self.attached(restored)
        self.assertEqual(3 * test_nfs.GIB, os.path.getsize(path))
        self.check(path, "before")
        self.end(restored, path)

        self.driver.unmanage_snapshot(snapshot)
        self.driver.unmanage(cinderdb.reloaded(volume))
        self.assertEqual({}, dict(self.operator.get_share(share.id).labels))
        self.operator.get_snapshot(older.id)
        volume.destroy()
        volume = self.manage({"source-id": share.id})
        path = self.attached(volume)
        self.check(path, "after")
        self.end(volume, path)
        self.operator.delete_snapshot(older.id)
        self.driver.delete_volume(cinderdb.reloaded(volume))
        self.assertIsNone(self.find_share(share.id))
        self.assert_nothing_mounted()

    def test_an_image_of_another_format(self) -> None:
        for kind in ("qcow2", "vmdk", "vdi", "vhdx"):
            with self.subTest(kind):
                share = self.legacy()
                image = f"{self.directory}/image.{kind}"
                subprocess.run(
                    ["qemu-img", "create", "-q", "-f", kind, image, "64M"],
                    check=True,
                )
                data = pathlib.Path(image).read_bytes()
                with open(self.file(share), "r+b") as file:
                    file.write(data)
                self.refused(share, f"is a {kind} image.*-O raw")
                self.assertTrue(self.file(share).exists())

    def test_a_second_file(self) -> None:
        share = self.legacy()
        (self.folder(share) / "notes\n2").write_text("x")
        self.refused(share, "more than one file.*notes")

    def test_a_missing_file(self) -> None:
        share = self.legacy()
        self.file(share).unlink()
        self.refused(share, "missing.*one raw file")

    def test_a_file_of_somebody_else(self) -> None:
        share = self.legacy()
        os.chown(self.file(share), 0, 0)
        os.chmod(self.file(share), 0o600)
        self.refused(share, "written by others only.*acme_file_uid")

    def test_a_link_out_of_the_share(self) -> None:
        share = self.legacy()
        self.file(share).unlink()
        self.file(share).symlink_to("/etc/passwd")
        self.refused(share, "no regular file")


class ManageTest(ManageTests):
    """With the feature share.volume_file."""

    def test_a_mount_of_the_look_and_no_other(self) -> None:
        self.legacy()
        self.execute.commands.clear()
        self.manage({"source-name": "legacy-db"})
        self.assertEqual(1, self.execute.count("mount"))
        self.assertEqual(1, self.execute.count("umount"))


class ManageWithoutVolumeFileTest(base.WithoutVolumeFile, ManageTests):
    """Against a minimal vendor."""

    def test_a_short_file(self) -> None:
        share = self.legacy()
        os.truncate(self.file(share), 4096)
        self.refused(share, "4096 bytes.*shorter.*truncate -s")


del ManageTests
