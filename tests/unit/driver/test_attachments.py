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

"""Attaching and detaching, as Nova and as Cinder for itself."""

import json
import os
import socket

from cinder import exception
import ddt
from os_brick.initiator.connectors import remotefs as brick_remotefs
from os_brick.remotefs import remotefs as brick_client
from oslo_concurrency import processutils

from acme_cinder import exports
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb
from tests.unit.driver import test_images

HOST = "%3Acmp-1"


@ddt.ddt
class ComputeHostTest(base.DriverTestCase):
    """A compute host's attachments: one request each, no mount here."""

    def setUp(self) -> None:
        super().setUp()
        self.volume = self.create()
        self.log.clear()

    def connection(self, where=None):
        return self.driver.initialize_connection(
            cinderdb.reloaded(self.volume),
            where or base.connector("cmp-1"),
        )

    def test_requests(self):
        row = self.attach(self.volume, base.connector("cmp-1"))
        self.assertEqual(
            {f"PUT /v1/shares/{{id}}/access/cinder{HOST}": 1},
            dict(self.log.counts),
        )
        self.log.clear()
        self.assertIs(False, self.detach(row))
        self.assertEqual(
            {f"DELETE /v1/shares/{{id}}/access/cinder{HOST}": 1},
            dict(self.log.counts),
        )
        self.assertEqual(0, self.host.count("mount"))
        self.assert_unmounted()

    def test_connection_info(self):
        info = self.connection()
        self.assertEqual(
            {
                "driver_volume_type": "nfs",
                "mount_point_base": self.base,
                "data": {
                    "export": f"127.0.0.1:/gold/shares/{self.volume.id}",
                    "name": self.volume.name,
                    "options": "-o rw",
                    "format": "raw",
                    "discard": True,
                },
            },
            info,
        )
        self.assertEqual(info, json.loads(json.dumps(info)))

    @ddt.data(
        ("", True),
        ("hard,vers=4.2", True),
        ("nfsvers=4.2,hard", True),
        ("v4.2", True),
        ("vers=4.1", False),
        ("vers=4", False),
        ("nfsvers=3", False),
        ("v3,hard", False),
    )
    @ddt.unpack
    def test_discard_where_the_mount_can(self, options, expected):
        self.driver = self.new_driver(nfs_mount_options=options)
        data = self.connection()["data"]
        self.assertIs(expected, data.get("discard", False))

    def test_no_discard_in_thick_volumes(self):
        self.driver = self.new_driver(nfs_sparsed_volumes=False)
        self.assertNotIn("discard", self.connection()["data"])

    @ddt.data(("", "rw"), ("hard,timeo=600", "hard,timeo=600"))
    @ddt.unpack
    def test_os_brick_mounts_at_once(self, given, expected):
        """It splits the options at white space and appends them to its own.

        Those have a version; mount.nfs refuses two. With one of ours every
        attachment of Cinder's own would fail twice before it worked.
        """
        self.driver = self.new_driver(nfs_mount_options=given)
        info = self.connection()
        mounts = []

        def execute(*command, **kwargs):
            if command[0] == "mount":
                mounts.append(
                    [
                        command[place + 1]
                        for place, one in enumerate(command)
                        if one == "-o"
                    ]
                )
            return "", ""

        connector = brick_remotefs.RemoteFsConnector(
            "nfs", "sudo", execute=execute, conn=info
        )
        connector.connect_volume(info["data"])
        self.assertEqual([["vers=4,minorversion=2", expected]], mounts)

    def test_given_version_is_kept(self):
        self.driver = self.new_driver(nfs_mount_options="-o nfsvers=4.1,ro")
        options = self.connection()["data"]["options"]
        self.assertEqual("-o nfsvers=4.1,ro", options)
        self.driver = self.new_driver(nas_mount_options="v4.1")
        self.assertEqual("-o v4.1", self.connection()["data"]["options"])

    def test_format_is_not_probed(self):
        """A guest may write another format's header into its disk."""
        entry = self.entries(self.volume)[self.volume.name]
        entry.write(0, b"QFI\xfb".ljust(4096, b"\0"))
        self.assertEqual("raw", self.connection()["data"]["format"])
        self.assertEqual(0, len(self.host.commands))

    def test_again_and_again(self):
        first = self.connection()
        self.assertEqual(first, self.connection())
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(self.volume))

    def test_two_attachments_on_a_host(self):
        where = base.connector("cmp-1")
        one = self.attach(self.volume, where)
        two = self.attach(self.volume, dict(where, mountpoint="/dev/vdb"))
        self.log.clear()
        self.assertIs(True, self.detach(one))
        self.assertEqual(1, self.log.total)
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(self.volume))
        self.assertIs(False, self.detach(two))
        self.assertEqual({}, self.exported(self.volume))

    def test_live_migration(self):
        """The departing attachment is in the list still."""
        source = self.attach(self.volume, base.connector("cmp-1"))
        target = self.attach(
            self.volume, base.connector("cmp-2", "192.0.2.52")
        )
        self.assertIs(False, self.detach(source))
        self.assertEqual({"192.0.2.52": "rw"}, self.exported(self.volume))
        self.detach(target)
        self.assertEqual({}, self.exported(self.volume))

    def test_attached_by_the_old_api(self):
        """Such attachments have a host and no connector."""
        where = base.connector("cmp-1")
        self.connection(where)
        row = cinderdb.attachment(
            self.volume, None, attached_host="cmp-1", attach_status="attached"
        )
        volume = cinderdb.reloaded(self.volume)
        self.assertIs(False, self.driver.terminate_connection(volume, where))
        self.assertEqual({}, self.exported(self.volume))
        cinderdb.remove(row)

    def test_a_pending_attachment_of_a_multiattach_volume(self):
        """Its host is not known yet: it may be the departing one's."""
        volume = self.create(multiattach=True)
        row = self.attach(volume, base.connector("cmp-1"))
        pending = cinderdb.attachment(volume, None)
        self.connection_of(volume)
        self.assertIs(True, self.detach(row))
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(volume))
        cinderdb.remove(pending)
        self.driver.delete_volume(cinderdb.reloaded(volume))

    def connection_of(self, volume):
        return self.driver.initialize_connection(
            cinderdb.reloaded(volume), base.connector("cmp-1")
        )

    def test_read_only(self):
        where = base.connector("cmp-1", mode="ro")
        self.attach(self.volume, where, attach_mode="ro")
        self.assertEqual({"192.0.2.51": "ro"}, self.exported(self.volume))

    def test_read_only_volume(self):
        self.volume.admin_metadata_update({"readonly": "True"}, False)
        self.connection()
        self.assertEqual({"192.0.2.51": "ro"}, self.exported(self.volume))

    def test_read_only_beside_read_write(self):
        """One host, one rule: it has what the strongest needs."""
        writer = self.attach(self.volume, base.connector("cmp-1"))
        self.attach(
            self.volume,
            base.connector("cmp-1", mode="ro"),
            attach_mode="ro",
        )
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(self.volume))
        self.assertIs(True, self.detach(writer))
        self.assertEqual({"192.0.2.51": "ro"}, self.exported(self.volume))

    def test_forced_detach_without_a_connector(self):
        self.attach(self.volume, base.connector("cmp-1"))
        self.attach(self.volume, base.connector("cmp-2", "192.0.2.52"))
        self.grant("backup-box")
        volume = cinderdb.reloaded(self.volume)
        self.driver.terminate_connection(volume, None, force=True)
        self.assertEqual(["backup-box"], list(self.share(volume).access))

    def test_rules_of_others_are_left_alone(self):
        self.grant("backup-box")
        row = self.attach(self.volume, base.connector("cmp-1"))
        self.detach(row)
        self.assertEqual(["backup-box"], list(self.share(self.volume).access))

    def grant(self, holder):
        self.driver._api.grant_access(
            self.volume.name_id, holder, ["192.0.2.99"], "rw"
        )

    def test_detach_of_a_deleted_volume(self):
        row = self.attach(self.volume, base.connector("cmp-1"))
        self.driver.terminate_connection(self.volume, base.connector("cmp-1"))
        self.driver.delete_volume(self.volume)
        self.assertIs(False, self.detach(row))

    def test_attach_of_an_absent_volume(self):
        self.driver.delete_volume(self.volume)
        with self.assertRaises(exception.VolumeNotFound):
            self.connection()

    def test_an_attach_whose_replies_are_lost(self):
        """It fails, and leaves no rule that Cinder does not know of."""
        self.driver = self.new_driver(
            [transports.ReplyLost()] * 100,
            matches=lambda request: request.method == "PUT",
        )
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.connection()
        self.assertEqual({}, self.exported(self.volume))

    def test_such_an_attach_takes_no_other_access_away(self):
        self.attach(self.volume, base.connector("cmp-1"))
        self.driver = self.new_driver(
            [transports.ReplyLost()] * 100,
            matches=lambda request: request.method == "PUT",
        )
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.connection()
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(self.volume))

    def test_mapped_networks_and_fixed_clients(self):
        self.driver = self.new_driver(
            acme_client_networks=["192.0.2.0/24=198.51.100.0/24"],
            acme_fixed_clients=["203.0.113.9"],
        )
        self.connection()
        self.assertEqual(
            {"198.51.100.51": "rw", "203.0.113.9": "rw"},
            self.exported(self.volume),
        )

    def test_connectors_of_no_use(self):
        for where, missing in (
            ({"host": "cmp-1"}, "ip"),
            ({"host": "cmp-1", "ip": ""}, "ip"),
            ({"host": "cmp-1", "ip": "cmp-1.example.org"}, "ip"),
            ({"ip": "192.0.2.51"}, "host"),
        ):
            with (
                self.subTest(where),
                self.assertRaisesRegex(
                    exception.InvalidConnectorException, missing
                ),
            ):
                self.driver.validate_connector(where)
        self.driver.validate_connector(base.connector("cmp-1"))

    def test_a_connector_without_ip_and_a_mapping_for_its_host(self):
        self.driver = self.new_driver(
            acme_client_networks=["cmp-1=198.51.100.7|198.51.100.8"]
        )
        where = {"host": "cmp-1.example.org"}
        self.driver.validate_connector(where)
        self.connection(where)
        self.assertEqual(
            {"198.51.100.7": "rw", "198.51.100.8": "rw"},
            self.exported(self.volume),
        )


