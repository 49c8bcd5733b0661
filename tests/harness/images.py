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

"""A minimal image service for Cinder's image code.

Image API v2: create, list, show, update (JSON patch), delete, upload and
download of data, locations, and the image schema, which glanceclient reads
first. Images are stored in a folder and checked by their hashes. There are no
users, no sharing and no back ends: it replaces Glance in a demonstration.

Run it: ``python -m tests.harness.images PORT FOLDER``.
"""

from collections.abc import Iterator
import datetime
import hashlib
import html
import http.server
import json
import pathlib
import re
import sys
import threading
from typing import Any
from typing import ClassVar
import uuid

from tests.harness import httpserver

CHUNK_BYTES = 1 << 20
_SETTABLE = ("name", "disk_format", "container_format", "visibility")
_SIZES = ("min_disk", "min_ram")

SCHEMA = {
    "name": "image",
    "properties": {
        **{
            name: {"type": ["null", "string"]}
            for name in (
                "id",
                *_SETTABLE,
                "status",
                "owner",
                "checksum",
                "os_hash_algo",
                "os_hash_value",
                "created_at",
                "updated_at",
                "file",
                "self",
                "schema",
                "direct_url",
            )
        },
        **{
            name: {"type": ["null", "integer"]}
            for name in (*_SIZES, "size", "virtual_size")
        },
        "tags": {"type": "array", "items": {"type": "string"}},
        "locations": {"type": "array", "items": {"type": "object"}},
        "protected": {"type": "boolean"},
        "os_hidden": {"type": "boolean"},
    },
    "additionalProperties": {"type": "string"},
}


class NotFound(Exception):
    """The image does not exist, or has no data."""


class Conflict(Exception):
    """The image's state does not allow this."""


def _now() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def _add_location(image: dict[str, Any], location: dict[str, Any]) -> None:
    """Data that is elsewhere already; nobody looks there."""
    image["locations"].append(location)
    image["direct_url"] = image["locations"][0]["url"]
    if image["status"] == "queued":
        image.update(status="active", size=0)


