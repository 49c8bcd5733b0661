# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Two drivers in one process, with Cinder's objects, without its services.

They are called as Cinder's volume manager calls them: with database rows, and
their results are saved to these.
"""

from __future__ import annotations

import pathlib
from typing import Any

from cinder import context
from cinder import coordination
from cinder import objects
from cinder import privsep
from cinder.common import config
from cinder.db import api as database
from cinder.db import migration
from cinder.objects import fields
from cinder.volume import configuration
from cinder.volume import driver
from cinder.volume import volume_types
import os_brick
from os_brick import privileged
from oslo_log import log as logging
from oslo_utils import importutils

CONF = config.CONF
PROJECT_ID = "acdec0de" * 4


def _configuration(
    folder: pathlib.Path,
    log: pathlib.Path,
    options: dict[str, dict[str, str]],
) -> str:
    groups = {
        "DEFAULT": {
            "state_path": str(folder),
            "host": "bench",
            "log_file": str(log),
            "use_stderr": "False",
        },
        "database": {"connection": f"sqlite:///{folder}/cinder.sqlite"},
        "oslo_concurrency": {"lock_path": f"{folder}/locks"},
        **options,
    }
    return "".join(
        f"[{group}]\n"
        + "".join(f"{name} = {value}\n" for name, value in values.items())
        for group, values in groups.items()
    )


class Cinder:
    """Cinder without services; one per process."""

    def __init__(
        self,
        folder: pathlib.Path,
        log: pathlib.Path,
        options: dict[str, dict[str, str]],
    ) -> None:
        """Configure it.

        :param options: those of each back end, by its name
        """
        objects.register_all()
        conf = folder / "cinder.conf"
        conf.write_text(_configuration(folder, log, options))
        CONF(["--config-file", str(conf)], project="cinder")
        logging.setup(CONF, "cinder")
        os_brick.setup(CONF)
        migration.db_sync()
        # Cinder's locks, which the generic driver takes, are files.
        coordination.COORDINATOR.start()
        # This process is root: do without a privileged daemon, whose start
        # would be measured.
        for each in (privsep.sys_admin_pctxt, privileged.default):
            each.set_client_mode(False)
        self.context = context.get_admin_context()
        self._type = volume_types.get_default_volume_type(self.context)

    def backend(self, name: str, volume_driver: str, pool: str) -> Backend:
        """A driver, set up as cinder-volume sets it up.

        :param volume_driver: its class
        :param pool: where its volumes are scheduled to
        """
        settings = configuration.Configuration(
            driver.volume_opts, config_group=name
        )
        made = importutils.import_object(
            volume_driver,
            configuration=settings,
            db=database,
            host=f"bench@{name}",
            cluster_name=None,
            is_vol_db_empty=True,
            active_backend_id=None,
        )
        made.do_setup(self.context)
        made.check_for_setup_error()
        made.init_capabilities()
        made.set_initialized()
        return Backend(self, name, pool, made)

    def new_volume(self, host: str, size_gib: int) -> objects.Volume:
        volume = objects.Volume(
            self.context,
            size=size_gib,
            host=host,
            status="creating",
            attach_status=fields.VolumeAttachStatus.DETACHED,
            project_id=PROJECT_ID,
            user_id="bench",
            volume_type_id=self._type["id"],
            display_name="bench",
            admin_metadata={},
        )
        volume.create()
        return objects.Volume.get_by_id(self.context, volume.id)

    def new_snapshot(self, volume: objects.Volume) -> objects.Snapshot:
        snapshot = objects.Snapshot(
            self.context,
            volume_id=volume.id,
            volume_size=volume.size,
            volume_type_id=volume.volume_type_id,
            status="creating",
            project_id=PROJECT_ID,
            user_id="bench",
            display_name="bench",
        )
        snapshot.create()
        return objects.Snapshot.get_by_id(self.context, snapshot.id)


class Backend:
    """One driver and its rows. Each method is one call of the driver."""

    def __init__(
        self, cinder: Cinder, name: str, pool: str, made: Any
    ) -> None:
        self.name = name
        self._host = f"bench@{name}#{pool}"
        self.driver = made
        self._cinder = cinder

    def row(self, size_gib: int = 1) -> objects.Volume:
        return self._cinder.new_volume(self._host, size_gib)

    def snapshot_row(self, volume: objects.Volume) -> objects.Snapshot:
        return self._cinder.new_snapshot(volume)

    @staticmethod
    def _save(row: Any, update: dict[str, Any] | None) -> None:
        row.update(update or {})
        row.status = "available"
        row.save()

    def create(self, row: objects.Volume) -> None:
        self._save(row, self.driver.create_volume(row))

    def snapshot(self, row: objects.Snapshot) -> None:
        self._save(row, self.driver.create_snapshot(row))

    def create_from_snapshot(
        self, row: objects.Volume, snapshot: objects.Snapshot
    ) -> None:
        update = self.driver.create_volume_from_snapshot(row, snapshot)
        self._save(row, update)

    def clone(self, row: objects.Volume, source: objects.Volume) -> None:
        self._save(row, self.driver.create_cloned_volume(row, source))

    def extend(self, row: objects.Volume, size_gib: int) -> None:
        self.driver.extend_volume(row, size_gib)
        row.size = size_gib
        row.save()

    def delete(self, row: objects.Volume) -> None:
        self.driver.delete_volume(row)
        row.destroy()

    def delete_snapshot(self, row: objects.Snapshot) -> None:
        self.driver.delete_snapshot(row)
        row.destroy()