class PortalTest(base.DriverTestCase):
    """Of an appliance with several NFS addresses."""

    appliance_options = {"portals": ["127.0.0.1", "2001:db8::1"]}

    def test_the_preferred_one(self):
        self.assertEqual("127.0.0.1", self.address_of(self.create()))

    def test_one_of_the_operators_choice(self):
        self.driver = self.new_driver(acme_nfs_portal="2001:db8::1")
        volume = self.create()
        self.assertEqual("[2001:db8::1]", self.address_of(volume))

    def test_the_one_a_volume_is_known_by_is_kept(self):
        """The mount point derives from it."""
        self.driver = self.new_driver(acme_nfs_portal="2001:db8::1")
        volume = self.create()
        self.driver = self.new_driver()
        self.assertEqual("[2001:db8::1]", self.address_of(volume))

    def test_the_address_of_a_location(self):
        for location, expected in (
            ("192.0.2.10:/shares/x", "192.0.2.10"),
            ("[2001:db8::1]:/shares/x", "2001:db8::1"),
            ("nfs-1:/odd:/path", "nfs-1"),
        ):
            self.assertEqual(expected, exports.address_of(location))

    def address_of(self, volume):
        info = self.driver.initialize_connection(
            volume, base.connector("cmp-1")
        )
        export = info["data"]["export"]
        self.assertEqual(volume.provider_location, export)
        return export.removesuffix(f":/gold/shares/{volume.id}")


