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

"""``acme-appliance serve``."""

import logging
import threading
from typing import Any
from typing import Final

from oslo_config import cfg

from acme_appliance import conf as options
from acme_appliance import locks
from acme_appliance import plugins
from acme_appliance.cmd import services
from acme_appliance.cmd.common import CommandError
from acme_appliance.cmd.common import Exit
from acme_appliance.engines.plugin import PoolError

LOG = logging.getLogger(__name__)

#: How long a start waits to read the ids of the pools.
_IDENTITY_SECONDS: Final = 30.0

_DESCRIPTION = (
    "Serve the REST API until SIGTERM. The first start creates a TLS"
    " certificate. Each start finishes interrupted changes before it accepts"
    " new ones (GET /readyz returns 200). Run as root, the command first"
    " mounts the pools, like acme-appliance mount."
)


def add_parser(subparsers: Any) -> None:
    subparsers.add_parser(
        "serve", help="serve the REST API", description=_DESCRIPTION
    )


def run(conf: cfg.ConfigOpts) -> int:
    services.check(conf)
    _set_up_logging(conf)
    from acme_appliance import composition
    from acme_appliance import server
    from acme_appliance import tls

    try:
        state_path = composition.ensure_state_path(conf)
    except OSError as error:
        raise CommandError(
            f"the state directory {conf.state_path} cannot be used: {error}."
            " Run as root, or set [DEFAULT] state_path."
        ) from error
    lock = locks.Lock(state_path / "serve.lock")
    try:
        lock.take()
    except locks.Held as error:
        raise CommandError(
            f"an appliance already serves from {state_path}, as process"
            f" {error.pid}. Stop it first (systemctl stop acme-appliance),"
            " or set another [DEFAULT] state_path."
        ) from error
    try:
        listeners = server.listen(conf)
    except server.ListenError as error:
        raise CommandError(str(error)) from error
    _mount_pools(conf)
    _check_database(conf)
    try:
        certificate = composition.find_certificate(conf)
        serving = server.Server(conf, certificate, listeners)
    except tls.TlsError as error:
        raise CommandError(str(error), Exit.CONFIGURATION) from error
    serving.run()
    return Exit.OK


def _set_up_logging(conf: cfg.ConfigOpts) -> None:
    from oslo_log import log

    from acme_appliance.api import middleware

    log.setup(conf, options.PROG)
    for handler in logging.getLogger().handlers:
        handler.addFilter(middleware.MaskSecrets())


def _check_database(conf: cfg.ConfigOpts) -> None:
    """:raises CommandError: the database does not match the pools.

    The service checks the same, but cannot stop the server. A pool that does
    not answer in time does not prevent the start.
    """
    found: list[Exception] = []
    thread = threading.Thread(
        target=_compare_identities, args=[conf, found], daemon=True
    )
    thread.start()
    thread.join(_IDENTITY_SECONDS)
    for error in found:
        raise error


def _compare_identities(conf: cfg.ConfigOpts, found: list[Exception]) -> None:
    from acme_appliance import composition
    from acme_appliance.engines import base as engines
    from acme_appliance.storage import identity

    try:
        pools = composition.build_engines(conf)
        with services.open_database(conf) as database:
            identity.Identities(
                database,
                pools,
                composition.system_id(composition.ensure_state_path(conf)),
            ).check_all(
                (name for name, pool in pools.items() if not pool.check()),
                adopt=False,
            )
    except identity.Mismatch as error:
        found.append(CommandError(str(error), Exit.WRONG_DATABASE))
    except engines.EngineError as error:
        # Start anyway, as with a pool that is not mounted.
        LOG.error("A pool cannot be read: %s", error)
    except Exception as error:
        found.append(error)


def _mount_pools(conf: cfg.ConfigOpts) -> None:
    for pool in options.pools(conf):
        engine = plugins.engines()[pool.engine]
        try:
            engine.mount(pool)
            engine.apply_options(pool)
        except PoolError as error:
            # Start anyway: reads work, and changes return the reason.
            LOG.error("Pool %s is not ready: %s", pool.name, error)
