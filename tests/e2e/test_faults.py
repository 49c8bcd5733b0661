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

"""What users see when a running Cinder meets faults."""

import time
from typing import Any
from typing import ClassVar

from cinderclient import exceptions

from tests.e2e import base
from tests.harness import appliance
from tests.harness import content
from tests.harness import proxy
from tests.harness import scenario

WAIT_SECONDS = 120


class FaultsBase(base.E2ETestCase):
    backend_options = (
        "acme_api_connect_timeout_seconds = 2\nacme_api_deadline_seconds = 5\n"
    )
    # Another attempt would be on the same back end, and forget the first.
    cinder_options = "scheduler_max_attempts = 1\n"

    def wait_for(self, volume_id: str, *statuses: str) -> Any:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            volume = self.cinder.volumes.get(volume_id)
            if volume.status in statuses:
                return volume
            if volume.status in ("available", "error", "error_deleting"):
                break
            time.sleep(scenario.POLL_SECONDS)
        self.fail(f"{volume_id} is {volume.status}, not {statuses}")

    def delete(self, volume_id: str) -> None:
        self.cinder.volumes.delete(volume_id)
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                status = self.cinder.volumes.get(volume_id).status
            except exceptions.NotFound:
                return
            self.assertEqual("deleting", status)
            time.sleep(scenario.POLL_SECONDS)
        self.fail(f"{volume_id} is not deleted")

    def create(self) -> str:
        volume = self.cinder.volumes.create(1)
        self.wait_for(volume.id, "available")
        return str(volume.id)

    def restart_appliance(self) -> None:
        self.machine.appliance.start()


class DownTestCase(FaultsBase):
    def test_the_appliance_is_killed_under_an_attached_volume(self) -> None:
        volume_id = self.create()
        attached = self.host.attach(volume_id)
        content.write_pattern(str(attached.path), "A")
        before = content.digest(str(attached.path))
        self.machine.appliance.process.kill()
        # The data path is the kernel's: it does not depend on the service.
        self.assertEqual(before, content.digest(str(attached.path)))
        self.restart_appliance()
        self.assertEqual(before, content.digest(str(attached.path)))
        self.host.detach(attached)
        self.wait_for(volume_id, "available")
        self.delete(volume_id)
        self.assert_nothing_left()

    def test_a_create_while_the_appliance_is_down(self) -> None:
        self.machine.appliance.process.kill()
        try:
            volume = self.cinder.volumes.create(1)
            self.wait_for(volume.id, "error")
        finally:
            self.restart_appliance()
        self.assertIsNone(self.view.share(volume.id))
        self.delete(volume.id)
        self.assert_nothing_left()

    def test_a_delete_while_the_appliance_is_down_is_no_success(self) -> None:
        volume_id = self.create()
        self.machine.appliance.process.kill()
        try:
            self.cinder.volumes.delete(volume_id)
            self.wait_for(volume_id, "error_deleting")
        finally:
            self.restart_appliance()
        self.assertIsNotNone(self.view.share(volume_id))
        self.cinder.volumes.force_delete(volume_id)
        deadline = time.monotonic() + WAIT_SECONDS
        while self.view.share(volume_id) is not None:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(scenario.POLL_SECONDS)
        self.assert_nothing_left()


class LostReplyTestCase(FaultsBase):
    """The network between Cinder and the appliance breaks."""

    proxy: ClassVar[proxy.BreakingProxy]

    @classmethod
    def api_url(cls) -> str:
        cls.proxy = proxy.BreakingProxy(
            appliance.PORT, lambda: cls.machine.appliance.ca_file
        )
        cls.addClassCleanup(cls.proxy.close)
        return f"https://127.0.0.1:{cls.proxy.port}"

    def test_a_volume_whose_create_was_never_answered(self) -> None:
        """Its share exists, Cinder has no provider_id: no share is lost."""
        self.proxy.break_after(b"PUT /v1/shares/")
        try:
            volume = self.cinder.volumes.create(1)
            self.wait_for(volume.id, "error")
        finally:
            self.proxy.mend()
        self.assertIsNotNone(
            self.view.share(volume.id), "the request did not arrive"
        )
        self.delete(volume.id)
        self.assert_nothing_left()