class EnsureExportTest(base.DriverTestCase):
    """What cinder-volume calls for every attached volume at its start."""

    def setUp(self) -> None:
        super().setUp()
        self.volume = self.create()
        self.attach(self.volume, base.connector("cmp-1"))
        self.volume = cinderdb.reloaded(self.volume)
        self.log.clear()

    def ensure(self):
        self.driver.ensure_export(self.context, self.volume)

    def test_nothing_to_do(self):
        self.ensure()
        self.assertEqual({"GET /v1/shares/{id}": 1}, dict(self.log.counts))

    def test_a_lost_rule_is_restored(self):
        self.driver._api.revoke_access(self.volume.name_id, "cinder:cmp-1")
        self.assertEqual({}, self.exported(self.volume))
        self.ensure()
        self.assertEqual({"192.0.2.51": "rw"}, self.exported(self.volume))

    def test_the_appliance_is_down(self):
        """Logged, not raised: it would put the volume in error. And only
        the first of many volumes waits for it."""
        self.appliance.stop()
        self.ensure()
        asked = self.log.total
        self.assertGreater(asked, 0)
        self.ensure()
        self.assertEqual(asked, self.log.total)

    def test_passing_faults(self):
        self.driver = self.new_driver(
            [transports.unavailable()] * 100,
            matches=lambda request: "/shares/" in request.url,
        )
        self.ensure()
        self.driver = self.new_driver(
            [transports.garbage()],
            matches=lambda request: "/shares/" in request.url,
        )
        self.ensure()

    def test_the_share_is_gone(self):
        self.driver.terminate_connection(self.volume, None)
        self.driver._api.delete_share(self.volume.name_id)
        with self.assertLogs("acme_cinder", "ERROR") as logs:
            self.ensure()
            self.ensure()
        self.assertEqual(1, len(logs.records), logs.output)
        self.assertIn(self.volume.id, logs.output[0])


