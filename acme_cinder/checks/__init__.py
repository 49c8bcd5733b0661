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

"""What must be right before the driver can work.

One list for two callers: ``acme-cinder check`` runs all checks and shows each
finding; the driver's start runs those of :data:`AT_START`, which cost two
requests, and refuses to start if one fails.
"""

from typing import Final

from acme_cinder.checks import appliance
from acme_cinder.checks import database
from acme_cinder.checks import findings
from acme_cinder.checks import host
from acme_cinder.checks import locks
from acme_cinder.checks import network
from acme_cinder.checks import trial

#: Of this host; they send nothing.
HOST_AT_START: Final = (host.MOUNT_PROGRAM, host.BASE)
APPLIANCE_AT_START: Final = (
    appliance.CREDENTIAL,
    appliance.FIGURES,
    appliance.POOLS,
    appliance.PORTAL,
)
AT_START: Final = (*HOST_AT_START, *APPLIANCE_AT_START)

#: In the order of a person who looks for a cause.
ALL: Final[tuple[findings.Check, ...]] = (
    host.USER,
    *HOST_AT_START,
    host.PROGRAMS,
    network.NAMES,
    network.CONNECTION,
    network.TLS,
    network.API,
    network.CLOCK,
    *APPLIANCE_AT_START,
    appliance.HEALTH,
    appliance.FEATURES,
    appliance.NFS_VERSIONS,
    network.NFS_PORT,
    database.DATABASE,
    database.VOLUMES,
    locks.LOCKS,
    trial.MOUNT,
)
