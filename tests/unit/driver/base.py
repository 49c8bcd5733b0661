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

"""What the driver's tests have in common: a real appliance, real Cinder
objects, and a host whose ``mount`` is not."""

from __future__ import annotations

from collections.abc import Sequence
import itertools
import os
import socket
import tempfile
import time
from typing import Any
import unittest

from cinder import objects

from acme_appliance.engines import base as engines
from acme_appliance.engines.memory import engine as memory
from acme_cinder import driver
from acme_cinder import mount
from acme_cinder import settings as options
import acme_client
from tests.harness import inprocess
from tests.harness import transports
from tests.harness import wsgi
from tests.unit.driver import cinderdb
from tests.unit.driver import fakehost

GIB = 1 << 30
_groups = itertools.count(1)


def connector(host: str, ip: str = "192.0.2.51", **members: Any) -> Any:
    """As os-brick makes it, shortened."""
    return {
        "platform": "x86_64",
        "os_type": "linux",
        "ip": ip,
        "host": host,
        "multipath": False,
        "initiator": f"iqn.1994-05.com.redhat:{host}",
        "do_local_attach": False,
        **members,
    }


def own_connector() -> Any:
    """Of Cinder attaching for itself, on this host."""
    return connector(socket.gethostname(), "192.0.2.11")


class Clock:
    """Time in which pauses pass at once."""

    def __init__(self) -> None:
        self._slept = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._slept

    def sleep(self, seconds: float) -> None:
        self._slept += seconds


