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

import threading
import time
import unittest.mock

from cinder import coordination
from cinder import exception
from cinder import objects
from cinder.db import api as db
import ddt
from oslo_config import cfg

from acme_cinder import attachments
from acme_cinder import records
from acme_cinder import timelimits
import acme_client
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb

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
        loaded = cinderdb.reloaded(self.volume)
        self.assertEqual(1, len(loaded.volume_attachment))
        self.attach(self.volume, ONE)
        shared = self.driver.terminate_connection(loaded, first.connector)
        self.assertIs(True, shared)
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(self.volume))

    def test_detached_while_the_detach_was_on_its_way(self):
        first = self.attach(self.volume, ONE)
        second = self.attach(self.volume, dict(ONE, mountpoint="/dev/vdb"))
        loaded = cinderdb.reloaded(self.volume)
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
        thread.join(120)
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
        self.grant("cinder-service:ctl-8")
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
        return cinderdb.reloaded(self.volume)

    def kept(self):
        """Only the reserved attachment is left, and cmp-1's access."""
        row = self.attach(self.volume, ONE)
        reserved = cinderdb.attachment(self.volume, None)
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
        self.assertEqual(2, self.log.total, "a grant and a removal")
        self.assertEqual(["cmp-2"], self.hosts())

    def test_stays_when_the_pending_one_arrives_there(self):
        row = self.kept()
        self.arrive(row, ONE)
        self.assertEqual(["cmp-1"], self.hosts())
        self.log.clear()
        self.detach(row)
        self.assertEqual(1, self.log.total)
        self.assertEqual([], self.hosts())

    def test_goes_with_the_next_detach(self):
        other = self.attach(self.volume, TWO)
        reserved = self.kept()
        cinderdb.remove(reserved)
        self.detach(other)
        self.assertEqual([], self.hosts())
        self.log.clear()
        self.detach(self.attach(self.volume, TWO))
        self.assertEqual(0, self.log.counts[SHARE])

    def test_stays_while_another_one_is_pending(self):
        row = self.kept()
        another = cinderdb.attachment(self.volume, None)
        self.arrive(row, TWO)
        self.assertEqual(["cmp-1", "cmp-2"], self.hosts())
        cinderdb.remove(another)
        self.detach(row)
        self.assertEqual([], self.hosts())

    def test_two_that_leave_at_once(self):
        """Each sees the other one in the list."""
        first = self.attach(self.volume, ONE)
        second = self.attach(self.volume, dict(ONE, mountpoint="/dev/vdb"))
        for row in (first, second):
            self.driver.terminate_connection(self.current(), row.connector)
        cinderdb.remove(first)
        cinderdb.remove(second)
        self.assertEqual(["cmp-1"], self.hosts())
        self.attach(self.volume, TWO)
        self.assertEqual(["cmp-2"], self.hosts())

    def test_goes_at_the_start_of_a_service(self):
        cinderdb.remove(self.kept())
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
        self.grant("cinder-service:ctl-2")
        self.others.append("cinder-service:ctl-2")
        self.others.sort()
        self.set_status(status, migrating)
        self.driver.ensure_export(self.context, self.current())
        for _ in range(3):
            self.driver._sweep.run()
        self.assertEqual([], self.hosts())

    def test_not_while_the_old_api_has_it_attached(self):
        """Its attachments do not say with which connector."""
        cinderdb.attachment(
            self.volume, None, attached_host=None, attach_status="attached"
        )
        self.grant("cinder:cmp-7")
        self.set_status("in-use")
        self.driver.ensure_export(self.context, self.current())
        self.assertEqual(["cmp-7"], self.hosts())

    def test_a_fault_does_not_fail_the_call(self):
        row = self.kept()
        self.driver = self.new_driver(
            [transports.problem(403, "auth.forbidden")],
            matches=lambda request: request.method == "DELETE",
        )
        self.arrive(row, TWO)
        self.assertEqual(["cmp-1", "cmp-2"], self.hosts())
        self.driver.initialize_connection(self.current(), TWO)
        self.assertEqual(["cmp-2"], self.hosts())

    def test_a_failed_attach_beside_one_being_made(self):
        """Whose access it may be."""
        cinderdb.attachment(self.volume, None)
        cinderdb.attachment(self.volume, None)
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
        self.volume = cinderdb.reloaded(self.volume)

    def ensure(self):
        self.driver.ensure_export(self.context, self.volume)

    def test_every_request_is_short(self):
        self.driver._api.revoke_access(self.volume.name_id, "cinder:cmp-1")
        self.driver = self.new_driver(acme_api_deadline_seconds=300)
        seen = []
        grant = acme_client.Client.grant_access

        def spy(api, *args):
            seen.append(acme_client.at_most(300))
            return grant(api, *args)

        with unittest.mock.patch.object(
            acme_client.Client, "grant_access", spy
        ):
            self.ensure()
        self.assertEqual(1, len(seen))
        self.assertLessEqual(seen[0], 15)

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


