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

"""The part of a hypervisor: attach volumes as Nova does, and mount them.

Attachments are created through Cinder's API. os-brick's NFS connector mounts
with nothing but the attachment's connection information.
"""

import contextlib
import dataclasses
import os
import pathlib
import subprocess
from typing import Any
import uuid

from os_brick import privileged
from os_brick.initiator import connector

MOUNT_TIMEOUT_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Attached:
    """An attachment and the mount point of its volume."""

    attachment_id: str
    volume_id: str
    path: pathlib.Path
    export: str
    options: str


class ComputeHost:
    """A host; its mounts are in its own folder."""

    def __init__(
        self, cinder: Any, name: str, address: str, folder: pathlib.Path
    ) -> None:
        self._cinder = cinder
        self.name = name
        self.address = address
        self.mounts = folder
        folder.mkdir(parents=True, exist_ok=True)
        # This process is root, so it needs no helper.
        privileged.default.set_client_mode(False)

    def beside(self, name: str) -> "ComputeHost":
        """Another host with the address of this one."""
        return ComputeHost(
            self._cinder, name, self.address, self.mounts.with_name(name)
        )

    def _connector_properties(self) -> dict[str, Any]:
        return {
            "host": self.name,
            "ip": self.address,
            "initiator": f"iqn.2026-01.org.example:{self.name}",
            "multipath": False,
            "platform": os.uname().machine,
            "os_type": "linux",
            "do_local_attach": False,
        }

    def _brick(self, connection: dict[str, Any]) -> Any:
        return connector.InitiatorConnector.factory(
            connection["driver_volume_type"],
            "sudo",
            nfs_mount_point_base=str(self.mounts),
            conn=connection,
        )

    def attach(self, volume_id: str, mode: str = "rw") -> Attached:
        """Reserve, connect and complete an attachment.

        Connected in a call of its own, as by Nova: of one that is created
        with a connector, Cinder records the mode too late for the driver.

        It has no server: before Cinder deletes an attachment of a server, it
        asks Nova, which does not exist here.
        """
        attachment = self._cinder.attachments.create(
            volume_id, None, mode=mode
        )
        connection = self._cinder.attachments.update(
            attachment["id"], self._connector_properties()
        ).connection_info
        device = self._brick(connection).connect_volume(connection)
        self._cinder.attachments.complete(attachment["id"])
        return Attached(
            attachment["id"],
            volume_id,
            pathlib.Path(device["path"]),
            connection["export"],
            connection["options"],
        )

    def detach(self, attached: Attached) -> None:
        """Disconnect, unmount as Nova does, and delete the attachment.

        os-brick does not unmount NFS; its caller must.
        """
        attachment = self._cinder.attachments.show(attached.attachment_id)
        connection = attachment.connection_info
        self._brick(connection).disconnect_volume(connection, {})
        self.unmount(attached.path.parent)
        self._cinder.attachments.delete(attached.attachment_id)

    def unmount(self, mountpoint: pathlib.Path) -> None:
        subprocess.run(
            ["umount", str(mountpoint)],
            check=True,
            timeout=MOUNT_TIMEOUT_SECONDS,
        )
        mountpoint.rmdir()

    def may_mount(self, export: str, options: str) -> bool:
        """Whether the server lets this host mount an export."""
        mountpoint = self.mounts / f"try-{uuid.uuid4()}"
        mountpoint.mkdir()
        try:
            tried = subprocess.run(
                [
                    "mount",
                    "-t",
                    "nfs",
                    *options.split(),
                    "-o",
                    "retry=0",
                    export,
                    str(mountpoint),
                ],
                capture_output=True,
                text=True,
                timeout=MOUNT_TIMEOUT_SECONDS,
            )
            if tried.returncode == 0:
                self.unmount(mountpoint)
            return tried.returncode == 0
        finally:
            with contextlib.suppress(FileNotFoundError):
                mountpoint.rmdir()


def mounted_below(folder: pathlib.Path) -> list[str]:
    """The mount points below a folder, from the kernel's table."""
    with open("/proc/self/mounts") as table:
        points = [line.split()[1] for line in table]
    return [point for point in points if point.startswith(f"{folder}/")]


def mount_options_of(mountpoint: pathlib.Path) -> str:
    """Type and options of a mount, from the kernel's table."""
    with open("/proc/self/mounts") as table:
        for line in table:
            _, point, kind, options, *_ = line.split()
            if point == str(mountpoint):
                return f"{kind} {options}"
    raise FileNotFoundError(f"nothing is mounted on {mountpoint}")
