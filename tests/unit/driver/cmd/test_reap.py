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

"""``acme-cinder reap``."""

import subprocess
import sys

import ddt

from tests.unit.driver.cmd import base


@ddt.ddt
class ReapTest(base.CommandCase):
    def reap(self, *options, **given):
        path = self.configure(**given)
        return self.run_command("reap", "--config-file", path, *options)

    def test_nothing_to_do(self):
        """It asks no appliance, and needs no root; as it is installed."""
        done = subprocess.run(
            [
                *(sys.executable, "-W", "ignore"),
                *("-m", "acme_cinder.cmd.main"),
                *("reap", "--config-file", self.configure()),
            ],
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.assertEqual(0, done.returncode, done.stderr)

    @ddt.data(
        (("--backend", "lvm"), {}, "[lvm] volume_driver"),
        (("--backend", "none"), {}, "[none] volume_driver"),
        ((), {"token": ""}, "[acme] Invalid configuration"),
        (("--config-file", "/nonexistent"), {}, "/nonexistent"),
    )
    @ddt.unpack
    def test_a_wrong_configuration(self, options, given, expected):
        done = self.reap(*options, **given)
        self.assertEqual(2, done.returncode, done.stderr)
        self.assertIn(expected, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