@ddt.ddt
class FactsTest(base.DriverTestCase):
    """What the rules follow from is looked at when it is used."""

    def setUp(self):
        super().setUp()
        self.volume = self.create(multiattach=True)

    def current(self):
        return cinderdb.reloaded(self.volume)

    def during_grant(self, happens):
        """Have something happen while the appliance grants access."""
        grant = acme_client.Client.grant_access

        def slow(api, *args):
            rule = grant(api, *args)
            happens()
            return rule

        return unittest.mock.patch.object(
            acme_client.Client, "grant_access", slow
        )

    def test_one_request_each_beside_others(self):
        self.attach(self.volume, TWO)
        self.attach(self.volume, base.connector("cmp-3", "192.0.2.53"))
        self.log.clear()
        row = self.attach(self.volume, ONE)
        self.assertEqual(1, self.log.total)
        self.log.clear()
        self.assertIs(False, self.detach(row))
        self.assertEqual(1, self.log.total)

    def test_the_attachment_is_deleted_while_it_is_made(self):
        """cinder-api gave up, and deleted what was only reserved."""
        row = cinderdb.attachment(self.volume, None)
        with (
            self.during_grant(row.destroy),
            self.assertRaisesRegex(
                exception.VolumeBackendAPIException, "deleted meanwhile"
            ),
        ):
            self.driver.initialize_connection(self.current(), ONE)
        self.assertEqual({}, self.exported(self.volume))

    def test_deleted_beside_other_attachments(self):
        """Also one that is there does not hide that it is gone."""
        other = self.attach(self.volume, dict(ONE, ip="192.0.2.61"))
        row = cinderdb.attachment(self.volume, None)
        with (
            self.during_grant(row.destroy),
            self.assertRaises(exception.VolumeBackendAPIException),
        ):
            self.driver.initialize_connection(self.current(), ONE)
        self.assertEqual({"192.0.2.61": "rw"}, self.exported(self.volume))
        self.detach(other)
        self.assertEqual({}, self.exported(self.volume))

    def test_deleted_before_it_is_made(self):
        row = cinderdb.attachment(self.volume, None)
        update = records.claim

        def late(*args):
            row.destroy()
            update(*args)

        with (
            unittest.mock.patch.object(records, "claim", late),
            self.assertRaises(exception.VolumeAttachmentNotFound),
        ):
            self.driver.initialize_connection(self.current(), ONE)
        self.assertEqual({}, self.exported(self.volume))

    def test_a_service_that_dies_after_the_grant(self):
        """Cinder's record says that there is something to detach."""
        row = cinderdb.attachment(self.volume, None)
        self.driver.initialize_connection(self.current(), ONE)
        self.assertEqual("attaching", self.read(row).attach_status)
        self.detach(row)
        self.assertEqual({}, self.exported(self.volume))

    def test_a_failed_attach_is_only_reserved_again(self):
        row = cinderdb.attachment(self.volume, None)
        self.driver = self.new_driver(
            [transports.ReplyLost()] * 100,
            matches=lambda request: request.method == "PUT",
        )
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.driver.initialize_connection(self.current(), ONE)
        self.assertEqual({}, self.exported(self.volume))
        self.assertEqual("reserved", self.read(row).attach_status)
        self.assertIsNone(self.read(row).connector)

    def read(self, row):
        return objects.VolumeAttachment.get_by_id(self.context, row.id)

    def test_two_addresses_of_one_host(self):
        one = self.attach(self.volume, ONE)
        two = self.attach(self.volume, dict(ONE, ip="192.0.2.61"))
        self.assertEqual(
            {"192.0.2.51": "rw", "192.0.2.61": "rw"},
            self.exported(self.volume),
        )
        self.assertIs(True, self.detach(one))
        self.assertEqual({"192.0.2.61": "rw"}, self.exported(self.volume))
        self.assertIs(False, self.detach(two))
        self.assertEqual({}, self.exported(self.volume))

    def test_a_mode_that_is_stored_after_the_call(self):
        row = self.attach(self.volume, ONE, attach_mode=None)
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(self.volume))
        row.attach_mode = "ro"
        row.save()
        self.driver._sweep.run()
        self.assertEqual({"192.0.2.51": "ro"}, self.exported(self.volume))

    def test_a_readonly_flag_that_was_taken_back(self):
        """Cinder records ro for its mere presence, and tells Nova rw."""
        self.volume.admin_metadata_update({"readonly": "False"}, False)
        where = dict(ONE, mode="ro")
        self.attach(self.volume, where, attach_mode="ro")
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(self.volume))

    def test_reset_of_the_attach_status(self):
        for where in (ONE, TWO):
            self.attach(self.volume, where)
        for row in self.current().volume_attachment:
            row.destroy()
        self.driver._sweep.run()
        self.assertEqual({}, self.exported(self.volume))

    def test_a_sweep_costs_two_requests(self):
        self.attach(self.volume, ONE)
        self.attach(self.create(), TWO)
        self.log.clear()
        self.driver._sweep.run()
        self.assertEqual(
            {"GET /v1/shares": 1, "GET /v1/snapshots": 1},
            dict(self.log.counts),
        )

    def test_a_sweep_asks_once_for_the_address_of_a_host(self):
        for _ in range(3):
            self.attach(self.create(), ONE)
        with unittest.mock.patch.object(
            db,
            "driver_initiator_data_get",
            side_effect=db.driver_initiator_data_get,
        ) as asked:
            self.driver._sweep.run()
        self.assertEqual(1, asked.call_count)

    def test_a_lost_rule_is_found(self):
        self.attach(self.volume, ONE)
        self.driver._api.revoke_access(self.volume.name_id, "cinder:cmp-1")
        self.driver._sweep.run()
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(self.volume))

    def test_a_slow_database_does_not_stop_the_sweep(self):
        """A pass is not over with its query."""
        others = [self.create(), self.create()]
        for volume in others:
            self.attach(volume, ONE)
            self.driver._api.revoke_access(volume.name_id, "cinder:cmp-1")
        swept = self.driver._sweep
        now = [0.0]
        swept._clock = lambda: now[0]

        def slow(context, real=records.read_all):
            now[0] += 60
            return real(context)

        with unittest.mock.patch.object(records, "read_all", slow):
            swept.run()
        for volume in others:
            self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))

    def test_cinders_own_connection_is_not_taken(self):
        """By nothing that happens at the same time; and does not stay."""
        own = base.own_connector()
        self.volume.status = "backing-up"
        self.volume.save()
        self.driver.initialize_connection(self.current(), own)
        before = self.exported(self.volume).items()
        for _ in range(3):
            self.detach(self.attach(self.volume, TWO))
            self.driver._sweep.run()
            self.assertLessEqual(before, self.exported(self.volume).items())
        # The service has died, and Cinder has cleaned up.
        self.volume.status = "available"
        self.volume.save()
        for _ in range(2):
            self.driver._sweep.run()
        self.assertEqual({}, self.exported(self.volume))

    @ddt.data("extending", "error_extending")
    def test_attached_while_it_is_extended(self, status):
        """Its access ends with the attachment, not some sweeps later."""
        volume = self.create(multiattach=True)
        self.attach(volume, ONE)
        row = cinderdb.attachment(volume, None)
        volume = cinderdb.reloaded(volume)
        volume.status = status
        volume.save()
        self.driver.initialize_connection(volume, TWO)
        row.connector = TWO
        row.attach_status = "attached"
        row.save()
        self.detach(row)
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))

    def test_the_label_follows_a_migration(self):
        source = self.create()
        target = self.create(migration_status=f"target:{source.id}")
        update = self.driver.update_migrated_volume(
            self.context, source, target, "available"
        )
        self.assertEqual(target.name_id, update["_name_id"])
        self.assertEqual(
            source.id, self.share(target).labels["cinder.volume_id"]
        )

    def test_a_location_that_the_appliance_no_longer_has(self):
        self.volume.provider_location = "192.0.2.77:/gold/shares/old"
        self.volume.save()
        info = self.driver.initialize_connection(self.current(), ONE)
        self.assertEqual(
            info["data"]["export"], self.current().provider_location
        )


