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

"""The appliance of the demonstration, and an external view of it.

:class:`Appliance` does what an operator does: ``init``, ``token create``,
``serve``. :class:`View` inspects the result without the project's code: plain
HTTPS, the kernel's tables, ``btrfs`` and the pool's folder.
"""

import pathlib
import re
import subprocess
from typing import Any

import requests

from tests.harness import processes

PORT = 8443
START_SECONDS = 30
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

UNIT = (
    pathlib.Path(__file__).resolve().parents[2]
    / "etc/acme-appliance/systemd/acme-appliance.service"
)


def _rights_of_the_unit(more: tuple[str, ...]) -> list[str]:
    """A command prefix that reduces capabilities to those of the systemd unit,
    to show that they are sufficient.

    :param more: others, as ``net_raw``.
    """
    (granted,) = re.findall(
        r"^CapabilityBoundingSet=(.+)$", UNIT.read_text(), re.MULTILINE
    )
    kept = [
        f"+{name.removeprefix('CAP_').lower()}" for name in granted.split()
    ]
    kept += [f"+{name}" for name in more]
    return [
        *("setpriv", "--no-new-privs"),
        *("--bounding-set", ",".join(["-all", *kept])),
    ]


class Appliance:
    """An ``acme-appliance`` in its own folder, served by one process."""

    def __init__(
        self,
        command: str,
        folder: pathlib.Path,
        logs: pathlib.Path,
        *,
        export_root: pathlib.Path,
        address: str = "127.0.0.1",
        options: str = "",
        arguments: tuple[str, ...] = (),
        more_rights: tuple[str, ...] = (),
    ) -> None:
        self.url = f"https://127.0.0.1:{PORT}"
        self.pool = export_root / "gold"
        self.ca_file = folder / "state" / "tls" / "server.crt"
        self._command = command
        self._folder = folder
        self._address = address
        self._options = options
        self._config = folder / "acme-appliance.conf"
        self.process = processes.Process(
            "appliance",
            [
                *_rights_of_the_unit(more_rights),
                *(command, "--config-file", str(self._config)),
                *arguments,
                "serve",
            ],
            logs / "appliance.log",
        )
        self._log = logs / "appliance-setup.log"
        self._reason = ""
        self._pools: list[pathlib.Path] = []

    @property
    def command_line(self) -> str:
        """The command with its configuration file."""
        return f"{self._command} --config-file {self._config}"

    def _run(self, *arguments: str) -> str:
        """Run a command of the appliance, and log its output.

        :raises NotReady: it failed
        """
        command = [self._command]
        if arguments[0] != "init":
            command += ["--config-file", str(self._config)]
        done = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        with self._log.open("a") as log:
            log.write(f"$ acme-appliance {' '.join(arguments)}\n")
            log.write(done.stdout if arguments[0] != "token" else "")
            log.write(done.stderr)
        if done.returncode != 0:
            raise processes.NotReady(
                f"acme-appliance {arguments[0]} failed; see {self._log}"
            )
        return done.stdout

    def init(self, pool_bytes: int, more_pools: tuple[str, ...] = ()) -> None:
        """Create the configuration and btrfs pools in loop files."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (self.pool.name, *more_pools):
            self._init_pool(name, pool_bytes)
        with self._config.open("a") as config:
            config.write(self._options)

    def _init_pool(self, name: str, pool_bytes: int) -> None:
        path = self.pool.parent / name
        self._pools.append(path)
        self._run(
            "init",
            *("--image", str(self._folder / f"{name}.img")),
            *("--size", str(pool_bytes)),
            *("--pool", name),
            *("--path", str(path)),
            *("--nfs-root", str(self.pool.parent)),
            *("--portal", self._address),
            *("--listen", "127.0.0.1"),
            *("--state-path", str(self._folder / "state")),
            *("--output", str(self._config)),
        )

    def token(self, name: str, scope: str) -> str:
        """Create a token, as an operator does."""
        output = self._run("token", "create", name, "--scope", scope)
        match = re.search(r"acme_[A-Za-z0-9_-]+", output)
        if match is None:
            raise processes.NotReady("token create printed no token")
        return match.group()

    def start(self) -> None:
        """Serve, and wait until changes are possible."""
        self._reason = "no answer"
        self.process.start()
        try:
            self.process.wait_ready(
                self._is_ready, timeout_seconds=START_SECONDS
            )
        except processes.NotReady as error:
            raise processes.NotReady(f"{error}: {self._reason}") from None

    def _is_ready(self) -> bool:
        try:
            reply = requests.get(
                f"{self.url}/readyz", verify=str(self.ca_file), timeout=5
            )
        except (requests.RequestException, OSError):
            return False
        self._reason = reply.text
        return reply.ok

    def unmount(self) -> None:
        """Unmount the pools."""
        subprocess.run(["exportfs", "-f"], check=False)
        for pool in self._pools:
            if pool.is_mount():
                subprocess.run(["umount", str(pool)], check=True, timeout=60)


class View:
    """The appliance as an auditor sees it."""

    def __init__(self, url: str, token: str, ca_file: pathlib.Path) -> None:
        self._url = url
        self._http = requests.Session()
        self._http.verify = str(ca_file)
        self._http.headers["Authorization"] = f"Bearer {token}"
        # Otherwise requests prefers a CA bundle from the environment.
        self._http.trust_env = False
        self.pool = pathlib.Path()

    def _get(self, path: str) -> Any:
        reply = self._http.get(f"{self._url}/v1/{path}", timeout=60)
        if reply.status_code == 404:
            return None
        reply.raise_for_status()
        return reply.json()

    def share(self, ident: str) -> dict[str, Any] | None:
        share: dict[str, Any] | None = self._get(f"shares/{ident}")
        return share

    def snapshot(self, ident: str) -> dict[str, Any] | None:
        snapshot: dict[str, Any] | None = self._get(f"snapshots/{ident}")
        return snapshot

    def group(self, ident: str) -> dict[str, Any] | None:
        group: dict[str, Any] | None = self._get(f"groups/{ident}")
        return group

    def grant(self, ident: str, holder: str, client: str) -> None:
        """Grant access to a client that Cinder does not know."""
        self._http.put(
            self._rule(ident, holder),
            json={"clients": [client], "level": "rw"},
            timeout=60,
        ).raise_for_status()

    def revoke(self, ident: str, holder: str) -> None:
        self._http.delete(
            self._rule(ident, holder), timeout=60
        ).raise_for_status()

    def _rule(self, ident: str, holder: str) -> str:
        return f"{self._url}/v1/shares/{ident}/access/{holder}"

    def all_ids(self, resource: str) -> list[str]:
        """The ids of all shares, snapshots or groups: one page of them."""
        items = self._get(f"{resource}?limit=1000")[resource]
        return [item["id"] for item in items]

    def open_jobs(self) -> list[str]:
        jobs = self._get("jobs?limit=1000")["jobs"]
        return [
            job["id"] for job in jobs if job["state"] in ("queued", "running")
        ]

    def volume_file(self, share: dict[str, Any]) -> pathlib.Path:
        """The file in the appliance's own file system."""
        folder = self.pool.parent / share["pool"] / "shares" / share["id"]
        if share["file"] is None:
            return next(folder.iterdir())
        return folder / str(share["file"]["name"])

    def pools(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get("pools")["pools"]
        return found

    def subvolumes(self) -> list[str]:
        """Shares and snapshots in btrfs, whatever the database has."""
        found: list[str] = []
        for pool in self.pools():
            path = self.pool.parent / pool["name"]
            listed = subprocess.run(
                ["btrfs", "subvolume", "list", str(path)],
                check=True,
                capture_output=True,
                text=True,
            )
            found += _UUID.findall(listed.stdout)
        return sorted(found)


def exports() -> list[str]:
    """Ids of the shares in the NFS server's export table."""
    table = subprocess.run(
        ["exportfs", "-s"], check=True, capture_output=True, text=True
    )
    return sorted(
        {
            ident
            for line in table.stdout.splitlines()
            for ident in _UUID.findall(line.split(maxsplit=1)[0])
        }
    )


def export_files(
    folder: pathlib.Path = pathlib.Path("/etc/exports.d"),
) -> list[str]:
    """The files that would restore exports after a restart."""
    return sorted(path.name for path in folder.glob("acme-*"))
