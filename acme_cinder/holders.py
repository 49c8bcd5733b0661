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

"""Whose access rules are whose, and which of them are still needed.

Every rule that the driver makes has a holder with the prefix ``cinder``:
``cinder:HOST`` for what is attached to a host, ``cinder-mount:HOST`` for the
driver's own mounts on a host, so that these never take away what a compute
service on the same machine needs. Everybody else's rules have other names
and are left alone; and a rule of ours that outlived its reason (the reply
to a grant was lost, the service was killed) can be told from theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import hashlib
import re
import socket
from typing import Any

from cinder import objects

_HOST_PREFIX = "cinder:"
_MOUNT_PREFIX = "cinder-mount:"
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,200}")

READ_WRITE = "rw"
READ_ONLY = "ro"

#: In these, nobody but attachments has access with a ``cinder:`` rule; in
#: others Cinder may itself, or the old API may be about to attach.
_QUIET_STATUSES = ("available", "detaching", "in-use", "reserved")
_QUIET_MIGRATIONS = (None, "none", "success", "error")


def this_host() -> str:
    """As os-brick calls it in its connectors."""
    return socket.gethostname()


def of_host(host: str) -> str:
    """The holder for what is attached to a host."""
    return _HOST_PREFIX + _plain(host)


def of_mounts(host: str) -> str:
    """The holder for the driver's own mounts on a host."""
    return _MOUNT_PREFIX + _plain(host)


def is_ours(holder: str) -> bool:
    return holder.startswith((_HOST_PREFIX, _MOUNT_PREFIX))


def is_hosts(holder: str) -> bool:
    return holder.startswith(_HOST_PREFIX)


def _plain(host: str) -> str:
    """A host's name; of one that a holder cannot have in it, a digest."""
    if _HOST.fullmatch(host):
        return host
    return hashlib.sha256(host.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Attachment:
    """One attachment of a volume, as far as it matters here.

    :ivar host: None while it is only reserved.
    """

    host: str | None
    level: str
    connector: Mapping[str, Any] | None


def attachments(volume: objects.Volume) -> list[Attachment]:
    """The attachments Cinder knows of, the departing one among them.

    Read now, and not from the volume: where cinder-api has loaded that, it
    does not know of what was attached while our turn came.
    """
    records = objects.VolumeAttachmentList.get_all_by_volume_id(
        volume.obj_context.elevated(), volume.id
    )
    return [_attachment(record) for record in records]


def _attachment(record: objects.VolumeAttachment) -> Attachment:
    connector = record.connector or None
    host = (connector or {}).get("host") or record.attached_host
    read_only = record.attach_mode == READ_ONLY
    return Attachment(
        host=host or None,
        level=READ_ONLY if read_only else READ_WRITE,
        connector=connector,
    )


def remaining(
    volume: objects.Volume, connector: Mapping[str, Any]
) -> list[Attachment]:
    """What stays attached to a host when this connector goes.

    The departing attachment is in the volume's list still, with the very
    connector that we are given, or, where the old API attached it, with a
    host and no connector. When Cinder attaches for itself there is no
    attachment in the list at all.
    """
    present = on_host(attachments(volume), connector["host"])
    for attachment in present:
        if attachment.connector in (None, dict(connector)):
            present.remove(attachment)
            break
    return present


def on_host(present: Iterable[Attachment], host: str) -> list[Attachment]:
    return [item for item in present if item.host == host]


def pending(volume: objects.Volume) -> bool:
    """Whether an attachment is being made of which no host is known yet.

    Cinder writes the host down only after ``initialize_connection`` is
    done: with multiattach it may be the host of the departing one.
    """
    return bool(volume.multiattach) and any(
        item.host is None for item in attachments(volume)
    )


def unneeded(
    access: Iterable[str],
    volume: objects.Volume,
    arriving: str | None = None,
) -> list[str] | None:
    """Which rules of hosts outlived their attachments.

    None while that is not certain: as long as an attachment's connector is
    not known (it is being made, or the old API made it), or when Cinder may
    have the volume attached for itself. To be asked with the volume's lock
    held, and with rules read before.

    :param volume: just read.
    :param arriving: the host that is being given access; the first of its
        attachments has its connector written down only after that.
    """
    present = attachments(volume)
    unknown = sum(item.connector is None for item in present)
    if arriving is not None and not on_host(present, arriving):
        unknown -= 1
    if unknown > 0 or not _is_quiet(volume):
        return None
    hosts = {this_host(), arriving, *(item.host for item in present)}
    needed = {of_host(host) for host in hosts if host}
    return [rule for rule in access if is_hosts(rule) and rule not in needed]


def _is_quiet(volume: objects.Volume) -> bool:
    return (
        volume.status in _QUIET_STATUSES
        and volume.migration_status in _QUIET_MIGRATIONS
    )


def level(present: Iterable[Attachment], mode: str = READ_ONLY) -> str:
    """What a host needs: the most that one of its attachments does."""
    levels = {mode, *(item.level for item in present)}
    return READ_WRITE if READ_WRITE in levels else READ_ONLY


def requested_mode(
    volume: objects.Volume, connector: Mapping[str, Any]
) -> str:
    """Whether an attachment is to be read-only."""
    mode = connector.get("mode")
    if mode in (READ_ONLY, READ_WRITE):
        return str(mode)
    with volume.obj_as_admin():
        metadata = volume.admin_metadata or {}
    read_only = str(metadata.get("readonly")).lower() == "true"
    return READ_ONLY if read_only else READ_WRITE
