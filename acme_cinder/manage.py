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

"""Manage existing shares as volumes, and unmanage them.

A managed share has one raw file, which is renamed as Cinder's volumes are. Its
id does not change; see :mod:`.identity`. If Cinder fails afterwards, managing
can be repeated: the share keeps its name, and a label without a volume is
ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import Any
from typing import NoReturn

from cinder import exception
from cinder import objects
from cinder.volume import volume_types
from cinder.volume import volume_utils
from oslo_log import log as logging
from oslo_utils import units

from acme_cinder import copies
from acme_cinder import errors
from acme_cinder import exports
from acme_cinder import holders
from acme_cinder import identity
from acme_cinder import labels
from acme_cinder import owners
from acme_cinder import settings as options
from acme_cinder import shares
from acme_cinder import specs
import acme_client

LOG = logging.getLogger(__name__)

Reference = dict[str, Any]


def size_of(found: acme_client.Share | acme_client.Snapshot) -> int:
    """In GiB, rounded up."""
    return -(-found.size_bytes // units.Gi)


def refuse(reference: Any, reason: str) -> NoReturn:
    """:raises ManageExistingInvalidReference: with the reason."""
    raise exception.ManageExistingInvalidReference(
        existing_ref=reference, reason=reason
    )


def refuse_owned(reference: Any, owner: owners.Owner, label: str) -> NoReturn:
    """:raises ManageExistingAlreadyManaged: by that owner."""
    raise exception.ManageExistingAlreadyManaged(
        message=f"{reference} cannot be managed: {owner.reason(label)}"
    )


def obstacle(share: acme_client.Share) -> str | None:
    """Why a share cannot be managed, with the solution; None: it can.

    Checks only the share itself.
    """
    if copies.is_copy(share):
        return "it is a copy for an image, and is deleted with that work"
    if share.state != "available":
        return (
            f"its state is {share.state}: wait, or mend it on the appliance, "
            "until it is available"
        )
    own = holders.of_mounts(holders.this_host())
    others = [holder for holder in share.access if holder != own]
    if others:
        return (
            f"it may be in use, {', '.join(sorted(others))} may mount it: "
            "unmount it there, and remove these access rules on the appliance"
        )
    return None


class Managed:
    """Manages shares as volumes, and unmanages them."""

    def __init__(
        self, volume_shares: shares.Shares, settings: options.DriverSettings
    ) -> None:
        self._shares = volume_shares
        self._api = volume_shares.api
        self._files = volume_shares.files
        self._settings = settings

    # -- take over

    def get_size(self, volume: objects.Volume, reference: Reference) -> int:
        """The size of the future volume in GiB.

        Also checks the file: Cinder asks for the size first, before anything
        is changed.

        :raises ManageExistingInvalidReference: there is no such share, or
            it cannot be a volume; nothing is changed.
        :raises ManageExistingAlreadyManaged: it is a volume.
        :raises ManageExistingVolumeTypeMismatch: it cannot have that type.
        """
        share = self._find(volume, reference)
        with self._refused(reference):
            self._look_at_file(share)
        return size_of(share)

    def adopt(
        self, volume: objects.Volume, reference: Reference
    ) -> dict[str, Any]:
        """Turn a share into the volume's; return the model update.

        :raises: see :meth:`get_size`.
        """
        share = self._find(volume, reference)
        changed = self._claim(volume, reference, share)
        export = exports.choose(
            changed.export_locations, portal=self._settings.portal
        )
        if changed.file is None:
            with self._refused(reference):
                self._name_file(volume, changed, export.location)
        LOG.info(
            "Managed share %(share)s, %(name)s, as %(volume)s",
            {"share": share.id, "name": share.name, "volume": volume.name},
        )
        return {
            "provider_id": share.id,
            "provider_location": export.location,
            # Without a pool if none was given.
            "host": volume.host
            if shares.pool_of(volume)
            else volume_utils.append_host(volume.host, share.pool),
        }

    def _find(
        self, volume: objects.Volume, reference: Reference
    ) -> acme_client.Share:
        share = self._get(reference)
        owner = owners.of_share(
            share,
            owners.find_volumes(share.id),
            owners.find_labelled([share]),
        )
        # An earlier call may have succeeded without a reply to Cinder.
        if owner is not None and owner.id != volume.id:
            refuse_owned(reference, owner, labels.VOLUME)
        reason = obstacle(share) or self._misplacement(volume, share)
        if reason is not None:
            refuse(reference, reason)
        self._check_type(volume, share)
        return share

    def _get(self, reference: Reference) -> acme_client.Share:
        """One request, and another one per thousand shares of the same
        name."""
        known_id, name = find_by(reference)
        if known_id is not None:
            try:
                return self._api.get_share(known_id)
            except acme_client.NotFound:
                refuse(
                    reference,
                    "the appliance has no such share, or it is of another "
                    "namespace than the driver's credential",
                )
        found = list(self._api.list_shares(name=name))
        only: acme_client.Share = the_only_one(reference, found)
        return only

    def _misplacement(
        self, volume: objects.Volume, share: acme_client.Share
    ) -> str | None:
        wanted = shares.pool_of(volume)
        known = self._settings.pools
        if known and share.pool not in known:
            return (
                f"it is in pool {share.pool}, and acme_pools of this back "
                f"end has only {', '.join(known)}"
            )
        if wanted and wanted != share.pool:
            host = volume_utils.extract_host(volume.host)
            return (
                f"it is in pool {share.pool}, not {wanted}: manage it at "
                f"the host {host}#{share.pool}"
            )
        return None

    def _check_type(
        self, volume: objects.Volume, share: acme_client.Share
    ) -> None:
        context = volume.obj_context.elevated()
        type_id = volume.volume_type_id
        if type_id and volume_types.is_encrypted(context, type_id):
            raise exception.ManageExistingVolumeTypeMismatch(
                reason="what is managed is not encrypted by Cinder: choose a "
                "volume type without encryption"
            )
        wanted = specs.of_type(type_id)
        asked = wanted.provisioning
        if asked and share.file and asked != _provisioning(share.file):
            raise exception.ManageExistingVolumeTypeMismatch(
                reason=f"the type has {specs.PROVISIONING}={asked}, and the "
                f"share's file is {_provisioning(share.file)}: choose "
                "another volume type"
            )
        self._shares.provisioning.check(wanted, share.pool)

    def _look_at_file(self, share: acme_client.Share) -> None:
        """:raises FileError: it is not a volume file; with the solution."""
        with self._shares.mounted_share(
            share.id, self._location(share)
        ) as folder:
            name = self._only_file(share, folder)
            path = f"{folder}/{name}"
            self._check_size(share, name, self._files.get_size(path))
            if not self._files.is_usable(path):
                raise errors.FileError(
                    f"its file {name} can be read and written by others "
                    "only: give it to the owner that acme_file_uid and "
                    "acme_file_gid name, with the mode 0660"
                )
            found = self._files.get_format(
                path, volume_utils.image_conversion_dir()
            )
            if found != "raw":
                raise errors.FileError(
                    f"its file {name} is a {found} image, and volumes are "
                    "raw: convert it with 'qemu-img convert -O raw'"
                )

    def _only_file(self, share: acme_client.Share, folder: str) -> str:
        names = self._files.names(folder)
        expected = share.file.name if share.file else None
        if not names or (expected and expected not in names):
            missing = f"its file {expected}" if expected else "a file in it"
            raise errors.FileError(
                f"{missing} is missing: put the volume's data there, as one "
                "raw file"
            )
        if len(names) > 1:
            others = [name for name in names if name != expected]
            raise errors.FileError(
                f"there is more than one file in it, {', '.join(others)}: "
                "leave only the volume's"
            )
        return names[0]

    def _check_size(
        self, share: acme_client.Share, name: str, size_bytes: int
    ) -> None:
        if size_bytes < share.size_bytes:
            raise errors.FileError(
                f"its file {name} has {size_bytes} bytes and is shorter than "
                f"the share, which has {share.size_bytes}. If nothing is "
                f"missing, 'truncate -s {share.size_bytes}' it"
            )
        if size_bytes > share.size_bytes:
            raise errors.FileError(
                f"its file {name} has {size_bytes} bytes, and the share only "
                f"{share.size_bytes}: grow the share on the appliance"
            )

    def _claim(
        self,
        volume: objects.Volume,
        reference: Reference,
        share: acme_client.Share,
    ) -> acme_client.Share:
        """Label the share, extend it to full GiB and rename its file,
        atomically, if it has not changed since the check."""
        try:
            return self._api.update_share(
                share.id,
                size_bytes=size_of(share) * units.Gi,
                labels=labels.of_volume(volume),
                file_name=volume.name if share.file else None,
                qos=specs.of_volume(volume).qos,
                if_match=share.generation,
            )
        except (acme_client.PreconditionFailed, acme_client.NotFound):
            refuse(
                reference,
                "it has just been changed by somebody else: look at it "
                "again, and repeat the call",
            )

    def _name_file(
        self,
        volume: objects.Volume,
        share: acme_client.Share,
        location: str,
    ) -> None:
        """For appliances that do not manage files."""
        with self._shares.mounted_share(share.id, location) as folder:
            path = f"{folder}/{volume.name}"
            self._files.rename(
                f"{folder}/{self._only_file(share, folder)}", path
            )
            self._files.ensure_size(path, share.size_bytes)

    def _location(self, share: acme_client.Share) -> str:
        return exports.choose(
            share.export_locations, portal=self._settings.portal
        ).location

    @contextlib.contextmanager
    def _refused(self, reference: Reference) -> Iterator[None]:
        try:
            yield
        except errors.FileError as error:
            refuse(reference, str(error))

    # -- give back

    def release(self, volume: objects.Volume) -> None:
        """Remove the driver's labels and access rules from a volume's share.

        The record of a migration has no share: it belongs to another volume.
        """
        owner = owners.other_than(volume, self._api)
        share_id = identity.share_id(volume)
        if owner is not None:
            LOG.warning(
                "Share %(share)s of %(volume)s is left as it is: it is that "
                "of volume %(owner)s",
                {"share": share_id, "volume": volume.name, "owner": owner},
            )
            return
        try:
            share = self._api.update_share(share_id, labels=labels.REMOVED)
        except acme_client.NotFound:
            LOG.warning(
                "The appliance has no share %(share)s of %(volume)s",
                {"share": share_id, "volume": volume.name},
            )
            return
        for holder in share.access:
            if holders.is_ours(holder):
                self._api.revoke_access(share_id, holder)

    def forget(self, volume: objects.Volume) -> None:
        """Keep the share of a volume that could not be managed, and that is
        deleted in Cinder."""
        for share in self._api.list_shares(labels={labels.VOLUME: volume.id}):
            self._api.update_share(share.id, labels=labels.REMOVED)


def _provisioning(file: acme_client.VolumeFile) -> str:
    return specs.THICK if file.allocation == "full" else specs.THIN


def find_by(reference: Reference) -> tuple[str | None, str | None]:
    """The id or the name in a reference.

    :raises ManageExistingInvalidReference: it has neither.
    """
    known_id = reference.get("source-id")
    if known_id:
        if not identity.is_id(str(known_id)):
            refuse(reference, "source-id is not an id of the appliance")
        return str(known_id), None
    name = reference.get("source-name")
    if not name:
        refuse(reference, "give a source-id or a source-name")
    return None, str(name)


def the_only_one(reference: Reference, found: list[Any]) -> Any:
    """:raises ManageExistingInvalidReference: there is none, or several."""
    if not found:
        refuse(reference, "the appliance has none of this name here")
    if len(found) > 1:
        ids = ", ".join(each.id for each in found[:5])
        refuse(
            reference,
            f"several have this name: give the source-id, one of {ids}",
        )
    return found[0]
