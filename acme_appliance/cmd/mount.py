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

"""``acme-appliance mount``."""

from typing import Any

from oslo_config import cfg

from acme_appliance import conf as options
from acme_appliance import plugins
from acme_appliance.cmd import services
from acme_appliance.cmd.common import CommandError
from acme_appliance.cmd.common import Exit
from acme_appliance.engines.plugin import PoolError

_DESCRIPTION = (
    "Mount the pools that have a device and are not mounted. systemd runs it"
    " as root before the service, which is not allowed to mount."
)


def add_parser(subparsers: Any) -> None:
    subparsers.add_parser(
        "mount", help="mount the pools", description=_DESCRIPTION
    )


def run(conf: cfg.ConfigOpts) -> int:
    services.check(conf)
    failed = []
    for pool in options.pools_on_devices(conf):
        engine = plugins.engines()[pool.engine]
        try:
            mounted = engine.mount(pool)
        except PoolError as error:
            failed.append(f"pool {pool.name}: {error}")
            continue
        how = f"mounted {pool.device} at" if mounted else "already mounted at"
        print(f"pool {pool.name}: {how} {pool.path}")
        for line in engine.open(pool).warnings():
            print(f"WARNING: pool {pool.name}: {line}")
    if failed:
        raise CommandError("\n".join(failed))
    return Exit.OK
