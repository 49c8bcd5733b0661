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

"""Every disk format that is supported, there and back, by Cinder's flow."""

from __future__ import annotations

import subprocess

from cinder import objects

from tests.unit.driver import cinderdb
from tests.unit.driver import imageflow

MIB = 1 << 20
#: Glance's name to that of qemu-img.
FORMATS = {
    "raw": "raw",
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "vhd": "vpc",
    "vhdx": "vhdx",
    "vdi": "vdi",
    "iso": "raw",
}


class FormatsTest(imageflow.ImageFlowCase):
    def test_download(self) -> None:
        for disk_format, name in FORMATS.items():
            if disk_format == "vhd":
                # Refused, see test_hostile_images.
                continue
            with self.subTest(disk_format):
                data = self.converted(self.raw(), name)
                self.check(
                    self.create_from(imageflow.Glance(data, disk_format))
                )

    def test_a_vmdk_to_be_streamed(self) -> None:
        data = self.converted(
            self.raw(), "vmdk", "-o", "subformat=streamOptimized"
        )
        self.check(self.create_from(imageflow.Glance(data, "vmdk")))

    def check(self, volume: objects.Volume) -> None:
        self.assert_file(volume, 1)
        self.assertEqual(b"content", self.content(volume, 8192, 7))
        self.assertEqual(b"the end", self.content(volume, 4 * MIB - 7, 7))
        self.assert_unmounted()

    def test_upload(self) -> None:
        volume = self.create_from(imageflow.Glance(self.raw(), "raw"))
        for disk_format, name in FORMATS.items():
            with self.subTest(disk_format):
                image = imageflow.Glance(b"", disk_format)
                self.driver.copy_volume_to_image(
                    self.context,
                    cinderdb.reloaded(volume),
                    image,
                    image.meta,
                )
                self.assertEqual(
                    self.raw(), self.unpacked(image.uploaded or b"", name)
                )

    def unpacked(self, data: bytes, name: str) -> bytes:
        path = f"{self.directory}/unpacked"
        with open(path, "wb") as file:
            file.write(data)
        subprocess.run(
            ["qemu-img", "convert", "-f", name, "-O", "raw", path]
            + [f"{path}.raw"],
            check=True,
        )
        with open(f"{path}.raw", "rb") as file:
            return file.read(len(self.raw()))
