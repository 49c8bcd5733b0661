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

"""Check whether the appliance is the one with Cinder's volumes.

With a credential of another namespace, or from a replaced appliance, the
answer for every share is that it does not exist, the same as for a deleted
share. So if an expected share is missing, this decides: does the appliance
know at least one share of a volume that Cinder has on this back end?
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from cinder import context as cinder_context
from cinder import objects
from cinder.db import api as db
from oslo_log import log as logging

from acme_cinder import identity
from acme_cinder import records
import acme_client

LOG = logging.getLogger(__name__)

#: The number of newest volumes to compare: sufficient, and few enough for a
#: query.
_MOST_VOLUMES = 500
_SECONDS = 30.0

FOREIGN = (
    "the appliance knows no share of any volume that Cinder has on this back "
    "end: the credential (acme_api_token, or nas_user and nas_password) "
    "belongs to another namespace, or acme_api_addresses leads to another "
    "appliance than the one that the volumes were made on"
)


class Recognition:
    """Recognizes the appliance by the volumes of a back end.

    :param host: of the back end, in Cinder's form.
    :param cluster_name: likewise, None without a cluster.
    :ivar where: filters for its volumes in Cinder's database.
    """

    def __init__(
        self, api: acme_client.Client, host: str, cluster_name: str | None
    ) -> None:
        self._api = api
        self.where = (
            {"cluster_name": cluster_name} if cluster_name else {"host": host}
        )

    def is_foreign(
        self,
        *,
        besides: str | None = None,
        listing: Container[str] | None = None,
    ) -> bool:
        """Whether the appliance knows none of the volumes' shares.

        Sends requests, one per thousand shares, until one share is known,
        which is usually the first. False if there are no volumes to compare.

        :param besides: the id of a volume. False if it is the only one.
        :param listing: the ids of all shares, if known.
        """
        shares = self._expected()
        if not shares.keys() - {besides}:
            return False
        expected = set(shares.values())
        if listing is not None:
            return not any(share_id in listing for share_id in expected)
        with acme_client.limited(_SECONDS):
            return not any(
                share.id in expected for share in self._api.list_shares()
            )

    def doubt(self, volume: objects.Volume) -> str | None:
        """Why the answer that a share or snapshot does not exist is not
        reliable; None: it is."""
        if not self.is_foreign(besides=volume.id):
            return None
        LOG.error(
            "%(volume)s, share %(share)s, is left as it is: %(why)s",
            {
                "volume": volume.name,
                "share": identity.share_id(volume),
                "why": FOREIGN,
            },
        )
        return FOREIGN

    def _expected(self) -> dict[str, str]:
        """Volumes that must have a share, by id, with the shares' ids.

        Only volumes in a stable state: while Cinder creates one, or if that
        failed, there may be no share.
        """
        context: Any = cinder_context.get_admin_context()
        # Rows, because Cinder queries the attachments of each object.
        found = db.volume_get_all(
            context,
            limit=_MOST_VOLUMES,
            filters={**self.where, "status": sorted(records.QUIET)},
        )
        return {
            row.id: identity.share_id(row)
            for row in found
            if row.provider_location
        }
