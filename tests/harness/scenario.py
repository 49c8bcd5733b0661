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

"""The steps of the demonstration, each with a check of its result.

A step acts through Cinder's API as a user does, compares contents by hash, and
inspects the appliance. The first failed check ends the scenario with a
:class:`CheckFailed`.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import pathlib
import subprocess
import time
from typing import Any
import uuid

from cinderclient import exceptions
import requests

from tests.harness import appliance
from tests.harness import compute
from tests.harness import content

GIB = 1 << 30
#: Creating from an image includes download, conversion and copy.
WAIT_SECONDS = 120
POLL_SECONDS = 0.2


class CheckFailed(Exception):
    """A check failed."""


def check(holds: object, message: str) -> None:
    if not holds:
        raise CheckFailed(message)


def check_equal(what: str, seen: object, expected: object) -> None:
    check(seen == expected, f"{what}: {seen!r} instead of {expected!r}")


@dataclasses.dataclass(frozen=True)
class Step:
    """One line of the table. ``act`` returns the text to print."""

    title: str
    act: Callable[[], str]


class Scenario:
    """Holds state that steps pass to later ones."""

    def __init__(
        self,
        cinder: Any,
        box: appliance.View,
        host: compute.ComputeHost,
        images_url: str,
        scratch: pathlib.Path,
    ) -> None:
        self._cinder = cinder
        self._box = box
        self._host = host
        self._images_url = images_url
        self._scratch = scratch
        self._volumes: dict[str, str] = {}
        # Of managed volumes: the share had its id before.
        self._share_ids: dict[str, str] = {}
        self._attached: dict[str, compute.Attached] = {}
        self._digests: dict[str, str] = {}
        self._images: dict[str, str] = {}
        self._snapshot_id = ""

    def steps(self) -> list[Step]:
        return [
            Step("create a volume, 1 GiB", self.create),
            Step("attach it, mount it by os-brick", self.attach),
            Step("write a pattern", self.write),
            Step("extend to 2 GiB while attached", self.extend),
            Step("snapshot while attached", self.snapshot),
            Step("overwrite", self.overwrite),
            Step("volume from the snapshot, 3 GiB", self.from_snapshot),
            Step("clone the attached volume, 4 GiB", self.clone),
            Step(
                "volume from a qcow2 image",
                lambda: self.from_image("qcow2"),
            ),
            Step("volume from a raw image", lambda: self.from_image("raw")),
            Step("upload a volume to an image", self.upload),
            Step("detach, nobody may mount", self.detach_all),
            Step("revert to the snapshot", self.revert),
            Step("delete the volume before its clones", self.delete_first),
            Step("delete all the rest", self.delete_rest),
        ]

    # -- asking Cinder

    def _wait(
        self, manager: Any, ident: str, status: str, *, fails: bool = True
    ) -> Any:
        """:param fails: whether an error ends it at once."""
        deadline = time.monotonic() + WAIT_SECONDS
        pause = POLL_SECONDS
        while True:
            seen = manager.get(ident)
            if seen.status == status:
                return seen
            check(
                not (fails and seen.status.startswith("error")),
                f"{ident} is in {seen.status}{self._messages(ident)}",
            )
            check(
                time.monotonic() < deadline,
                f"{ident} is still {seen.status} after {WAIT_SECONDS} s",
            )
            time.sleep(pause)
            # Polling takes CPU time from the services.
            pause = min(pause * 1.2, 1)

    def _messages(self, ident: str) -> str:
        """The messages of Cinder to the user about a failure."""
        texts = [
            message.user_message
            for message in self._cinder.messages.list()
            if message.resource_uuid == ident
        ]
        return "".join(f"; {text}" for text in texts)

    def _create_volume(self, name: str, size_gib: int, **source: str) -> str:
        volume = self._cinder.volumes.create(size_gib, name=name, **source)
        self._volumes[name] = volume.id
        self._wait(self._cinder.volumes, volume.id, "available")
        return str(volume.id)

    def _share_id(self, name: str) -> str:
        return self._share_ids.get(name, self._volumes[name])

    def _share(self, name: str) -> dict[str, Any]:
        share = self._box.share(self._share_id(name))
        if share is None:
            raise CheckFailed(f"the appliance has no share for {name}")
        return share

    def _check_share(self, name: str, size_gib: int) -> dict[str, Any]:
        """Check that the volume has its own share of the right size."""
        share = self._share(name)
        check_equal("its state", share["state"], "available")
        check_equal("its size", share["size_bytes"], size_gib * GIB)
        path = str(self._box.volume_file(share))
        check_equal("the file's size", content.size(path), size_gib * GIB)
        return share

    def _check_closed(self, name: str) -> None:
        """Check that no rule and no export exist, and mounts are refused."""
        share = self._share(name)
        check_equal(f"access to {name}", share["access"], {})
        check(
            share["id"] not in appliance.exports(),
            f"the NFS server exports {name}",
        )
        location = share["export_locations"][0]
        export = f"{location['address']}:{location['path']}"
        check(
            not self._host.may_mount(export, "-o vers=4.2"),
            f"{export} can be mounted without an attachment",
        )

    # -- the steps

    def create(self) -> str:
        self._create_volume("first", 1)
        self._check_share("first", 1)
        self._check_closed("first")
        return "one share, exported to nobody"

    def attach(self) -> str:
        attached = self._attach("first")
        kind = compute.mount_options_of(attached.path.parent)
        check(kind.startswith("nfs4 "), f"mounted as {kind}")
        check("vers=4.2" in kind, f"not NFS 4.2: {kind}")
        check_equal("its size", content.size(str(attached.path)), GIB)
        return f"{attached.export.partition(':')[0]} only, NFS 4.2"

    def _attach(self, name: str, mode: str = "rw") -> compute.Attached:
        volume_id = self._volumes[name]
        attached = self._host.attach(volume_id, mode)
        self._attached[name] = attached
        self._wait(self._cinder.volumes, volume_id, "in-use")
        share = self._share(name)
        rules = [rule["clients"] for rule in share["access"].values()]
        check_equal("granted clients", rules, [[self._host.address]])
        return attached

    def _detach(self, name: str) -> None:
        self._host.detach(self._attached.pop(name))
        self._wait(self._cinder.volumes, self._volumes[name], "available")

    def write(self) -> str:
        self.write_to("first", "A")
        return self._short("A")

    def write_to(self, name: str, pattern: str) -> None:
        path = str(self._attached[name].path)
        content.write_pattern(path, pattern)
        self._digests[pattern] = content.digest(path)
        self._check_server_side(name, pattern)

    def _check_server_side(self, name: str, digest: str) -> None:
        """Check that the NFS client's data is on the appliance's disk."""
        share = self._share(name)
        seen = content.digest(str(self._box.volume_file(share)))
        check_equal("content on the appliance", seen, self._digests[digest])

    def _short(self, digest: str) -> str:
        return f"sha256 {self._digests[digest][:12]}"

    def extend(self) -> str:
        volume_id = self._volumes["first"]
        path = str(self._attached["first"].path)
        self._cinder.volumes.extend(volume_id, 2)
        volume = self._wait(self._cinder.volumes, volume_id, "in-use")
        check_equal("Cinder's size", volume.size, 2)
        self._check_share("first", 2)
        seen = content.size(path)
        check_equal("the size on the hypervisor", seen, 2 * GIB)
        check_equal("content", content.digest(path), self._digests["A"])
        return f"2 GiB seen through the mount, {self._short('A')}"

    def snapshot(self) -> str:
        snapshot = self._cinder.volume_snapshots.create(
            self._volumes["first"], force=True, name="snapshot"
        )
        self._snapshot_id = snapshot.id
        self._wait(
            self._cinder.volume_snapshots, self._snapshot_id, "available"
        )
        check(
            self._box.snapshot(self._snapshot_id),
            "the appliance does not have the snapshot",
        )
        return "one snapshot on the appliance"

    def overwrite(self) -> str:
        path = str(self._attached["first"].path)
        content.write_pattern(path, "B")
        self._digests["B"] = content.digest(path)
        check(
            self._digests["A"] != self._digests["B"],
            "the content did not change",
        )
        self._check_server_side("first", "B")
        return self._short("B")

    def _check_content(self, name: str, size_gib: int, digest: str) -> str:
        """Attach a volume, compare its content, and detach it."""
        self._check_share(name, size_gib)
        attached = self._attach(name)
        size = content.size(str(attached.path))
        check_equal("size through the mount", size, size_gib * GIB)
        seen = content.digest(str(attached.path))
        check_equal(f"content of {name}", seen, self._digests[digest])
        self._detach(name)
        return f"{size_gib} GiB, {self._short(digest)}"

    def from_snapshot(self) -> str:
        self._create_volume("restored", 3, snapshot_id=self._snapshot_id)
        return self._check_content("restored", 3, "A")

    def clone(self) -> str:
        self._create_volume("clone", 4, source_volid=self._volumes["first"])
        return self._check_content("clone", 4, "B")

    # -- images

    def _register_image(self, kind: str) -> str:
        raw = self._scratch / "image.raw"
        if not raw.exists():
            with raw.open("wb") as out:
                out.truncate(64 << 20)
            content.write_pattern(str(raw), "image")
        data = raw
        if kind == "qcow2":
            data = self._scratch / "image.qcow2"
            self._convert(raw, "raw", data, "qcow2")
        self._digests["image"] = content.digest(str(raw))
        image = self._image_call(
            "POST",
            "",
            json={
                "name": kind,
                "disk_format": kind,
                "container_format": "bare",
            },
        ).json()
        with data.open("rb") as body:
            self._image_call("PUT", f"/{image['id']}/file", data=body)
        self._images[kind] = image["id"]
        return str(image["id"])

    def _image_call(
        self, method: str, path: str, **arguments: Any
    ) -> requests.Response:
        reply = requests.request(
            method,
            f"{self._images_url}/v2/images{path}",
            timeout=WAIT_SECONDS,
            **arguments,
        )
        check(
            reply.ok,
            f"image service: {reply.status_code} {reply.text[:200]}",
        )
        return reply

    @staticmethod
    def _convert(
        source: pathlib.Path, kind: str, target: pathlib.Path, wanted: str
    ) -> None:
        subprocess.run(
            ["qemu-img", "convert", "-f", kind, "-O", wanted]
            + [str(source), str(target)],
            check=True,
            timeout=WAIT_SECONDS,
        )

    def from_image(self, kind: str) -> str:
        image_id = self._register_image(kind)
        name = f"from-{kind}"
        self._create_volume(name, 1, imageRef=image_id)
        return self._check_content(name, 1, "image")

    def upload(self) -> str:
        volume_id = self._volumes["from-raw"]
        _, body = self._cinder.volumes.upload_to_image(
            volume_id, False, "uploaded", "bare", "qcow2", "shared", False
        )
        image_id = body["os-volume_upload_image"]["image_id"]
        self._images["uploaded"] = image_id
        self._wait(self._cinder.volumes, volume_id, "available")
        image = self._image_call("GET", f"/{image_id}").json()
        check_equal("the image's status", image["status"], "active")
        data = self._image_call("GET", f"/{image_id}/file").content
        packed = self._scratch / "uploaded.qcow2"
        packed.write_bytes(data)
        raw = self._scratch / "uploaded.raw"
        self._convert(packed, "qcow2", raw, "raw")
        check_equal("the image's size", raw.stat().st_size, GIB)
        seen = content.digest(str(raw))
        check_equal("the image's content", seen, self._digests["image"])
        return f"qcow2, {len(data) >> 20} MiB, {self._short('image')}"

    # -- the end

    def detach_all(self) -> str:
        names = list(self._attached)
        for name in names:
            self._detach(name)
        for name in self._volumes:
            self._check_closed(name)
        return f"{len(names)} detached, {len(self._volumes)} mounts refused"

    def revert(self) -> str:
        """What was written since is gone, and the file is the same one."""
        volume_id = self._volumes["first"]
        path = self._box.volume_file(self._share("first"))
        inode = path.stat().st_ino
        self._cinder.volumes.revert_to_snapshot(volume_id, self._snapshot_id)
        self._wait(self._cinder.volumes, volume_id, "available")
        self._wait(
            self._cinder.volume_snapshots, self._snapshot_id, "available"
        )
        check_equal("the file's inode", path.stat().st_ino, inode)
        self._check_closed("first")
        return self._check_content("first", 2, "A")

    def _delete_volume(self, name: str) -> None:
        share_id = self._share_id(name)
        volume_id = self._volumes.pop(name)
        self._cinder.volumes.delete(volume_id)
        self._wait_gone(self._cinder.volumes, volume_id)
        check(
            self._box.share(share_id) is None,
            f"the appliance still has the share of {name}",
        )

    def _wait_gone(self, manager: Any, ident: str) -> None:
        with contextlib.suppress(exceptions.NotFound):
            self._wait(manager, ident, f"gone-{uuid.uuid4()}")

    def delete_first(self) -> str:
        """Clones and volumes from snapshots do not prevent this."""
        self._cinder.volume_snapshots.delete(self._snapshot_id)
        self._wait_gone(self._cinder.volume_snapshots, self._snapshot_id)
        check(
            self._box.snapshot(self._snapshot_id) is None,
            "the appliance still has the snapshot",
        )
        self._delete_volume("first")
        for name, digest in (("restored", "A"), ("clone", "B")):
            self._check_server_side(name, digest)
        return "snapshot and volume gone, clones whole"

    def delete_rest(self) -> str:
        names = list(self._volumes)
        for name in names:
            self._delete_volume(name)
        for image_id in self._images.values():
            self._image_call("DELETE", f"/{image_id}")
        return f"{len(names)} volumes, {len(self._images)} images"
