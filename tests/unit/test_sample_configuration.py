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

"""The sample configuration files match the options."""

from pathlib import Path
import subprocess
import sys
import tempfile
import unittest

import ddt

TOP = Path(__file__).resolve().parents[2]


@ddt.ddt
class SampleConfiguration(unittest.TestCase):
    @ddt.data(
        ("acme-cinder.conf", "etc/cinder/acme-cinder.conf.sample"),
        (
            "acme-appliance.conf",
            "etc/acme-appliance/acme-appliance.conf.sample",
        ),
    )
    @ddt.unpack
    def test_is_current(self, recipe: str, sample: str) -> None:
        # In a process of its own: other tests change defaults of oslo.log.
        with tempfile.NamedTemporaryFile() as made:
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    "from oslo_config import generator; generator.main()",
                    "--config-file",
                    TOP / "tools" / "config-generator" / recipe,
                    "--output-file",
                    made.name,
                ],
                capture_output=True,
                text=True,
                timeout=60,
            )
            self.assertEqual(0, done.returncode, done.stderr)
            self.assertEqual(
                Path(made.name).read_text(),
                (TOP / sample).read_text(),
                f"run 'tox -e genconfig' and commit {sample}",
            )
