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

"""A volume's current attachments in Cinder's database.

Cinder may pass outdated objects to a driver: cinder-api loads a volume, and
the request waits in a queue.

The state of the database during the driver's calls (Cinder 29,
volume/manager.py):

* ``attachment_update`` calls ``initialize_connection`` while the record of
  the attachment is reserved: without connector and host. It writes both when
  the driver has returned.
* ``attachment_delete`` calls ``terminate_connection`` while the departing
  record still exists, with the connector that the driver gets. The record of a
  reserved attachment is deleted without a call of the driver, and so are all
  records by ``os-reset_status``.
* Cinder's own connections (backup, restore, migration, revert) have no
  record, and neither has a new one of the first attachment API. Records that
  ``os-attach`` writes later have a host or an instance, and no connector.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
from typing import Any

from cinder import objects
from cinder.db import api as db
from cinder.objects import fields
from oslo_serialization import jsonutils

from acme_cinder import holders
from acme_cinder import identity

_RESERVED = fields.VolumeAttachStatus.RESERVED
_ATTACHING = fields.VolumeAttachStatus.ATTACHING
#: In these states Cinder connects a volume only for attachments; in others it
#: may connect it for itself. Extending needs no connection.
QUIET = frozenset(
    {
        "available",
        "reserved",
        "attaching",
        "in-use",
        "detaching",
        "extending",
        "error_extending",
    }
)
_COPYING = frozenset({"starting", "migrating"})


@dataclasses.dataclass(frozen=True)
class Record:
    """The relevant fields of an attachment.

    :ivar id: empty for a connection without a record.
    :ivar host: None while it is unknown.
    :ivar mode: ``rw``, ``ro``, or another value while it is unknown.
    """

    id: str
    host: str | None
    connector: Mapping[str, Any] | None
    mode: str | None
    status: str | None

    @property
    def is_pending(self) -> bool:
        """Reserved: it has no connector yet."""
        return self.connector is None and self.status == _RESERVED

    @property
    def is_of_first_api(self) -> bool:
        """Attached by the first API, which does not record connectors."""
        return self.connector is None and self.status != _RESERVED


@dataclasses.dataclass(frozen=True)
class Situation:
    """A volume and its attachments at one moment."""

    volume: objects.Volume
    records: tuple[Record, ...]

    @property
    def pending(self) -> tuple[Record, ...]:
        return tuple(item for item in self.records if item.is_pending)

    def on_host(self, host: str) -> tuple[Record, ...]:
        return tuple(item for item in self.records if item.host == host)

    def without(self, record: Record | None) -> Situation:
        """The situation without an attachment."""
        return Situation(
            self.volume,
            tuple(
                item
                for item in self.records
                if record is None or item.id != record.id
            ),
        )

    def beside(self, connector: Mapping[str, Any]) -> Situation:
        """The situation with another connection."""
        return Situation(self.volume, (*self.records, connection(connector)))

    def candidates(self, connector: Mapping[str, Any]) -> tuple[Record, ...]:
        """The attachments that a connection may belong to."""
        given = dict(connector)
        return tuple(
            item
            for item in self.records
            if item.is_pending or item.connector == given
        )

    def departing(self, connector: Mapping[str, Any]) -> Record | None:
        """The attachment that ends; None: one without a record.

        Attachments of the first API record only the host.
        """
        given = dict(connector)
        return next(
            (item for item in self.records if item.connector == given), None
        ) or next(
            (
                item
                for item in self.on_host(host_of(given))
                if item.is_of_first_api
            ),
            None,
        )

    @property
    def cinder_works(self) -> bool:
        """Whether Cinder itself may have the volume connected."""
        copying = self.volume.migration_status in _COPYING
        attached = any(item.connector for item in self.records)
        # Nova copies attached volumes.
        return self.volume.status not in QUIET or (copying and not attached)

    @property
    def is_idle(self) -> bool:
        """Whether there can be no connection without a record."""
        status = self.volume.migration_status
        return (
            not self.cinder_works
            and status in (None, "none", "success", "error")
            and self.volume.status not in ("attaching", "detaching")
            and not any(item.is_of_first_api for item in self.records)
        )

    @property
    def arrival_may_hide(self) -> bool:
        """Whether a host may be connected without being in a record.

        This is so from the driver's return until Cinder has written the
        connector. If there is only one reserved record, the driver has written
        it; see :func:`claim`. A new connection of a multiattach volume can
        belong to an attachment whose connector others have, too.
        """
        return len(self.pending) >= (1 if self.volume.multiattach else 2)


def host_of(connector: Mapping[str, Any]) -> str:
    """The host's name, which users of the API can choose."""
    return str(connector.get("host") or "")


