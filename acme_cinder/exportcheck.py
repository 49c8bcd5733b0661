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

"""The check of attached volumes when the service starts.

Cinder's manager passes every attached volume, one after the other, before the
service accepts requests (volume/manager.py, ``init_host``). An error would put
the volume in error, so the check never raises. All volumes share a time
budget: the periodic report of the statistics checks the rest later.

The appliance may know none of the volumes; see :mod:`.recognition`. Then one
error is logged, the back end is reported down until that is fixed, and nothing
else is changed. If only single shares are missing, an error is logged.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Mapping
import threading
import time

from cinder import context as cinder_context
from cinder import exception
from cinder import objects
from oslo_log import log as logging

from acme_cinder import attachments
from acme_cinder import identity
from acme_cinder import recognition
import acme_client

LOG = logging.getLogger(__name__)

#: Time budget of the service's start, and of each later pass.
BUDGET_SECONDS = 30.0
#: Limit of each call of the API in a pass.
_CALL_SECONDS = 15.0
#: Up to this many volumes are requested one by one, instead of listing all
#: shares, of which there can be 10,000.
_FEW = 3
#: Maximum number of volumes in a message.
_NAMED = 5

Rules = Mapping[str, acme_client.AccessRule]


class _OutOfTime(Exception):
    """The budget is used up; the next pass continues."""


#: These errors would affect every other volume, too.
_PUT_OFF = (
    _OutOfTime,
    acme_client.TransportError,
    acme_client.ProtocolError,
    acme_client.AuthenticationFailed,
    acme_client.Unavailable,
    acme_client.RateLimited,
)


class ExportCheck:
    """Checks attached volumes, within a time budget.

    Thread-safe: one pass at a time.
    """

    def __init__(
        self,
        api: acme_client.Client,
        volume_attachments: attachments.Attachments,
        known: recognition.Recognition,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api.with_deadline(_CALL_SECONDS)
        self._attachments = volume_attachments
        self._recognition = known
        self._clock = clock
        self._lock = threading.Lock()
        self._until = clock() + BUDGET_SECONDS
        self._waiting: collections.deque[str] = collections.deque()
        self._absent: set[str] = set()
        self._told: frozenset[str] = frozenset()
        self._known: set[str] = set()
        #: None: not compared yet.
        self._foreign: bool | None = None
        self._can_list = True
        self._listing: dict[str, Rules] | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether the appliance knows none of the volumes."""
        return bool(self._foreign)

    # -- at the start

    def begin(self) -> None:
        """Start the time budget when the service starts."""
        self._until = self._clock() + BUDGET_SECONDS

    def ensure_at_start(self, volume: objects.Volume) -> None:
        """Check a volume, or postpone it. Never raises."""
        if self._waiting and self._clock() >= self._until:
            self._waiting.append(volume.id)
            return
        try:
            self._check(volume, many=True)
        except _PUT_OFF as error:
            self._waiting.append(volume.id)
            self._until = self._clock()
            LOG.warning(
                "The access rules of attached volumes are checked later, "
                "%(volume)s the first: %(error)s",
                {"volume": volume.name, "error": error},
            )
        except Exception as error:
            # After any error Cinder would put the volume in error.
            self._waiting.append(volume.id)
            _warn(volume, error)

    def ensure(self, volume: objects.Volume) -> None:
        """Check a volume at any other time.

        Does not raise for temporary errors, or an absent share.
        """
        try:
            self._attachments.ensure(volume)
        except acme_client.NotFound:
            self._absent.add(volume.id)
            self._tell_of_absent()
        except Exception as error:
            _warn(volume, error)

    # -- later

    def run(self) -> None:
        """Check postponed volumes in one pass. Never raises."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._until = self._clock() + BUDGET_SECONDS
            # Absent shares may exist now.
            self._waiting.extend(self._absent.difference(self._waiting))
            self._run()
            self._recognise()
        except _PUT_OFF as error:
            LOG.warning(
                "%(count)d attached volumes are still to be checked: "
                "%(error)s",
                {"count": len(self._waiting), "error": error},
            )
        except Exception:
            LOG.exception("Attached volumes are still to be checked")
        finally:
            self._listing = None
            self._tell_of_absent()
            self._lock.release()

    def _run(self) -> None:
        """:raises: the error that postpones the rest."""
        many = len(self._waiting) > _FEW
        for _ in range(len(self._waiting)):
            volume = _find_attached(self._waiting[0])
            if volume is None:
                self._absent.discard(self._waiting.popleft())
                continue
            try:
                self._check(volume, many=many)
                self._waiting.popleft()
            except _PUT_OFF:
                raise
            except Exception as error:
                _warn(volume, error)
                self._waiting.rotate(-1)

    def _recognise(self) -> None:
        """Once, and again while the appliance or a volume is in doubt."""
        if self._known:
            foreign = False
        elif self._absent or self._foreign is not False:
            foreign = self._recognition.is_foreign(listing=self._listing)
        else:
            return
        if foreign and not self._foreign:
            LOG.error(
                "The back end is reported down: %s. %s",
                recognition.FOREIGN,
                _DOWN,
            )
        self._foreign = foreign

    def _check(self, volume: objects.Volume, *, many: bool) -> None:
        if self._clock() >= self._until:
            raise _OutOfTime("the time for them is used up")
        rules = self._rules_of(volume, many)
        if rules is None:
            self._absent.add(volume.id)
            return
        self._absent.discard(volume.id)
        self._known.add(volume.id)
        self._attachments.repair(self._api, volume, rules)

    def _rules_of(self, volume: objects.Volume, many: bool) -> Rules | None:
        """The access rules of a volume's share; None: it does not exist.

        For many volumes it lists all shares, a thousand per request, instead
        of a request per volume.
        """
        if many and self._can_list and self._listing is None:
            self._listing = self._list()
        if self._listing is not None:
            return self._listing.get(identity.share_id(volume))
        share = self._api.find_share(identity.share_id(volume))
        return None if share is None else share.access

    def _list(self) -> dict[str, Rules]:
        found: dict[str, Rules] = {}
        for share in self._api.list_shares():
            found[share.id] = share.access
            if self._clock() >= self._until:
                # Otherwise every pass would end here.
                self._can_list = False
                raise _OutOfTime("it takes too long to list all shares")
        return found

    def _tell_of_absent(self) -> None:
        """Log all absent shares once, and again if there are others."""
        absent = frozenset(self._absent)
        if self.is_foreign:
            return
        if absent <= self._told:
            self._told = absent
            return
        self._told = absent
        named = ", ".join(sorted(absent)[:_NAMED])
        if len(absent) > _NAMED:
            named += ", ..."
        LOG.error(
            "The appliance has no shares of %(absent)d attached volumes: "
            "%(named)s. Look for them on the appliance; no volume is changed",
            {"absent": len(absent), "named": named},
        )


_DOWN = (
    "No volume is changed until this is mended, and none is deleted or "
    "detached. If that appliance is lost for good, see the documentation"
)


def _warn(volume: objects.Volume, error: Exception) -> None:
    LOG.warning(
        "Could not check the access rules of %(volume)s, share %(share)s: "
        "%(error)s",
        {
            "volume": volume.name,
            "share": identity.share_id(volume),
            "error": error,
        },
    )


def _find_attached(volume_id: str) -> objects.Volume | None:
    """The current volume; None: it is not attached any more."""
    try:
        found = objects.Volume.get_by_id(
            cinder_context.get_admin_context(), volume_id
        )
    except exception.VolumeNotFound:
        return None
    return found if found.status == "in-use" else None
