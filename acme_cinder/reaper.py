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

"""Clean up unneeded mounts.

A killed service leaves mounts and access rules, and os-brick never unmounts.
There are two kinds of mounts:

* the driver's own: if no process uses it, it is removed with its access rule;
* those of attachments: an attachment on this host has an access rule on the
  appliance, whichever process or host created it. Without the rule the mount
  is useless. If the appliance does not have the share, the mount is removed
  only if the appliance is its server and refuses it to this host: otherwise
  it may be a share of another namespace.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import functools
import random
import time

from oslo_log import log as logging

from acme_cinder import exports
from acme_cinder import holders
from acme_cinder import mount
import acme_client

LOG = logging.getLogger(__name__)

#: Maximum time of a pass, plus one share.
PASS_SECONDS = 30.0
#: Time limit of requests; the next pass retries.
_CALL_SECONDS = 15.0

#: The id of a share, or of a snapshot that is read; and the export where it is
#: a mount of an attachment.
_Candidate = tuple[str, str]


class Reaper:
    """Runs a pass when one is due; any thread can call it.

    :param interval_seconds: between two passes.
    """

    def __init__(
        self,
        api: acme_client.Client,
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
        # Where the next pass continues. Random after a start, so that services
        # that restart often also check all of them.
        self._last: _Candidate = (f"{random.getrandbits(64):016x}", "")  # noqa: S311

    def run_if_due(self) -> None:
        if self._clock() >= self._due_at:
            self._due_at = self._clock() + self._interval_seconds
            self.run()

    def run(self, limit_seconds: float = PASS_SECONDS) -> bool:
        """Run one pass; return whether everything is done.

        Never raises: failures are logged, and the next pass retries.
        """
        deadline = self._clock() + limit_seconds
        try:
            candidates = self._without_needed(self._candidates())
        except Exception:
            LOG.exception("Could not ask which mounts are needed here")
            return False
        complete = True
        for candidate in _rotated(candidates, self._last):
            self._last = candidate
            complete = self._consider(*candidate) and complete
            if self._clock() >= deadline:
                self._due_at = self._clock()
                return False
        return complete

    def unneeded(self) -> Iterator[_Candidate]:
        """What a pass would unmount, without doing it.

        :raises ApiError: the appliance does not answer.
        """
        candidates = self._without_needed(self._candidates())
        for share_id, export in sorted(candidates):
            if export:
                with self._mounts.changing(share_id):
                    unneeded = not self._is_needed(share_id, export)
            else:
                with self._mounts.idle(share_id) as unneeded:
                    pass
            if unneeded:
                yield share_id, export

    def remove(self, share_id: str, export: str) -> bool:
        """Unmount what is still unneeded; return whether that was done.

        :raises ApiError: the appliance does not answer.
        """
        if export:
            return self._detach_if_unneeded(share_id, export)
        return self._mounts.reap(
            share_id, functools.partial(self._revoke, share_id)
        )

    def look_at(self, share_id: str, export: str) -> None:
        """Unmount an attachment's export here, unless it is needed.

        Sends requests only if the export is mounted. Never raises.
        """
        if self._mounts.is_attached(export):
            self._consider(share_id, export)

    def _candidates(self) -> list[_Candidate]:
        try:
            return [
                *((share_id, "") for share_id in self._mounts.leftovers()),
                *(
                    (each.share_id, each.export)
                    for each in self._mounts.attached()
                ),
            ]
        except OSError:
            LOG.exception("Could not look for mounts that are left over")
            return []

    def _without_needed(
        self, candidates: Iterable[_Candidate]
    ) -> list[_Candidate]:
        """Without attachments whose share has a rule of this host.

        One request for each page of shares that the host may mount, instead
        of one for each mount. What is left is looked at again by itself.

        :raises ApiError: the appliance does not answer.
        """
        left = {*candidates}
        if any(export for _, export in left):
            for holder in _holders_here():
                for share in self._api.list_shares(holder=holder):
                    if _has_rule_here(share):
                        left -= {
                            (share.id, export) for export in _locations(share)
                        }
        return [*left]

    def _consider(self, share_id: str, export: str) -> bool:
        """Whether the check succeeded; needed mounts are a success, too."""
        try:
            done = self.remove(share_id, export)
        except Exception:
            LOG.exception("Could not clean up the mount of share %s", share_id)
            return False
        if done:
            LOG.info(
                "Unmounted share %(share)s, which nobody needs here: %(of)s",
                {"share": share_id, "of": export or "a mount of the driver"},
            )
        return True

    def _detach_if_unneeded(self, share_id: str, export: str) -> bool:
        # The driver grants access to this host under the same lock: no
        # attachment begins between the check and the unmount.
        with self._mounts.changing(share_id):
            if self._is_needed(share_id, export):
                return False
            return self._mounts.detach_locked(export)

    def _is_needed(self, share_id: str, export: str) -> bool:
        is_known = False
        # One of either kind may have the id.
        for find in (self._api.find_share, self._api.find_snapshot):
            found = find(share_id)
            if found is not None and export in _locations(found):
                return _has_rule_here(found)
            is_known = is_known or found is not None
        return is_known or not (
            exports.address_of(export) in self._api.get_stats().portals
            and self._mounts.is_refused(export)
        )

    def _revoke(self, share_id: str) -> None:
        self._api.revoke_access(
            share_id, holders.of_mounts(holders.this_host())
        )


def _locations(
    found: acme_client.Share | acme_client.Snapshot,
) -> list[str]:
    return [
        exports.choose([location]).location
        for location in found.export_locations
    ]


def _has_rule_here(
    found: acme_client.Share | acme_client.Snapshot,
) -> bool:
    return bool(_holders_here() & found.access.keys())


def _holders_here() -> set[str]:
    here = holders.this_host()
    return {holders.of_host(here), holders.of_service(here)}


def _rotated(
    candidates: Iterable[_Candidate], last: _Candidate
) -> Iterator[_Candidate]:
    """In order, starting after the last one that was checked."""
    ordered = sorted(candidates)
    yield from (each for each in ordered if each > last)
    yield from (each for each in ordered if each <= last)
