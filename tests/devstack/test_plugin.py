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

"""The plugin with devstack's own code, but without systemd, Keystone and
packages. Needs DEVSTACK_DIR, and root for loop devices."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import unittest

import ddt

from tests.devstack import scratch

#: Two back ends with a pool each, a volume's life in each of them.
TIMEOUT_SECONDS = 600
DRIVER = "acme_cinder.driver.acmeNfsDriver"


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class PluginTestCase(unittest.TestCase):
    #: The folder for scratch trees; None: the system's for such things.
    place = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if reason := scratch.why_not():
            scratch.skip_loudly(reason)

    def tree(self, sample, **settings):
        """A scratch tree with local.conf; everything is removed at the end."""
        tree = scratch.Scratch(self.place)
        self.addCleanup(tree.remove)
        # Whatever the test did to it before.
        self.addCleanup(tree.run, "clean")
        # Off the machine's own exports, whether its kernel has NFS or not.
        tree.configure(sample, **{"ACME_EXPORTER": "memory", **settings})
        return tree

    def appliance_tree(self, sample, **settings):
        """A tree in which an appliance will run."""
        return self.tree(
            sample,
            ACME_APPLIANCE_PORT=free_port(),
            ACME_POOL_SIZE="512M",
            **settings,
        )

    def volume_service(self, tree, *backends, program="volume_service"):
        """The report of a real cinder-volume on back ends of that tree."""
        report = tree.path / "report.json"
        done = subprocess.run(
            [
                sys.executable,
                str(scratch.HERE / f"{program}.py"),
                str(tree.cinder_conf),
                str(report),
                *backends,
            ],
            env={
                "HOME": str(tree.path),
                "PATH": f"{os.path.dirname(sys.executable)}:"
                "/usr/sbin:/usr/bin:/sbin:/bin",
                "PYTHONPATH": str(scratch.PROJECT),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        if done.returncode:
            self.fail(f"{done.stdout[-20000:]}\n{tree.unit_log()[-5000:]}")
        return json.loads(report.read_text())

    def assert_secret(self, secret, output):
        """Check that it is not in stack.sh's log."""
        lines = [line for line in output.splitlines() if secret in line]
        self.assertEqual([], lines)

    def assert_volumes_lived(self, report, backend, pools):
        volumes = report[backend]["volumes"]
        self.assertEqual(set(pools), volumes.keys())
        for pool, volume in volumes.items():
            with self.subTest(f"{backend}#{pool}"):
                self.assertEqual("available", volume["status"])
                self.assertEqual("available", volume["snapshot"])
                self.assertEqual("available", volume["clone"])
                self.assertRegex(volume["location"], r"^127\.0\.0\.1:/")
                self.assertEqual([], volume["left"])


