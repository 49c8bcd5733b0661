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

"""Which hosts keep their access while others come and go."""

import socket
import threading
import unittest.mock

from cinder import coordination
from cinder import exception
import ddt

from acme_cinder import attachments
from acme_cinder import client
from tests.fixtures import transports
from tests.unit.driver import base
from tests.unit.driver import cinderworld

ONE = base.connector("cmp-1")
TWO = base.connector("cmp-2", "192.0.2.52")
SHARE = "GET /v1/shares/{id}"


class StaleListTest(base.DriverTestCase):
    """cinder-api loads the volume, and the request waits in a queue."""

    def setUp(self):
        super().setUp()
        self.volume = self.create(multiattach=True)

    def test_attached_while_the_detach_was_on_its_way(self):
        first = self.attach(self.volume, ONE)
        loaded = cinderworld.reloaded(self.volume)
        self.assertEqual(1, len(loaded.volume_attachment))
        self.attach(self.volume, ONE)
        shared = self.driver.terminate_connection(loaded, first.connector)
        self.assertIs(True, shared)
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(self.volume))

    def test_detached_while_the_detach_was_on_its_way(self):
        first = self.attach(self.volume, ONE)
        second = self.attach(self.volume, dict(ONE, mountpoint="/dev/vdb"))
        loaded = cinderworld.reloaded(self.volume)
        self.assertEqual(2, len(loaded.volume_attachment))
        self.detach(first)
        shared = self.driver.terminate_connection(loaded, second.connector)
        self.assertIs(False, shared)
        self.assertEqual({}, self.exported(self.volume))


class LockTest(base.DriverTestCase):
    """One change of a volume's access at a time, in the whole cluster."""

    def setUp(self):
        super().setUp()
        self.volume = self.create()
        self.lock = coordination.COORDINATOR.get_lock(
            f"acme-access-{self.volume.id}"
        )
        self.log.clear()

    def waits(self, call, *arguments):
        """Returns what it has returned once the lock was free."""
        results = []
        thread = threading.Thread(
            target=lambda: results.append(call(*arguments))
        )
        with self.lock:
            thread.start()
            thread.join(0.3)
            self.assertTrue(thread.is_alive())
            self.assertEqual(0, self.log.total)
        thread.join(10)
        return results[0]

    def test_connect_and_disconnect_wait(self):
        self.waits(self.driver.initialize_connection, self.volume, ONE)
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(self.volume))
        self.log.clear()
        self.waits(self.driver.terminate_connection, self.volume, ONE)
        self.assertEqual({}, self.exported(self.volume))

    def test_other_volumes_do_not(self):
        with self.lock:
            self.driver.initialize_connection(self.create(), ONE)

    def test_the_file_goes_with_the_volume(self):
        with unittest.mock.patch.object(
            coordination, "synchronized_remove"
        ) as remove:
            self.driver.clean_volume_file_locks(self.volume.id)
        remove.assert_called_once_with(f"acme-access-{self.volume.id}")


