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

"""Shares and their volume files: one volume, one share, one raw file.

If the pool has the feature ``share.volume_file``, the appliance creates and
grows the file, and each operation is one request. Otherwise the driver mounts
the share and creates the file.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
from typing import Any
from typing import TypeVar

from cinder import exception
from cinder import objects
from cinder.volume import volume_utils
from oslo_log import log as logging
from oslo_utils import units

from acme_cinder import errors
from acme_cinder import exports
from acme_cinder import features
from acme_cinder import grouping
from acme_cinder import holders
from acme_cinder import identity
from acme_cinder import labels as volume_labels
from acme_cinder import mount
from acme_cinder import owners
from acme_cinder import provisioning
from acme_cinder import recognition
from acme_cinder import records
from acme_cinder import settings as options
from acme_cinder import specs
from acme_cinder import undo
from acme_cinder import volumefile
import acme_client

LOG = logging.getLogger(__name__)
_FREE_OTHERS = "unmount it there, and remove these rules on the appliance"

_Reply = TypeVar("_Reply")


@dataclasses.dataclass(frozen=True)
class Origin:
    """The source of a new share; ``file_name`` is its current file."""

    source: acme_client.Source
    file_name: str

    @classmethod
    def of_volume(cls, volume: objects.Volume) -> Origin:
        share_id = identity.share_id(volume)
        return cls(acme_client.Source("share", share_id), volume.name)

    @classmethod
    def of_snapshot(cls, snapshot: objects.Snapshot) -> Origin:
        snapshot_id = identity.snapshot_id(snapshot)
        source = acme_client.Source("snapshot", snapshot_id)
        return cls(source, snapshot.volume.name)


class Shares:
    """The operations on shares.

    All raise the errors in :data:`acme_cinder.errors.BELOW`.
    """

    def __init__(
        self,
        api: acme_client.Client,
        settings: options.DriverSettings,
        mounts: mount.Mounts,
        known: recognition.Recognition,
    ) -> None:
        self.api = api
        self.features = features.PoolFeatures(api)
        self.provisioning = provisioning.Provisioning(
            self.features, sparse=settings.sparse
        )
        self.files = volumefile.VolumeFiles(
            mounts.commands,
            as_root=not settings.secure_operations,
            allocation=settings.allocation,
            mode=settings.file_mode,
        )
        self._settings = settings
        self._mounts = mounts
        self._known = known

    def create(
        self,
        volume: objects.Volume,
        origin: Origin | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Create a volume's share with its file; return the model update.

        Removes everything after an error, as far as possible.
        """
        given = volume_labels.of_volume(volume) if labels is None else labels
        spec = self.spec(volume, given)
        share = self.with_known_features(
            lambda: self._create(volume, origin, spec())
        )
        with self._discarded_on_error(volume):
            return self.finish_create(volume, origin, share)

    def spec(
        self, volume: objects.Volume, labels: Mapping[str, str]
    ) -> Callable[[], acme_client.GroupShareSpec]:
        """The share that a volume needs, after the checks of its type.

        :returns: a function, because the file in it depends on the pool's
            features, which :meth:`with_known_features` may have to learn.
        :raises InvalidVolumeType: its pool cannot have it.
        """
        _forget_copied_ids(volume)
        pool = pool_of(volume)
        wanted = specs.of_volume(volume)
        self.provisioning.check(wanted, pool)

        def made() -> acme_client.GroupShareSpec:
            has_files = self.features.has(pool, features.VOLUME_FILE)
            return acme_client.GroupShareSpec(
                identity.share_id(volume),
                volume.name,
                size_bytes=bytes_of(volume.size),
                file=self._file_spec(volume, wanted) if has_files else None,
                labels=labels,
                qos=wanted.qos,
            )

        return made

    def with_known_features(self, create: Callable[[], _Reply]) -> _Reply:
        """Create shares; again if the appliance was reconfigured since its
        features were last read."""
        try:
            return create()
        except acme_client.BadRequest as error:
            if not _about_files(error):
                raise
            self.features.distrust()
            return create()

    def _create(
        self,
        volume: objects.Volume,
        origin: Origin | None,
        spec: acme_client.GroupShareSpec,
    ) -> acme_client.Share:
        group = grouping.of_volume(volume)
        with undo.if_unsure(lambda: self.discard(volume)):
            return grouping.in_existing(
                self.api,
                group,
                lambda: self.api.create_share(
                    spec.id,
                    name=spec.name,
                    size_bytes=spec.size_bytes,
                    pool=pool_of(volume),
                    file=spec.file,
                    source=origin.source if origin else None,
                    labels=spec.labels,
                    qos=spec.qos,
                    group_id=group.id if group else None,
                ),
            )

    def finish_create(
        self,
        volume: objects.Volume,
        origin: Origin | None,
        share: acme_client.Share,
    ) -> dict[str, Any]:
        """Make the file if the appliance has not; return the model update."""
        export = exports.choose(
            share.export_locations, portal=self._settings.portal
        )
        if share.file is None:
            self._make_file(volume, origin, export.location)
        return {
            "provider_id": share.id,
            "provider_location": export.location,
        }

    def _make_file(
        self, volume: objects.Volume, origin: Origin | None, location: str
    ) -> None:
        size_bytes = bytes_of(volume.size)
        with self.mounted(volume, location) as path:
            if origin is None:
                self.files.create(path, size_bytes)
            else:
                folder = path.removesuffix(volume.name)
                self.files.adopt(folder + origin.file_name, path, size_bytes)

    def _file_spec(
        self, volume: objects.Volume, wanted: specs.Specs
    ) -> acme_client.VolumeFileSpec:
        return acme_client.VolumeFileSpec(
            name=volume.name,
            format="raw",
            allocation="full"
            if self.provisioning.is_full(wanted)
            else "sparse",
            # Root cannot own volume files: use the appliance's default.
            uid=self._settings.file_uid or None,
            gid=self._settings.file_gid or None,
            mode=self._settings.file_mode,
        )

    def limit(self, volume: objects.Volume, qos: acme_client.Qos) -> None:
        """Set all limits of a volume; None removes a limit."""
        self.api.update_share(identity.share_id(volume), qos=qos)

    @contextlib.contextmanager
    def _discarded_on_error(self, volume: objects.Volume) -> Iterator[None]:
        try:
            yield
        except (*errors.BELOW, exception.CinderException):
            self.discard(volume)
            raise

    def discard(self, volume: objects.Volume) -> None:
        """Delete a share after an error; failures are only logged.

        Cinder still has the volume, in error, and deletes it by its id.
        """
        with undo.left_on_error(volume.name, identity.share_id(volume)):
            self._delete(volume)

    def create_snapshot(self, snapshot: objects.Snapshot) -> None:
        """Create a snapshot of a volume, attached or not."""
        with undo.if_unsure(lambda: self._discard_snapshot(snapshot)):
            self.api.create_snapshot(
                identity.snapshot_id(snapshot),
                identity.share_id(snapshot.volume),
                name=snapshot.name,
                labels=volume_labels.of_snapshot(snapshot),
            )

    def _discard_snapshot(self, snapshot: objects.Snapshot) -> None:
        snapshot_id = identity.snapshot_id(snapshot)
        with undo.left_on_error(snapshot.name, snapshot_id):
            self.api.delete_snapshot(snapshot_id)

    def grow(self, volume: objects.Volume, new_size: int) -> None:
        """Extend a volume, attached or not.

        :param new_size: in GiB; a smaller one is refused.
        :raises VolumeBackendAPIException: there is no share. Cinder also
            extends a volume after a failed create
            (flows/manager/create_volume.py,
            ``_create_from_image_cache_or_download``). VolumeNotFound would
            hide the real error, and prevent the retry on another back end.
        """
        size_bytes = bytes_of(new_size)
        try:
            share = self.api.update_share(
                identity.share_id(volume), size_bytes=size_bytes
            )
        except acme_client.NotFound as error:
            raise exception.VolumeBackendAPIException(
                data=f"{volume.name} cannot be extended: {error}"
            ) from error
        if share.file is None:
            with self.mounted(volume) as path:
                self.files.ensure_size(path, size_bytes)

    def ensure_size_before_attach(self, volume: objects.Volume) -> None:
        """Restore the size of a truncated file before it is attached.

        Clients truncate files: cinder-backup's restore opens the file with
        ``wb`` and writes only non-zero data (Cinder, backup/chunkeddriver.py),
        and a copy by dd may fail halfway. An appliance that manages volume
        files restores the size when it grants access; for others, this does.
        """
        if self.features.has(pool_of(volume), features.VOLUME_FILE):
            return
        with self.mounted(volume) as path:
            self.grow_if_short(volume, path)

    def grow_if_short(self, volume: objects.Volume, path: str) -> None:
        """Give a mounted volume file the size of its volume.

        :raises FileError: it is missing.
        """
        size_bytes = bytes_of(volume.size)
        if self.files.get_size(path) >= size_bytes:
            return
        self.files.ensure_size(path, size_bytes)
        LOG.info(
            "The file of %(volume)s, share %(share)s, was too small and "
            "has its size of %(size)s GiB again",
            {
                "volume": volume.name,
                "share": identity.share_id(volume),
                "size": volume.size,
            },
        )

    def label(self, share_id: str, volume_id: str) -> None:
        """Label a share as the volume's, which a migration changes."""
        self.api.update_share(
            share_id, labels={volume_labels.VOLUME: volume_id}
        )

    def delete(self, volume: objects.Volume) -> None:
        """Delete a volume's share, but no snapshots; success if it is gone.

        Removes the driver's leftover rules if nothing is attached; other rules
        keep the share.

        :raises VolumeIsBusy: the share may exist (:mod:`.recognition`), or
            belongs to another volume. Cinder keeps the volume, available.
        """
        owner = owners.other_than(volume, self.api)
        if owner is not None and not identity.is_doubtful(volume):
            _forget_copied_ids(volume)
        elif owner is not None:
            raise exception.VolumeIsBusy(
                message=f"{volume.name} is not deleted: its share "
                f"{identity.share_id(volume)} has been that of volume "
                f"{owner} since a migration that was not finished. Use "
                "'cinder unmanage', which leaves the share alone",
                volume_name=volume.name,
            )
        doubt = None if self._delete(volume) else self._known.doubt(volume)
        if doubt is None:
            return
        if not volume.provider_location:
            # Its creation failed: it must not become available.
            raise exception.VolumeBackendAPIException(data=doubt)
        raise exception.VolumeIsBusy(
            message=f"{volume.name} is not deleted: {doubt}",
            volume_name=volume.name,
        )

    def _delete(self, volume: objects.Volume) -> bool:
        """:returns: whether the share existed."""
        share_id = identity.share_id(volume)
        return self.when_unused(
            volume, lambda: self.api.delete_share(share_id)
        )

    def when_unused(
        self, volume: objects.Volume, request: Callable[[], _Reply]
    ) -> _Reply:
        """Send a request that the appliance refuses for a share in use; repeat
        it if only the driver's leftover rules prevented it.

        :raises VolumeIsBusy: the share is in use.
        """
        try:
            return request()
        except acme_client.InUse:
            self._revoke_leftovers(volume)
            return request()

    def delete_snapshot(self, snapshot: objects.Snapshot) -> None:
        """Delete a snapshot; gone is fine.

        Rules of ours that are left over from a backup that was cut off are
        taken away, as for a volume.

        :raises SnapshotIsBusy: it may be there, as for a volume; or somebody
            reads it.
        """
        snapshot_id = identity.snapshot_id(snapshot)
        try:
            was_there = self.api.delete_snapshot(snapshot_id)
        except acme_client.InUse:
            self.revoke_snapshot_leftovers(snapshot)
            was_there = self.api.delete_snapshot(snapshot_id)
        if was_there:
            return
        doubt = self._known.doubt(snapshot.volume)
        if doubt is not None:
            raise exception.SnapshotIsBusy(
                message=f"{snapshot.name} is not deleted: {doubt}",
                snapshot_name=snapshot.name,
            )

    def check_gone(self, volume: objects.Volume) -> None:
        """Check that a missing share does not exist any more.

        :raises VolumeBackendAPIException: it may exist.
        """
        doubt = self._known.doubt(volume)
        if doubt is not None:
            raise exception.VolumeBackendAPIException(
                data=f"{volume.name} is not detached, and hosts keep their "
                f"access: {doubt}"
            )

    def _revoke_leftovers(self, volume: objects.Volume) -> None:
        share = self.api.get_share(identity.share_id(volume))
        attached = [
            item.host for item in records.read(volume).records if item.host
        ]
        others = [name for name in share.access if not holders.is_ours(name)]
        if attached or others:
            way_out = "detach it there" if attached else _FREE_OTHERS
            raise exception.VolumeIsBusy(
                message=f"{volume.name} is busy: its share has access "
                f"rules of {', '.join(attached or others)}: {way_out}",
                volume_name=volume.name,
            )
        for holder in share.access:
            LOG.warning(
                "Removing access rule %(holder)s, left over on share "
                "%(share)s of %(volume)s",
                {
                    "holder": holder,
                    "share": share.id,
                    "volume": volume.name,
                },
            )
            self.api.revoke_access(share.id, holder)

    def revoke_snapshot_leftovers(self, snapshot: objects.Snapshot) -> None:
        """Remove the driver's leftover rules of a snapshot.

        :raises SnapshotIsBusy: it is in use.
        """
        snapshot_id = identity.snapshot_id(snapshot)
        found = self.api.get_snapshot(snapshot_id)
        others = [name for name in found.access if not holders.is_ours(name)]
        if others or records.is_backed_up(snapshot):
            way_out = (
                _FREE_OTHERS if others else "wait until its backup has ended"
            )
            raise exception.SnapshotIsBusy(
                message=f"{snapshot.name} is busy: it has access rules of "
                f"{', '.join(others or found.access)}: {way_out}",
                snapshot_name=snapshot.name,
            )
        if snapshot.provider_location:
            self._mounts.detach(snapshot_id, snapshot.provider_location)
        for holder in found.access:
            LOG.warning(
                "Removing access rule %(holder)s, left over on %(snapshot)s",
                {"holder": holder, "snapshot": snapshot.name},
            )
            self.api.revoke_snapshot_access(snapshot_id, holder)

    @contextlib.contextmanager
    def mounted(
        self, volume: objects.Volume, location: str | None = None
    ) -> Iterator[str]:
        """Mount the share here during the block; yield the path of the file.

        :param location: the export, if the volume does not have it yet.
        """
        location = location or volume.provider_location
        share_id = identity.share_id(volume)
        with self.mounted_share(share_id, location) as folder:
            yield f"{folder}/{volume.name}"

    @contextlib.contextmanager
    def mounted_share(
        self, share_id: str, location: str | None
    ) -> Iterator[str]:
        """Mount a share here during the block; yield the mount point."""
        access = self._own_access(share_id, location)
        with self._mounts.mounted(share_id, access) as folder:
            yield folder

    def _own_access(self, share_id: str, present: str | None) -> mount.Access:
        host = holders.this_host()
        holder = holders.of_mounts(host)

        def grant() -> tuple[str, str]:
            portal = self._portal_of(present)
            rule = self.api.grant_access(
                share_id,
                holder,
                self._settings.client_addresses.of_this_host(
                    host, None, portal
                ),
                holders.READ_WRITE,
            )
            export = exports.choose(
                rule.export_locations,
                portal=self._settings.portal,
                present=present,
            )
            return (
                export.location,
                self._settings.mount_options_for(export.nfs_versions),
            )

        return mount.Access(grant, lambda: self.revoke_own(share_id))

    def revoke_own(self, share_id: str) -> None:
        """Remove the rule of the driver's mounts here."""
        holder = holders.of_mounts(holders.this_host())
        self.api.revoke_access(share_id, holder)

    def _portal_of(self, present: str | None) -> str:
        """The address to find this host's own one for, before the rule
        exists."""
        if self._settings.portal:
            return self._settings.portal
        if present:
            return exports.address_of(present)
        portals = self.api.get_stats().portals
        if not portals:
            raise errors.MountError("the appliance has no NFS address")
        return portals[0]


def _forget_copied_ids(volume: objects.Volume) -> None:
    """A volume that is not made yet has no share.

    Cinder makes the records of its image cache and of migrations by copying
    another volume's, with the ids of its share (volume/manager.py,
    ``_clone_image_volume`` and ``_migrate_volume_generic``). Saved at once:
    if the service dies, the volume is deleted by what is in the database.
    """
    if identity.has_ids(volume):
        volume.update({"provider_id": None, "provider_location": None})
        volume.save()


def bytes_of(size: int | str) -> int:
    """GiB to bytes; Cinder sometimes has the number as a string."""
    return int(size) * units.Gi


def pool_of(volume: objects.Volume) -> str | None:
    """The pool that the scheduler chose; None: there was no choice."""
    pool = volume_utils.extract_host(volume.host or "", level="pool")
    return str(pool) if pool else None


def _about_files(error: acme_client.BadRequest) -> bool:
    return any("file" in field.pointer.split("/") for field in error.errors)
