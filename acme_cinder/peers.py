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

"""The addresses from which hosts of other services reach the appliance.

A service may have to grant access to another host: in an active-active cluster
any service gets the request of cinder-backup, or of a migration, to attach a
volume there. The connector has that host's ``my_ip``, which is often not its
address on the storage network, and only the host itself can find that. So each
service records its host's address in Cinder's storage for drivers
(cinder/volume/driver_utils.py). This storage has no update: a new record is
added when the address changes, and the record with the highest number counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Final

from cinder import exception
from oslo_db import exception as db_exception
from oslo_log import log as logging

from acme_cinder import addresses
from acme_cinder import holders

LOG = logging.getLogger(__name__)

#: No route, an unresolved name, an unreachable database: the next statistics
#: retry.
_NOT_NOW: Final = (
    OSError,
    ValueError,
    exception.CinderException,
    db_exception.DBError,
)
_KEY: Final = "acme_storage_address_"


class PeerAddresses:
    """The addresses of all hosts where a service of this back end has run.

    :param data: Cinder's ``VolumeDriverUtils``.
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        self._published: tuple[str, str] | None = None

    def publish(self, host: str, address: str) -> None:
        """Record a host's address; without a query if it is known."""
        if self._published == (host, address):
            return
        number, known = self._last(host)
        if known != address and not self._data.insert_driver_initiator_data(
            host, f"{_KEY}{number + 1}", address
        ):
            # Another service of this host was first; check it next time.
            return
        self._published = (host, address)

    def publish_own(self, portals: Sequence[str]) -> None:
        """Record this host's source address for a portal.

        Never raises: without the record, peers use Cinder's address of this
        host.
        """
        if not portals:
            return
        try:
            self.publish(
                holders.this_host(), addresses.source_address(portals[0])
            )
        except _NOT_NOW as error:
            LOG.warning(
                "Cannot record this host's address on the storage network for "
                "other services: %s",
                error,
            )

    def of(self, host: str) -> str | None:
        """A host's address; None: no service has run there."""
        return self._last(host)[1]

    def _last(self, host: str) -> tuple[int, str | None]:
        """The number and the address of the newest record."""
        numbered = [
            (int(record.key.removeprefix(_KEY)), str(record.value))
            for record in self._data.get_driver_initiator_data(host)
            if record.key.startswith(_KEY)
        ]
        return max(numbered, default=(0, None))
