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

"""``acme-cinder reap``: unmount the shares that this host does not need.

For hosts without cinder-volume, which does this elsewhere: cinder-backup, or
Glance with its Cinder store. There os-brick mounts a share when it attaches a
volume, and does not unmount it when it detaches it.
"""

import argparse
from collections.abc import Iterable
import logging
import shlex
from typing import Any

from acme_cinder.cmd import configuration

LOG = logging.getLogger(__name__)

#: Time limit per back end. The next run does the rest.
_PASS_SECONDS = 600.0


def add_parser(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "reap",
        help="unmount shares that this host needs no more",
        description="Unmounts what is mounted below nfs_mount_point_base, "
        "belongs to the appliance, and has neither a user nor an access "
        "rule of this host. Other mounts are left alone. May run at any "
        "time, beside any service.",
    )
    parser.add_argument(
        "--config-file",
        action="append",
        default=[],
        help="cinder.conf, or several files (default: Cinder's own search)",
    )
    parser.add_argument(
        "--backend",
        action="append",
        default=[],
        metavar="SECTION",
        help="a back end's section (default: all of enabled_backends that "
        "have this driver)",
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    try:
        backends = configuration.load(given.config_file, given.backend)
    except configuration.Wrong as error:
        LOG.error("%s", error)
        return 2
    return 0 if _reap_all(backends) else 1


def _reap_all(backends: Iterable[configuration.Backend]) -> bool:
    _prepare_commands()
    # Cinder must be configured first.
    from acme_cinder import reaper
    from acme_cinder import startup

    complete = True
    for backend in backends:
        with startup.new_client(backend.settings) as api:
            mounts = startup.new_mounts(backend.settings, backend.name)
            each = reaper.Reaper(api, mounts, 0)
            if not each.run(_PASS_SECONDS):
                LOG.error("%s: something is left; see above", backend.name)
                complete = False
    return complete


def _prepare_commands() -> None:
    """Like cinder-volume at its start (Cinder, cmd/volume.py)."""
    from cinder import utils
    import os_brick
    from oslo_config import cfg
    from oslo_privsep import priv_context

    os_brick.setup(cfg.CONF)
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
