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

"""Volumes that are clones: of a Glance image's volume, of Cinder's cache."""

from __future__ import annotations

import re
from typing import Any
import uuid

from cinder import exception
from cinder import objects

from tests.harness import transports
from tests.unit.driver import cinderdb
from tests.unit.driver import imageflow

OTHER_PROJECT = "0b5e" * 8
CLONE = {"PUT /v1/shares/{id}": 1}


def _creates_share(request: Any) -> bool:
    return bool(re.search("/v1/shares/[^/]+$", request.url))


class ImageVolumesTest(imageflow.ImageFlowCase):
    """An image whose location is ``cinder://``."""

    def setUp(self) -> None:
        super().setUp()
        self.source = self.create()
        entry = self.entries(self.source)[self.source.name]
        entry.write(8192, b"content".ljust(4096, b"."))
        self.image = imageflow.Glance(self.raw(), "raw")
        self.image.location = (f"cinder://{self.source.id}", [])
        self.host.forget()
        self.log.clear()

    def change_source(self, **values: Any) -> None:
        self.source.update(values)
        self.source.save()

    def assert_cloned(self, **values: Any) -> objects.Volume:
        volume = self.create_from(self.image, **values)
        self.assertEqual("available", volume.status)
        self.assertEqual(0, self.image.downloads)
        self.assertEqual(CLONE, self.creations())
        self.assertEqual([], self.host.commands)
        self.assertEqual(b"content", self.content(volume, 8192, 7))
        self.assertEqual(
            self.image.meta["id"], volume.glance_metadata["image_id"]
        )
        return volume

    def creations(self) -> dict[str, int]:
        """All requests but those for figures, which are cached."""
        return {
            name: count
            for name, count in self.log.counts.items()
            if not name.startswith("GET ")
        }

    def assert_copied(self, **values: Any) -> objects.Volume:
        with self.assertLogs("acme_cinder.imagevolumes", "INFO") as logs:
            volume = self.create_from(self.image, **values)
        self.assertEqual("available", volume.status)
        self.assertEqual(1, self.image.downloads)
        self.assertEqual(b"the end", self.content(volume, (4 << 20) - 7, 7))
        self.said = "".join(logs.output)
        return volume

    def test_it_is_cloned_with_one_request(self) -> None:
        volume = self.assert_cloned()
        self.assert_file(volume, 1)
        self.assertEqual({}, self.exported(volume))

    def test_the_clone_is_larger(self) -> None:
        self.assert_file(self.assert_cloned(size=3), 3)

    def test_the_locations_that_glance_has_since_2024(self) -> None:
        self.image.location = (
            None,
            [
                {"url": "file:///var/lib/glance/images/1", "metadata": {}},
                {"url": f"cinder://store-1/{self.source.id}", "metadata": {}},
            ],
        )
        self.assert_cloned()

    def test_a_clone_of_a_migrated_volume(self) -> None:
        other = self.create()
        self.entries(other)[other.name] = self.entries(self.source).pop(
            self.source.name
        )
        self.change_source(
            _name_id=other.id, provider_location=other.provider_location
        )
        self.log.clear()
        self.assert_cloned()

    def test_a_volume_of_glance_of_an_image_of_the_owner(self) -> None:
        self.change_source(
            project_id=OTHER_PROJECT,
            metadata={"image_owner": cinderdb.PROJECT},
        )
        self.assert_cloned()

    def test_a_public_image_of_somebody_else(self) -> None:
        self.change_source(project_id=OTHER_PROJECT)
        self.image.meta["owner"] = OTHER_PROJECT
        self.assert_cloned()

    def test_nobody_reads_a_volume_by_naming_it_in_a_location(self) -> None:
        """The image is one's own, the volume is not."""
        for metadata in ({}, {"image_owner": OTHER_PROJECT}):
            with self.subTest(metadata):
                self.change_source(project_id=OTHER_PROJECT, metadata=metadata)
                self.image.downloads = 0
                self.assert_copied()
                self.assertIn("does not belong", self.said)

    def test_an_image_without_an_owner(self) -> None:
        self.change_source(project_id=None)
        self.image.meta["owner"] = None
        self.assert_copied()

    def test_a_volume_in_another_pool(self) -> None:
        self.change_source(host="ctl-1@acme#silver")
        self.assert_copied()
        self.assertIn("ctl-1@acme#silver", self.said)

    def test_a_larger_volume(self) -> None:
        self.change_source(size=2)
        self.assert_copied()

    def test_an_encrypted_volume(self) -> None:
        self.change_source(encryption_key_id=str(uuid.uuid4()))
        self.assert_copied()

    def test_a_volume_being_deleted(self) -> None:
        self.change_source(status="deleting")
        self.assert_copied()

    def test_a_volume_that_there_is_not(self) -> None:
        self.image.location = (f"cinder://{uuid.uuid4()}", [])
        self.assert_copied()

    def test_an_image_to_be_verified(self) -> None:
        self.image.meta["properties"] = {"img_signature": "c2lnbmVk"}
        self.glance = self.image
        volume = cinderdb.volume()
        with self.assertLogs("acme_cinder.imagevolumes", "INFO") as logs:
            found = self.driver.clone_image(
                self.context,
                volume,
                self.image.location,
                self.image.meta,
                self.image,
            )
        self.assertEqual((None, False), found)
        self.assertIn("signature", logs.output[0])
        self.assertEqual({}, self.creations())

    def test_an_image_that_is_not_raw(self) -> None:
        self.image.data = self.converted(self.raw(), "qcow2")
        self.image.meta["disk_format"] = "qcow2"
        self.assert_copied()

    def test_a_location_elsewhere(self) -> None:
        for url in ("rbd://1/2/3/snap", "cinder://no-id", None):
            with self.subTest(url):
                self.image.location = (url, [])
                self.image.downloads = 0
                volume = self.create_from(self.image)
                self.assertEqual("available", volume.status)
                self.assertEqual(1, self.image.downloads)

    def test_it_is_copied_where_the_clone_fails(self) -> None:
        self.driver = self.new_driver(
            [transports.problem(507, "limit.snapshots")],
            matches=_creates_share,
        )
        self.manager.driver = self.driver
        self.assert_copied()
        self.assertIn("cannot be cloned", self.said)