class Store:
    """Images in a folder: ``ID.json`` and ``ID.data``. Thread-safe."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def data_path(self, image_id: str) -> pathlib.Path:
        return self._folder / f"{image_id}.data"

    def get(self, image_id: str) -> dict[str, Any]:
        try:
            text = (self._folder / f"{image_id}.json").read_text()
        except FileNotFoundError:
            raise NotFound(image_id) from None
        image: dict[str, Any] = json.loads(text)
        return image

    def all(self) -> list[dict[str, Any]]:
        paths = sorted(self._folder.glob("*.json"))
        return [json.loads(path.read_text()) for path in paths]

    def _write(self, image: dict[str, Any]) -> dict[str, Any]:
        image["updated_at"] = _now()
        path = self._folder / f"{image['id']}.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps(image))
        new.replace(path)
        return image

    def create(self, wanted: dict[str, Any], owner: str) -> dict[str, Any]:
        image_id = wanted.pop("id", None) or str(uuid.uuid4())
        image = {
            "id": image_id,
            "status": "queued",
            "visibility": "shared",
            "owner": owner,
            "size": None,
            "virtual_size": None,
            "checksum": None,
            "os_hash_algo": None,
            "os_hash_value": None,
            "min_disk": 0,
            "min_ram": 0,
            "protected": False,
            "os_hidden": False,
            "tags": [],
            "locations": [],
            "created_at": _now(),
            "self": f"/v2/images/{image_id}",
            "file": f"/v2/images/{image_id}/file",
            "schema": "/v2/schemas/image",
            **wanted,
        }
        with self._lock:
            return self._write(image)

    def patch(self, image_id: str, changes: list[Any]) -> dict[str, Any]:
        with self._lock:
            image = self.get(image_id)
            for change in changes:
                name = change["path"].lstrip("/")
                if name == "locations/-":
                    _add_location(image, change["value"])
                elif change["op"] == "remove":
                    image.pop(name, None)
                else:
                    image[name] = change["value"]
            return self._write(image)

    def upload(self, image_id: str, chunks: Iterator[bytes]) -> None:
        with self._lock:
            image = self.get(image_id)
            if image["status"] != "queued":
                raise Conflict(f"the image is {image['status']}")
            image["status"] = "saving"
            self._write(image)
        md5 = hashlib.md5(usedforsecurity=False)
        sha512 = hashlib.sha512()
        size = 0
        with self.data_path(image_id).open("wb") as out:
            for chunk in chunks:
                out.write(chunk)
                md5.update(chunk)
                sha512.update(chunk)
                size += len(chunk)
        with self._lock:
            image = self.get(image_id)
            image.update(
                status="active",
                size=size,
                checksum=md5.hexdigest(),
                os_hash_algo="sha512",
                os_hash_value=sha512.hexdigest(),
            )
            self._write(image)

    def delete(self, image_id: str) -> None:
        with self._lock:
            self.get(image_id)
            self.data_path(image_id).unlink(missing_ok=True)
            (self._folder / f"{image_id}.json").unlink()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the requests of a kept-alive connection."""

    protocol_version = "HTTP/1.1"
    store: ClassVar[Store]
    _ROUTES: ClassVar[list[tuple[str, re.Pattern[str], str]]] = [
        (verb, re.compile(pattern), name)
        for verb, pattern, name in (
            ("GET", r"/(?:versions|v2/?)?", "versions"),
            ("GET", r"/v2/schemas/image", "schema"),
            ("GET", r"/v2/images", "index"),
            ("POST", r"/v2/images", "create"),
            ("GET", r"/v2/images/([0-9a-f-]{36})", "show"),
            ("PATCH", r"/v2/images/([0-9a-f-]{36})", "patch"),
            ("DELETE", r"/v2/images/([0-9a-f-]{36})", "delete"),
            ("GET", r"/v2/images/([0-9a-f-]{36})/file", "download"),
            ("PUT", r"/v2/images/([0-9a-f-]{36})/file", "upload"),
        )
    ]

    def _route(self) -> tuple[str, tuple[str, ...]]:
        path = self.path.partition("?")[0]
        for verb, pattern, name in self._ROUTES:
            if verb == self.command and (match := pattern.fullmatch(path)):
                return name, match.groups()
        return "unknown", ()

    def _unknown(self) -> None:
        self._refuse(404, "no such resource")

    def _dispatch(self) -> None:
        name, arguments = self._route()
        try:
            getattr(self, f"_{name}")(*arguments)
        except NotFound as error:
            self._refuse(404, f"no image {error}")
        except Conflict as error:
            self._refuse(409, str(error))
        except (ValueError, KeyError, TypeError) as error:
            self._refuse(400, f"bad request: {error!r}")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _dispatch

    def _refuse(self, status: int, message: str) -> None:
        # The request may not have been read completely.
        self.close_connection = True
        data = html.escape(message).encode()
        self._reply(status, "text/html; charset=UTF-8", data)

    def _json(self, status: int, body: Any) -> None:
        self._reply(status, "application/json", json.dumps(body).encode())

    def _reply(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _empty(self) -> None:
        self.send_response(204)
        self.end_headers()

    def _chunks(self) -> Iterator[bytes]:
        """The request's body, with Content-Length or chunked."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            left = int(self.headers.get("Content-Length", 0))
            while left > 0:
                chunk = self.rfile.read(min(left, CHUNK_BYTES))
                if not chunk:
                    raise ValueError("the body ended early")
                left -= len(chunk)
                yield chunk
            return
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _body(self) -> Any:
        return json.loads(b"".join(self._chunks()))

    def _versions(self) -> None:
        version = {
            "id": "v2.9",
            "status": "CURRENT",
            "links": [{"rel": "self", "href": "/v2/"}],
        }
        status = 200 if self.path == "/versions" else 300
        self._json(status, {"versions": [version]})

    def _schema(self) -> None:
        self._json(200, SCHEMA)

    def _index(self) -> None:
        images = [] if "marker=" in self.path else self.store.all()
        self._json(
            200,
            {
                "images": images,
                "schema": "/v2/schemas/images",
                "first": "/v2/images",
            },
        )

    def _create(self) -> None:
        owner = self.headers.get("X-Project-Id", "demo")
        self._json(201, self.store.create(self._body(), owner))

    def _show(self, image_id: str) -> None:
        self._json(200, self.store.get(image_id))

    def _patch(self, image_id: str) -> None:
        self._json(200, self.store.patch(image_id, self._body()))

    def _delete(self, image_id: str) -> None:
        self.store.delete(image_id)
        self._empty()

    def _upload(self, image_id: str) -> None:
        self.store.upload(image_id, self._chunks())
        self._empty()

    def _download(self, image_id: str) -> None:
        image = self.store.get(image_id)
        if image["status"] != "active":
            self._empty()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(image["size"]))
        self.send_header("Content-MD5", image["checksum"])
        self.end_headers()
        with self.store.data_path(image_id).open("rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                self.wfile.write(chunk)


def serve(port: int, folder: pathlib.Path) -> httpserver.Server:
    """Bind a server on the loopback address, without serving yet."""
    handler = type("BoundHandler", (Handler,), {"store": Store(folder)})
    return httpserver.Server(("127.0.0.1", port), handler)


if __name__ == "__main__":
    serve(int(sys.argv[1]), pathlib.Path(sys.argv[2])).serve_forever()
