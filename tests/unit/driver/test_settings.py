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
import unittest

from cinder import exception
from cinder.volume.drivers import nfs
from cinder.volume.drivers import remotefs
import ddt

from acme_cinder import addresses
from acme_cinder import client
from acme_cinder import opts
from acme_cinder import settings
from tests.unit.driver import base
from tests.unit.driver import cinderworld

GOOD = {
    "acme_api_addresses": ["https://a.example.org:8443"],
    "acme_api_token": "acme_" + "x" * 43,
    "nfs_mount_point_base": "/var/lib/cinder/mnt",
}
_count = iter(range(10**6))


def read(**options):
    made = cinderworld.new_driver(
        f"settings-{next(_count)}", {**GOOD, **options}
    )
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
        self.assertIsInstance(found.credentials, client.BearerToken)

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

    def test_all_at_once(self):
        with self.assertRaises(exception.InvalidConfigurationValue) as caught:
            read(
                acme_api_addresses=[], acme_api_token="", acme_pools=["a"] * 2
            )
        for name in ("acme_api_addresses", "acme_api_token", "acme_pools"):
            self.assertIn(name, str(caught.exception))

    @ddt.data("disk", "vol/%s", "%s/../x", "%d", "a b %s")
    def test_volume_name_template(self, template):
        conf = cinderworld.CONF
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
        theirs = [*nfs.nfs_opts, *remotefs.nas_opts]
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
    )
    @ddt.unpack
    def test_of(self, host, ip, expected):
        known = addresses.ClientAddresses(self.MAPPED)
        self.assertEqual(expected, known.of(host, ip))
        fixed = addresses.ClientAddresses(self.MAPPED, ("192.0.2.250",))
        self.assertEqual((*expected, "192.0.2.250"), fixed.of(host, ip))

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