class DeadlineTest(base.DriverTestCase):
    """An attach has ended before Cinder gives up on it."""

    def setUp(self):
        super().setUp()
        self.volume = self.create()
        patch = unittest.mock.patch.object(
            timelimits, "rpc_seconds", lambda: 2.5
        )
        patch.start()
        self.addCleanup(patch.stop)

    def assert_ends(self, call):
        started = time.monotonic()
        with self.assertRaises(exception.CinderException):
            call(self.volume, ONE)
        self.assertLess(time.monotonic() - started, 120)

    def test_waiting_for_another_change(self):
        with coordination.COORDINATOR.get_lock(
            f"acme-access-{self.volume.id}"
        ):
            self.assert_ends(self.driver.initialize_connection)
            self.assert_ends(self.driver.terminate_connection)

    def test_an_appliance_that_is_busy(self):
        self.driver = self.new_driver(
            [transports.unavailable()] * 9999,
            matches=lambda request: "/access/" in request.url,
            acme_api_deadline_seconds=300,
        )
        self.assert_ends(self.driver.initialize_connection)


class CallSecondsTest(unittest.TestCase):
    def test_less_than_cinders_own(self):
        conf = unittest.mock.Mock(rpc_response_timeout=20)
        with unittest.mock.patch.object(timelimits.cfg, "CONF", conf):
            self.assertEqual(20.0, timelimits.rpc_seconds())

    def test_where_nothing_has_registered_it(self):
        with unittest.mock.patch.object(
            timelimits.cfg, "CONF", cfg.ConfigOpts()
        ):
            self.assertEqual(60.0, timelimits.rpc_seconds())


class RekeyTest(base.DriverTestCase):
    def test_the_clone_of_an_encrypted_volume(self):
        """Cinder attaches it for a look; nothing is restored into it."""
        key = "5d3b8f0e-5e7d-4b0b-8c7b-9c8d6f1a2e30"
        source = self.create()
        volume = cinderdb.volume(source_volid=source.id, encryption_key_id=key)
        cinderdb.save(volume, self.driver.create_cloned_volume(volume, source))
        self.log.clear()
        self.host.forget()
        own = base.own_connector()
        self.driver.initialize_connection(volume, own)
        self.driver.terminate_connection(volume, own)
        self.assertEqual({}, volume.admin_metadata or {})
        self.assertEqual(0, self.host.count("mount"))
        self.assertEqual(2, self.log.total)
