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

"""An orphan, and what can be looked up about it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import datetime
from typing import Any
from typing import Final

from cinder import context as cinder_context
from cinder.db import api as db

from acme_cinder import holders
from acme_cinder import identity
from acme_cinder import mount
from acme_cinder import settings as options
import acme_client

Found = acme_client.Share | acme_client.Snapshot
STABLE: Final = "available"


@dataclasses.dataclass(frozen=True)
class Orphan:
    """:ivar kind: such as ``share``.
    :ivar why: what is known about it.
    :ivar remedy: what a person can do, where the command cannot.
    :ivar remove: looks everything up again and removes it; returns whether
        it did. None: it is not proven to be an orphan.
    """

    kind: str
    id: str
    name: str
    why: str
    remedy: str = ""
    remove: Callable[[], bool] | None = None


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclasses.dataclass
class Scene:
    """One back end, on this host.

    :ivar where: filters for its volumes in Cinder's database.
    :ivar least_age: younger objects are left alone.
    """

    settings: options.DriverSettings
    api: acme_client.Client
    mounts: mount.Mounts
    where: dict[str, str]
    least_age: datetime.timedelta
    now: Callable[[], datetime.datetime] = _now

    def is_old(self, when: datetime.datetime | None) -> bool:
        """Whether a time is long ago; Cinder's times have no zone."""
        if when is None:
            return False
        if when.tzinfo is None:
            when = when.replace(tzinfo=datetime.UTC)
        return self.now() - when >= self.least_age

    def obstacle(self, found: Found) -> str | None:
        """Why an object of the appliance is left alone for now."""
        if found.job_id is not None or found.state != STABLE:
            return f"it is {found.state}, or being changed"
        if not self.is_old(found.updated_at):
            return "it was changed a short time ago"
        own = holders.of_mounts(holders.this_host())
        others = sorted(name for name in found.access if name != own)
        if others:
            return f"it has access rules: {', '.join(others)}"
        return None


class Claims:
    """The shares and snapshots that Cinder's live records name.

    :param volumes, snapshots: database rows.
    """

    def __init__(
        self, volumes: Iterable[Any], snapshots: Iterable[Any]
    ) -> None:
        self.volumes = {
            name: row for row in volumes for name in identity.named_ids(row)
        }
        self.snapshots = {
            name: row
            for row in snapshots
            for name in (row.id, identity.snapshot_id(row))
        }

    @classmethod
    def read(cls) -> Claims:
        """Of all back ends of this Cinder."""
        context = live()
        return cls(db.volume_get_all(context), db.snapshot_get_all(context))


def is_claimed(share: acme_client.Share) -> bool:
    """As :class:`Claims`, for one share, from the database as it is now."""
    context = live()
    return any(
        share.id in identity.named_ids(row)
        for filters in (
            {"id": share.id},
            {"_name_id": share.id},
            {"provider_id": share.id},
            *({"provider_location": each} for each in _locations(share)),
        )
        for row in db.volume_get_all(context, filters=filters)
    )


def _locations(share: acme_client.Share) -> list[str]:
    return [
        f"[{each.address}]:{each.path}"
        if ":" in each.address
        else f"{each.address}:{each.path}"
        for each in share.export_locations
    ]


def live() -> Any:
    """The database, without deleted rows."""
    return cinder_context.get_admin_context()


def everything() -> Any:
    """The database, including deleted rows."""
    return cinder_context.get_admin_context(read_deleted="yes")