@ddt.ddt
class ConfigureTestCase(PluginTestCase):
    """The content of cinder.conf before there is an appliance."""

    @ddt.data(
        ("all-in-one", {"acme-1": None}),
        ("two-pools", {"acme-1": "gold,silver"}),
        ("multi-backend", {"acme-1": "gold", "acme-2": "silver"}),
    )
    @ddt.unpack
    def test_sample_with_appliance(self, sample, backends):
        tree = self.tree(sample)
        tree.run("stack", "configure")
        conf = tree.ini("cinder/cinder.conf")
        enabled = conf["DEFAULT"]["enabled_backends"].split(",")
        others = [name for name in enabled if not name.startswith("acme")]
        self.assertEqual([*backends, *others], enabled)
        self.assertEqual("acme-1", conf["DEFAULT"]["default_volume_type"])
        for name, pools in backends.items():
            section = conf[name]
            self.assertEqual(DRIVER, section["volume_driver"])
            self.assertEqual(name, section["volume_backend_name"])
            self.assertEqual(pools, section.get("acme_pools"))
            self.assertEqual(
                "https://127.0.0.1:8443", section["acme_api_addresses"]
            )
            self.assertEqual(
                str(tree.path / "etc/cinder/acme-appliance-ca.crt"),
                section["acme_api_ca_file"],
            )
        bases = {conf[name]["nfs_mount_point_base"] for name in backends}
        self.assertEqual(len(backends), len(bases))

    def test_other_back_ends_are_as_without_the_plugin(self):
        tree = self.tree("multi-backend")
        tree.run("stack", "configure")
        section = tree.ini("cinder/cinder.conf")["lvm-1"]
        self.assertEqual("lvm-1", section["volume_backend_name"])
        self.assertNotIn("acme_api_addresses", section)

    def test_sample_with_external_appliance(self):
        tree = self.tree("external-appliance")
        output = tree.run("stack", "install")
        section = tree.ini("cinder/cinder.conf")["acme-1"]
        self.assertEqual(
            "https://192.0.2.10:8443,https://192.0.2.11:8443",
            section["acme_api_addresses"],
        )
        self.assertEqual("acme_replace-me", section["acme_api_token"])
        self.assert_secret("acme_replace-me", output)
        installed = "\n".join(tree.calls())
        self.assertIn("install_package nfs-common", installed)
        self.assertNotIn("nfs-kernel-server", installed)
        self.assertNotIn("[appliance]", installed)

    def test_back_end_with_an_appliance_of_its_own(self):
        tree = self.tree(
            "multi-backend",
            ACME_API_ADDRESSES_ACME_2="https://192.0.2.10:8443",
            ACME_API_USER_ACME_2="cinder",
            ACME_API_PASSWORD_ACME_2="correct horse",
        )
        output = tree.run("stack", "configure")
        self.assert_secret("correct horse", output)
        conf = tree.ini("cinder/cinder.conf")
        self.assertEqual(
            "https://127.0.0.1:8443", conf["acme-1"]["acme_api_addresses"]
        )
        self.assertEqual(
            "https://192.0.2.10:8443", conf["acme-2"]["acme_api_addresses"]
        )
        self.assertEqual("cinder", conf["acme-2"]["nas_user"])
        self.assertEqual("correct horse", conf["acme-2"]["nas_password"])
        self.assertNotIn("acme_api_ca_file", conf["acme-2"])

    def test_node_without_cinder_volume_gets_no_appliance(self):
        tree = self.tree("all-in-one", ENABLED_SERVICES="n-cpu")
        tree.run("stack", "pre-install")
        installed = "\n".join(tree.calls())
        self.assertIn("install_package nfs-common", installed)
        self.assertNotIn("nfs-kernel-server", installed)

    def test_back_ends_elsewhere_need_no_appliance_here(self):
        tree = self.tree(
            "multi-backend",
            ACME_API_ADDRESSES_ACME_1="https://192.0.2.10:8443",
            ACME_API_ADDRESSES_ACME_2="https://192.0.2.11:8443",
        )
        tree.run("stack", "pre-install")
        self.assertNotIn("nfs-kernel-server", "\n".join(tree.calls()))

    def test_password_stays_out_of_the_log(self):
        tree = self.tree(
            "external-appliance",
            ACME_API_TOKEN="",
            ACME_API_USER="cinder",
            ACME_API_PASSWORD="correct-horse",
        )
        self.assert_secret("correct-horse", tree.run("stack", "configure"))
        section = tree.ini("cinder/cinder.conf")["acme-1"]
        self.assertEqual("correct-horse", section["nas_password"])

    def test_no_volume_types_without_keystone(self):
        tree = self.tree(
            "external-appliance",
            ACME_POOLS="gold,silver",
            ENABLED_SERVICES="mysql,c-api,c-vol",
        )
        tree.run("stack", "extra")
        self.assertNotIn("volume type", "\n".join(tree.calls()))

    def test_second_node_uses_the_appliance_on_it(self):
        tree = self.tree(
            "all-in-one", SERVICE_HOST="192.0.2.1", HOST_IP="127.0.0.1"
        )
        tree.run("stack", "configure")
        section = tree.ini("cinder/cinder.conf")["acme-1"]
        self.assertEqual(
            "https://127.0.0.1:8443", section["acme_api_addresses"]
        )

    def test_address_of_ipv6(self):
        tree = self.tree(
            "all-in-one",
            SERVICE_IP_VERSION="6",
            HOST_IPV6="2001:db8::1",
            SERVICE_HOST="[2001:db8::1]",
        )
        tree.run("stack", "configure")
        section = tree.ini("cinder/cinder.conf")["acme-1"]
        self.assertEqual(
            "https://[2001:db8::1]:8443", section["acme_api_addresses"]
        )

    def test_back_end_without_an_appliance_is_refused(self):
        tree = self.tree("all-in-one", DISABLED_SERVICES="acme-appliance")
        with self.assertRaisesRegex(
            AssertionError, "acme:acme-1 has no appliance"
        ):
            tree.run("stack", "pre-install")

    def test_default_back_end(self):
        tree = self.tree("all-in-one", CINDER_ENABLED_BACKENDS="")
        tree.run("stack", "configure")
        conf = tree.ini("cinder/cinder.conf")
        self.assertEqual("acme-1", conf["DEFAULT"]["enabled_backends"])


