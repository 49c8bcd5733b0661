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

import os
import pathlib
import tempfile
import unittest

import ddt
from oslo_config import cfg

from acme_appliance import composition
from acme_appliance import conf as options
from acme_appliance import types

ROOT = pathlib.Path(__file__).parents[3]
SAMPLE = ROOT / "etc/acme-appliance/acme-appliance.conf.sample"

GOOD = """\
[DEFAULT]
state_path = {state}
listen_addresses = 127.0.0.1, ::1
enabled_pools = gold, silver
[nfs]
portals = 192.0.2.10, 2001:db8::10
exporter = memory
[limits]
max_shares = 7
[pool:gold]
path = /srv/pools/gold/
[pool:silver]
path = /srv/pools/silver
device = /dev/vdb
"""


class Case(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = temporary.name

    def load(self, text: str) -> cfg.ConfigOpts:
        file = pathlib.Path(self.directory) / "a.conf"
        file.write_text(text.format(state=self.directory))
        return options.load(["--config-file", str(file)])


@ddt.ddt
class ConfigurationTest(Case):
    def test_good(self):
        conf = self.load(GOOD)
        options.check(conf)
        gold, silver = options.pools(conf)
        self.assertEqual("/srv/pools/gold", gold.path)
        self.assertEqual("/dev/vdb", silver.device)
        self.assertEqual("/srv/pools", options.export_root(conf))
        self.assertEqual(
            ["127.0.0.1:8443", "[::1]:8443"], options.listen_points(conf)
        )
        settings = composition.build_settings(conf)
        self.assertEqual(7, settings.limits.max_shares)
        self.assertEqual(
            [("192.0.2.10", True), ("2001:db8::10", False)],
            [(p.address, p.preferred) for p in settings.portals],
        )
        again = composition.build_settings(conf)
        self.assertEqual(settings.system_id, again.system_id)
        self.assertEqual(
            f"sqlite:///{self.directory}/appliance.db",
            options.database_url(conf),
        )

    def test_who_may_own_files(self):
        conf = self.load(
            GOOD.replace(
                "[nfs]", "[nfs]\nallowed_uids = 165, 1000-2000\nowner_gid = 7"
            )
        )
        options.check(conf)
        settings = composition.build_settings(conf)
        self.assertEqual(
            (range(165, 166), range(1000, 2001)), settings.allowed_owners.uids
        )
        self.assertEqual((range(1000, 65534),), settings.allowed_owners.gids)
        self.assertEqual(7, settings.file_defaults.gid)

    def test_quotas_of_namespaces(self):
        conf = self.load(
            GOOD + "[namespace:cinder-a]\nmax_bytes = 10TiB\nmax_shares = 5\n"
            "[namespace:b c]\nmax_snapshots = 0\n"
        )
        options.check(conf)
        self.assertEqual(
            {
                "cinder-a": types.Quota(10 << 40, 5, None),
                "b c": types.Quota(None, None, 0),
            },
            composition.build_settings(conf).quotas,
        )

    @ddt.data("10", "x", "-5GiB", "5 apples", "")
    def test_a_quota_that_is_no_size(self, text):
        conf = self.load(GOOD + f"[namespace:a]\nmax_bytes = {text}\n")
        with self.assertRaises(options.ConfigurationError) as caught:
            options.check(conf)
        self.assertIn("[namespace:a] max_bytes", str(caught.exception))

    def test_threads_leave_some_for_reads(self):
        for threads in (8, 9, 64, 512):
            conf = self.load(f"[DEFAULT]\nthreads = {threads}\n")
            api = composition.build_api_settings(conf)
            self.assertGreater(api.changes, 0)
            self.assertGreater(api.long_polls, 0)
            self.assertLess(api.changes + api.long_polls, threads)

    def test_burst_of_attaches_is_not_refused(self):
        """An evacuated rack: 200 changes at once wait their turn."""
        api = composition.build_api_settings(self.load(""))
        self.assertGreaterEqual(api.changes, 200)

    def test_all_bad_values_are_told_at_once(self):
        with self.assertRaises(options.ConfigurationError) as caught:
            self.load(
                "[DEFAULT]\nenabled_pools = g\nport = x\nthreads = 1\n"
                "[tls]\nenabled = perhaps\n"
                "[nfs]\nversions = 4.1, 2\nportals = nowhere\n"
                "[limits]\nmax_shares = -1\n"
                "[pool:g]\nengine = zfs\n"
                "[namespace:a]\nmax_shares = x\n"
            )
        listed = "a list with commas between its entries, each of them"
        self.assertEqual(
            [
                "[DEFAULT] port = x: it must be a whole number between 1 and"
                " 65535",
                "[DEFAULT] threads = 1: it must be a whole number between 8"
                " and 1024",
                "[tls] enabled = perhaps: it must be true or false",
                f"[nfs] portals = nowhere: it must be {listed} an IP address",
                f"[nfs] versions = 4.1, 2: it must be {listed} one of 3, 4.0,"
                " 4.1, 4.2",
                "[limits] max_shares = -1: it must be a whole number from 1",
                "[namespace:a] max_shares = x: it must be a whole number from"
                " 0",
                "[pool:g] engine = zfs: it must be one of btrfs, memory,"
                " reflink",
            ],
            str(caught.exception).splitlines(),
        )

    @ddt.data(
        ("[DEFAULT]\nport = 0\n", "port"),
        ("[DEFAULT]\nport = x\n", "port"),
        ("[DEFAULT]\nenabled_pools = a/b\n", "enabled_pools"),
        ("[nfs]\nportals = nowhere\n", "portals"),
        ("[nfs]\nversions = 2\n", "versions"),
        ("[nfs]\nsquash = some\n", "squash"),
        ("[tls]\nenabled = perhaps\n", "enabled"),
        ("[auth]\nsession_seconds = 1\n", "session_seconds"),
        ("[nfs]\nowner_uid = 0\n", "owner_uid"),
        ("[nfs]\nallowed_uids = cinder\n", "allowed_uids"),
        ("[nfs]\nallowed_gids = 5-\n", "allowed_gids"),
        ("[limits]\nmax_share_bytes = 9999999999999999\n", "max_share_bytes"),
        ("[DEFAULT]\nenabled_pools = g\n[pool:g]\nengine = zfs\n", "engine"),
        ("no section", "a.conf"),
    )
    @ddt.unpack
    def test_a_bad_value_is_named(self, text, name):
        with self.assertRaises(options.ConfigurationError) as caught:
            self.load(text)
        self.assertIn(name, str(caught.exception))

    @ddt.data(
        ("enabled_pools = gold, silver", "#", "enabled_pools is empty"),
        ("path = /srv/pools/silver", "#", "[pool:silver] path"),
        ("/srv/pools/silver", "srv/silver", "[pool:silver] path"),
        ("portals = ", "#", "[nfs] portals is empty"),
        ("127.0.0.1, ::1", "0.0.0.1.2", "listen_addresses"),
        (
            "listen_addresses = 127.0.0.1, ::1",
            "listen_addresses = 0.0.0.0\n[tls]\nenabled = false\n[DEFAULT]",
            "tokens would cross the network",
        ),
        *(
            ("[nfs]", f"[nfs]\nallowed_{ids}", "is not a number or a range")
            for ids in (
                "uids = 0",
                "uids = 0-1000",
                "gids = 5-4",
                "gids = 1000,4294967295",
            )
        ),
        (
            "[nfs]",
            "[tls]\nkey_file = /x\n[nfs]",
            "certificate_file and key_file",
        ),
    )
    @ddt.unpack
    def test_what_does_not_go_together(self, old, new, complaint):
        conf = self.load(GOOD.replace(old, new))
        with self.assertRaises(options.ConfigurationError) as caught:
            options.check(conf)
        self.assertIn(complaint, str(caught.exception))

    def test_plain_http_for_a_proxy_on_loopback(self):
        conf = self.load(GOOD + "[tls]\nenabled = false\n")
        options.check(conf)
        self.assertIsNone(composition.find_certificate(conf))

    def test_the_database_is_not_for_everybody(self):
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        composition.build_database(self.load(GOOD)).close()
        for name in os.listdir(self.directory):
            if name.startswith("appliance.db"):
                mode = (pathlib.Path(self.directory) / name).stat().st_mode
                self.assertEqual(0, mode & 0o007, name)


class SampleTest(Case):
    def test_the_sample_is_a_configuration(self):
        conf = options.load(["--config-file", str(SAMPLE)])
        self.assertEqual(8443, conf.port)

    def test_every_option_says_what_it_is(self):
        for group, members in options.list_opts():
            for option in members:
                with self.subTest(group=group, option=option.name):
                    self.assertTrue(option.help.endswith("."), option.help)
