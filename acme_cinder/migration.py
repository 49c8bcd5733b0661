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

"""Cinder's copies between volumes: refuse unsafe ones, and complete others.

For Cinder, a retype can be a migration. If it changes the encryption, Cinder's
manager opens both volumes with os-brick's encryptors (volume/manager.py,
``_copy_volume_data``). The one for LUKS replaces the volume's file by a
symbolic link to a device: the data is written to a file without a name, and
the migration succeeds and deletes the source. Without such a change no
encryptor is used, and the copy of encrypted data is correct.
"""

from __future__ import annotations

from typing import Any

from cinder import exception
from cinder import objects
from cinder.volume import volume_types
from oslo_log import log as logging

from acme_cinder import errors
from acme_cinder import identity
from acme_cinder import shares
from acme_cinder import timelimits

LOG = logging.getLogger(__name__)

_TARGET = "target:"


def check(
    context: Any, source: objects.Volume, target: objects.Volume
) -> None:
    """Refuse a copy that changes the encryption.

    :raises VolumeMigrationFailed: it does.
    """
    if volume_types.volume_types_encryption_changed(
        context.elevated(), source.volume_type_id, target.volume_type_id
    ):
        raise exception.VolumeMigrationFailed(
            reason=f"the volume types of {source.name} and {target.name} "
            "differ in their encryption, and copying between them would "
            "destroy volume files on NFS. Instead, create a volume of the "
            "new type, attach both to a server, and copy the data there"
        )


def check_target(volume: objects.Volume) -> None:
    """Like :func:`check`, for the possible target of a migration.

    The source's back end may have another driver, which does not refuse.
    Costs nothing for other volumes.
    """
    status = volume.migration_status or ""
    if status.startswith(_TARGET):
        context = volume.obj_context
        source = objects.Volume.get_by_id(
            context.elevated(), status.removeprefix(_TARGET)
        )
        check(context, source, volume)


def complete(
    volume_shares: shares.Shares,
    volume: objects.Volume,
    new_volume: objects.Volume,
) -> dict[str, Any]:
    """The new volume's share has the data: label it as the volume's.

    :returns: the model update, without ``provider_id``: Cinder swaps that
        later, with all other columns, and would swap it back.
    """
    share_id = identity.share_id(new_volume)
    try:
        with timelimits.of_call():
            volume_shares.label(share_id, volume.id)
    except errors.BELOW as error:
        # The data is complete; the sweep labels attached volumes.
        LOG.warning(
            "Share %(share)s is not labelled as that of %(volume)s: %(error)s",
            {"share": share_id, "volume": volume.id, "error": error},
        )
    return {
        # The file is named after it.
        "_name_id": new_volume.name_id,
        "provider_location": new_volume.provider_location,
    }
