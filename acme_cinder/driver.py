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

"""Cinder's volume driver, with one method per call."""

from __future__ import annotations

from typing import Any

from cinder import exception
from cinder import interface
from cinder import objects
from cinder.volume import driver
from cinder.volume import driver_utils
from cinder.volume import volume_utils
from oslo_log import log as logging

from acme_cinder import access
from acme_cinder import errors
from acme_cinder import features
from acme_cinder import groupcalls
from acme_cinder import identity
from acme_cinder import imagecalls
from acme_cinder import managecalls
from acme_cinder import migration
from acme_cinder import mixins
from acme_cinder import mount
from acme_cinder import moves
from acme_cinder import opts
from acme_cinder import parts
from acme_cinder import recognition
from acme_cinder import retype
from acme_cinder import reverts
from acme_cinder import settings as options
from acme_cinder import shares
from acme_cinder import specs
from acme_cinder import startup
from acme_cinder import timelimits
from acme_cinder import transfers
from acme_cinder import usermessages
import acme_client

LOG = logging.getLogger(__name__)


@interface.volumedriver
class acmeNfsDriver(  # noqa: N801 - the name operators configure
    groupcalls.GroupCalls,
    imagecalls.ImageCalls,
    managecalls.ManageCalls,
    driver.MigrateVD,
    mixins.ExtendVD,
    mixins.LocalVD,
    mixins.TransferVD,
    driver.BaseVD,
):
    """NFS driver with one share per volume, managed over a REST API.

    Several services of a cluster can run it: the process has no state
    except caches, requests can be repeated, also concurrently by two
    services, the appliance makes one change of a share at a time, and locks
    of each host protect its mounts.
    """

    VERSION = "1.0.0"
    CI_WIKI_NAME = "acme_cinder_CI"
    SUPPORTS_ACTIVE_ACTIVE = True
    vendor_name = "acme"
    driver_volume_type = "nfs"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(
            [*opts.DRIVER_OPTS, *opts.UNUSED_OPTS]
        )
        self._stats: dict[str, Any] = {}

    @staticmethod
    def get_driver_options() -> list[Any]:
        return list(opts.DRIVER_OPTS)

    # -- start

    @volume_utils.trace
    def do_setup(self, context: Any) -> None:
        """Read the configuration, without sending requests."""
        settings = options.read(self.configuration)
        options.warn_of_unused(self.configuration)
        self.assemble(
            settings,
            startup.new_client(settings),
            startup.new_mounts(settings, self.configuration.config_group),
        )

    def assemble(
        self,
        settings: options.DriverSettings,
        api: acme_client.Client,
        mounts: mount.Mounts,
    ) -> None:
        """Create the parts; tests replace some of them."""
        namespace = self._driver_data_namespace() or type(self).__name__
        made = parts.assemble(
            settings,
            api,
            mounts,
            recognition.Recognition(api, self.host, self.cluster_name),
            driver_data=driver_utils.VolumeDriverUtils(namespace, self.db),
            execute=self._execute,
            blocksize=self.configuration.volume_dd_blocksize,
        )
        self._parts = made
        self._api = api
        self._mounts = mounts
        self._settings = made.settings
        self._shares = made.shares
        self._export_check = made.export_check
        self._reaper = made.reaper
        self._sweep = made.sweep

    @volume_utils.trace
    def check_for_setup_error(self) -> None:
        """Check this host and the appliance; Cinder retries after errors."""
        where = (self._settings, self._api, self._mounts)
        startup.check_host(*where)
        found = startup.check_appliance(*where)
        self._parts.report.learn(found)
        self._export_check.begin()
        self._reaper.run_if_due()

    def secure_file_operations_enabled(self) -> bool:
        """``auto`` means yes; this does not depend on a mount."""
        return self._settings.secure_operations

    # -- volumes

    @volume_utils.trace
    def create_volume(self, volume: objects.Volume) -> dict[str, Any]:
        with errors.operation("Created", volume=volume):
            update = self._shares.create(volume)
            if volume.encryption_key_id:
                self._parts.images.format_new(volume, update)
        return update

    @volume_utils.trace
    def create_volume_from_snapshot(
        self, volume: objects.Volume, snapshot: objects.Snapshot
    ) -> dict[str, Any]:
        with (
            usermessages.on_failure(*usermessages.CLONE, volume),
            errors.operation(
                "Created from a snapshot", volume=volume, source=snapshot
            ),
        ):
            return self._shares.create(
                volume, shares.Origin.of_snapshot(snapshot)
            )

    @volume_utils.trace
    def create_cloned_volume(
        self, volume: objects.Volume, src_vref: objects.Volume
    ) -> dict[str, Any]:
        with (
            usermessages.on_failure(*usermessages.CLONE, volume),
            errors.operation("Cloned", volume=volume, source=src_vref),
        ):
            return self._shares.create(
                volume, shares.Origin.of_volume(src_vref)
            )

    @volume_utils.trace
    def delete_volume(self, volume: objects.Volume) -> None:
        with errors.operation("Deleted", volume=volume):
            if volume.status == "error_managing_deleting":
                self._parts.managed.forget(volume)
            else:
                self._shares.delete(volume)

    @volume_utils.trace
    def extend_volume(self, volume: objects.Volume, new_size: int) -> None:
        with errors.operation(f"Extended to {new_size} GiB", volume=volume):
            self._shares.grow(volume, new_size)

    def local_path(self, volume: objects.Volume) -> str:
        """The file's path while the volume is attached to this host."""
        if not volume.provider_location:
            raise exception.InvalidVolume(
                reason=f"{volume.name} has no provider_location yet"
            )
        folder = self._mounts.attached_path(volume.provider_location)
        return f"{folder}/{volume.name}"

    @volume_utils.trace
    def accept_transfer(
        self,
        context: Any,
        volume: objects.Volume,
        new_user: str,
        new_project: str,
    ) -> dict[str, Any]:
        """Only labels on the appliance depend on the project."""
        with (
            errors.operation(
                f"Transferred to project {new_project}", volume=volume
            ),
            timelimits.of_call(),
        ):
            transfers.accept(self._api, context, volume, new_project)
        return {}

    @volume_utils.trace
    def migrate_volume(
        self, context: Any, volume: objects.Volume, host: dict[str, Any]
    ) -> tuple[bool, dict[str, Any] | None]:
        """Move a volume to another pool of the appliance; False: Cinder
        must copy the data."""
        with errors.operation(f"Migrated to {host['host']}", volume=volume):
            update = moves.move(self._shares, self._settings, volume, host)
        return update is not None, update

    @volume_utils.trace
    def before_volume_copy(
        self,
        context: Any,
        src_vol: objects.Volume,
        dest_vol: objects.Volume,
        remote: str | None = None,
    ) -> None:
        """Called on the source's host, before Cinder attaches both volumes.

        :raises VolumeMigrationFailed: copying would destroy the file.
        """
        with usermessages.on_failure(*usermessages.MIGRATE, src_vol, context):
            migration.check(context, src_vol, dest_vol)

    @volume_utils.trace
    def update_migrated_volume(
        self,
        ctxt: Any,
        volume: objects.Volume,
        new_volume: objects.Volume,
        original_volume_status: str,
    ) -> dict[str, Any]:
        """Keep the new share, and label it as the volume's."""
        return migration.complete(self._shares, volume, new_volume)

    @volume_utils.trace
    def retype(
        self,
        context: Any,
        volume: objects.Volume,
        new_type: objects.VolumeType,
        diff: dict[str, Any],
        host: dict[str, Any],
    ) -> bool:
        """Return whether it is done; if not, Cinder may copy the data.

        :raises InvalidVolumeType: the volume's pool does not support the
            type. Cinder logs it, and may copy the volume to another pool.
        """
        with errors.translated(volume=volume):
            return retype.in_place(
                self._shares, volume, new_type, diff, host["host"]
            )

    # -- snapshots

    @volume_utils.trace
    def create_snapshot(self, snapshot: objects.Snapshot) -> dict[str, Any]:
        with errors.operation("Took", snapshot=snapshot):
            self._shares.create_snapshot(snapshot)
        return {"provider_id": snapshot.id}

    @volume_utils.trace
    def delete_snapshot(self, snapshot: objects.Snapshot) -> None:
        with errors.operation("Deleted", snapshot=snapshot):
            self._shares.delete_snapshot(snapshot)

    @volume_utils.trace
    def revert_to_snapshot(
        self,
        context: Any,
        volume: objects.Volume,
        snapshot: objects.Snapshot,
    ) -> None:
        """:raises NotImplementedError: Cinder must copy the snapshot."""
        with errors.operation(
            f"Reverted to {snapshot.name}", volume=volume, source=snapshot
        ):
            reverts.revert(self._shares, context, volume, snapshot)

    def snapshot_revert_use_temp_snapshot(self) -> bool:
        """Not if the appliance reverts: that ends with the old or the new
        content, while Cinder's copy can fail halfway."""
        with errors.translated():
            return not self._shares.features.has(None, features.REVERT)

    def backup_use_temp_snapshot(self) -> bool:
        """Whether backups read snapshots instead of temporary clones.

        Always if possible; the option of this name is ignored.
        """
        with errors.translated():
            possible = self._parts.snapshot_exports.are_used_for_backups()
        asked = self.configuration.safe_get("backup_use_temp_snapshot")
        if asked and not possible:
            LOG.warning(
                "backup_use_temp_snapshot has no effect here: backups are "
                "made of a temporary clone"
            )
        return possible

    @volume_utils.trace
    def create_export_snapshot(
        self,
        context: Any,
        snapshot: objects.Snapshot,
        connector: dict[str, Any],
    ) -> None:
        """Nothing, as for a volume."""

    @volume_utils.trace
    def remove_export_snapshot(
        self, context: Any, snapshot: objects.Snapshot
    ) -> None:
        """As for a volume."""
        if snapshot.provider_location:
            with timelimits.of_cleanup():
                self._reaper.look_at(
                    identity.snapshot_id(snapshot), snapshot.provider_location
                )

    @volume_utils.trace
    def initialize_connection_snapshot(
        self,
        snapshot: objects.Snapshot,
        connector: dict[str, Any],
        **kwargs: Any,
    ) -> dict[str, Any]:
        with errors.operation(
            f"Gave host {connector.get('host')} access to", snapshot=snapshot
        ):
            return self._parts.snapshot_exports.connect(snapshot, connector)

    @volume_utils.trace
    def terminate_connection_snapshot(
        self,
        snapshot: objects.Snapshot,
        connector: dict[str, Any] | None,
        **kwargs: Any,
    ) -> None:
        host = "every host" if connector is None else connector.get("host")
        with errors.operation(f"Detached {host} from", snapshot=snapshot):
            self._parts.snapshot_exports.disconnect(snapshot, connector)

    # -- attachments

    @volume_utils.trace
    def validate_connector(self, connector: dict[str, Any]) -> None:
        self._parts.attachments.validate(connector)

    @volume_utils.trace
    def ensure_export(self, context: Any, volume: objects.Volume) -> None:
        """Never raises: that would put the volume in error.

        Cinder calls it for every attached volume before it considers the
        driver initialized (volume/manager.py, ``_init_host``).
        """
        if self.initialized:
            self._export_check.ensure(volume)
        else:
            self._export_check.ensure_at_start(volume)

    @volume_utils.trace
    def create_export(
        self, context: Any, volume: objects.Volume, connector: dict[str, Any]
    ) -> None:
        """Does nothing: the connection grants access, and os-brick mounts."""

    @volume_utils.trace
    def remove_export(self, context: Any, volume: objects.Volume) -> None:
        """Unmount the share on this host if it is not needed."""
        if volume.provider_location:
            with timelimits.of_cleanup():
                self._reaper.look_at(
                    identity.share_id(volume), volume.provider_location
                )

    @volume_utils.trace
    def initialize_connection(
        self,
        volume: objects.Volume,
        connector: dict[str, Any],
        **kwargs: Any,
    ) -> dict[str, Any]:
        with (
            usermessages.on_failure(*usermessages.ATTACH, volume),
            errors.operation(
                f"Gave host {connector.get('host')} access to", volume=volume
            ),
        ):
            return self._parts.attachments.connect(volume, connector)

    @volume_utils.trace
    def terminate_connection(
        self,
        volume: objects.Volume,
        connector: dict[str, Any] | None,
        **kwargs: Any,
    ) -> bool:
        """Return whether the host still uses the share."""
        host = "every host" if connector is None else connector.get("host")
        with errors.operation(f"Detached {host} from", volume=volume):
            return self._parts.attachments.disconnect(volume, connector)

    @classmethod
    def clean_volume_file_locks(cls, volume_id: str) -> None:
        access.remove_lock(volume_id)

    # -- what the scheduler is told

    @volume_utils.trace
    def get_pool(self, volume: objects.Volume) -> str | None:
        """The pool of a volume whose host names none: Cinder then adds it
        to the host at the start, and knows where its space is taken."""
        with errors.translated(volume=volume):
            return self._api.get_share(identity.share_id(volume)).pool

    def _init_vendor_properties(self) -> tuple[dict[str, Any], str]:
        """For ``cinder get-capabilities``."""
        properties: dict[str, Any] = {}
        self._set_property(
            properties,
            specs.PROVISIONING,
            "Provisioning",
            "Whether a volume takes all of its space from the start.",
            "string",
            **self._shares.provisioning.choice(),
        )
        return properties, specs.VENDOR

    def _update_volume_stats(self) -> None:
        name = self.configuration.safe_get("volume_backend_name")
        ratio = volume_utils.get_max_over_subscription_ratio(
            self.configuration.max_over_subscription_ratio,
            supports_auto=True,
        )
        self._stats = self._parts.report.make(
            self._stats,
            {
                "volume_backend_name": name or type(self).__name__,
                "vendor_name": self.vendor_name,
                "driver_version": self.VERSION,
            },
            {
                "reserved_percentage": self.configuration.reserved_percentage,
                "max_over_subscription_ratio": ratio,
                "filter_function": self.get_filter_function(),
                "goodness_function": self.get_goodness_function(),
            },
        )
