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

"""Cinder's API, scheduler and volume service in one process.

For machines where nothing is installed: the services talk over the in-memory
transport of oslo.messaging (``transport_url = fake:/``) and keep their records
in SQLite, so neither a broker nor a database server is needed. All else is
Cinder as it is shipped. Start it with ``--config-file FILE``; it listens on
``osapi_volume_listen_port`` once every service is up, and ends on SIGTERM.
"""

# The order below is Cinder's own: patching comes before any other import.
from cinder import monkey_patch

monkey_patch.patch()  # noqa: E402

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

CONF = cfg.CONF
LOG = logging.getLogger(__name__)


def configure(arguments: list[str]) -> None:
    """Do what the mains of cinder-api and cinder-volume do."""
    i18n.enable_lazy()
    objects.register_all()
    CONF(arguments, project="cinder", version=version.version_string())
    config.set_middleware_defaults()
    logging.setup(CONF, "cinder")
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    os_brick.setup(CONF)
    migration.db_sync()
    coordination.COORDINATOR.start()
    rpc.init(CONF)


def start_services() -> list[service.Service | service.WSGIService]:
    """Start one volume service per backend, the scheduler and the API.

    :returns: the services in the order in which they were started
    """
    started: list[service.Service | service.WSGIService] = []
    for backend in CONF.enabled_backends:
        started.append(
            service.Service.create(
                host=f"{CONF.host}@{backend}",
                service_name=backend,
                binary=constants.VOLUME_BINARY,
                coordination=True,
            )
        )
    started.append(service.Service.create(binary="cinder-scheduler"))
    for each in started:
        each.start()
    api = service.WSGIService("osapi_volume")
    api.start()
    started.append(api)
    return started


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
