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

"""Encrypted volumes, by Cinder's manager and its key manager of one key.

What is written through QEMU's LUKS driver reads back after everything that
happens to a volume; cryptsetup opens each of them with the same passphrase.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import importlib
import logging
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

from cinder import objects
from cinder.db import api as db
from cinder.volume import volume_types

from acme_cinder import images
from acme_cinder import volumefile
from tests.unit.driver import cinderdb
from tests.unit.driver import imageflow

MIB = 1 << 20
GIB = 1 << 30
KEY = bytes(range(100, 132))
KEY_ID = "00000000-0000-0000-0000-000000000000"
_KEY_MANAGER = "cinder.keymgr.conf_key_mgr"
#: As os-brick, Nova and Cinder make it of the key.
PASSPHRASE = KEY.hex()
CRYPTSETUP = shutil.which("cryptsetup", path=os.defpath + ":/usr/sbin:/sbin")


class _Started:
    """The arguments and environments of all processes that are started.

    An audit hook cannot be removed, so there is one.
    """

    def __init__(self) -> None:
        self.seen: list[str] | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: Any) -> None:
        if self.seen is not None and event == "subprocess.Popen":
            self.seen.append(repr(arguments))


_started = _Started()


def encrypted_type() -> str:
    """Its id. Cinder's database is another one in each test."""
    context = cinderdb.context()
    made: str = volume_types.create(context, "encrypted")["id"]
    db.volume_type_encryption_create(
        context,
        made,
        {
            "provider": "luks",
            "cipher": "aes-xts-plain64",
            "key_size": 256,
            "control_location": "front-end",
        },
    )
    return made


