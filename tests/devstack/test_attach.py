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

"""The plugin with real NFS: its exports and mounts, and their removal.

Only in a sandbox, with its own exports and mounts:

    tools/sandbox.sh run -- python -m stestr --test-path tests/devstack run
"""

import os
import pathlib
import subprocess
import unittest

from tests.devstack import test_plugin

#: What attach_volume.py writes.
PATTERN = b"acme" * 1024
EXPORTS = pathlib.Path("/etc/exports.d")


def _run(*command):
    return subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout


class AttachTestCase(test_plugin.PluginTestCase):
    place = os.environ.get("SANDBOX_EXPORT_ROOT")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if "SANDBOX_KIND" not in os.environ:
            raise unittest.SkipTest("only in tools/sandbox.sh: it exports")

    def export_foreign(self):
        """A share that does not belong to the plugin."""
        shared = pathlib.Path(self.place) / "foreign"
        shared.mkdir()
        self.addCleanup(shared.rmdir)
        _run("mount", "-t", "tmpfs", "foreign", str(shared))
        self.addCleanup(_run, "umount", str(shared))
        # As another appliance on this machine would call it.
        file = EXPORTS / "acme-foreign.exports"
        file.write_text(
            '"/foreign" 127.0.0.0/8'
            "(rw,fsid=77,no_subtree_check,no_root_squash)\n"
        )
        self.addCleanup(file.unlink)
        _run("exportfs", "-a")
        self.addCleanup(_run, "exportfs", "-u", "127.0.0.0/8:/foreign")
        return shared

    def mount_foreign(self, mounted):
        mounted.mkdir(parents=True)
        _run("mount", "-t", "nfs", "127.0.0.1:/foreign", str(mounted))

    def test_volume_of_an_appliance_elsewhere_outlives_a_compute_node(self):
        volume = self.export_foreign() / "volume"
        volume.write_bytes(PATTERN)
        tree = self.tree("all-in-one", ENABLED_SERVICES="n-cpu")
        nova = tree.path / "data" / "nova"
        self.mount_foreign(nova / "mnt" / "0123")
        umount = tree.path / "bin" / "umount"
        umount.write_text("#!/bin/false\n")
        umount.chmod(0o755)
        for mode in ("unstack", "clean"):
            with self.assertRaisesRegex(AssertionError, "Still mounted"):
                tree.run(mode)
            self.assertEqual(PATTERN, volume.read_bytes())
        umount.unlink()
        tree.run("unstack")
        self.assertFalse(nova.exists())
        self.assertEqual(PATTERN, volume.read_bytes())
        with self.subTest("what cinder-backup left"):
            cinder = tree.path / "data" / "cinder"
            self.mount_foreign(cinder / "mnt" / "0123")
            tree.run("clean")
            self.assertFalse(cinder.exists())
            self.assertEqual(PATTERN, volume.read_bytes())

    def test_attached_volume_is_taken_down_and_others_are_not(self):
        self.export_foreign()
        foreign = pathlib.Path("/mnt/foreign")
        self.addCleanup(foreign.rmdir)
        self.mount_foreign(foreign)
        self.addCleanup(_run, "umount", str(foreign))
        tree = self.appliance_tree(
            "all-in-one",
            ACME_EXPORTER="kernel",
            ACME_EXPORT_ROOT=self.place,
            # What the sandbox is slow at and this test does not look at.
            ENABLED_SERVICES="mysql,c-vol",
        )
        tree.run("stack")
        self.assertIn("start_service nfs-kernel-server", tree.calls())
        volume = self.volume_service(tree, "acme-1", program="attach_volume")
        share = tree.path / "data/acme/pools/acme/shares" / volume["id"]
        written = (share / volume["name"]).read_bytes()
        self.assertTrue(written.startswith(PATTERN))
        self.assertTrue(os.path.ismount(os.path.dirname(volume["path"])))
        self.assertIn(volume["id"], _run("exportfs", "-v"))
        file = EXPORTS / f"acme-{volume['id']}.exports"
        self.assertTrue(file.exists())

        tree.run("unstack")
        self.assertEqual([], tree.leftovers())
        self.assertNotIn(volume["id"], _run("exportfs", "-v"))
        self.assertFalse(file.exists())

        self.assertTrue(os.path.ismount(foreign))
        self.assertIn("/foreign", _run("exportfs", "-v"))
        self.assertTrue((EXPORTS / "acme-foreign.exports").exists())
