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

"""The command as an operator starts it."""

import os
import subprocess
import sys
import tempfile
import textwrap
import unittest

import ddt

_CONF = """
[DEFAULT]
enabled_backends = acme, lvm
state_path = {folder}
[oslo_concurrency]
lock_path = {folder}
[lvm]
volume_driver = cinder.volume.drivers.lvm.LVMVolumeDriver
[acme]
volume_driver = acme_cinder.driver.acmeNfsDriver
acme_api_addresses = https://192.0.2.10:8443
acme_api_token = {token}
nfs_mount_point_base = {folder}/mnt
"""


@ddt.ddt
class ReapTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        made = tempfile.TemporaryDirectory(prefix="acme-reap-")
        self.addCleanup(made.cleanup)
        self.folder = os.path.realpath(made.name)

    def run_command(self, *options, token="x" * 43):  # noqa: S107
        path = f"{self.folder}/cinder.conf"
        with open(path, "w") as file:
            file.write(
                textwrap.dedent(_CONF).format(folder=self.folder, token=token)
            )
        return subprocess.run(
            [
                sys.executable, "-W", "ignore", "-m", "acme_cinder.cmd.main",
                "reap", "--config-file", path, *options,
            ],
            capture_output=True,
            text=True,
            timeout=300,
        )  # fmt: skip

    def test_nothing_to_do(self):
        """It asks no appliance, and needs no root."""
        done = self.run_command()
        self.assertEqual(0, done.returncode, done.stderr)

    @ddt.data(
        (("--backend", "lvm"), {}, "[lvm] volume_driver"),
        (("--backend", "none"), {}, "[none] volume_driver"),
        ((), {"token": ""}, "[acme] Invalid configuration"),
        (("--config-file", "/nonexistent"), {}, "/nonexistent"),
    )
    @ddt.unpack
    def test_a_wrong_configuration(self, options, given, expected):
        done = self.run_command(*options, **given)
        self.assertEqual(2, done.returncode, done.stderr)
        self.assertIn(expected, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