class StackTestCase(PluginTestCase):
    """All phases, a running appliance and a real cinder-volume."""

    def assert_nothing_runs(self, tree):
        self.assertEqual([], tree.leftovers())

    def test_back_ends_live_and_die(self):
        tree = self.appliance_tree(
            "multi-backend", ENABLE_VOLUME_MULTIATTACH="True"
        )
        output = tree.run("stack")
        conf = tree.ini("cinder/cinder.conf")
        tokens = [conf[f"acme-{n}"]["acme_api_token"] for n in (1, 2)]
        self.assertEqual(2, len(set(tokens)))
        for token in tokens:
            self.assert_secret(token, output)
        self.assertIn("init_cinder_backend_lvm lvm-1", tree.calls())

        report = self.volume_service(tree, "acme-1", "acme-2")
        self.assert_volumes_lived(report, "acme-1", ["gold"])
        self.assert_volumes_lived(report, "acme-2", ["silver"])
        self.check_tempest(tree, report["acme-1"]["stats"])

        with self.subTest("stacked again, without unstacking"):
            tree.run("stack")
            self.assertNotIn(
                tree.ini("cinder/cinder.conf")["acme-1"]["acme_api_token"],
                tokens,
            )
            report = self.volume_service(tree, "acme-1", "acme-2")
            self.assert_volumes_lived(report, "acme-2", ["silver"])
        with self.subTest("unstacked, twice"):
            tree.run("unstack")
            self.assert_nothing_runs(tree)
            tree.run("unstack")
            self.assertTrue((tree.path / "data/acme").exists())
        with self.subTest("stacked after unstacking"):
            tree.run("stack")
            report = self.volume_service(tree, "acme-1")
            self.assert_volumes_lived(report, "acme-1", ["gold"])
        with self.subTest("cleaned, twice"):
            tree.run("clean")
            self.assert_nothing_runs(tree)
            self.assertFalse((tree.path / "data/acme").exists())
            self.assertFalse((tree.path / "etc/acme-appliance").exists())
            tree.run("clean")
            self.assertIn("cleanup_cinder_backend_lvm lvm-1", tree.calls())

    def test_pools_of_the_back_ends_here_on_a_second_node(self):
        tree = self.appliance_tree(
            "multi-backend",
            ACME_API_ADDRESSES_ACME_2="https://192.0.2.10:8443",
            # Where this node's own appliance is not.
            SERVICE_HOST="192.0.2.1",
        )
        tree.run("stack", "post-config")
        images = (tree.path / "data" / "acme").glob("*.img")
        self.assertEqual(["gold.img"], [image.name for image in images])

    def check_tempest(self, tree, stats):
        """Tempest's flags match the driver's report."""
        conf = tree.ini("tempest/tempest.conf")
        flags = conf["volume-feature-enabled"]
        (pool,) = stats["pools"]
        self.assertEqual(
            {
                "snapshot": "True",
                "clone": "True",
                "extend_attached_volume": str(pool["online_extend_support"]),
                "manage_volume": "False",
                "manage_snapshot": "False",
                "volume_revert": "True",
                "replication": "False",
                "multi_backend": "True",
            },
            {
                name: flags[name]
                for name in (
                    "snapshot",
                    "clone",
                    "extend_attached_volume",
                    "manage_volume",
                    "manage_snapshot",
                    "volume_revert",
                    "replication",
                    "multi_backend",
                )
            },
        )
        compute = conf["compute-feature-enabled"]
        self.assertEqual(
            str(pool["multiattach"]), compute["volume_multiattach"]
        )
        volume = conf["volume"]
        self.assertEqual("acme-1,acme-2,lvm-1", volume["backend_names"])
        self.assertEqual(stats["vendor_name"], volume["vendor_name"])
        self.assertEqual(stats["storage_protocol"], volume["storage_protocol"])

    def test_two_pools_and_an_external_appliance(self):
        here = self.appliance_tree("two-pools")
        here.run("stack")
        report = self.volume_service(here, "acme-1")
        self.assert_volumes_lived(report, "acme-1", ["gold", "silver"])
        types = (here.path / "types").read_text().splitlines()
        self.assertIn("acme-1-gold", types)
        self.assertIn("acme-1-silver", types)
        here.run("stack", "extra")
        again = (here.path / "types").read_text().splitlines()
        self.assertEqual(sorted(types), sorted(again))

        conf = here.ini("cinder/cinder.conf")["acme-1"]
        there = self.tree(
            "external-appliance",
            ACME_API_ADDRESSES=conf["acme_api_addresses"],
            ACME_API_TOKEN=conf["acme_api_token"],
            ACME_API_CA_FILE=conf["acme_api_ca_file"],
            ACME_POOLS="silver",
        )
        output = there.run("stack")
        self.assert_secret(conf["acme_api_token"], output)
        report = self.volume_service(there, "acme-1")
        self.assert_volumes_lived(report, "acme-1", ["silver"])
        there.run("unstack")
        there.run("clean")
        # It was never theirs to stop.
        self.assertTrue(pathlib.Path(conf["acme_api_ca_file"]).exists())
        report = self.volume_service(here, "acme-1")
        self.assert_volumes_lived(report, "acme-1", ["gold", "silver"])
