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

"""Cinder's API, scheduler, volume and backup service in one process.

For machines without any services: these use oslo.messaging's in-memory
transport (``transport_url = fake:/``) and SQLite, so neither a message broker
nor a database server is needed. Otherwise it is an unmodified Cinder. Start
it with ``--config-file FILE``; it listens on ``osapi_volume_listen_port`` when
all services are up, and ends on SIGTERM.
"""

# The order below is Cinder's own: patching comes before any other import.
from cinder import monkey_patch

monkey_patch.patch()  # noqa: E402

import importlib  # noqa: E402
import shlex  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402

from cinder import coordination  # noqa: E402
from cinder import i18n  # noqa: E402
from cinder import objects  # noqa: E402
from cinder import rpc  # noqa: E402
from cinder import service  # noqa: E402
from cinder import utils  # noqa: E402
from cinder import version  # noqa: E402
from cinder.common import config  # noqa: E402
from cinder.common import constants  # noqa: E402
from cinder.db import migration  # noqa: E402
import eventlet  # noqa: E402
import os_brick  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_log import log as logging  # noqa: E402
from oslo_privsep import priv_context  # noqa: E402

from tests.harness import wire  # noqa: E402

CONF = cfg.CONF
LOG = logging.getLogger(__name__)


def configure(arguments: list[str]) -> None:
    """Initialize like the main functions of cinder-api and cinder-volume."""
    i18n.enable_lazy()
    objects.register_all()
    CONF(arguments, project="cinder", version=version.version_string())
    config.set_middleware_defaults()
    logging.setup(CONF, "cinder")
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    os_brick.setup(CONF)
    migration.db_sync()
    coordination.COORDINATOR.start()
    wire.install()
    rpc.init(CONF)


class SharedService(service.Service):
    """A service that shares its process with others.

    Cinder keeps the id of *the* service of a process in a class attribute,
    for heartbeats and the records of volumes in progress. It must be the id
    of the volume service.
    """

    def report_state(self) -> None:
        usual = service.Service.service_id
        service.Service.service_id = self.origin_service_id
        try:
            super().report_state()
        finally:
            service.Service.service_id = usual


def start_services() -> list[service.Service | service.WSGIService]:
    """Start the scheduler, one volume service per backend, and the API.

    The scheduler's start waits for the first statistics of a back end, and
    ignores those that were sent before. So it starts first, and this does
    not wait for its start to finish.

    :returns: the services
    """
    scheduler = SharedService.create(binary="cinder-scheduler")
    waiting = eventlet.spawn(scheduler.start)
    eventlet.sleep(0)
    started: list[service.Service | service.WSGIService] = [scheduler]
    for backend in CONF.enabled_backends:
        volume = SharedService.create(
            host=f"{CONF.host}@{backend}",
            service_name=backend,
            binary=constants.VOLUME_BINARY,
            coordination=True,
        )
        volume.start()
        started.append(volume)
    started += _start_backup_service()
    waiting.wait()
    service.Service.service_id = volume.origin_service_id
    api = service.WSGIService("osapi_volume")
    api.start()
    started.append(api)
    return started


def _start_backup_service() -> list[service.Service]:
    """As cmd/backup.py of Cinder does, where the configuration has a folder
    for backups. It reads and writes them in this process."""
    # Only now: it needs Cinder's objects, and brings its options.
    importlib.import_module("cinder.backup.manager")
    if not CONF.backup_driver.endswith("PosixBackupDriver"):
        return []
    backup = SharedService.create(
        binary="cinder-backup",
        coordination=True,
        service_name="backup",
        process_number=1,
        semaphore=utils.semaphore_factory(limit=0, concurrent_processes=1),
    )
    backup.start()
    return [backup]


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    configure(sys.argv[1:])
    ending = eventlet.event.Event()

    def end(*_: object) -> None:
        if not ending.ready():
            ending.send()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    services = start_services()
    LOG.info("Cinder is up: %d services in one process.", len(services))
    ending.wait()
    for each in reversed(services):
        each.stop()
    coordination.COORDINATOR.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
