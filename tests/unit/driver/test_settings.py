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

"""Options: every one that is wrong is named, with what is expected."""

import contextlib
import os
import socket
import tempfile
import unittest

from cinder import exception
from cinder.volume import driver as cinder_driver
from cinder.volume.drivers import nfs
from cinder.volume.drivers import remotefs
import ddt

from acme_appliance.exporters import base as exporters
from acme_cinder import addresses
from acme_cinder import opts
from acme_cinder import settings
import acme_client
from tests.harness import transports
from tests.unit.client import wire
from tests.unit.driver import base
from tests.unit.driver import cinderdb

GOOD = {
    "acme_api_addresses": ["https://a.example.org:8443"],
    "acme_api_token": "acme_" + "x" * 43,
    "nfs_mount_point_base": "/var/lib/cinder/mnt",
}
UNSPECIFIED = "0.0.0.0"  # noqa: S104 - bound by nobody
_count = iter(range(10**6))


def read(**options):
    made = cinderdb.new_driver(f"settings-{next(_count)}", {**GOOD, **options})
    return settings.read(made.configuration)


@ddt.ddt
class SettingsTest(unittest.TestCase):
    def test_defaults(self):
        found = read()
        self.assertIs(True, found.verify)
        self.assertTrue(found.secure_operations)
        self.assertEqual("0660", found.file_mode)
        self.assertEqual("sparse", found.allocation)
        self.assertEqual(os.geteuid(), found.file_uid)
        self.assertEqual(3, found.mount_attempts)
        self.assertIsInstance(found.credentials, acme_client.BearerToken)

    @ddt.data(
        ({"acme_api_addresses": []}, "acme_api_addresses", "https://HOST"),
        (
            {"acme_api_addresses": ["a.example.org"]},
            "acme_api_addresses",
            "a.example.org",
        ),
        (
            {"acme_api_addresses": ["https://a:b"]},
            "acme_api_addresses",
            "https://a:b",
        ),
        ({"acme_api_token": ""}, "acme_api_token", "nas_user"),
        (
            {"acme_api_token": "", "nas_user": "cinder"},
            "nas_password",
            "together",
        ),
        (
            {"acme_api_token": "", "nas_password": "x"},
            "nas_user",
            "together",
        ),
        ({"acme_api_ca_file": "/no/such"}, "acme_api_ca_file", "/no/such"),
        ({"acme_pools": ["a", "a"]}, "acme_pools", "once"),
        ({"acme_nfs_portal": "a b"}, "acme_nfs_portal", "a b"),
        (
            {"acme_client_networks": ["10.0.0.0/24"]},
            "acme_client_networks",
            "HOST=ADDRESS",
        ),
        (
            {"acme_client_networks": ["10.0.0.0/24=10.1.0.0/16"]},
            "acme_client_networks",
            "same size",
        ),
        (
            {"acme_client_networks": ["cmp-1=cmp-1"]},
            "acme_client_networks",
            "cmp-1=cmp-1",
        ),
        ({"acme_fixed_clients": ["*"]}, "acme_fixed_clients", "\\*"),
        ({"acme_fixed_clients": ["0.0.0.0/0"]}, "acme_fixed_clients", "wide"),
        ({"acme_fixed_clients": ["10.0.0.0/7"]}, "acme_fixed_clients", "wide"),
        ({"acme_fixed_clients": ["8.0.0.0/5"]}, "acme_fixed_clients", "wide"),
        ({"acme_fixed_clients": ["2000::/16"]}, "acme_fixed_clients", "wide"),
        ({"acme_fixed_clients": ["::/0"]}, "acme_fixed_clients", "wide"),
        (
            {"acme_fixed_clients": ["::ffff:0.0.0.0/96"]},
            "acme_fixed_clients",
            "wide",
        ),
        (
            {"acme_fixed_clients": [UNSPECIFIED]},
            "acme_fixed_clients",
            "one host",
        ),
        ({"acme_fixed_clients": ["::"]}, "acme_fixed_clients", "one host"),
        ({"acme_fixed_clients": ["224.0.0.1"]}, "acme_fixed_clients", "one"),
        (
            {"acme_fixed_clients": ["192.0.2.1/24"]},
            "acme_fixed_clients",
            "host bits",
        ),
        (
            {"acme_fixed_clients": ["fe80::1%eth0"]},
            "acme_fixed_clients",
            "zone",
        ),
        (
            {"acme_fixed_clients": [f"192.0.2.{n}" for n in range(1, 64)]},
            "acme_fixed_clients",
            "64",
        ),
        ({"acme_nfs_portal": UNSPECIFIED}, "acme_nfs_portal", UNSPECIFIED),
        ({"acme_nfs_portal": "192.0.2.300"}, "acme_nfs_portal", "192.0.2.300"),
        (
            {"acme_client_networks": ["cmp-1=0.0.0.0"]},
            "acme_client_networks",
            "one host",
        ),
        (
            {"acme_client_networks": ["cmp-1=fe80::1%eth0"]},
            "acme_client_networks",
            "zone",
        ),
        (
            {"acme_client_networks": ["192.0.2.1/24=198.51.100.0/24"]},
            "acme_client_networks",
            "host bits",
        ),
        (
            {"acme_api_addresses": ["https://0.0.0.0:8443"]},
            "acme_api_addresses",
            UNSPECIFIED,
        ),
        (
            {"acme_api_addresses": ["http://192.0.2.10:8080"]},
            "acme_api_addresses",
            "https",
        ),
        ({"driver_ssl_cert_path": "/no/such"}, "driver_ssl_cert_path", "such"),
        ({"nfs_mount_point_base": "mnt"}, "nfs_mount_point_base", "absolute"),
        ({"nfs_mount_options": "a b"}, "nfs_mount_options", "white space"),
        ({"nas_mount_options": "a\tb"}, "nas_mount_options", "white space"),
        (
            {"nas_secure_file_operations": "maybe"},
            "nas_secure_file_operations",
            "auto, true or false",
        ),
        (
            {"nas_secure_file_permissions": "0640"},
            "nas_secure_file_permissions",
            "auto, true or false",
        ),
    )
    @ddt.unpack
    def test_wrong(self, options, name, expected):
        with self.assertRaisesRegex(
            exception.InvalidConfigurationValue, f"{name}.*{expected}"
        ):
            read(**options)

    def test_control_characters(self):
        """Each by its name, and not its value, which may be a secret."""
        wrong = {
            "acme_api_addresses": ["https://192.0.2.10:8443/\x01"],
            "acme_api_token": "secret\x00",
            "acme_api_ca_file": "\x00",
            "acme_nfs_portal": "192.0.2.10\x7f",
            "nfs_mount_point_base": "/mnt\x00",
            "nas_mount_options": "hard\x1b",
        }
        with self.assertRaises(exception.InvalidConfigurationValue) as caught:
            read(**wrong, acme_pools=["a"] * 2)
        for name in (*wrong, "acme_pools"):
            self.assertIn(f"{name}: ", str(caught.exception))
        self.assertNotIn("secret", str(caught.exception))

    def test_all_at_once(self):
        with self.assertRaises(exception.InvalidConfigurationValue) as caught:
            read(
                acme_api_addresses=[], acme_api_token="", acme_pools=["a"] * 2
            )
        for name in ("acme_api_addresses", "acme_api_token", "acme_pools"):
            self.assertIn(name, str(caught.exception))

    def test_values_that_oslo_config_refuses(self):
        """It raises when one is read, and that would hide all others."""
        made = cinderdb.new_driver(
            f"settings-{next(_count)}",
            {**GOOD, "acme_pools": ["a", "a"], "acme_api_addresses": []},
        )
        group = made.configuration.config_group
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = f"{folder.name}/cinder.conf"
        with open(path, "w") as conf:
            conf.write(
                f"[{group}]\n"
                "acme_api_read_timeout_seconds = 0\n"
                "acme_api_deadline_seconds = soon\n"
                "acme_file_uid = -1\n"
                "nfs_mount_attempts = many\n"
                "acme_api_verify = maybe\n"
                "driver_ssl_cert_verify = maybe\n"
                "acme_reap_interval_seconds = $nothing\n"
            )
        self.reload(path)
        with self.assertRaises(exception.InvalidConfigurationValue) as caught:
            settings.read(made.configuration)
        for name in (
            "acme_api_read_timeout_seconds",
            "acme_api_deadline_seconds",
            "acme_file_uid",
            "nfs_mount_attempts",
            "acme_api_verify",
            "acme_reap_interval_seconds",
            "acme_pools",
            "acme_api_addresses",
        ):
            self.assertIn(name, str(caught.exception))

    def reload(self, *paths):
        """Have Cinder's configuration read from these files."""
        conf = cinderdb.CONF
        before = conf._namespace
        conf._namespace = None
        conf.default_config_files = list(paths)
        self.addCleanup(setattr, conf, "default_config_files", [])
        self.addCleanup(setattr, conf, "_namespace", before)
        conf.set_override("config_file", list(paths))
        self.addCleanup(conf.clear_override, "config_file")
        conf.reload_config_files()

    @ddt.data(
        ({}, True),
        ({"driver_ssl_cert_verify": False}, False),
        ({"driver_ssl_cert_verify": True}, True),
        (
            {"driver_ssl_cert_verify": False, "acme_api_verify": True},
            True,
        ),
        ({"acme_api_verify": False, "driver_ssl_cert_verify": True}, False),
    )
    @ddt.unpack
    def test_verify(self, options, expected):
        self.assertIs(expected, read(**options).verify)

    def test_ca_of_every_driver(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        theirs = wire.Certificate(folder.name).ca_file
        ours = wire.Certificate(folder.name, host="127.0.0.2").ca_file
        self.assertEqual(theirs, read(driver_ssl_cert_path=theirs).verify)
        both = read(driver_ssl_cert_path=theirs, acme_api_ca_file=ours)
        self.assertEqual(ours, both.verify)

    @ddt.data(
        ("0:0:0:0:0:0:0:1", "::1"),
        ("[2001:DB8::A]", "2001:db8::a"),
        ("::ffff:192.0.2.10", "192.0.2.10"),
        ("NFS.Example.org", "nfs.example.org"),
    )
    @ddt.unpack
    def test_one_spelling_of_a_portal(self, given, expected):
        self.assertEqual(expected, read(acme_nfs_portal=given).portal)

    @ddt.data(
        "nas_host",
        "nas_share_path",
        "nfs_qcow2_volumes",
        "nfs_shares_config",
        "nfs_snapshot_support",
        "san_ip",
        "ssh_conn_timeout",
    )
    def test_options_without_an_effect(self, name):
        value = True if name.endswith(("volumes", "support")) else "30"
        made = cinderdb.new_driver(f"settings-{next(_count)}", GOOD)
        with self.assertNoLogs("acme_cinder.settings", "WARNING"):
            settings.warn_of_unused(made.configuration)
        group = made.configuration.config_group
        cinderdb.CONF.set_override(name, value, group)
        with self.assertLogs("acme_cinder.settings", "WARNING") as logs:
            settings.warn_of_unused(made.configuration)
        self.assertEqual(1, len(logs.records))
        self.assertIn(name, logs.output[0])

    def test_options_that_nobody_knows(self):
        made = cinderdb.new_driver(f"settings-{next(_count)}", GOOD)
        group = made.configuration.config_group
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = f"{folder.name}/cinder.conf"
        with open(path, "w") as conf:
            conf.write(
                f"[{group}]\nacme_pool = gold\nacme_pools = gold\n"
                "nas_host = 192.0.2.10\nvolume_backend_name = gold\n"
                "nas_ssh_port = none\nnfs_snapshot_support = maybe\n"
            )
        self.reload(path)
        with self.assertLogs("acme_cinder.settings", "WARNING") as logs:
            settings.warn_of_unused(made.configuration)
        self.assertIn("acme_pool (", logs.output[0])
        for name in ("nas_host", "nas_ssh_port", "nfs_snapshot_support"):
            self.assertIn(f"{name} (", logs.output[0])
        self.assertNotIn("acme_pools (", logs.output[0])
        self.assertNotIn("volume_backend_name", logs.output[0])

    @ddt.data("disk", "vol/%s", "%s/../x", "%d", "a b %s")
    def test_volume_name_template(self, template):
        conf = cinderdb.CONF
        before = conf.volume_name_template
        conf.set_override("volume_name_template", template)
        self.addCleanup(conf.set_override, "volume_name_template", before)
        with self.assertRaisesRegex(
            exception.InvalidConfigurationValue, "volume_name_template"
        ):
            read()

    def test_secrets_are_not_told(self):
        found = read()
        self.assertNotIn(GOOD["acme_api_token"], repr(found))
        with self.assertRaises(exception.InvalidConfigurationValue) as caught:
            read(acme_pools=["a", "a"])
        self.assertNotIn(GOOD["acme_api_token"], str(caught.exception))

    @ddt.data(("auto", True), ("true", True), ("True", True), ("false", False))
    @ddt.unpack
    def test_secure_operations(self, value, expected):
        found = read(nas_secure_file_operations=value)
        self.assertIs(expected, found.secure_operations)

    @ddt.data(
        ("", ("4.1", "4.2", "3"), "vers=4.2"),
        ("", (), "vers=4.2"),
        ("", ("3",), "vers=3"),
        ("hard", ("4.1",), "vers=4.1,hard"),
        ("vers=4", ("4.2",), "vers=4"),
        ("hard,v4.2", ("4.2",), "hard,v4.2"),
        ("nfsvers=3,hard", ("4.2",), "nfsvers=3,hard"),
        ("-o hard", ("4.2",), "vers=4.2,hard"),
    )
    @ddt.unpack
    def test_mount_options(self, given, versions, expected):
        found = read(nfs_mount_options=given)
        self.assertEqual(expected, found.mount_options_for(versions))

    def test_existing_options_are_cinders(self):
        theirs = [
            *nfs.nfs_opts,
            *remotefs.nas_opts,
            *cinder_driver.volume_opts,
        ]
        for opt in opts.CINDER_OPTS:
            self.assertTrue(any(opt is other for other in theirs))
        self.assertNotIn("nas_user", [other.name for other in theirs])


@ddt.ddt
class AddressesTest(unittest.TestCase):
    MAPPED = addresses.parse_mapping(
        [
            "192.0.2.0/24=198.51.100.0/24",
            "2001:db8::/64=2001:db8:1::/64",
            "cmp-7 = 203.0.113.7 | 203.0.113.8",
            "192.0.2.9=203.0.113.9",
            "2001:DB8:9:0::=203.0.113.10",
            "NODE-1 = ::ffff:203.0.113.11",
        ]
    )

    @ddt.data(
        ("cmp-1", "192.0.2.51", ("198.51.100.51",)),
        ("cmp-1", "10.0.0.1", ("10.0.0.1",)),
        ("cmp-1", "2001:db8::a", ("2001:db8:1::a",)),
        ("cmp-1", "2001:DB8:2:0::A", ("2001:db8:2::a",)),
        ("cmp-7", "192.0.2.51", ("203.0.113.7", "203.0.113.8")),
        ("cmp-7.example.org", "", ("203.0.113.7", "203.0.113.8")),
        ("cmp-1", "192.0.2.9", ("203.0.113.9",)),
        ("CMP-7.Example.ORG", "", ("203.0.113.7", "203.0.113.8")),
        ("cmp-1", "::ffff:192.0.2.9", ("203.0.113.9",)),
        ("cmp-1", "::ffff:192.0.2.51", ("198.51.100.51",)),
        ("cmp-1", "[2001:db8:0:0::A]", ("2001:db8:1::a",)),
        ("cmp-1", " 10.0.0.1 ", ("10.0.0.1",)),
        ("cmp-1", "2001:0db8:9::0", ("203.0.113.10",)),
        ("Node-1", "", ("203.0.113.11",)),
    )
    @ddt.unpack
    def test_of(self, host, ip, expected):
        known = addresses.ClientAddresses(self.MAPPED)
        self.assertEqual(expected, known.of(host, ip))
        fixed = addresses.ClientAddresses(self.MAPPED, ("192.0.2.250",))
        self.assertEqual((*expected, "192.0.2.250"), fixed.of(host, ip))

    @ddt.data(UNSPECIFIED, "::", "fe80::1%eth0", "cmp-1", "", "224.0.0.1")
    def test_addresses_that_no_rule_can_have(self, ip):
        known = addresses.ClientAddresses(self.MAPPED)
        self.assertFalse(addresses.usable({"host": "cmp-1", "ip": ip}, known))

    @ddt.data(
        "192.0.2.51",
        "192.0.2.0/24",
        "192.0.2.51/32",
        "10.0.0.0/8",
        "2001:DB8::/32",
        "2001:db8:0:0:0::1",
        "::ffff:192.0.2.51",
        "::ffff:192.0.2.0/120",
        "0.0.0.0/0",
        "0.0.0.0/8",
        UNSPECIFIED,
        "::",
        "::/32",
        "192.0.2.1/24",
        "10.0.0.0/7",
        "fe80::1%1",
        "cmp-1",
        "*",
        "",
    )
    def test_as_the_appliance_takes_them(self, text):
        """What is taken here is taken there, and as the same client."""
        try:
            client = addresses.parse_client(text)
        except ValueError:
            with self.assertRaises(ValueError):
                exporters.canonical_client(text)
        else:
            self.assertEqual(client, exporters.canonical_client(client))

    def test_this_host(self):
        known = addresses.ClientAddresses(self.MAPPED)
        self.assertEqual(
            ("198.51.100.51", "127.0.0.1"),
            known.of_this_host("ctl", "192.0.2.51", "127.0.0.1"),
        )
        self.assertEqual(
            ("127.0.0.1",), known.of_this_host("ctl", None, "127.0.0.1")
        )

    def test_a_portal_that_is_not_there(self):
        with self.assertRaises(OSError):
            addresses.source_address("no-such-host.invalid")


class StartTest(base.DriverTestCase):
    """check_for_setup_error against a real appliance."""

    def check(self, **options):
        made = self.unready_driver(acme_api_deadline_seconds=2, **options)
        made.do_setup(self.context)
        with contextlib.closing(made._api):
            made.check_for_setup_error()

    def test_good(self):
        self.check()

    def test_user_and_password(self):
        name, token = "cinder", None
        token = self.appliance.tokens.create(name, "driver", "cinder-a")[0]
        self.check(acme_api_token="", nas_user=name, nas_password=token)

    def test_a_wrong_token(self):
        with self.assertRaisesRegex(
            exception.InvalidConfigurationValue, "acme_api_token"
        ):
            self.check(acme_api_token="acme_" + "x" * 43)

    def test_a_token_that_may_change_nothing(self):
        token = self.appliance.make_token("metrics")
        with self.assertRaisesRegex(
            exception.InvalidConfigurationValue,
            "acme_api_token.*driver:NAMESPACE.*metrics",
        ):
            self.check(acme_api_token=token)

    def test_a_token_of_every_namespace(self):
        with self.assertLogs("acme_cinder.startup", "WARNING") as logs:
            self.check(acme_api_token=self.appliance.admin_token)
        self.assertIn("admin", logs.output[0])

    def test_an_appliance_that_cannot_tell(self):
        made = self.new_driver(
            [transports.problem(405, "request.method_not_allowed")],
            matches=lambda request: request.url.endswith("/tokens/self"),
        )
        self.assertEqual("up", made.get_volume_stats(True)["backend_state"])

    def test_all_that_does_not_fit_at_once(self):
        with self.assertRaises(exception.InvalidConfigurationValue) as caught:
            self.check(
                acme_api_token=self.appliance.make_token("metrics"),
                acme_pools=["lead"],
                acme_nfs_portal="192.0.2.77",
            )
        for name in ("acme_api_token", "acme_pools", "acme_nfs_portal"):
            self.assertIn(name, str(caught.exception))

    def test_requests_of_the_start(self):
        self.driver = self.new_driver()
        self.assertEqual(
            {"GET /v1/tokens/self": 1, "GET /v1/stats": 1},
            dict(self.log.counts),
        )
        self.driver.get_volume_stats(True)
        self.assertEqual(304, self.appliance.requests[-1].status)

    def test_a_portal_spelled_otherwise(self):
        self.check(acme_nfs_portal="[::ffff:127.0.0.1]")

    def test_a_pool_that_is_not_there(self):
        with self.assertRaisesRegex(
            exception.InvalidConfigurationValue, "acme_pools.*gold.*lead"
        ):
            self.check(acme_pools=["lead"])

    def test_a_portal_that_is_not_there(self):
        with self.assertRaisesRegex(
            exception.InvalidConfigurationValue, "acme_nfs_portal.*127.0.0.1"
        ):
            self.check(acme_nfs_portal="192.0.2.77")

    def test_no_answer(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with self.assertRaisesRegex(
            exception.VolumeDriverException, "acme_api_addresses"
        ):
            self.check(acme_api_addresses=[f"https://127.0.0.1:{port}"])

    def test_a_certificate_of_nobody(self):
        with self.assertRaisesRegex(
            exception.VolumeDriverException, "acme_api_ca_file"
        ):
            self.check(acme_api_ca_file="")

    def test_a_base_that_cannot_be_made(self):
        with open(f"{self.directory}/file", "w"):
            pass
        with self.assertRaisesRegex(
            exception.InvalidConfigurationValue, "nfs_mount_point_base"
        ):
            self.check(nfs_mount_point_base=f"{self.directory}/file/mnt")