@ddt.ddt
class SelfAttachmentCase(base.DriverTestCase):
    """Cinder attaches for itself, with os-brick: backup, migration.

    os-brick mounts and never unmounts."""

    def setUp(self) -> None:
        super().setUp()
        self.volume = self.create()
        self.where = base.own_connector()
        self.log.clear()
        self.host.forget()

    def connect(self):
        """create_export, initialize_connection, and os-brick."""
        volume = cinderdb.reloaded(self.volume)
        self.driver.create_export(self.context, volume, self.where)
        self.info = self.driver.initialize_connection(volume, self.where)
        return self.brick_mount()

    def brick_mount(self):
        export = self.info["data"]["export"]
        path = brick_client.RemoteFsClient(
            "nfs", "sudo", nfs_mount_point_base=self.base
        ).get_mount_point(export)
        os.makedirs(path, exist_ok=True)
        if path not in self.host.table():
            self.host.mount(export, path)
        return f"{path}/{self.info['data']['name']}"

    def disconnect(self):
        volume = cinderdb.reloaded(self.volume)
        self.driver.terminate_connection(volume, self.where, force=True)
        self.driver.remove_export(self.context, volume)

    def set_status(self, status):
        self.volume.status = status
        self.volume.save()

    def test_no_mount_is_left(self):
        path = self.connect()
        self.assertTrue(os.path.isfile(path))
        self.assertEqual(path, self.driver.local_path(self.volume))
        self.disconnect()
        self.assert_unmounted()
        self.assertEqual({}, self.exported(self.volume))

    def test_unmounted_before_the_rule_goes(self):
        """What was written and not flushed needs it."""
        self.connect()
        seen = []
        umount = self.host.umount
        self.host.umount = lambda path: (
            seen.append(self.exported(self.volume)),
            umount(path),
        )
        self.disconnect()
        self.assertIn("127.0.0.1", seen[0])

    def test_requests(self):
        self.connect()
        self.disconnect()
        # To see the file's size, the driver mounts where it has to.
        self.assertEqual(2 if self.volume_file else 4, self.log.total)

    def test_a_mount_of_the_driver_leaves_it_mounted(self):
        """Between os-brick's mount and open, the driver comes and goes."""
        path = self.connect()
        with self.driver._shares.mounted(cinderdb.reloaded(self.volume)):
            pass
        self.assertTrue(os.path.isfile(path))
        self.disconnect()
        self.assert_unmounted()

    def test_os_brick_comes_while_the_driver_has_it_mounted(self):
        volume = cinderdb.reloaded(self.volume)
        with self.driver._shares.mounted(volume):
            path = self.connect()
        self.assertTrue(os.path.isfile(path))
        self.disconnect()
        self.assert_unmounted()

    def test_nova_on_the_same_machine_keeps_its_access(self):
        """Its attachment is in the list, Cinder's own one is not."""
        nova = base.connector(socket.gethostname(), "192.0.2.11", nova=True)
        row = self.attach(self.volume, nova)
        before = self.exported(self.volume)
        self.connect()
        self.disconnect()
        self.assertEqual(before, self.exported(self.volume))
        with self.driver._shares.mounted(cinderdb.reloaded(self.volume)):
            pass
        self.assertEqual(before, self.exported(self.volume))
        self.detach(row)
        self.assertEqual({}, self.exported(self.volume))

    def test_a_busy_mount_is_no_error(self):
        self.connect()
        self.host.failures["umount"] = [
            processutils.ProcessExecutionError(
                exit_code=32, stderr="target is busy"
            )
        ]
        self.driver.terminate_connection(
            cinderdb.reloaded(self.volume), self.where
        )
        self.assertEqual(1, len(self.host.table()))
        self.driver.remove_export(self.context, cinderdb.reloaded(self.volume))
        self.assert_unmounted()

    def cut_off(self, path):
        """As a restore does: it writes what is not zero, after ``wb``."""
        with open(path, "wb") as file:
            file.write(b"restored".ljust(8192, b"."))

    @ddt.data(
        "restoring-backup", "reverting", "downloading", "error", "available"
    )
    def test_a_file_that_was_cut_off(self, status):
        """Whatever Cinder was doing: who comes next has the whole size."""
        self.set_status(status)
        self.cut_off(self.connect())
        self.disconnect()
        self.attach(self.volume, base.connector("cmp-1"))
        entry = self.assert_file(self.volume, 1)
        self.assertEqual(b"restored", entry.blocks[0][:8])
        self.assert_unmounted()

    def test_a_service_that_dies_after_it_cut_the_file_off(self):
        self.cut_off(self.connect())
        (path,) = self.host.table()
        self.host.umount(path)
        os.rmdir(path)
        row = self.attach(self.volume, base.connector("cmp-1"))
        self.assert_file(self.volume, 1)
        self.detach(row)
        self.assert_unmounted()

    def test_a_file_that_was_cut_off_is_uploaded_whole(self):
        self.cut_off(self.connect())
        self.disconnect()
        image = test_images.Glance(b"", "raw")
        self.driver.copy_volume_to_image(
            self.context, cinderdb.reloaded(self.volume), image, image.meta
        )
        self.assert_file(self.volume, 1)


class SelfAttachmentTest(SelfAttachmentCase):
    pass


class SelfAttachmentMinimalVendorTest(
    base.WithoutVolumeFile, SelfAttachmentCase
):
    pass


del SelfAttachmentCase


class OlderNfsTest(base.DriverTestCase):
    appliance_options = {"nfs_versions": ("4.1", "3")}

    def test_no_discard(self):
        info = self.driver.initialize_connection(
            self.create(), base.connector("cmp-1")
        )
        self.assertNotIn("discard", info["data"])
