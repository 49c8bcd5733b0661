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

"""Images that are made to do harm, and volumes that are made to be images.

What is refused is refused before a byte is on the volume; by the flow of
cinder-volume, and where the driver alone fetches the image, as for a reimage.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import tarfile
from typing import Any
import zlib

from cinder import exception

from acme_appliance.engines import base as engines
from tests.unit.driver import cinderdb
from tests.unit.driver import imageflow

GIB = 1 << 30
MIB = 1 << 20
SECRET = b"not for guests"
#: A disk whose data is in another file; qemu-img finds out that it is one.
_DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW 2048 FLAT "{path}" 0
"""


class HostileCase(imageflow.ImageFlowCase):
    def setUp(self) -> None:
        super().setUp()
        self.secret = f"{self.directory}/secret"
        with open(self.secret, "wb") as file:
            file.write(SECRET.ljust(MIB, b"."))

    def descriptor(self) -> bytes:
        text = _DESCRIPTOR.format(path=self.secret)
        return text.encode().ljust(MIB, b"\0")

    def made(self, *arguments: str) -> bytes:
        """The file that ``qemu-img create`` makes."""
        path = f"{self.directory}/made"
        subprocess.run(
            ["qemu-img", "create", "-q", *arguments[:-1], path, arguments[-1]],
            check=True,
        )
        with open(path, "rb") as file:
            return file.read()

    def refusal_of(
        self, data: bytes, disk_format: str, container: str = "bare"
    ) -> str:
        """What is said of an image, the driver's own way last."""

        def image() -> imageflow.Glance:
            return imageflow.Glance(
                data, disk_format, container_format=container
            )

        with self.assertRaises(exception.CinderException):
            self.create_from(image())
        self.assert_nothing_written()
        volume = self.create()
        own = image()
        with self.assertRaises(exception.CinderException) as raised:
            self.driver.copy_image_to_volume(
                self.context, volume, own, own.meta["id"]
            )
        self.assert_nothing_written()
        self.assert_unmounted()
        self.assertEqual([], os.listdir(self.conversions()))
        return str(raised.exception)

    def conversions(self) -> str:
        return str(cinderdb.CONF.image_conversion_dir)

    def assert_nothing_written(self) -> None:
        for engine in self.appliance.engines.values():
            for id_ in engine.ids(engines.Kind.SHARE):
                reference = engines.Reference(engines.Kind.SHARE, id_)
                for entry in engine.entries(reference).values():
                    self.assertEqual({}, entry.blocks)


class HostileImagesTest(HostileCase):
    def test_a_backing_file(self) -> None:
        self.refusal_of(
            self.made("-f", "qcow2", "-F", "raw", "-b", self.secret, "1M"),
            "qcow2",
        )

    def test_a_data_file(self) -> None:
        options = f"data_file={self.secret},data_file_raw=on"
        self.refusal_of(self.made("-f", "qcow2", "-o", options, "1M"), "qcow2")

    def test_a_data_file_by_its_header(self) -> None:
        """With the feature bit, and a name that is added behind the header."""
        data = bytearray(self.made("-f", "qcow2", "-o", "compat=1.1", "1M"))
        (features,) = struct.unpack_from(">Q", data, 72)
        struct.pack_into(">Q", data, 72, features | 4)
        self.refusal_of(bytes(data), "qcow2")

    def test_another_format_than_is_said(self) -> None:
        real = {
            name: self.converted(self.raw(), name)
            for name in ("raw", "qcow2", "vmdk")
        }
        for said in ("raw", "qcow2", "vmdk", "vhdx", "vdi", "iso"):
            for name, data in real.items():
                same = name == said or {name, said} == {"raw", "iso"}
                if not same:
                    with self.subTest(f"{name} said to be {said}"):
                        self.assertIn("format", self.refusal_of(data, said))

    def test_extents_elsewhere(self) -> None:
        self.refusal_of(self.descriptor(), "vmdk")

    def test_extents_elsewhere_behind_a_header(self) -> None:
        data = self.converted(
            self.raw(), "vmdk", "-o", "subformat=streamOptimized"
        )
        start = data.index(b"# Disk DescriptorFile")
        extent = f'RW 2048 FLAT "{self.secret}" 0\n'.encode()
        end = data.index(b"RW ", start)
        length = data.index(b"\n", end) + 1 - end
        changed = data[:end] + extent + data[end + length :]
        changed = changed[: start + 1024] + data[start + 1024 :]
        self.refusal_of(changed, "vmdk")

    def test_formats_that_qemu_img_would_find_out(self) -> None:
        """Extents of a guessed vmdk are files of the Cinder host."""
        for said in ("ami", "aki", "ari"):
            for data in (self.descriptor(), self.raw()):
                with self.subTest(said):
                    self.assertIn(
                        f"{said} is not supported",
                        self.refusal_of(data, said),
                    )

    def test_formats_that_there_are_elsewhere(self) -> None:
        for said in ("vhd", "ploop", "qed", "luks"):
            with self.subTest(said):
                self.assertIn(
                    "raw, qcow2, vmdk, vhdx, vdi, iso",
                    self.refusal_of(self.raw(), said),
                )

    def test_an_archive_of_xenserver(self) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w:gz") as archive:
            link = tarfile.TarInfo("0.vhd")
            link.type = tarfile.SYMTYPE
            link.linkname = self.secret
            archive.addfile(link)
        self.assertIn(
            "vhd is not supported",
            self.refusal_of(made.getvalue(), "vhd", "ovf"),
        )

    def test_larger_than_the_volume(self) -> None:
        for disk_format in ("qcow2", "vmdk", "vdi", "vhdx"):
            with self.subTest(disk_format):
                self.assertIn(
                    "fit",
                    self.refusal_of(
                        self.made("-f", disk_format, "2G"), disk_format
                    ),
                )

    def test_an_absurd_size(self) -> None:
        data = bytearray(self.made("-f", "qcow2", "1M"))
        struct.pack_into(">Q", data, 24, (1 << 63) - 512)
        self.refusal_of(bytes(data), "qcow2")


