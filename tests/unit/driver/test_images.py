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

"""Images into volumes and back, with the real qemu-img."""

import contextlib
import datetime
import os
import socket
import subprocess
import unittest.mock
import uuid

from castellan.common.objects import symmetric_key
from cinder import exception
from cinder.volume import volume_utils
from os_brick import exception as brick_exception

from acme_cinder import copies
from acme_cinder import images
from acme_cinder import mount
from acme_cinder import shares
from acme_cinder import volumefile
from tests.unit.driver import base
from tests.unit.driver import cinderdb

MIB = 1 << 20
_FAILS_ONCE = """#!/bin/sh
PATH=${PATH#*:}
[ -e "$0.failed" ] && exec qemu-img "$@"
: >"$0.failed"
echo "Unable to get accurate CPU usage" >&2
exit 1
"""


class Glance:
    """Has one image, and takes uploads."""

    def __init__(self, data, disk_format):
        self.data = data
        self.meta = {
            "id": str(uuid.uuid4()),
            "disk_format": disk_format,
            "container_format": "bare",
            "size": len(data),
            "name": "an image",
            "properties": {},
        }
        self.uploaded = None
        self.temp_images = None

    def show(self, context, image_id):
        return dict(self.meta)

    def download(self, context, image_id, data):
        data.write(self.data)

    def update(self, context, image_id, image_meta, data, **kwargs):
        self.uploaded = data.read(MIB)


class ImageTestCase(base.DriverTestCase):
    def setUp(self):
        super().setUp()
        os.makedirs(cinderdb.CONF.image_conversion_dir, exist_ok=True)

    def raw(self, size=4 * MIB):
        data = bytearray(size)
        data[8192 : 8192 + 7] = b"content"
        data[size - 7 : size] = b"the end"
        return bytes(data)

    def converted(self, data, to):
        path = f"{self.directory}/image"
        with open(path, "wb") as file:
            file.write(data)
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", to, path, f"{path}.o"],
            check=True,
        )
        with open(f"{path}.o", "rb") as file:
            return file.read()

    def content(self, volume, offset, size):
        entry = self.entries(volume)[volume.name]
        start = offset - offset % 4096
        data = entry.read(start, 8192)
        return data[offset - start : offset - start + size]

    def download(self, volume, glance, **kwargs):
        """As the manager does, with disable_sparse as of 29."""
        volume.status = "downloading"
        volume.save()
        volume_utils.copy_image_to_volume(
            self.driver,
            self.context,
            volume,
            glance.meta,
            (None, None),
            glance,
            **kwargs,
        )

    @contextlib.contextmanager
    def key(self, volume):
        """A key manager with one key, an encrypted type's metadata."""
        key = symmetric_key.SymmetricKey("AES", 256, bytes(range(32)))
        metadata = {
            "encryption_key_id": volume.encryption_key_id,
            "provider": "luks",
            "cipher": "aes-xts-plain64",
            "key_size": 256,
            "control_location": "front-end",
        }

        class Keys:
            def get(self, context, key_id):
                return key

        before = images.key_manager.API, volume_utils.db
        original = volume_utils.db.volume_encryption_metadata_get
        images.key_manager.API = lambda conf: Keys()
        volume_utils.db.volume_encryption_metadata_get = (
            lambda context, volume_id: dict(metadata)
        )
        try:
            yield metadata
        finally:
            images.key_manager.API = before[0]
            volume_utils.db.volume_encryption_metadata_get = original


