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

"""Attaching and detaching end before Cinder gives up on the call."""

import contextlib
import threading
import unittest
import unittest.mock

from cinder import exception
from cinder import objects
from os_brick import exception as brick_exception

from acme_cinder import access
from acme_cinder import holders
from acme_cinder import hostlock
from acme_cinder import timelimits
import acme_client
from acme_client import timing
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb

HOST = base.connector("cmp-1")
RPC_SECONDS = 7.5
CALL_SECONDS = 6.0
#: Without limits each of the cases takes a minute or more.
LONG_SECONDS = 60.0
ENDED_SECONDS = 30.0


class Clock:
    """Time that passes only by pauses."""

    def __init__(self):
        self._now = 1000.0

    def __call__(self):
        return self._now

    monotonic = __call__

    def sleep(self, seconds):
        self._now += seconds


class DeadlineTestCase(base.DriverTestCase):
    driver_options = {"acme_api_deadline_seconds": 300}

    def setUp(self):
        super().setUp()
        self.clock = Clock()
        self.silent = transports.SilentAdapter(
            self.log, sleep=self.clock.sleep, find=self.appliance.find
        )
        self.driver = self.new_driver(adapter=self.silent, clock=self.clock)
        self.driver._mounts._locks = hostlock.HostLocks(
            f"{self.directory}/locks",
            timeout_seconds=LONG_SECONDS,
            sleep=self.clock.sleep,
            clock=self.clock,
        )
        for module, name, value in (
            (timelimits, "rpc_seconds", lambda: RPC_SECONDS),
            (timing, "time", self.clock),
        ):
            patch = unittest.mock.patch.object(module, name, value)
            patch.start()
            self.addCleanup(patch.stop)
        self.volume = self.create()

    @contextlib.contextmanager
    def ends(self):
        started = self.clock()
        with contextlib.suppress(exception.CinderException):
            yield
        self.assertLess(self.clock() - started, RPC_SECONDS)

    def attach_ends(self, where):
        cinderdb.attachment(self.volume, None)
        with self.ends():
            self.driver.initialize_connection(
                cinderdb.reloaded(self.volume), where
            )

    def detach_ends(self, where):
        with self.ends():
            self.driver.terminate_connection(
                cinderdb.reloaded(self.volume), where
            )

    def hang(self, program):
        """A command that never ends, for as long as it is let."""
        real = self.host.execute

        def execute(*command, **options):
            if command[0] == program and "-l" not in command:
                self.clock.sleep(min(options["timeout"], LONG_SECONDS))
                raise brick_exception.ExecutionTimeout(
                    stdout="", stderr="", cmd=program
                )
            return real(*command, **options)

        self.driver._mounts.commands._execute = execute


class SilentApplianceTest(DeadlineTestCase):
    def test_what_pools_can_do_is_not_known(self):
        self.driver._shares.features.distrust()
        self.silent.seconds = LONG_SECONDS
        self.attach_ends(HOST)

    def test_rules_to_correct(self):
        for number in range(12):
            self.driver._api.grant_access(
                self.volume.name_id,
                holders.of_host(f"old-{number}"),
                ["192.0.2.9"],
                "rw",
            )
        self.silent.seconds = CALL_SECONDS / 2.5
        self.attach_ends(HOST)

    def test_all_connections_to_end(self):
        for number in range(12):
            self.attach(self.volume, base.connector(f"cmp-{number}"))
        self.silent.seconds = CALL_SECONDS / 2.5
        self.detach_ends(None)

    def test_a_transfer(self):
        self.silent.seconds = LONG_SECONDS
        with self.ends():
            self.driver.accept_transfer(
                self.context, self.volume, "new-user", "new-project"
            )

    def test_the_end_of_a_migration(self):
        self.silent.seconds = LONG_SECONDS
        with self.ends():
            self.driver.update_migrated_volume(
                self.context, self.volume, self.volume, "available"
            )


class OtherProcessTest(DeadlineTestCase):
    def test_both_locks_are_taken(self):
        """One for a part of the call, the host's for all of it."""
        mounting = self.driver._mounts._locks.changing(self.volume.name_id)
        with mounting, contextlib.ExitStack() as stack:
            stack.enter_context(access.locked(self.volume, 1))

            def release():
                self.clock.sleep(CALL_SECONDS / 3)
                stack.close()

            timer = threading.Timer(0.1, release)
            timer.start()
            self.attach_ends(base.own_connector())
            timer.join()


class HungMountTest(DeadlineTestCase):
    def test_the_rule_goes_though_unmounting_hangs(self):
        row = self.attach(self.volume, base.own_connector())
        volume = cinderdb.reloaded(self.volume)
        export = volume.provider_location
        path = self.driver._mounts.attached_path(export)
        self.host._mounted[path] = export
        self.hang("umount")
        fresh = objects.VolumeAttachment.get_by_id(self.context, row.id)
        self.detach_ends(fresh.connector)
        self.assertEqual({}, self.exported(volume))
        # Cinder's manager calls it next, within the same RPC.
        with self.ends():
            self.driver.remove_export(self.context, volume)


class MinimalApplianceTest(base.WithoutVolumeFile, DeadlineTestCase):
    def test_mounting_hangs(self):
        self.hang("mount")
        self.attach_ends(HOST)

    def test_the_appliance_is_silent(self):
        self.silent.seconds = LONG_SECONDS
        self.attach_ends(HOST)


class LimitTest(unittest.TestCase):
    def test_the_earlier_end_counts(self):
        with acme_client.limited(10), acme_client.limited(1000):
            self.assertLessEqual(acme_client.at_most(100), 10)
        with acme_client.limited(1000), acme_client.limited_to_share(0.01):
            self.assertLessEqual(acme_client.at_most(100), 10)
        self.assertEqual(100, acme_client.at_most(100))

    def test_nothing_is_sent_after_it(self):
        api = acme_client.Client(
            ["https://127.0.0.1:1"],
            acme_client.BearerToken("t" * 43),
            verify=False,
        )
        with acme_client.limited(0), self.assertRaises(acme_client.NotSent):
            api.get_stats()