class PackedImagesTest(HostileCase):
    """Compressed as a whole, which Cinder does where it is told to."""

    def setUp(self) -> None:
        super().setUp()
        name = "allow_compression_on_image_upload"
        cinderdb.CONF.set_override(name, True)
        self.addCleanup(cinderdb.CONF.clear_override, name)

    def test_not_unless_the_operator_says_so(self) -> None:
        cinderdb.CONF.set_override("allow_compression_on_image_upload", False)
        self.refusal_of(gzip.compress(self.raw()), "raw", "compressed")

    def test_a_bomb(self) -> None:
        """2 GiB in 2 MB; of what it really has, not of what it says."""
        packer = zlib.compressobj(wbits=31)
        parts = [packer.compress(bytes(MIB)) for _ in range(2048)]
        bomb = b"".join([*parts, packer.flush()])[:-4] + bytes(4)
        for data in (bomb, gzip.compress(b"") + bomb):
            with self.subTest(len(data)):
                self.assertIn(
                    "unpacked, it is larger",
                    self.refusal_of(data, "raw", "compressed"),
                )

    def test_no_gzip(self) -> None:
        self.refusal_of(self.raw(), "raw", "compressed")

    def test_a_hostile_one_inside(self) -> None:
        data = self.made("-f", "qcow2", "-F", "raw", "-b", self.secret, "1M")
        self.refusal_of(gzip.compress(data), "qcow2", "compressed")

    def test_there_and_back(self) -> None:
        for disk_format in ("raw", "qcow2"):
            with self.subTest(disk_format):
                data = self.raw()
                if disk_format != "raw":
                    data = self.converted(data, disk_format)
                image = imageflow.Glance(
                    gzip.compress(data),
                    disk_format,
                    container_format="compressed",
                )
                volume = self.create_from(image)
                self.assertEqual(b"content", self.content(volume, 8192, 7))
                self.driver.copy_volume_to_image(
                    self.context, volume, image, image.meta
                )
                again = imageflow.Glance(
                    self.uploaded(image),
                    disk_format,
                    container_format="compressed",
                )
                volume = self.create_from(again)
                self.assertEqual(b"content", self.content(volume, 8192, 7))
                self.assertEqual([], os.listdir(self.conversions()))

    def uploaded(self, image: imageflow.Glance) -> bytes:
        self.assertIsNotNone(image.uploaded)
        return image.uploaded or b""


class HostileVolumesTest(HostileCase):
    """A guest writes on its disk what makes qemu-img read other files."""

    def upload(self, content: bytes, disk_format: str, **meta: Any) -> bytes:
        volume = self.create()
        entry = self.entries(volume)[volume.name]
        for start in range(0, len(content), 4096):
            block = content[start : start + 4096]
            if block.strip(b"\0"):
                entry.write(start, block.ljust(4096, b"\0"))
        image = imageflow.Glance(b"", disk_format, **meta)
        self.driver.copy_volume_to_image(
            self.context, cinderdb.reloaded(volume), image, image.meta
        )
        self.assertEqual([], os.listdir(self.conversions()))
        return image.uploaded or b""

    def unpacked(self, data: bytes, disk_format: str) -> bytes:
        path = f"{self.directory}/unpacked"
        with open(path, "wb") as file:
            file.write(data)
        names = {"vhd": "vpc", "iso": "raw"}
        subprocess.run(
            ["qemu-img", "convert", "-f", names.get(disk_format, disk_format)]
            + ["-O", "raw", path, f"{path}.raw"],
            check=True,
        )
        with open(f"{path}.raw", "rb") as file:
            return file.read(MIB)

    def test_it_is_uploaded_as_it_is(self) -> None:
        hostile = {
            "extents elsewhere": self.descriptor(),
            "a backing file": self.made(
                *("-f", "qcow2", "-F", "raw", "-b", self.secret, "1M")
            ),
            "another size": self.made("-f", "qcow2", "1T"),
        }
        for what, content in hostile.items():
            for disk_format in ("raw", "qcow2", "vmdk", "vhd", "vdi", "iso"):
                with self.subTest(f"{what} to {disk_format}"):
                    data = self.upload(content, disk_format)
                    self.assertNotIn(SECRET, data)
                    self.assertEqual(
                        content[:4096],
                        self.unpacked(data, disk_format)[: len(content)][
                            :4096
                        ],
                    )


del HostileCase
