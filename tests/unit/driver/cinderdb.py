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

"""Cinder's own database and objects, without its services.

The database is a file of this process, made by Cinder's migrations once, and
emptied for each test.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import gc
import shutil
import tempfile
from typing import Any
import uuid

from cinder import context as cinder_context
from cinder import coordination
from cinder import exception
from cinder import objects
from cinder import privsep
from cinder.common import config
from cinder.db import api as db
from cinder.db import migration
from cinder.objects import fields
from cinder.volume import configuration
from cinder.volume import driver as base_driver
from cinder.volume import volume_types
from oslo_db.sqlalchemy import engines
import sqlalchemy as sa

from acme_cinder import driver
from tests.harness import databases

CONF = config.CONF
HOST = "ctl-1@acme#gold"
PROJECT = "5d3b8f0e5e7d4b0b8c7b9c8d6f1a2e30"
USER = "9a1c0d2b7f6e4a5d8c3b2a1908f7e6d5"


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """What the tests of this process share."""

    content: databases.Content
    default_type_id: str


@functools.cache
def start() -> _Prepared:
    """Configure Cinder and make the database."""
    directory = tempfile.mkdtemp(
        prefix="acme-cinder-db-", dir=databases.FAST_FOLDER
    )
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    CONF([], project="cinder", default_config_files=[])
    url = f"sqlite:///{directory}/cinder.db"
    CONF.set_override("connection", url, "database")
    CONF.set_override("state_path", directory)
    CONF.set_override("image_conversion_dir", f"{directory}/conversion")
    CONF.set_override("lock_path", directory, "oslo_concurrency")
    objects.register_all()
    migration.db_sync()
    db.main_context_manager.patch_engine(_engine(url))
    # As the service does: locks are files below state_path.
    coordination.COORDINATOR.start()
    # No privileged daemon: what it would run is run here.
    privsep.sys_admin_pctxt.set_client_mode(False)
    default_type = volume_types.get_default_volume_type(_context())
    # Cinder stays: no garbage collection has to look at all of it again.
    gc.collect()
    gc.freeze()
    return _Prepared(databases.Content(db.get_engine()), default_type["id"])


def _engine(url: str) -> sa.Engine:
    """As oslo.db makes it, with a pool of connections.

    It has none for SQLite, which reads the definitions of all tables when
    it opens a file: more work than that of most transactions.
    """

    def create(url: sa.URL, **options: Any) -> tuple[sa.Engine, sa.Engine]:
        pooled = {**options, "poolclass": sa.pool.QueuePool, "pool_size": 20}
        made = sa.create_engine(url, **pooled)
        return made, made

    return engines.create_engine(
        url,
        # It goes with the process: nothing has to be on the disk.
        sqlite_synchronous=False,
        # Threads are native.
        thread_checkin=False,
        _engine_target=create,
    )


def empty() -> None:
    """Make the database as the migrations left it."""
    start().content.restore(db.get_engine())


def context() -> cinder_context.RequestContext:
    start()
    return _context()


def _context() -> cinder_context.RequestContext:
    return cinder_context.RequestContext(
        USER, PROJECT, is_admin=True, request_id=f"req-{uuid.uuid4()}"
    )


def volume(**values: Any) -> objects.Volume:
    """A volume's row, as cinder-api and the scheduler leave it."""
    ctxt = context()
    given: dict[str, Any] = {
        "size": 1,
        "host": HOST,
        "status": "creating",
        "attach_status": fields.VolumeAttachStatus.DETACHED,
        "availability_zone": "nova",
        "project_id": PROJECT,
        "user_id": USER,
        "volume_type_id": start().default_type_id,
        "display_name": "a volume",
    }
    made = objects.Volume(context=ctxt, **(given | values))
    made.create()
    return reloaded(made)


def snapshot(of: objects.Volume, **values: Any) -> objects.Snapshot:
    made = objects.Snapshot(
        context=context(),
        **{
            "volume_id": of.id,
            "volume_size": of.size,
            "volume_type_id": of.volume_type_id,
            "status": "creating",
            "user_id": USER,
            "project_id": PROJECT,
            "display_name": "a snapshot",
            **values,
        },
    )
    made.create()
    return objects.Snapshot.get_by_id(context(), made.id)


def reloaded(found: objects.Volume) -> objects.Volume:
    """As the manager gets it: read again, with nothing loaded before."""
    return objects.Volume.get_by_id(context(), found.id)


def save(found: objects.Volume, update: dict[str, Any] | None) -> None:
    """What the manager does with a model update."""
    if update:
        found.update(update)
        found.save()


def attachment(
    of: objects.Volume, connector: dict[str, Any] | None, **values: Any
) -> objects.VolumeAttachment:
    """An attachment's row; without a connector it is only reserved."""
    made = objects.VolumeAttachment(
        context=context(),
        **{
            "volume_id": of.id,
            "instance_uuid": str(uuid.uuid4()),
            "attach_status": "attached" if connector else "reserved",
            "attach_mode": "rw",
            "attached_host": (connector or {}).get("host"),
            **values,
        },
    )
    made.create()
    if connector:
        made.connector = connector
        made.save()
    return made


def remove(row: objects.VolumeAttachment) -> None:
    row.destroy()


def new_driver(group: str, options: dict[str, Any]) -> driver.acmeNfsDriver:
    """The driver as cinder-volume makes it, before do_setup."""
    start()
    CONF.register_group(config.cfg.OptGroup(group))
    made = driver.acmeNfsDriver(
        configuration=configuration.Configuration(
            base_driver.volume_opts, config_group=group
        ),
        host="ctl-1@acme",
        cluster_name=None,
        is_vol_db_empty=False,
        active_backend_id=None,
    )
    for name, value in options.items():
        CONF.set_override(name, value, group)
    return made


__all__ = ("exception",)