@ddt.ddt
class KeptAccessTest(base.DriverTestCase):
    """A host that has to keep its access for the moment loses it later."""

    def setUp(self):
        super().setUp()
        self.volume = self.create(multiattach=True)
        self.grant("backup-box")
        self.grant("cinder-mount:ctl-9")
        self.grant(f"cinder:{socket.gethostname()}")
        self.others = sorted(self.share(self.volume).access)

    def grant(self, holder):
        self.driver._api.grant_access(
            self.volume.name_id, holder, ["192.0.2.99"], "rw"
        )

    def hosts(self):
        """The hosts with access; nobody else's rules ever go."""
        rules = sorted(self.share(self.volume).access)
        self.assertEqual(
            self.others, [rule for rule in rules if rule in self.others]
        )
        return [
            rule.removeprefix("cinder:")
            for rule in rules
            if rule not in self.others
        ]

    def current(self):
        return cinderworld.reloaded(self.volume)

    def kept(self):
        """Only the reserved attachment is left, and cmp-1's access."""
        row = self.attach(self.volume, ONE)
        reserved = cinderworld.attachment(self.volume, None)
        self.detach(row)
        self.assertIn("cmp-1", self.hosts())
        self.log.clear()
        return reserved

    def arrive(self, row, where):
        self.driver.initialize_connection(self.current(), where)
        row.connector = where
        row.attached_host = where["host"]
        row.attach_status = "attached"
        row.save()

    def set_status(self, status, migration_status=None):
        self.volume.status = status
        self.volume.migration_status = migration_status
        self.volume.save()

    def test_goes_when_the_pending_one_arrives_elsewhere(self):
        self.arrive(self.kept(), TWO)
        self.assertEqual(1, self.log.counts[SHARE])
        self.assertEqual(["cmp-2"], self.hosts())

    def test_stays_when_the_pending_one_arrives_there(self):
        row = self.kept()
        self.arrive(row, ONE)
        self.assertEqual(["cmp-1"], self.hosts())
        self.log.clear()
        self.detach(row)
        self.assertEqual(1, self.log.total, "no longer marked")
        self.assertEqual([], self.hosts())

    def test_goes_with_the_next_detach(self):
        other = self.attach(self.volume, TWO)
        reserved = self.kept()
        cinderworld.remove(reserved)
        self.detach(other)
        self.assertEqual([], self.hosts())
        self.log.clear()
        self.detach(self.attach(self.volume, TWO))
        self.assertEqual(0, self.log.counts[SHARE])

    def test_stays_while_another_one_is_pending(self):
        row = self.kept()
        another = cinderworld.attachment(self.volume, None)
        self.arrive(row, TWO)
        self.assertEqual(["cmp-1", "cmp-2"], self.hosts())
        cinderworld.remove(another)
        self.detach(row)
        self.assertEqual([], self.hosts())

    def test_two_that_leave_at_once(self):
        """Each sees the other one in the list."""
        first = self.attach(self.volume, ONE)
        second = self.attach(self.volume, dict(ONE, mountpoint="/dev/vdb"))
        for row in (first, second):
            self.driver.terminate_connection(self.current(), row.connector)
        cinderworld.remove(first)
        cinderworld.remove(second)
        self.assertEqual(["cmp-1"], self.hosts())
        self.attach(self.volume, TWO)
        self.assertEqual(["cmp-2"], self.hosts())

    def test_goes_at_the_start_of_a_service(self):
        cinderworld.remove(self.kept())
        self.attach(self.volume, TWO)
        self.grant("cinder:cmp-9")
        self.set_status("in-use")
        self.driver.ensure_export(self.context, self.current())
        self.assertEqual(["cmp-2"], self.hosts())

    @ddt.data(
        ("backing-up", None),
        ("restoring-backup", None),
        ("attaching", None),
        ("available", "migrating"),
        ("available", "target:x"),
    )
    @ddt.unpack
    def test_not_while_cinder_may_be_attached_itself(self, status, migrating):
        """From any host; that has no attachment in the list."""
        self.attach(self.volume, TWO)
        self.grant("cinder:ctl-2")
        self.set_status(status, migrating)
        self.driver.ensure_export(self.context, self.current())
        self.assertEqual(["cmp-2", "ctl-2"], self.hosts())

    def test_not_while_the_old_api_has_it_attached(self):
        """Its attachments do not say with which connector."""
        cinderworld.attachment(
            self.volume, None, attached_host="else", attach_status="attached"
        )
        self.grant("cinder:cmp-7")
        self.set_status("in-use")
        self.driver.ensure_export(self.context, self.current())
        self.assertEqual(["cmp-7"], self.hosts())

    def test_a_fault_does_not_fail_the_call(self):
        row = self.kept()
        self.driver = self.new_driver(
            [transports.garbage()],
            matches=lambda request: (
                request.method == "GET" and "/shares/" in request.url
            ),
        )
        self.arrive(row, TWO)
        self.assertEqual(["cmp-1", "cmp-2"], self.hosts())
        self.driver.initialize_connection(self.current(), TWO)
        self.assertEqual(["cmp-2"], self.hosts())

    def test_a_failed_attach_beside_one_being_made(self):
        """Whose access it may be."""
        cinderworld.attachment(self.volume, None)
        cinderworld.attachment(self.volume, None)
        self.driver.initialize_connection(self.current(), ONE)
        self.driver = self.new_driver(
            [transports.ReplyLost()] * 100,
            matches=lambda request: request.method == "PUT",
        )
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.driver.initialize_connection(self.current(), ONE)
        self.assertEqual(["cmp-1"], self.hosts())


class RepairTest(base.DriverTestCase):
    """What the start of a service may cost."""

    def setUp(self):
        super().setUp()
        self.volume = self.create()
        self.attach(self.volume, ONE)
        self.volume = cinderworld.reloaded(self.volume)

    def ensure(self):
        self.driver.ensure_export(self.context, self.volume)

    def test_every_request_is_short(self):
        self.driver._api.revoke_access(self.volume.name_id, "cinder:cmp-1")
        seen = []
        grant = client.Client.grant_access

        def spy(api, *args):
            seen.append(api._calls.deadline_seconds)
            return grant(api, *args)

        with unittest.mock.patch.object(client.Client, "grant_access", spy):
            self.ensure()
        self.assertEqual([15.0], seen)

    def test_only_the_first_volume_waits(self):
        """Also for an appliance that answers, but does nothing."""
        for fault in (
            transports.unavailable(),
            transports.problem(409, "share.busy", retryable=True),
        ):
            with self.subTest(fault):
                self.driver = self.new_driver(
                    [fault] * 9999,
                    matches=lambda request: "/shares/" in request.url,
                )
                with unittest.mock.patch.object(
                    attachments, "_REPAIR_DEADLINE_SECONDS", 0.1
                ):
                    self.ensure()
                self.log.clear()
                self.ensure()
                self.assertEqual(0, self.log.total)


class RekeyTest(base.DriverTestCase):
    def test_the_clone_of_an_encrypted_volume(self):
        """Cinder attaches it for a look; nothing is restored into it."""
        key = "5d3b8f0e-5e7d-4b0b-8c7b-9c8d6f1a2e30"
        source = self.create()
        volume = cinderworld.volume(
            source_volid=source.id, encryption_key_id=key
        )
        cinderworld.save(
            volume, self.driver.create_cloned_volume(volume, source)
        )
        self.log.clear()
        self.host.forget()
        own = base.own_connector()
        self.driver.initialize_connection(volume, own)
        self.driver.terminate_connection(volume, own)
        self.assertEqual({}, volume.admin_metadata or {})
        self.assertEqual(0, self.host.count("mount"))
        self.assertEqual(2, self.log.total)
