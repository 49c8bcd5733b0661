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

"""All processes of a demonstration: appliance, image service and Cinder."""

import os
import pathlib
import sys
import time
from typing import Any

from cinderclient import client as cinder_client
from cinderclient.contrib import noauth
from keystoneauth1 import session as keystone_session

from tests.harness import appliance
from tests.harness import compute
from tests.harness import processes
from tests.harness import scenario
from tests.harness import tour

CINDER_PORT = 8776
IMAGES_PORT = 9292
BACKEND = "acme-1"
#: Cinder accepts only hexadecimal digits for a project in a URL.
PROJECT_ID = "acdec0de" * 4
OTHER_PROJECT_ID = "0ddba11d" * 4
#: The newest API version of Cinder 27.
MICROVERSION = "3.71"
POOL_BYTES = 8 << 30
START_SECONDS = 60

_CINDER_CONF = """\
[DEFAULT]
host = demo
transport_url = fake:/
auth_strategy = noauth_include_project_id
state_path = {state}
log_file = {log}
use_stderr = False
api_paste_config = {etc}/api-paste.ini
resource_query_filters_file = {etc}/resource_filters.json
osapi_volume_listen = 127.0.0.1
osapi_volume_listen_port = {port}
osapi_volume_workers = 1
my_ip = {address}
enabled_backends = {backend}
default_volume_type = __DEFAULT__
glance_api_servers = http://127.0.0.1:{images_port}
allowed_direct_url_schemes =
{default}
[database]
connection = sqlite:///{folder}/cinder.sqlite
[oslo_concurrency]
lock_path = {folder}/locks
[cinder_sys_admin]
helper_command = {helper} --config-file {conf}
[privsep_osbrick]
helper_command = {helper} --config-file {conf}
[{backend}]
volume_driver = acme_cinder.driver.acmeNfsDriver
volume_backend_name = {backend}
acme_api_addresses = {url}
acme_api_token = {token}
acme_api_ca_file = {ca_file}
nfs_mount_point_base = {mounts}
{backend_options}
"""


