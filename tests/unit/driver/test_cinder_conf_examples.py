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

"""Each example of a cinder.conf starts the driver on a real appliance.

Only what must differ is replaced: addresses, tokens, files of this machine.
"""

import json
from pathlib import Path
import re
import subprocess
import sys
import tempfile
from typing import Any
import unittest

from tests.harness import inprocess

TOP = Path(__file__).resolve().parents[3]
EXAMPLES = TOP / "etc" / "cinder" / "examples"
LOAD_DRIVER = TOP / "tests" / "harness" / "load_driver.py"
PORTAL = "198.51.100.10"


class CinderConfExamples(unittest.TestCase):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def start(
        self, example: str, *wanted: str, **options: Any
    ) -> dict[str, Any]:
        """Every back end's driver, as the example configures it."""
        box = inprocess.RunningAppliance(**options)
        with box:
            file = self.folder / "cinder.conf"
            file.write_text(self.adapted(example, box))
            done = subprocess.run(
                [sys.executable, LOAD_DRIVER, file, self.folder, *wanted],
                capture_output=True,
                text=True,
                timeout=120,
                env={"PYTHONPATH": str(TOP)},
            )
            self.assertEqual(0, done.returncode, done.stderr)
        found = json.loads((self.folder / "found.json").read_text())
        return dict(found)

    def adapted(self, example: str, box: inprocess.RunningAppliance) -> str:
        text = (EXAMPLES / example).read_text()
        for pattern, ours in (
            (r"https://[^\s,]+:8443", box.url),
            (r"(?m)^(nas_user) = .*$", r"\1 = " + box.token_name),
            (r"REPLACE-WITH-THE-TOKEN", box.token),
            (r"(?m)^(acme_api_ca_file) = .*$", rf"\1 = {box.ca_file}"),
            (r"/var/lib/cinder", str(self.folder)),
        ):
            text = re.sub(pattern, ours, text)
        return text

    def test_a_single_back_end(self) -> None:
        found = self.start("single-backend.conf")["acme-1"]
        self.assertEqual(["gold"], found["pools"])
        self.assertRegex(found["created"], r"^192\.0\.2\.10:/")

    def test_several_back_ends(self) -> None:
        found = self.start("several-backends.conf")
        for backend, name in (("acme-fast", "fast"), ("acme-bulk", "bulk")):
            self.assertEqual(name, found[backend]["volume_backend_name"])
            self.assertTrue(found[backend]["created"])

    def test_several_pools_of_those_there_are(self) -> None:
        pools = ("gold", "silver", "not-for-cinder")
        found = self.start("several-pools.conf", pools=pools)["acme-1"]
        self.assertEqual(["gold", "silver"], sorted(found["pools"]))

    def test_active_active_with_tooz(self) -> None:
        found = self.start("active-active.conf")
        self.assertTrue(found["acme-1"]["active_active"])
        self.assertRegex(found["coordination"], "^etcd3")

    def test_private_ca_with_a_login_and_a_storage_network(self) -> None:
        found = self.start("private-ca.conf", portals=("192.0.2.10", PORTAL))[
            "acme-1"
        ]
        self.assertTrue(found["created"].startswith(f"{PORTAL}:/"))

    def test_an_appliance_without_volume_files(self) -> None:
        # The driver would mount now, which takes an NFS server: the example
        # is started, and the create is seen in tests/functional.
        found = self.start(
            "minimal-appliance.conf", "start", volume_file=False
        )["acme-1"]
        self.assertEqual(["gold"], found["pools"])

    def test_no_example_lets_the_mounts_of_guests_time_out(self) -> None:
        # The options reach Nova, and a guest takes a time-out for a bad disk.
        for path in EXAMPLES.iterdir():
            with self.subTest(path.name):
                self.assertNotRegex(path.read_text(), r"\bsoft\b")

    def test_every_example_is_tested(self) -> None:
        source = Path(__file__).read_text()
        names = sorted(path.name for path in EXAMPLES.iterdir())
        self.assertEqual([n for n in names if f'"{n}"' in source], names)