def connection(connector: Mapping[str, Any]) -> Record:
    """A connection without a record."""
    return Record(
        id="",
        host=host_of(connector),
        connector=connector,
        mode=connector.get("mode"),
        status=_ATTACHING,
    )


def read(volume: objects.Volume) -> Situation:
    """:raises VolumeNotFound: Cinder has no such volume."""
    context = volume.obj_context.elevated()
    found = objects.Volume.get_by_id(context, volume.id)
    rows = objects.VolumeAttachmentList.get_all_by_volume_id(
        context, volume.id
    )
    return Situation(found, tuple(_record(row, row.connector) for row in rows))


def _record(row: Any, connector: Mapping[str, Any] | None) -> Record:
    connector = connector or None
    return Record(
        id=row.id,
        host=host_of(connector or {}) or row.attached_host or None,
        connector=connector,
        mode=_mode(row.attach_mode, connector),
        status=row.attach_status,
    )


def is_backed_up(snapshot: objects.Snapshot) -> bool:
    """Whether a backup may be reading a snapshot now.

    Cinder sets the state of a user's snapshot; for a snapshot that it creates
    for a backup, it sets the state of the volume.

    :raises SnapshotNotFound, VolumeNotFound: it does not exist any more.
    """
    context = snapshot.obj_context.elevated()
    found = objects.Snapshot.get_by_id(context, snapshot.id)
    volume = objects.Volume.get_by_id(context, found.volume_id)
    return bool(
        found.status == fields.SnapshotStatus.BACKING_UP
        or volume.status == fields.VolumeStatus.BACKING_UP
    )


def read_all(context: Any) -> dict[str, tuple[str, list[Record]]]:
    """All attachments in one query: share id to volume id and records."""
    found: dict[str, tuple[str, list[Record]]] = {}
    for row in db.volume_attachment_get_all(context):
        if row.volume is not None:
            _, records = found.setdefault(
                identity.share_id(row.volume), (row.volume_id, [])
            )
            records.append(_record(row, _connector(row.connector)))
    return found


def _mode(
    recorded: str | None, connector: Mapping[str, Any] | None
) -> str | None:
    """If ``null``, Cinder uses the connector's and records it later."""
    if recorded in (holders.READ_WRITE, holders.READ_ONLY):
        return recorded
    return (connector or {}).get("mode")


def _connector(text: str | None) -> Mapping[str, Any] | None:
    return jsonutils.loads(text) if text else None


def claim(
    volume: objects.Volume, record: Record, connector: Mapping[str, Any]
) -> None:
    """Record the host of an attachment before the host gets access.

    Cinder writes the same a moment later (volume/manager.py,
    ``_connection_create``). Written earlier, it explains the host's access,
    even if this process dies; and Cinder calls the driver when it deletes the
    attachment.

    :raises VolumeAttachmentNotFound: it was deleted.
    """
    _update(
        volume,
        record,
        attach_status=_ATTACHING,
        connector=jsonutils.dumps(dict(connector)),
    )


def unclaim(volume: objects.Volume, record: Record) -> None:
    """Reset it to reserved, because the host did not get access.

    :raises VolumeAttachmentNotFound: it was deleted.
    """
    _update(volume, record, attach_status=record.status, connector=None)


def _update(volume: objects.Volume, record: Record, **values: Any) -> None:
    db.volume_attachment_update(
        volume.obj_context.elevated(), record.id, values
    )


def level(volume: objects.Volume, modes: Iterable[str | None]) -> str:
    """The access level for attachments with these modes on one host.

    Also reads ``readonly`` in the admin metadata: even if its value is not
    True, Cinder records every attachment as read-only, and tells Nova that it
    is not (volume/api.py, ``attachment_create``; volume/manager.py,
    ``_parse_connection_options``).
    """
    with volume.obj_as_admin():
        flag = (volume.admin_metadata or {}).get("readonly")
    is_flagged = str(flag).lower() == "true"
    if flag is not None and not is_flagged:
        return holders.READ_WRITE
    unsaid = holders.READ_ONLY if is_flagged else holders.READ_WRITE
    known = (holders.READ_WRITE, holders.READ_ONLY)
    found = {mode if mode in known else unsaid for mode in modes}
    return holders.READ_ONLY if found == {"ro"} else holders.READ_WRITE