class Stack:
    """All services of the demonstration, in one folder.

    :ivar logs: one log file per process
    :ivar mounts: the Cinder host's mount point base
    """

    def __init__(
        self,
        folder: pathlib.Path,
        logs: pathlib.Path,
        *,
        export_root: pathlib.Path,
        address: str = "127.0.0.1",
        appliance_options: str = "",
        cinder_options: str = "",
        backend_options: str = "",
        api_url: str | None = None,
        more_pools: tuple[str, ...] = (),
        more_rights: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.logs = logs
        self.address = address
        self.mounts = folder / "cinder-mounts"
        self.images_url = f"http://127.0.0.1:{IMAGES_PORT}"
        self.conf = folder / "cinder.conf"
        self._cinder_options = cinder_options
        self._backend_options = backend_options
        programs = pathlib.Path(sys.executable).parent
        self._helper = programs / "privsep-helper"
        for each in (folder, logs, self.mounts):
            each.mkdir(parents=True, exist_ok=True)
        self.appliance = appliance.Appliance(
            str(programs / "acme-appliance"),
            folder / "appliance",
            logs,
            export_root=export_root,
            address=address,
            options=appliance_options,
            more_rights=more_rights,
        )
        self._more_pools = more_pools
        self._api_url = api_url or self.appliance.url
        self.cinder_process = processes.Process(
            "cinder",
            [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "tests.harness.cinder_service",
                "--config-file",
                str(self.conf),
            ],
            logs / "cinder-output.log",
        )
        self.images_process = processes.Process(
            "images",
            [
                sys.executable,
                "-m",
                "tests.harness.images",
                str(IMAGES_PORT),
                str(folder / "images"),
            ],
            logs / "images.log",
        )

    def start(self) -> None:
        """Start everything, slow services concurrently.

        :raises NotReady: names the service that is not ready, and its log
        """
        self.appliance.init(POOL_BYTES, self._more_pools)
        token = self.appliance.token("cinder-demo", "driver:cinder-demo")
        self._write_conf(token)
        self.images_process.start()
        self.appliance.start()
        self.cinder_process.start()
        self.images_process.wait_ready(
            lambda: processes.listens(IMAGES_PORT),
            timeout_seconds=START_SECONDS,
        )
        self.cinder_process.wait_ready(
            lambda: processes.listens(CINDER_PORT),
            timeout_seconds=START_SECONDS,
        )
        self._wait_for_services()

    def _write_conf(self, token: str) -> None:
        (self.folder / "locks").mkdir(exist_ok=True)
        (self.folder / "cinder").mkdir(exist_ok=True)
        self.conf.write_text(
            _CINDER_CONF.format(
                state=self.folder / "cinder",
                log=self.logs / "cinder.log",
                etc=pathlib.Path(sys.prefix) / "etc" / "cinder",
                port=CINDER_PORT,
                images_port=IMAGES_PORT,
                address=self.address,
                folder=self.folder,
                helper=self._helper,
                conf=self.conf,
                backend=BACKEND,
                url=self._api_url,
                token=token,
                ca_file=self.appliance.ca_file,
                mounts=self.mounts,
                default=self._cinder_options,
                backend_options=self._backend_options,
            )
        )
        self.conf.chmod(0o600)

    def _wait_for_services(self) -> None:
        """The back end is up when Cinder has its first statistics."""
        client = self.cinder()

        def all_up() -> bool:
            services = client.services.list()
            return len(services) >= 2 and all(
                each.state == "up" for each in services
            )

        processes.wait_until(
            all_up, "cinder's services", timeout_seconds=START_SECONDS
        )

    def cinder(self, project_id: str = PROJECT_ID) -> Any:
        """A client as an administrator of a project."""
        auth = noauth.CinderNoAuthPlugin(
            "admin",
            project_id,
            endpoint=f"http://127.0.0.1:{CINDER_PORT}/v3",
        )
        return cinder_client.Client(
            MICROVERSION, session=keystone_session.Session(auth=auth)
        )

    def write_settings(self, path: pathlib.Path) -> None:
        """Write a shell script that sets up the commands for a person."""
        settings = {
            "OS_AUTH_TYPE": "noauth",
            "OS_USER_ID": "admin",
            "OS_PROJECT_ID": PROJECT_ID,
            "CINDER_ENDPOINT": (
                f"http://127.0.0.1:{CINDER_PORT}/v3/{PROJECT_ID}"
            ),
            "OS_VOLUME_API_VERSION": MICROVERSION,
            "PYTHONWARNINGS": "ignore",
            "ACME_URL": self.appliance.url,
            "ACME_CA_FILE": str(self.appliance.ca_file),
        }
        programs = pathlib.Path(sys.executable).parent
        lines = [
            *(f"export {name}={value}" for name, value in settings.items()),
            f"export PATH={programs}:$PATH",
            "acme() {",
            f'    {self.appliance.command_line} "$@"',
            "}",
        ]
        path.write_text("\n".join(lines) + "\n")

    def view(self) -> appliance.View:
        """The appliance as an auditor sees it."""
        view = appliance.View(
            self.appliance.url,
            self.appliance.token(f"auditor-{os.getpid()}", "admin"),
            self.appliance.ca_file,
        )
        view.pool = self.appliance.pool
        return view

    def compute_host(self, name: str = "compute-1") -> compute.ComputeHost:
        return compute.ComputeHost(
            self.cinder(), name, self.address, self.folder / name
        )

    def scenario(self, view: appliance.View) -> scenario.Scenario:
        return scenario.Scenario(
            self.cinder(),
            view,
            self.compute_host(),
            self.images_url,
            self.folder,
        )

    def tour(self, view: appliance.View) -> tour.Tour:
        return tour.Tour(
            self.cinder(OTHER_PROJECT_ID),
            self.cinder(),
            view,
            self.compute_host(),
            self.images_url,
            self.folder,
        )

    def leftovers(self, view: appliance.View) -> dict[str, list[str]]:
        """Everything that still exists, by kind; all must be empty.

        The driver and the kernel unmount within moments, so only what exists
        longer counts.
        """
        deadline = time.monotonic() + 10
        while True:
            found = self._left(view)
            if not any(found.values()) or time.monotonic() > deadline:
                return found
            time.sleep(0.5)

    def _left(self, view: appliance.View) -> dict[str, list[str]]:
        hosts = sorted(self.folder.glob("compute-*"))
        return {
            "shares": view.all_ids("shares"),
            "snapshots": view.all_ids("snapshots"),
            "groups": view.all_ids("groups"),
            "unfinished jobs": view.open_jobs(),
            "btrfs subvolumes": view.subvolumes(),
            "NFS exports": appliance.exports(),
            "files in /etc/exports.d": appliance.export_files(),
            "mounts": [
                point
                for base in (self.mounts, *hosts)
                for point in compute.mounted_below(base)
            ],
            "mount point folders": [
                str(path)
                for base in (self.mounts, *hosts)
                if base.exists()
                for path in base.iterdir()
                if path.is_dir() and not path.name.startswith(".")
            ],
        }

    def stop(self) -> None:
        """End every process and unmount the pool, even if half started."""
        for process in (
            self.cinder_process,
            self.images_process,
            self.appliance.process,
        ):
            process.stop()
        self.appliance.unmount()
