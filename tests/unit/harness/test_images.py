# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The demonstration's image service, as Cinder's own image code sees it."""

import io
import pathlib
import tempfile
import threading
import unittest
import uuid

from cinder import context
from cinder import exception
from cinder.image import image_utils
import glanceclient
from oslo_config import cfg
import requests

from tests.harness import images


class ImagesTestCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.server = images.serve(0, pathlib.Path(folder.name))
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def test_glanceclient_stores_and_reads(self) -> None:
        client = glanceclient.Client("2", self.url)
        image = client.images.create(
            name="one", disk_format="raw", container_format="bare"
        )
        self.assertEqual("queued", image.status)
        data = b"x" * (images.CHUNK_BYTES * 2 + 1)
        client.images.upload(image.id, io.BytesIO(data))
        stored = client.images.get(image.id)
        self.assertEqual(("active", len(data)), (stored.status, stored.size))
        # glanceclient compares the hash while it reads.
        self.assertEqual(data, b"".join(client.images.data(image.id)))
        client.images.update(image.id, min_disk=1, os_type="linux")
        changed = client.images.get(image.id)
        self.assertEqual((1, "linux"), (changed.min_disk, changed.os_type))
        self.assertEqual([image.id], [i.id for i in client.images.list()])
        client.images.delete(image.id)
        self.assertEqual([], list(client.images.list()))

    def test_data_is_stored_once(self) -> None:
        client = glanceclient.Client("2", self.url)
        image = client.images.create(
            disk_format="raw", container_format="bare"
        )
        client.images.upload(image.id, io.BytesIO(b"first"))
        with self.assertRaises(glanceclient.exc.HTTPConflict):
            client.images.upload(image.id, io.BytesIO(b"second"))
        self.assertEqual(b"first", b"".join(client.images.data(image.id)))

    def test_what_is_not_there(self) -> None:
        client = glanceclient.Client("2", self.url)
        with self.assertRaises(glanceclient.exc.HTTPNotFound):
            client.images.get(str(uuid.uuid4()))
        reply = requests.get(f"{self.url}/v2/nonsense", timeout=60)
        self.assertEqual(404, reply.status_code)
        reply = requests.post(f"{self.url}/v2/images", data="{", timeout=60)
        self.assertEqual(400, reply.status_code)

    def test_cinders_image_code_works_with_it(self) -> None:
        cfg.CONF.set_override("glance_api_servers", [self.url])
        cfg.CONF.set_override("auth_strategy", "noauth")
        self.addCleanup(cfg.CONF.clear_override, "glance_api_servers")
        self.addCleanup(cfg.CONF.clear_override, "auth_strategy")
        ctxt = context.RequestContext("user", "project", is_admin=True)
        service = image_utils.glance.get_default_image_service()
        image = service.create(
            ctxt,
            {
                "name": "from cinder",
                "disk_format": "raw",
                "container_format": "bare",
                "properties": {"os_type": "linux"},
            },
        )
        service.update(ctxt, image["id"], {}, io.BytesIO(b"content"))
        out = io.BytesIO()
        service.download(ctxt, image["id"], out)
        self.assertEqual(b"content", out.getvalue())
        self.assertEqual((None, []), service.get_location(ctxt, image["id"]))
        shown = service.show(ctxt, image["id"])
        self.assertEqual("active", shown["status"])
        self.assertEqual("linux", shown["properties"]["os_type"])
        service.delete(ctxt, image["id"])
        with self.assertRaises(exception.ImageNotFound):
            service.show(ctxt, image["id"])
