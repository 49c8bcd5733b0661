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

"""Groups through Cinder's manager, with its database."""

from __future__ import annotations

from typing import Any
from unittest import mock
import uuid

from cinder import exception
from cinder import objects
from cinder.db import api as db
from cinder.objects import fields
from cinder.volume import group_types
from cinder.volume import manager
from cinder.volume import volume_utils

from acme_appliance.engines.memory import engine as memory
import acme_client
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb

CONSISTENT = {"consistent_group_snapshot_enabled": "<is> True"}
THEN, NOW = (each * memory.BLOCK_BYTES for each in (b"t", b"n"))


class Manager(manager.VolumeManager):
    """Cinder's, without all that starts a service."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.db = db
        self.host = driver.host
        self.cluster = None
        self.stats = {"pools": {}, "allocated_capacity_gb": 0}

    def publish_service_capabilities(self, context: Any) -> None:
        """No scheduler listens."""


def group_type(**specs: str) -> str:
    """Returns the id; by default a type without specs."""
    made = group_types.create(cinderdb.context(), str(uuid.uuid4()), specs)
    return str(made.id)


class GroupCase(base.DriverTestCase):
    """``self.group`` is an available group of two volumes."""

    #: Of the type of groups.
    specs = CONSISTENT

    def setUp(self) -> None:
        super().setUp()
        for name in ("group", "group_snapshot", "volume", "snapshot"):
            patch = mock.patch.object(
                volume_utils, f"notify_about_{name}_usage", autospec=True
            )
            patch.start()
            self.addCleanup(patch.stop)
        self.operator = acme_client.Client(
            [self.appliance.url],
            acme_client.BearerToken(self.appliance.token),
            verify=self.appliance.ca_file,
        )
        self.addCleanup(self.operator.close)
        self.type_id = group_type(**self.specs)
        self.manager = Manager(self.driver)
        self.group = self.new_group()
        self.volumes = [self.create(group_id=self.group.id) for _ in range(2)]
        self.log.clear()

    def use_driver(
        self,
        *faults: transports.Fault,
        method: str | None = None,
        **options: Any,
    ) -> None:
        """Another service, whose changes have faults.

        :param method: of the changes with faults; default: all.
        """
        self.driver = self.new_driver(
            faults,
            matches=lambda request: (
                request.method == method if method else request.method != "GET"
            ),
            **options,
        )
        self.manager = Manager(self.driver)
        self.log.clear()

    # -- what Cinder does

    def group_row(self, **values: Any) -> objects.Group:
        """As cinder-api and the scheduler leave it."""
        sources = {
            name: values.pop(name, None)
            for name in ("group_snapshot_id", "source_group_id")
        }
        made = objects.Group(
            context=cinderdb.context(),
            **{
                "user_id": cinderdb.USER,
                "project_id": cinderdb.PROJECT,
                "status": fields.GroupStatus.CREATING,
                "name": "a group",
                "host": cinderdb.HOST,
                "group_type_id": self.type_id,
                "volume_type_ids": [],
                "replication_status": fields.ReplicationStatus.DISABLED,
                **{key: value for key, value in sources.items() if value},
                **values,
            },
        )
        made.create(**sources)
        return self.reread(made)

    def new_group(self, **values: Any) -> objects.Group:
        made = self.group_row(**values)
        self.manager.create_group(self.context, made)
        return self.reread(made)

    def new_snapshot(
        self, group: objects.Group | None = None
    ) -> objects.GroupSnapshot:
        """A group snapshot of all volumes of a group, whatever its status."""
        group = group or self.group
        made = objects.GroupSnapshot(
            context=cinderdb.context(),
            group_id=group.id,
            user_id=cinderdb.USER,
            project_id=cinderdb.PROJECT,
            status="creating",
            name="a group snapshot",
            group_type_id=group.group_type_id,
        )
        made.create()
        for volume in self.members(group):
            cinderdb.snapshot(volume, group_snapshot_id=made.id)
        try:
            self.manager.create_group_snapshot(self.context, made)
        except exception.CinderException as error:
            self.error = str(error)
        return objects.GroupSnapshot.get_by_id(self.context, made.id)

    def delete_snapshot(self, made: objects.GroupSnapshot) -> None:
        made.status = "deleting"
        made.save()
        for each in self.snapshots(made):
            each.status = "deleting"
            each.save()
        self.manager.delete_group_snapshot(self.context, made)

    def delete_group(self, group: objects.Group | None = None) -> None:
        group = group or self.group
        group.status = "deleting"
        group.save()
        for volume in self.members(group):
            volume.status = "deleting"
            volume.save()
        self.manager.delete_group(self.context, group)

    def update(self, add: Any = (), remove: Any = ()) -> None:
        self.group.status = "updating"
        self.group.save()
        self.manager.update_group(
            self.context,
            self.group,
            add_volumes=",".join(each.id for each in add),
            remove_volumes=",".join(each.id for each in remove),
        )

    def copy_of_snapshot(
        self, source: objects.GroupSnapshot, **values: Any
    ) -> objects.Group:
        """The rows of a group to be created from a group snapshot."""
        made = self.group_row(group_snapshot_id=source.id)
        for each in self.snapshots(source):
            cinderdb.volume(
                group_id=made.id,
                snapshot_id=each.id,
                size=each.volume_size,
                **values,
            )
        return made

    def copy_of_group(self, source: objects.Group) -> objects.Group:
        made = self.group_row(source_group_id=source.id)
        for each in self.members(source):
            cinderdb.volume(
                group_id=made.id, source_volid=each.id, size=each.size
            )
        return made

    # -- what is there then

    def reread(self, thing: Any) -> Any:
        return type(thing).get_by_id(cinderdb.context(), thing.id)

    def members(
        self, group: objects.Group | None = None
    ) -> list[objects.Volume]:
        return list(
            objects.VolumeList.get_all_by_generic_group(
                cinderdb.context(), (group or self.group).id
            )
        )

    def snapshots(self, made: objects.GroupSnapshot) -> list[objects.Snapshot]:
        return list(
            objects.SnapshotList.get_all_for_group_snapshot(
                cinderdb.context(), made.id
            )
        )

    def shares(self, group: objects.Group | None = None) -> set[str]:
        """What the appliance has in the group."""
        return set(self.operator.get_group((group or self.group).id).share_ids)

    def write(self, data: bytes) -> None:
        for volume in self.volumes:
            self.entries(volume)[volume.name].write(0, data)

    def content(self, volume: objects.Volume) -> bytes:
        return self.entries(volume)[volume.name].read(0, memory.BLOCK_BYTES)

    def assert_status(self, status: str, *things: Any) -> None:
        for each in things:
            self.assertEqual(status, self.reread(each).status)

    def assert_gone(self, *things: Any) -> None:
        """From Cinder."""
        for each in things:
            with self.assertRaises(exception.NotFound):
                self.reread(each)
