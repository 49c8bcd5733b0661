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

"""The report for the scheduler, and other work in the same interval."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from oslo_log import log as logging

from acme_cinder import errors
from acme_cinder import exportcheck
from acme_cinder import features
from acme_cinder import moves
from acme_cinder import peers
from acme_cinder import settings as options
from acme_cinder import startup
from acme_cinder import stats
import acme_client

LOG = logging.getLogger(__name__)

#: Short, so that the scheduler soon knows that the appliance is down, and
#: because Cinder reports one back end after the other, every minute.
_DEADLINE_SECONDS = 30.0


class Report:
    """Creates the report from the appliance's figures.

    :param chores: further periodic work while the appliance answers; each
        knows when it is due, and never raises.
    """

    def __init__(
        self,
        api: acme_client.Client,
        settings: options.DriverSettings,
        pool_features: features.PoolFeatures,
        addresses: peers.PeerAddresses,
        export_check: exportcheck.ExportCheck,
        chores: Iterable[Callable[[], None]],
    ) -> None:
        self._api = api.with_deadline(_DEADLINE_SECONDS)
        self._settings = settings
        self._features = pool_features
        self._addresses = addresses
        self._export_check = export_check
        self._chores = tuple(chores)

    def learn(self, found: acme_client.Stats) -> None:
        """Pass the figures to the other parts."""
        self._features.learn(found)
        chosen = self._settings.portal
        self._addresses.publish_own((chosen,) if chosen else found.portals)

    def make(
        self,
        last: Mapping[str, Any],
        common: Mapping[str, Any],
        pool_common: Mapping[str, Any],
    ) -> dict[str, Any]:
        """:param last: the previous report, if the appliance does not answer.
        :param common: included in every report.
        :param pool_common: included in every pool."""
        sparse = self._settings.sparse
        try:
            found = self._api.get_stats()
        except errors.BELOW as error:
            LOG.warning("The appliance gives no figures: %s", error)
            return stats.down(
                last, common, self._settings.pools, pool_common, sparse=sparse
            )
        self.learn(found)
        made = stats.backend(
            common,
            [
                {
                    **stats.pool(pool, sparse=sparse, common=pool_common),
                    "location_info": moves.location_info(found.system_id),
                }
                for pool in startup.chosen(found.pools, self._settings)
            ],
            sparse=sparse,
        )
        self._export_check.run()
        if self._export_check.is_foreign:
            made = stats.down(made, common, (), pool_common, sparse=sparse)
        for chore in self._chores:
            chore()
        return made
