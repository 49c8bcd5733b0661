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

"""What the tests of manage and unmanage have in common."""

from __future__ import annotations

import subprocess
from typing import Any
from unittest import mock
import uuid

from cinder import objects
from cinder.db import api as db
from cinder.volume import manager
from cinder.volume import volume_utils

from acme_appliance.engines import base as engines
from acme_appliance.engines.memory import engine as memory
import acme_client
from tests.unit.driver import base
from tests.unit.driver import cinderdb

MIB = 1 << 20
NAME = "disk.img"


class Manager(manager.VolumeManager):
    """Cinder's, without all that starts a service."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.db = db
        self.host = driver.host
        self.cluster = None
        self.stats = {"pools": {}}

    def publish_service_capabilities(self, context: Any) -> None:
        """No scheduler listens."""


class ManageCase(base.DriverTestCase):
    """Shares that an operator has made, and Cinder's manager."""

    appliance_options: dict[str, Any] = {"pools": ("gold", "silver")}

    def setUp(self) -> None:
        super().setUp()
        self.operator = self.client(self.appliance.token)
        self.addCleanup(self.operator.close)
        self.manager = Manager(self.driver)
        for name in ("volume", "snapshot"):
            patch = mock.patch.object(
                volume_utils, f"notify_about_{name}_usage", autospec=True
            )
            patch.start()
            self.addCleanup(patch.stop)

    def restart(self, **options: Any) -> None:
        """Another service, with nothing in its memory."""
        self.driver = self.new_driver(**options)
        self.manager = Manager(self.driver)
        self.log.clear()

    def legacy(
        self,
        size_bytes: int = base.GIB,
        name: str = "legacy-db",
        pool: str = "gold",
        **given: Any,
    ) -> acme_client.Share:
        """A share with a file, of no volume."""
        spec = acme_client.VolumeFileSpec(name=NAME, mode="0640")
        share = self.operator.create_share(
            str(uuid.uuid4()),
            name=name,
            size_bytes=size_bytes,
            pool=pool,
            file=spec if self.volume_file else None,
            **given,
        )
        if not self.volume_file:
            self.files(share)[NAME] = memory.Entry(
                size_bytes=size_bytes, mode=0o640
            )
        self.write(share, b"what was there before")
        return share

    def files(self, share: acme_client.Share) -> dict[str, memory.Entry]:
        reference = engines.Reference(engines.Kind.SHARE, share.id)
        return self.appliance.engines[share.pool].entries(reference)

    def write(self, share: acme_client.Share, data: bytes) -> None:
        size = -(-len(data) // memory.BLOCK_BYTES) * memory.BLOCK_BYTES
        self.files(share)[NAME].write(0, data.ljust(size, b"\0"))

    def qcow2(self) -> bytes:
        path = f"{self.directory}/image"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", path, "1G"],
            check=True,
        )
        with open(path, "rb") as image:
            return image.read()

    # -- what Cinder does

    def new_row(self, **values: Any) -> objects.Volume:
        """As cinder-api makes it."""
        return cinderdb.volume(**{"size": 0, "status": "managing", **values})

    def manage(
        self, reference: dict[str, Any], **values: Any
    ) -> objects.Volume:
        volume = self.new_row(**values)
        self.manager.manage_existing(self.context, volume, reference)
        return cinderdb.reloaded(volume)

    def manage_share(
        self, share: acme_client.Share, **values: Any
    ) -> objects.Volume:
        return self.manage({"source-id": share.id}, **values)

    def unmanage(self, volume: objects.Volume) -> None:
        self.manager.delete_volume(self.context, volume, unmanage_only=True)

    def delete(self, volume: objects.Volume) -> None:
        """As cinder-api and the manager."""
        volume = cinderdb.reloaded(volume)
        managing = volume.status == "error_managing"
        volume.status = "error_managing_deleting" if managing else "deleting"
        volume.save()
        self.manager.delete_volume(self.context, volume)

    # -- what is there then

    def assert_content(self, volume: objects.Volume) -> None:
        reference = engines.Reference(
            engines.Kind.SHARE, volume.provider_id or volume.id
        )
        for engine in self.appliance.engines.values():
            if engine.exists(reference):
                entry = engine.entries(reference)[volume.name]
                self.assertIn(b"what was there before", entry.read(0, 4096))
                return
        self.fail(f"{volume.name} has no share")

    def assert_untouched(self, share: acme_client.Share) -> None:
        """As the operator has made it."""
        found = self.operator.get_share(share.id)
        for part in ("name", "size_bytes", "file", "labels", "access"):
            self.assertEqual(getattr(share, part), getattr(found, part))
        self.assertIn(NAME, self.files(share))
        self.assert_unmounted()
