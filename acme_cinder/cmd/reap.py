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

from acme_cinder.cmd import configuration

LOG = logging.getLogger(__name__)

#: Time limit per back end. The next run does the rest.
_PASS_SECONDS = 600.0


def run(given: argparse.Namespace) -> int:
    try:
        backends = configuration.load(given.config_file, given.backend)
    except configuration.Wrong as error:
        LOG.error("%s", error)
        return 2
    return 0 if _reap_all(backends) else 1


def _reap_all(backends: Iterable[configuration.Backend]) -> bool:
    configuration.prepare_commands()
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