class ImageCacheTest(imageflow.ImageFlowCase):
    """As ``image_volume_cache_enabled`` has it."""

    has_cache = True

    def cached(self) -> list[objects.Volume]:
        return [
            volume
            for volume in objects.VolumeList.get_all(self.context)
            if volume.project_id == imageflow.CACHE_PROJECT
        ]

    def test_every_further_volume_is_one_clone(self) -> None:
        image = imageflow.Glance(self.converted(self.raw(), "qcow2"), "qcow2")
        first = self.create_from(image, size=2)
        self.assert_file(first, 2)
        self.assertEqual(1, self.host.count("mount"))
        self.assert_unmounted()
        (kept,) = self.cached()
        self.assert_file(kept, 1)
        for size in (1, 3):
            with self.subTest(size):
                self.log.clear()
                self.host.forget()
                volume = self.create_from(image, size=size)
                self.assert_file(volume, size)
                self.assertEqual(b"content", self.content(volume, 8192, 7))
                self.assertEqual(CLONE, dict(self.log.counts))
                self.assertEqual([], self.host.commands)
        self.assertEqual(1, image.downloads)

    def test_a_volume_that_takes_no_more_clones_is_replaced(self) -> None:
        """Cinder reschedules: its own retry is one attempt in all."""
        image = imageflow.Glance(self.raw(), "raw")
        self.create_from(image)
        (worn,) = self.cached()
        self.use_driver_that_meets(transports.problem(507, "limit.snapshots"))
        with self.assertRaises(exception.SnapshotLimitReached):
            self.create_from(image, reschedules=True)
        self.assertEqual(1, len(self.manager.scheduler_rpcapi.asked))
        self.assertEqual([], self.cached())
        self.assertIsNone(self.find_share(worn.id))
        again = self.create_from(image)
        self.assertEqual(b"content", self.content(again, 8192, 7))
        (fresh,) = self.cached()
        self.assertNotEqual(worn.id, fresh.id)
        self.assertEqual(2, image.downloads)

    def use_driver_that_meets(self, fault: transports.Fault) -> None:
        self.driver = self.new_driver([fault], matches=_creates_share)
        self.manager.driver = self.driver

    def test_a_volume_that_is_gone(self) -> None:
        image = imageflow.Glance(self.raw(), "raw")
        self.create_from(image)
        (lost,) = self.cached()
        self.driver.delete_volume(lost)
        volume = self.create_from(image)
        self.assertEqual("available", volume.status)
        self.assertEqual(b"content", self.content(volume, 8192, 7))
