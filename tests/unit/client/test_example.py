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

"""The example in the documentation runs as it is printed there."""

import os
import pathlib
import subprocess
import sys
import unittest

from acme_appliance.engines import base as engines
from tests.harness import inprocess

_TOP = pathlib.Path(__file__).parents[3]
_EXAMPLE = _TOP / "doc/source/reference/client_example.py"


class ExampleTest(unittest.TestCase):
    def setUp(self):
        self.appliance = inprocess.RunningAppliance()
        self.addCleanup(self.appliance.stop)
        self.appliance.start()

    def run_example(self, token: str) -> subprocess.CompletedProcess[str]:
        environ = {
            **os.environ,
            "PYTHONPATH": str(_TOP),
            "ACME_URL": self.appliance.url,
            "ACME_TOKEN": token,
            "ACME_CA_FILE": str(self.appliance.ca_file),
        }
        return subprocess.run(
            [sys.executable, str(_EXAMPLE)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def test_it_works(self):
        done = self.run_example(self.appliance.token)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        created, mount, deleted = done.stdout.splitlines()
        share_id = created.split()[1]
        self.assertIn(share_id, mount)
        self.assertEqual(f"deleted {share_id}", deleted)
        engine = self.appliance.engines["gold"]
        self.assertEqual({}, dict(self.appliance.exporter.exported()))
        self.assertEqual(set(), engine.ids(engines.Kind.SHARE))

    def test_its_errors_are_one_line(self):
        done = self.run_example("acme_" + "0" * 43)
        self.assertEqual(1, done.returncode)
        self.assertRegex(done.stderr, r"^error: .+\n$")