class DriverTestCase(unittest.TestCase):
    """Starts an appliance and a driver for each test.

    ``self.driver`` is ready; ``self.log`` has its requests, ``self.host``
    its commands.
    """

    #: Whether the appliance has the feature share.volume_file.
    volume_file = True
    appliance_options: dict[str, Any] = {}
    driver_options: dict[str, Any] = {}

    def setUp(self) -> None:
        super().setUp()
        self.context = cinderdb.context()
        self.addCleanup(cinderdb.empty)
        self.appliance = self.start_appliance()
        made = tempfile.TemporaryDirectory(prefix="acme-driver-")
        self.addCleanup(made.cleanup)
        self.directory = os.path.realpath(made.name)
        os.mkdir(f"{self.directory}/files")
        self.base = f"{self.directory}/mnt"
        os.mkdir(self.base)
        self.host = fakehost.FakeHost(
            self.appliance, f"{self.directory}/files"
        )
        self.log = transports.RequestLog()
        self.driver = self.new_driver()
        self.log.clear()

    def start_appliance(self) -> inprocess.RunningAppliance:
        given = {
            "volume_file": self.volume_file,
            "portals": ["127.0.0.1"],
            **self.appliance_options,
        }
        running = inprocess.RunningAppliance(**given).start()
        self.addCleanup(running.stop)
        return running

    def unready_driver(self, **changes: Any) -> driver.acmeNfsDriver:
        """The driver before do_setup."""
        group = f"acme-{next(_groups)}"
        given = {
            "volume_backend_name": group,
            "acme_api_addresses": [self.appliance.url],
            "acme_api_token": self.appliance.token,
            "acme_api_ca_file": self.appliance.ca_file,
            "nfs_mount_point_base": self.base,
            "acme_api_deadline_seconds": 60,
            **self.driver_options,
            **changes,
        }
        return cinderdb.new_driver(group, given)

    def new_driver(
        self,
        faults: Sequence[transports.Fault] = (),
        *,
        matches: Any = lambda request: True,
        backend: str = "acme-1",
        adapter: transports.CountingAdapter | None = None,
        clock: Any = None,
        **changes: Any,
    ) -> driver.acmeNfsDriver:
        made = self.unready_driver(**changes)
        settings = options.read(made.configuration)
        self.adapter = transports.FaultyAdapter(
            self.log, faults, matches=matches, find=self.appliance.find
        )
        clock = clock or Clock()
        api = acme_client.Client(
            settings.api_addresses,
            settings.credentials,
            verify=settings.verify,
            deadline_seconds=settings.deadline_seconds,
            sleep=clock.sleep,
            clock=clock,
            adapter_factory=lambda: adapter or self.adapter,
        )
        self.addCleanup(api.close)
        mounts = mount.Mounts(
            base=settings.mount_point_base,
            backend=backend,
            root_helper="sudo",
            attempts=settings.mount_attempts,
            timeout_seconds=30,
            execute=self.host.execute,
            mount_table=self.host.table,
            sleep=lambda seconds: None,
        )
        made.assemble(settings, api, mounts)
        made.check_for_setup_error()
        made.set_initialized()
        return made

    # -- what Cinder's manager does

    def create(self, **values: Any) -> objects.Volume:
        volume = cinderdb.volume(**values)
        cinderdb.save(volume, self.driver.create_volume(volume))
        return self.available(volume)

    def available(self, volume: objects.Volume) -> objects.Volume:
        volume.status = "available"
        volume.save()
        return cinderdb.reloaded(volume)

    def snapshot(self, volume: objects.Volume) -> objects.Snapshot:
        snapshot = cinderdb.snapshot(volume)
        snapshot.update(self.driver.create_snapshot(snapshot) or {})
        snapshot.status = "available"
        snapshot.save()
        return snapshot

    def attach(
        self, volume: objects.Volume, where: Any, **values: Any
    ) -> objects.VolumeAttachment:
        """As attachment_update: the driver first, then the row."""
        row = cinderdb.attachment(volume, None, **values)
        found = cinderdb.reloaded(volume)
        self.driver.validate_connector(where)
        self.driver.create_export(self.context, found, where)
        self.driver.initialize_connection(found, where)
        row.connector = where
        row.attached_host = where["host"]
        row.attach_status = "attached"
        row.save()
        return row

    def detach(self, row: objects.VolumeAttachment) -> Any:
        """As attachment_delete."""
        found = objects.Volume.get_by_id(self.context, row.volume_id)
        fresh = objects.VolumeAttachment.get_by_id(self.context, row.id)
        shared = self.driver.terminate_connection(
            found, fresh.connector, force=False
        )
        if not shared:
            self.driver.remove_export(self.context, found)
        fresh.destroy()
        return shared

    # -- looking at the appliance

    def share(self, volume: objects.Volume) -> acme_client.Share:
        found = self.find_share(volume.name_id)
        self.assertIsNotNone(found)
        return found

    def find_share(self, share_id: str) -> acme_client.Share | None:
        with self.client(self.appliance.admin_token) as api:
            return api.find_share(share_id)

    def client(self, token: str) -> acme_client.Client:
        """Of the appliance, without a connection; somebody closes it."""
        return acme_client.Client(
            [self.appliance.url],
            acme_client.BearerToken(token),
            verify=self.appliance.ca_file,
            adapter_factory=lambda: wsgi.DirectAdapter(self.appliance.find),
        )

    def entries(self, volume: objects.Volume) -> dict[str, memory.Entry]:
        """The files of a volume's share."""
        reference = engines.Reference(engines.Kind.SHARE, volume.name_id)
        for engine in self.appliance.engines.values():
            if engine.exists(reference):
                return engine.entries(reference)
        raise AssertionError(f"{volume.name} has no share")

    def assert_file(
        self, volume: objects.Volume, size_gib: int
    ) -> memory.Entry:
        """Its share has exactly the one file, of that size."""
        entries = self.entries(volume)
        self.assertEqual([volume.name], list(entries))
        entry = entries[volume.name]
        self.assertEqual(size_gib * GIB, entry.size_bytes)
        return entry

    def assert_unmounted(self) -> None:
        """Nothing mounted, no mount point."""
        self.assertEqual({}, self.host.table())
        left = [name for name in os.listdir(self.base) if name != ".acme"]
        self.assertEqual([], left)
        self.assertEqual([], self.driver._mounts.leftovers())

    def exported(self, volume: objects.Volume) -> dict[str, str]:
        reference = engines.Reference(engines.Kind.SHARE, volume.name_id)
        return self.appliance.exporter.exported().get(reference, {})


class WithoutVolumeFile:
    """Mixed in before a test case: the same against a minimal vendor."""

    volume_file = False