class DownloadCase(ImageTestCase):
    def check(self, disk_format, **kwargs):
        data = self.raw()
        if disk_format != "raw":
            data = self.converted(data, disk_format)
        volume = self.create()
        self.host.forget()
        self.download(volume, Glance(data, disk_format), **kwargs)
        entry = self.assert_file(volume, 1)
        self.assertEqual(b"content", self.content(volume, 8192, 7))
        self.assertEqual(b"the end", self.content(volume, 4 * MIB - 7, 7))
        self.assertEqual(0o660, entry.mode)
        self.assertEqual(1, self.host.count("mount"))
        self.assertEqual(1, self.host.count("umount"))
        self.assert_unmounted()
        self.assertEqual({}, self.exported(volume))

    def test_raw(self):
        self.check("raw")

    def test_qcow2(self):
        self.check("qcow2")

    def test_disable_sparse(self):
        """Cinder 29 gives it; a driver without it fails every image."""
        self.check("raw", disable_sparse=True)

    def test_an_image_larger_than_the_volume(self):
        path = f"{self.directory}/large.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", path, "2G"],
            check=True,
        )
        with open(path, "rb") as file:
            glance = Glance(file.read(), "qcow2")
        volume = self.create()
        with self.assertRaises(exception.ImageUnacceptable):
            self.download(volume, glance)
        self.assert_file(volume, 1)
        self.assert_unmounted()

    def test_a_mount_that_fails_is_a_cinder_error(self):
        volume = self.create()
        self.host.failures["mount"] = [
            brick_exception.BrickException("no")
        ] * 3
        with self.assertRaises(exception.CinderException):
            self.driver.copy_image_to_volume(
                self.context, volume, Glance(b"", "raw"), "an id"
            )
        self.assert_unmounted()

    def test_upload(self):
        for disk_format in ("raw", "qcow2"):
            with self.subTest(disk_format):
                volume = self.create()
                self.download(volume, Glance(self.raw(), "raw"))
                glance = Glance(b"", disk_format)
                self.driver.copy_volume_to_image(
                    self.context,
                    cinderdb.reloaded(volume),
                    glance,
                    glance.meta,
                )
                self.assertIn(
                    b"content" if disk_format == "raw" else b"QFI\xfb",
                    glance.uploaded,
                )
                self.assert_unmounted()
                self.assert_file(volume, 1)

    def attached(self):
        """A volume with content, in use by a guest."""
        volume = self.create()
        self.download(volume, Glance(self.raw(), "raw"))
        self.attach(volume, base.connector("cmp-1"))
        return cinderdb.reloaded(volume)

    def upload(self, volume, glance):
        self.driver.copy_volume_to_image(
            self.context, volume, glance, glance.meta
        )

    def shares(self):
        return {share.id for share in self.driver._api.list_shares()}

    def test_upload_of_an_attached_volume(self):
        """By a copy: of its own file QEMU has the lock."""
        for disk_format, expected in (("raw", b"content"), ("qcow2", b"QFI")):
            with self.subTest(disk_format):
                volume = self.attached()
                before = self.shares()
                self.host.forget()
                glance = Glance(b"", disk_format)
                self.upload(volume, glance)
                mounted = [
                    command[-2]
                    for command in self.host.commands
                    if command[0] == "mount"
                ]
                self.assertTrue(mounted)
                self.assertIn(expected, glance.uploaded)
                self.assertNotIn(volume.provider_location, mounted)
                self.assertEqual(before, self.shares())
                self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))
                self.assert_unmounted()

    def test_the_copy_is_known_while_it_is_there(self):
        volume = self.attached()
        before = self.shares()
        glance = Glance(b"", "raw")
        seen = []
        glance.update = lambda *args, **kwargs: seen.extend(
            self.find_share(id_) for id_ in self.shares() - before
        )
        self.upload(volume, glance)
        self.assertEqual(
            [
                {
                    "cinder.copy_of": volume.id,
                    "cinder.image_id": glance.meta["id"],
                    "cinder.copy_made_by": f"{socket.gethostname()}:"
                    f"{self.base}",
                }
            ],
            [dict(share.labels) for share in seen],
        )
        self.assertEqual(
            str(uuid.uuid5(uuid.UUID(volume.name_id), glance.meta["id"])),
            seen[0].id,
        )

    def test_the_copy_goes_when_the_upload_fails(self):
        volume = self.attached()
        before = self.shares()
        glance = Glance(b"", "raw")
        glance.update = unittest.mock.Mock(side_effect=OSError(5, "no"))
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.upload(volume, glance)
        self.host.failures["mount"] = [
            brick_exception.BrickException("no")
        ] * 3
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.upload(volume, glance)
        self.assertEqual(before, self.shares())
        self.assert_unmounted()
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))

    def die_while_uploading(self):
        """As if killed: nothing is cleaned up but what the kernel does."""
        volume = self.attached()
        before = self.shares()
        glance = Glance(b"", "raw")
        glance.update = unittest.mock.Mock(side_effect=SystemExit)
        with (
            unittest.mock.patch.object(shares.Shares, "discard"),
            unittest.mock.patch.object(mount.Mounts, "_leave"),
            self.assertRaises(SystemExit),
        ):
            self.upload(volume, glance)
        (copy_id,) = self.shares() - before
        return copy_id

    def test_the_copy_goes_when_the_service_starts_again(self):
        copy_id = self.die_while_uploading()
        self.assertIn(self.driver._mounts.path(copy_id), self.host.table())
        self.driver = self.new_driver()
        for _ in range(2):
            self.driver._sweep.run()
        self.assertIsNone(self.find_share(copy_id))
        self.assert_unmounted()

    def test_the_copy_stays_while_another_process_reads_it(self):
        copy_id = self.die_while_uploading()
        other = self.new_driver()
        with other._mounts.at_work(f"copy-{copy_id}"):
            self.driver._sweep.run()
            self.assertIsNotNone(self.find_share(copy_id))
        self.driver._sweep.run()
        self.assertIsNone(self.find_share(copy_id))

    def test_the_copy_of_another_host_is_left_and_told(self):
        copy_id = self.die_while_uploading()
        self.driver._api.update_share(
            copy_id, labels={"cinder.copy_made_by": "ctl-2:/mnt"}
        )
        with self.assertNoLogs("acme_cinder.copies", "WARNING"):
            self.driver._sweep.run()
        with (
            unittest.mock.patch.object(copies, "_OLD", datetime.timedelta()),
            self.assertLogs("acme_cinder.copies", "WARNING") as logs,
        ):
            for _ in range(2):
                self.driver._sweep.run()
        self.assertEqual(1, len(logs.output))
        self.assertIn("ctl-2", logs.output[0])
        self.assertIsNotNone(self.find_share(copy_id))


