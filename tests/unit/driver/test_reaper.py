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

"""Mounts that a crash left behind."""

import os
import socket
import uuid

from oslo_concurrency import processutils

from acme_cinder import holders
from tests.unit.driver import base
from tests.unit.driver import cinderdb


class ReaperTest(base.DriverTestCase):
    def setUp(self):
        super().setUp()
        self.volume = self.create()
        self.own = holders.of_mounts(socket.gethostname())
        self.local = holders.of_host(socket.gethostname())
        self.log.clear()

    def reap(self):
        self.driver._reaper.run()

    def crash(self):
        """A service that died with a share mounted: the kernel drops its
        locks, and that is all."""
        user = self.driver._shares.mounted(self.volume)
        user.__enter__()
        opened = [
            int(name)
            for name in os.listdir("/proc/self/fd")
            if _target(name) == f"{self.base}/.acme/locks"
        ]
        self.assertEqual(1, len(opened))
        # The lock goes with the file that had it. The number stays taken, or
        # the user's own end would close whatever has it by then.
        with open(os.devnull) as other:
            os.dup2(other.fileno(), opened[0])
        self.addCleanup(self.end, user)
        self.assertIn(self.own, self.share(self.volume).access)

    def end(self, user):
        """Not before the test is over; what it finds then, it logs."""
        error = RuntimeError("the service was killed")
        user.__exit__(RuntimeError, error, None)

    def brick_mount(self, export):
        path = self.driver._mounts.attached_path(export)
        os.mkdir(path)
        self.host.mount(export, path)

    def grant(self, holder):
        self.grant_to(self.volume, holder)

    def grant_to(self, volume, holder):
        self.driver._api.grant_access(volume.id, holder, ["127.0.0.1"], "rw")

    def test_after_a_crash(self):
        self.crash()
        self.reap()
        self.assert_unmounted()
        self.assertEqual({}, dict(self.share(self.volume).access))

    def test_at_the_start(self):
        self.crash()
        self.driver = self.new_driver()
        self.assert_unmounted()

    def test_periodically(self):
        now = [0.0]
        self.driver._reaper._clock = lambda: now[0]
        self.driver._reaper._due_at = 300.0
        self.crash()
        self.driver.get_volume_stats(refresh=True)
        self.assertEqual(1, len(self.host.table()))
        now[0] = 300.0
        self.driver.get_volume_stats(refresh=True)
        self.assert_unmounted()

    def test_what_is_in_use_stays(self):
        with self.driver._shares.mounted(self.volume) as path:
            self.reap()
            self.assertTrue(os.path.isfile(path))
            self.assertIn(self.own, self.share(self.volume).access)
        self.assert_unmounted()

    def test_what_is_attached_here_stays(self):
        volume = cinderdb.reloaded(self.volume)
        info = self.driver.initialize_connection(volume, base.own_connector())
        self.brick_mount(info["data"]["export"])
        self.reap()
        self.assertEqual(1, len(self.host.table()))

    def test_attached_by_a_service_on_another_host(self):
        """We have no file about it, but the appliance has the rule."""
        self.grant(self.local)
        self.brick_mount(self.volume.provider_location)
        self.reap()
        self.assertEqual(1, len(self.host.table()))
        self.driver._api.revoke_access(self.volume.id, self.local)
        self.reap()
        self.assert_unmounted()

    def test_needed_mounts_cost_no_request_each(self):
        volumes = [self.create() for _ in range(5)]
        for volume in volumes:
            self.grant_to(volume, self.local)
            self.brick_mount(volume.provider_location)
        self.log.clear()
        self.reap()
        self.assertEqual(5, len(self.host.table()))
        # A page for each of the two holders that a host has.
        self.assertEqual(2, len(self.log.sent), self.log.sent)
        self.driver._api.revoke_access(volumes[0].id, self.local)
        self.reap()
        self.assertEqual(4, len(self.host.table()))

    def test_of_a_deleted_share(self):
        self.crash()
        self.driver.delete_volume(self.volume)
        self.reap()
        self.assert_unmounted()

    def test_of_a_share_that_a_peer_attached_here_and_deleted(self):
        """A temporary volume: this service has never heard of it."""
        self.grant(self.local)
        self.brick_mount(self.volume.provider_location)
        self.driver._api.revoke_access(self.volume.id, self.local)
        self.driver._api.delete_share(self.volume.id)
        self.reap()
        self.assert_unmounted()

    def test_a_share_of_another_namespace_stays(self):
        """It cannot be told from a deleted one but by its server."""
        self.grant(self.local)
        self.brick_mount(self.volume.provider_location)
        token = self.appliance.make_token("driver", "cinder-b")
        self.new_driver(backend="acme-2", acme_api_token=token)
        self.assertEqual(1, len(self.host.table()))

    def test_a_pass_without_time_goes_on_where_it_stopped(self):
        volumes = [self.volume, *(self.create() for _ in range(4))]
        for volume in volumes:
            self.grant_to(volume, self.local)
            self.brick_mount(volume.provider_location)
            self.driver._api.revoke_access(volume.id, self.local)
        self.host.failures["umount"] = [
            processutils.ProcessExecutionError(exit_code=32, stderr="busy")
        ] * 5
        for _ in volumes:
            self.assertFalse(self.driver._reaper.run(0))
        looked_at = [
            command[-1]
            for command in self.host.commands
            if command[0] == "umount"
        ]
        self.assertEqual(5, len(set(looked_at)))
        for _ in volumes:
            self.driver._reaper.run(0)
        self.assert_unmounted()

    def test_what_another_back_end_uses_stays(self):
        """It has another appliance, and the same mount point base."""
        volume = cinderdb.reloaded(self.volume)
        info = self.driver.initialize_connection(volume, base.own_connector())
        self.brick_mount(info["data"]["export"])
        self.start_other_back_end()
        self.assertEqual(1, len(self.host.table()))

    def test_what_another_back_end_left_stays(self):
        self.crash()
        self.start_other_back_end()
        self.assertEqual(1, len(self.host.table()))
        self.reap()
        self.assert_unmounted()

    def start_other_back_end(self):
        """It reaps at its start."""
        other = self.start_appliance()
        return self.new_driver(
            backend="acme-2",
            acme_api_addresses=[other.url],
            acme_api_token=other.token,
            acme_api_ca_file=other.ca_file,
        )

    def test_mounts_of_other_drivers_stay(self):
        others = [
            "192.0.2.77:/exports/generic",
            f"192.0.2.77:/exports/{uuid.uuid4()}",
            f"192.0.2.77:/other/{self.volume.id}",
        ]
        for export in others:
            path = self.driver._mounts.attached_path(export)
            os.mkdir(path)
            self.host._mounted[path] = export
        self.reap()
        self.assertEqual(set(others), set(self.host.table().values()))

    def test_the_appliance_is_down(self):
        self.crash()
        self.appliance.stop()
        self.reap()
        self.assertEqual({}, self.host.table())
        # Its rule could not be removed: that is tried again.
        self.assertEqual([self.volume.id], self.driver._mounts.leftovers())

    def test_nothing_to_do_costs_nothing(self):
        self.reap()
        self.assertEqual(0, self.log.total)
        self.assertEqual(
            [],
            [
                command
                for command in self.host.commands
                if command[0] != "mount"
            ],
        )


def _target(name):
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""
