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

"""Volumes of images by a real Cinder: one copy, then clones."""

import pathlib
import re
import subprocess
import tempfile
from typing import Any

import requests

from tests.e2e import base
from tests.harness import content
from tests.harness import processes
from tests.harness import stack

WAIT_SECONDS = 240
INTERNAL_PROJECT = "0c5a" * 8
MIB = 1 << 20


class ImageCacheTestCase(base.E2ETestCase):
    cinder_options = (
        f"cinder_internal_tenant_project_id = {INTERNAL_PROJECT}\n"
        f"cinder_internal_tenant_user_id = {INTERNAL_PROJECT}\n"
    )
    backend_options = (
        "image_volume_cache_enabled = True\n"
        "image_upload_use_cinder_backend = True\n"
    )

    def image_call(
        self, method: str, path: str, **arguments: Any
    ) -> requests.Response:
        reply = requests.request(
            method,
            f"{self.machine.images_url}/v2/images{path}",
            timeout=WAIT_SECONDS,
            **arguments,
        )
        self.assertTrue(reply.ok, reply.text)
        return reply

    def image(self, disk_format: str) -> str:
        """An image with a pattern in 64 MiB; sets ``self.digest``."""
        with tempfile.TemporaryDirectory(dir=self._folder) as made:
            raw = pathlib.Path(made) / "raw"
            with raw.open("wb") as out:
                out.truncate(64 * MIB)
            content.write_pattern(str(raw), "image")
            self.digest = content.digest(str(raw))
            data = pathlib.Path(made) / "data"
            subprocess.run(
                ["qemu-img", "convert", "-f", "raw", "-O", disk_format]
                + [str(raw), str(data)],
                check=True,
                timeout=WAIT_SECONDS,
            )
            image_id = self.image_call(
                "POST",
                "",
                json={
                    "name": "image",
                    "disk_format": disk_format,
                    "container_format": "bare",
                    "owner": stack.PROJECT_ID,
                },
            ).json()["id"]
            with data.open("rb") as body:
                self.image_call("PUT", f"/{image_id}/file", data=body)
        self.addCleanup(self.image_call, "DELETE", f"/{image_id}")
        return str(image_id)

    def downloads(self) -> int:
        log = (self.machine.logs / "images.log").read_text()
        return len(re.findall(r'"GET /v2/images/[0-9a-f-]+/file ', log))

    def assert_only_cloned(self, volume_id: str) -> None:
        """Nothing was written to it from this host."""
        log = (self.machine.logs / "cinder.log").read_text()
        self.assertNotRegex(log, f"Wrote image .* volume-{volume_id},")
        self.assertRegex(log, f"Cloned .*volume-{volume_id},")

    def create(self, image_id: str, size: int = 1) -> str:
        made = self.cinder.volumes.create(size, imageRef=image_id)
        self.wait(made.id, "available")
        return str(made.id)

    def wait(self, volume_id: str, status: str) -> None:
        processes.wait_until(
            lambda: self.status(volume_id) in (status, "error"),
            f"{volume_id} to be {status}",
            timeout_seconds=WAIT_SECONDS,
        )
        self.assertEqual(status, self.status(volume_id))

    def status(self, volume_id: str) -> str:
        return str(self.cinder.volumes.get(volume_id).status)

    def check_content(self, volume_id: str) -> None:
        attached = self.host.attach(volume_id)
        try:
            self.assertEqual(self.digest, content.digest(str(attached.path)))
        finally:
            self.host.detach(attached)
            self.wait(volume_id, "available")

    def delete_all(self) -> None:
        listed = {"all_tenants": True}
        for volume in self.cinder.volumes.list(search_opts=listed):
            self.cinder.volumes.delete(volume.id)
        processes.wait_until(
            lambda: not self.cinder.volumes.list(search_opts=listed),
            "the end of all volumes",
            timeout_seconds=WAIT_SECONDS,
        )
        self.assert_nothing_left()

    def test_further_volumes_are_clones(self) -> None:
        image_id = self.image("qcow2")
        before = self.downloads()
        first = self.create(image_id)
        self.assertEqual(before + 1, self.downloads())
        self.assertEqual(2, len(self.view.all_ids("shares")))
        for size in (1, 3):
            with self.subTest(size):
                volume_id = self.create(image_id, size)
                self.assert_only_cloned(volume_id)
                self.check_content(volume_id)
        self.check_content(first)
        self.assertEqual(before + 1, self.downloads())
        self.assertEqual(4, len(self.view.all_ids("shares")))
        self.delete_all()

    def test_a_volume_uploaded_as_a_volume(self) -> None:
        """Upload and download are one clone each."""
        volume_id = self.create(self.image("qcow2"))
        before = self.downloads()
        _, body = self.cinder.volumes.upload_to_image(
            volume_id, False, "uploaded", "bare", "raw", "shared", False
        )
        image_id = body["os-volume_upload_image"]["image_id"]
        self.addCleanup(self.image_call, "DELETE", f"/{image_id}")
        self.wait(volume_id, "available")
        image = self.image_call("GET", f"/{image_id}").json()
        self.assertEqual("active", image["status"])
        self.assertRegex(image["direct_url"], "^cinder://")
        # The image service knows no users; Glance does.
        owner = {"op": "replace", "path": "/owner", "value": stack.PROJECT_ID}
        self.image_call("PATCH", f"/{image_id}", json=[owner])
        again = self.create(image_id, 2)
        self.assert_only_cloned(again)
        self.check_content(again)
        self.assertEqual(before, self.downloads())
        self.delete_all()