class DownloadTest(DownloadCase):
    pass


class DownloadMinimalVendorTest(base.WithoutVolumeFile, DownloadCase):
    pass


class FullAllocationTest(ImageTestCase):
    """nfs_sparsed_volumes = False holds after an image, too."""

    driver_options = {"nfs_sparsed_volumes": False}

    def test_download(self):
        volume = self.create()
        self.download(volume, Glance(self.raw(), "raw"))
        self.assert_file(volume, 1)
        self.assertEqual(1, self.host.count("fallocate"))

    def test_an_image_as_large_as_the_volume(self):
        """Of the right size already, and with holes."""
        path = f"{self.directory}/holes.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", path, "1G"],
            check=True,
        )
        volume = self.create()
        with open(path, "rb") as file:
            self.download(volume, Glance(file.read(), "qcow2"))
        self.assert_file(volume, 1)
        self.assertEqual(1, self.host.count("fallocate"))


class EncryptedCase(ImageTestCase):
    """LUKS is made with qemu-img; os-brick would destroy the file."""

    def encrypted(self):
        return cinderdb.volume(encryption_key_id=str(uuid.uuid4()))

    def header(self, volume):
        return self.entries(volume)[volume.name].read(0, 4096)

    def test_create(self):
        volume = self.encrypted()
        with self.key(volume):
            cinderdb.save(volume, self.driver.create_volume(volume))
        self.assert_file(volume, 1)
        self.assertGreater(volumefile.luks_offset(self.header(volume)), 4096)
        self.assert_unmounted()
        self.assertEqual({}, self.exported(volume))

    def decrypted(self, volume, size):
        """The beginning of what the volume's passphrase opens."""
        secret = f"{self.directory}/secret"
        with open(secret, "w") as file:
            file.write(bytes(range(32)).hex())
        with self.driver._shares.mounted(volume) as path:
            subprocess.run(
                [
                    "qemu-img", "dd", "--image-opts", "-O", "raw",
                    "--object", f"secret,id=s,file={secret}", "bs=1M",
                    f"count={size // MIB}", f"of={self.directory}/clear",
                    f"if=driver=luks,key-secret=s,file.filename={path}",
                ],
                check=True,
            )  # fmt: skip
        with open(f"{self.directory}/clear", "rb") as file:
            return file.read()

    def test_another_provider(self):
        volume = self.encrypted()
        with self.key(volume) as metadata:
            metadata["provider"] = "plain"
            with self.assertRaisesRegex(
                exception.VolumeDriverException, "plain"
            ):
                self.driver.create_volume(volume)
        self.assertIsNone(self.find_share(volume.id))

    def test_an_image(self):
        volume = self.encrypted()
        glance = Glance(self.raw(), "raw")
        with self.key(volume):
            cinderdb.save(volume, self.driver.create_volume(volume))
            self.download(volume, glance)
        self.assert_file(volume, 1)
        self.assertGreater(volumefile.luks_offset(self.header(volume)), 4096)
        for block in self.entries(volume)[volume.name].blocks.values():
            self.assertNotIn(b"content", block)
        self.assert_unmounted()
        self.assertEqual(self.raw(), self.decrypted(volume, 4 * MIB))

    def test_an_image_that_fits_only_without_the_header(self):
        volume = self.encrypted()
        glance = Glance(self.converted(bytes(MIB), "qcow2"), "qcow2")
        path = f"{self.directory}/image.o"
        subprocess.run(["qemu-img", "resize", "-q", path, "1G"], check=True)
        with open(path, "rb") as file:
            glance.data = file.read()
        with self.key(volume):
            cinderdb.save(volume, self.driver.create_volume(volume))
            with self.assertRaises(exception.ImageTooBig):
                self.download(volume, glance)
        self.assert_unmounted()

    def test_qemu_img_fails_for_once(self):
        """It may be unable to tell how long a key takes to derive."""
        path = f"{self.directory}/qemu-img"
        with open(path, "w") as file:
            file.write(_FAILS_ONCE)
        os.chmod(path, 0o700)
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{self.directory}:{before}"
        self.addCleanup(os.environ.__setitem__, "PATH", before)
        volume = self.encrypted()
        with self.key(volume):
            cinderdb.save(volume, self.driver.create_volume(volume))
        self.assertTrue(os.path.exists(f"{path}.failed"))
        self.assertGreater(volumefile.luks_offset(self.header(volume)), 4096)


class EncryptedTest(EncryptedCase):
    pass


class EncryptedMinimalVendorTest(base.WithoutVolumeFile, EncryptedCase):
    # Making a LUKS key takes seconds: once is enough to see the difference.
    test_an_image = None
    test_qemu_img_fails_for_once = None
    test_an_image_that_fits_only_without_the_header = None


del DownloadCase, EncryptedCase
