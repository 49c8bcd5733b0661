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

"""Unmounts what nobody needs any more.

A service that is killed leaves mounts behind, and os-brick never unmounts.
Whether a mount is still needed, the appliance knows best: an attachment on
this host has an access rule there, whichever process made it. Of a share
that this appliance does not have, only the back end that mounted it may
conclude that it is gone.
"""

from collections.abc import Callable
import time

from cinder import exception
from oslo_log import log as logging

from acme_cinder import client
from acme_cinder import errors
from acme_cinder import exports
from acme_cinder import holders
from acme_cinder import mount

LOG = logging.getLogger(__name__)

#: One pass never keeps its caller for longer than this and one share.
_PASS_SECONDS = 30.0
#: An appliance that is slow now is asked again in the next pass.
_CALL_SECONDS = 15.0


class Reaper:
    """Does a pass when one is due; any thread may ask for it.

    :param interval_seconds: between two passes.
    """

    def __init__(
        self,
        api: client.Client,
        mounts: mount.Mounts,
        interval_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api.with_deadline(_CALL_SECONDS)
        self._mounts = mounts
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._due_at = float("-inf")

    def run_if_due(self) -> None:
        if self._clock() >= self._due_at:
            self._due_at = self._clock() + self._interval_seconds
            self.run()

    def run(self) -> None:
        """One pass. Never raises: what cannot be done now is logged."""
        deadline = self._clock() + _PASS_SECONDS
        try:
            leftovers = self._mounts.leftovers()
        except errors.BELOW:
            LOG.exception("Could not look for mounts that are left over")
            return
        for leftover in leftovers:
            if self._clock() >= deadline:
                self._due_at = self._clock()
                return
            self._consider(leftover)

    def _consider(self, leftover: mount.Leftover) -> None:
        try:
            share = self._api.find_share(leftover.share_id)
            if not self._is_needed(leftover, share):
                self._reap(leftover, share)
        except (*errors.BELOW, exception.CinderException):
            LOG.exception(
                "Could not clean up the mount of share %s",
                leftover.share_id,
            )

    def _is_needed(
        self, leftover: mount.Leftover, share: client.Share | None
    ) -> bool:
        if share is None:
            # Deleted, if it was ours; another back end's may be anywhere.
            return not leftover.own
        locations = [
            exports.choose([location]).location
            for location in share.export_locations
        ]
        if not leftover.known and leftover.state.export not in locations:
            return True
        return holders.of_host(holders.this_host()) in share.access

    def _reap(
        self, leftover: mount.Leftover, share: client.Share | None
    ) -> None:
        own = holders.of_mounts(holders.this_host())

        def revoke() -> None:
            if share is not None and own in share.access:
                self._api.revoke_access(share.id, own)

        if self._mounts.reap(leftover, revoke):
            LOG.info(
                "Cleaned up the mount of share %(share)s, %(export)s, that "
                "nobody needs",
                {
                    "share": leftover.share_id,
                    "export": leftover.state.export or "already gone",
                },
            )
