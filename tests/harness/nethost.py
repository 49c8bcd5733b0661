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

"""NFS clients with addresses of their own: network namespaces.

Their mounts are seen by the whole machine, but go over their network. A
second address of the machine itself would not do: the NFS client recognizes
the server by its name, and shares one connection.
"""

from __future__ import annotations

import contextlib
import pathlib
import subprocess

#: The address of this machine for all of them.
SERVER = "192.0.2.10"
TIMEOUT_SECONDS = 60


def run(*command: str) -> str:
    """:raises CalledProcessError: with the program's words."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    if done.returncode:
        raise subprocess.CalledProcessError(
            done.returncode, command, done.stdout, done.stderr
        )
    return done.stdout


@contextlib.contextmanager
def server_address():
    """This machine has the address, while nothing else needs it."""
    run("ip", "address", "add", f"{SERVER}/32", "dev", "lo")
    try:
        yield SERVER
    finally:
        run("ip", "address", "del", f"{SERVER}/32", "dev", "lo")


class NetHost:
    """A host with one address.

    :param number: below 200; its address and names end with it.
    """

    def __init__(self, number: int, folder: pathlib.Path) -> None:
        self.name = f"cmp-{number}"
        self.address = f"192.0.2.{50 + number}"
        self.mounts = folder / self.name
        self._outside = f"acme{number}"

    @property
    def prefix(self) -> tuple[str, ...]:
        """To start a command in its network, with all mounts."""
        return ("nsenter", f"--net=/run/netns/{self.name}")

    def start(self) -> None:
        self.mounts.mkdir()
        inside = ("ip", "-n", self.name)
        run("ip", "netns", "add", self.name)
        run(
            *("ip", "link", "add", self._outside, "type", "veth"),
            *("peer", "name", "eth0", "netns", self.name),
        )
        run("ip", "link", "set", self._outside, "up")
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "address", "add", f"{self.address}/32", "dev", "eth0")
        run(*inside, "route", "add", SERVER, "dev", "eth0")
        run("ip", "route", "add", self.address, "dev", self._outside)
        # Without it, all clients of this machine are one for the server, and
        # throw each other out.
        run(
            *("ip", "netns", "exec", self.name, "sh", "-c"),
            f"echo {self.name} >/sys/fs/nfs/net/nfs_client/identifier",
        )

    def stop(self) -> None:
        """Its mounts must have ended."""
        run("ip", "netns", "del", self.name)

    def mount(self, export: str, options: str) -> pathlib.Path:
        """Mount what the server gives it, without asking Cinder."""
        folder = self.mounts / "asked"
        folder.mkdir()
        try:
            run(
                *(*self.prefix, "mount", "-t", "nfs"),
                *("-o", f"{options},retry=0,nosharecache", export),
                str(folder),
            )
        except subprocess.CalledProcessError:
            folder.rmdir()
            raise
        return folder

    def unmount(self, folder: pathlib.Path) -> None:
        run("umount", str(folder))
        folder.rmdir()