class EncryptionCase(imageflow.ImageFlowCase):
    def setUp(self) -> None:
        super().setUp()
        # Its options come with it.
        importlib.import_module(_KEY_MANAGER)
        for name, value in (
            ("backend", f"{_KEY_MANAGER}.ConfKeyManager"),
            ("fixed_key", PASSPHRASE),
        ):
            cinderdb.CONF.set_override(name, value, "key_manager")
            self.addCleanup(cinderdb.CONF.clear_override, name, "key_manager")
        self.type_id = encrypted_type()
        self.secret = pathlib.Path(self.directory) / "secret"
        self.secret.write_text(PASSPHRASE)

    def encrypted(self, **values: Any) -> dict[str, Any]:
        return {
            "encryption_key_id": KEY_ID,
            "volume_type_id": self.type_id,
            **values,
        }

    def create_encrypted(self, **values: Any) -> objects.Volume:
        """As cinder-volume does, from what there is or from nothing."""
        volume = cinderdb.volume(**self.encrypted(**values))
        self.manager.create_volume(
            self.context,
            volume,
            request_spec=objects.RequestSpec.from_primitives(
                {
                    "volume_id": volume.id,
                    "snapshot_id": volume.snapshot_id,
                    "source_volid": volume.source_volid,
                    "volume_properties": {"size": volume.size},
                }
            ),
            filter_properties={},
            allow_reschedule=False,
        )
        made = cinderdb.reloaded(volume)
        self.assertEqual("available", made.status)
        return made

    # -- what a guest sees

    def qemu_io(self, path: str, *commands: str) -> str:
        """:raises CalledProcessError: a pattern is not there."""
        words = [word for each in commands for word in ("-c", each)]
        opened = f"driver=luks,key-secret=s,file.filename={path}"
        done = subprocess.run(
            ["qemu-io", "--object", f"secret,id=s,file={self.secret}"]
            + [*words, "--image-opts", opened],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        self.assertNotIn("failed", done.stdout)
        return done.stdout

    @contextlib.contextmanager
    def clear(self, volume: objects.Volume) -> Iterator[str]:
        with self.driver._shares.mounted(volume) as path:
            yield path

    def write(self, volume: objects.Volume, pattern: int, at: int) -> None:
        with self.clear(volume) as path:
            self.qemu_io(path, f"write -P {pattern} {at} 64k", "flush")

    def check(self, volume: objects.Volume, **patterns: int) -> None:
        """Its size in Cinder and less its header for the guest; the patterns
        by their place in MiB; cryptsetup agrees with QEMU."""
        self.assert_file(volume, volume.size)
        with self.clear(volume) as path:
            with open(path, "rb") as file:
                offset = volumefile.luks_offset(file.read(4096))
            out = self.qemu_io(
                path,
                *(
                    f"read -P {pattern} {place.strip('at_')}M 64k"
                    for place, pattern in patterns.items()
                ),
                # The last bytes that there are.
                f"read {volume.size * GIB - offset - 65536} 64k",
                "length",
            )
            self.assertEqual(len(patterns) + 1, out.count("65536/65536"))
            if CRYPTSETUP:
                self.check_with_cryptsetup(path, offset)
        self.assert_unmounted()

    def check_with_cryptsetup(self, path: str, offset: int) -> None:
        dump = subprocess.check_output(
            [CRYPTSETUP, "luksDump", path], text=True
        )
        self.assertRegex(dump, r"Version:\s+1\n")
        self.assertRegex(dump, r"Cipher mode:\s+xts-plain64\n")
        self.assertRegex(dump, rf"Payload offset:\s+{offset // 512}\n")
        subprocess.run(
            [CRYPTSETUP, "luksOpen", "--test-passphrase", "--key-file=-"]
            + [path],
            input=PASSPHRASE.encode(),
            check=True,
            timeout=120,
        )

    # -- what nobody may see

    @contextlib.contextmanager
    def nothing_told(self) -> Iterator[None]:
        """The passphrase is in no log, argument, environment and file."""
        forms = (PASSPHRASE, KEY.decode("latin-1"), repr(KEY))
        seen: list[str] = []
        _started.seen = seen
        executed = self.driver._execute

        def execute(*command: Any, **options: Any) -> Any:
            self.assertEqual([], self.files_with_the_key())
            try:
                return executed(*command, **options)
            finally:
                self.assertEqual([], self.files_with_the_key())

        self.driver._parts.images._execute = execute
        try:
            with self.assertLogs(level="DEBUG") as logs:
                logging.getLogger().debug("begin")
                yield
        finally:
            _started.seen = None
            self.driver._parts.images._execute = executed
        self.assertTrue(any("qemu-img" in each for each in seen), seen)
        for form in forms:
            for text in (*logs.output, *seen):
                self.assertNotIn(form, text)
        self.assertEqual([], os.listdir(cinderdb.CONF.image_conversion_dir))

    def files_with_the_key(self) -> list[str]:
        folder = pathlib.Path(cinderdb.CONF.image_conversion_dir)
        return [
            str(path)
            for path in folder.rglob("*")
            if path.is_file() and PASSPHRASE.encode() in path.read_bytes()
        ]


class LifeTest(EncryptionCase):
    def test_what_is_written_reads_back(self) -> None:
        volume = self.create_encrypted()
        self.write(volume, 0x11, MIB)
        self.write(volume, 0x12, 2 * MIB)
        self.check(volume, at_1=0x11, at_2=0x12)

        snapshot = self.snapshot(volume)
        self.write(volume, 0x22, 2 * MIB)
        older = self.create_encrypted(size=2, snapshot_id=snapshot.id)
        self.check(older, at_1=0x11, at_2=0x12)
        twin = self.clone(volume, size=3)
        self.check(twin, at_1=0x11, at_2=0x22)

        self.driver.extend_volume(volume, 2)
        volume.size = 2
        volume.save()
        self.write(volume, 0x33, 1500 * MIB)
        self.check(volume, at_1=0x11, at_2=0x22, at_1500=0x33)

    def clone(self, volume: objects.Volume, size: int) -> objects.Volume:
        """Without Cinder's manager, which attaches it by os-brick, as root,
        only to find that it changes no keys over NFS."""
        made = cinderdb.volume(
            **self.encrypted(size=size, source_volid=volume.id)
        )
        cinderdb.save(made, self.driver.create_cloned_volume(made, volume))
        return self.available(made)


class SecretTest(EncryptionCase):
    def test_create(self) -> None:
        with self.nothing_told():
            self.create_encrypted()

    def test_the_check_finds_a_file(self) -> None:
        """The one of the search itself."""
        folder = pathlib.Path(cinderdb.CONF.image_conversion_dir)
        path = folder / "luks_x"
        path.write_text(PASSPHRASE)
        self.addCleanup(path.unlink)
        self.assertEqual([str(path)], self.files_with_the_key())

    def test_the_passphrase_ends_with_the_call(self) -> None:
        volume = cinderdb.volume(**self.encrypted())
        encryption = {"encryption_key_id": KEY_ID}
        with images._passphrase_file(volume.obj_context, encryption) as path:
            self.assertEqual(PASSPHRASE, pathlib.Path(path).read_text())
            self.assertNotIn("/", os.readlink(path).removeprefix("/"))
        self.assertFalse(os.path.exists(path))
