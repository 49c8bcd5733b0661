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

"""Cinder's own way from an image to a volume, without its services."""

from __future__ import annotations

import datetime
import os
import subprocess
from typing import Any
import unittest.mock as unittest_mock
import uuid

from cinder import objects
from cinder import rpc
from cinder import utils
from cinder.db import api as db
from cinder.image import cache
from cinder.image import glance
from cinder.volume import manager

from tests.unit.driver import base
from tests.unit.driver import cinderdb

MIB = 1 << 20
CACHE_PROJECT = "0c5a" * 8


class Glance:
    """Has one image, and takes uploads."""

    def __init__(self, data: bytes, disk_format: str, **members: Any) -> None:
        self.data = data
        self.meta = {
            "id": str(uuid.uuid4()),
            "disk_format": disk_format,
            "container_format": "bare",
            "size": len(data),
            "name": "an image",
            "owner": cinderdb.PROJECT,
            "status": "active",
            "min_disk": 0,
            "min_ram": 0,
            "updated_at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
            "properties": {},
            **members,
        }
        self.location: tuple[str | None, list[dict[str, Any]]] = (None, [])
        self.downloads = 0
        self.uploaded: bytes | None = None
        self.temp_images = None

    def show(self, context: Any, image_id: str) -> dict[str, Any]:
        return dict(self.meta)

    def get_location(self, context: Any, image_id: str) -> Any:
        return self.location

    def download(self, context: Any, image_id: str, data: Any) -> None:
        self.downloads += 1
        data.write(self.data)

    def update(
        self, context: Any, image_id: str, meta: Any, data: Any, **kwargs: Any
    ) -> None:
        self.uploaded = data.read(64 * MIB)


class Scheduler:
    """Is told of volumes that could not be created here.

    :ivar asked: their ids.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []

    def create_volume(
        self, context: Any, volume: objects.Volume, **kwargs: Any
    ) -> None:
        self.asked.append(volume.id)


class Manager(manager.VolumeManager):
    """Cinder's, without all that starts a service."""

    def __init__(self, driver: Any, *, has_cache: bool) -> None:
        self.driver = driver
        self.db = db
        self.host = "ctl-1@acme"
        self.cluster = None
        self.service_uuid = None
        self.service_name = "volume"
        self.availability_zone = "nova"
        self.stats = {"pools": {}, "allocated_capacity_gb": 0}
        self.configuration = driver.configuration
        self.extra_capabilities: dict[str, Any] = {}
        self.message_api = unittest_mock.Mock()
        self.scheduler_rpcapi = Scheduler()
        self.image_volume_cache = (
            cache.ImageVolumeCache(db, self) if has_cache else None
        )

    def delete(self, context: Any, volume: objects.Volume) -> None:
        """As cinder-api, which the image cache asks for it."""
        entry = self.image_volume_cache.get_by_image_volume(context, volume.id)
        self.image_volume_cache.evict(context, entry)
        volume.status = "deleting"
        volume.save()
        self.delete_volume(context, volume)

    def publish_service_capabilities(self, context: Any) -> None:
        """Nobody asks for them here."""

    def _notify_about_volume_usage(self, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""


class ImageFlowCase(base.DriverTestCase):
    """Creates volumes from images with the flow of cinder-volume."""

    has_cache = False

    def setUp(self) -> None:
        super().setUp()
        os.makedirs(cinderdb.CONF.image_conversion_dir, exist_ok=True)
        for name in ("project", "user"):
            option = f"cinder_internal_tenant_{name}_id"
            cinderdb.CONF.set_override(option, CACHE_PROJECT)
            self.addCleanup(cinderdb.CONF.clear_override, option)
        for patch in (
            unittest_mock.patch.object(rpc, "NOTIFIER"),
            unittest_mock.patch.object(
                utils, "notifications_enabled", lambda conf: False
            ),
            unittest_mock.patch.object(
                glance,
                "get_remote_image_service",
                lambda context, image_id: (self.glance, image_id),
            ),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        self.manager = Manager(self.driver, has_cache=self.has_cache)
        self.host.forget()
        self.log.clear()

    def create_from(
        self, image: Glance, *, reschedules: bool = False, **values: Any
    ) -> objects.Volume:
        """As cinder-volume does.

        :param reschedules: as where the scheduler has asked for it.
        :raises CinderException: the volume is in error.
        """
        self.glance = image
        volume = cinderdb.volume(**values)
        spec = objects.RequestSpec.from_primitives(
            {
                "image_id": image.meta["id"],
                "volume_id": volume.id,
                "volume_properties": {"size": volume.size},
            }
        )
        self.manager.create_volume(
            self.context,
            volume,
            request_spec=spec,
            filter_properties={"retry": {"num_attempts": 1, "hosts": []}},
            allow_reschedule=reschedules,
        )
        return cinderdb.reloaded(volume)

    def assert_requests(self, **expected: int) -> None:
        """What the appliance was asked, by verb and thing."""
        self.assertEqual(expected, dict(self.log.counts))

    def content(self, volume: objects.Volume, offset: int, size: int) -> bytes:
        entry = self.entries(volume)[volume.name]
        start = offset - offset % 4096
        data = entry.read(start, 8192)
        return bytes(data[offset - start : offset - start + size])

    def raw(self, size: int = 4 * MIB) -> bytes:
        data = bytearray(size)
        data[8192 : 8192 + 7] = b"content"
        data[size - 7 : size] = b"the end"
        return bytes(data)

    def converted(self, data: bytes, to: str, *options: str) -> bytes:
        path = f"{self.directory}/image"
        with open(path, "wb") as file:
            file.write(data)
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", to, *options]
            + [path, f"{path}.o"],
            check=True,
        )
        with open(f"{path}.o", "rb") as file:
            return file.read()
