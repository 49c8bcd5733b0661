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

"""The command as an operator starts it, with a configuration of its own."""

import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import unittest

ROOT = pathlib.Path(__file__).parents[4]
EXAMPLES = ROOT / "doc/source/admin/examples"
_CONF = """
[DEFAULT]
enabled_backends = acme, lvm
state_path = {folder}
[oslo_concurrency]
lock_path = {folder}
[database]
connection = sqlite:///{folder}/cinder.db
[coordination]
backend_url = file://{folder}
[lvm]
volume_driver = cinder.volume.drivers.lvm.LVMVolumeDriver
[acme]
volume_driver = acme_cinder.driver.acmeNfsDriver
acme_api_addresses = {url}
acme_api_token = {token}
nfs_mount_point_base = {folder}/mnt
"""


class CommandCase(unittest.TestCase):
    def setUp(self):
        super().setUp()
        made = tempfile.TemporaryDirectory(prefix="acme-command-")
        self.addCleanup(made.cleanup)
        self.folder = os.path.realpath(made.name)

    def configure(
        self,
        url="https://192.0.2.10:8443",
        token="x" * 43,  # noqa: S107
        more="",
    ):
        """Write cinder.conf; ``more`` goes into the back end's section."""
        path = f"{self.folder}/cinder.conf"
        text = textwrap.dedent(_CONF).format(
            folder=self.folder, url=url, token=token
        )
        pathlib.Path(path).write_text(text + more)
        return path

    def run_command(self, *words, **environ):
        """With a terminal of 79 columns."""
        return subprocess.run(
            [
                *(sys.executable, "-W", "ignore"),
                *("-m", "acme_cinder.cmd.main", *words),
            ],
            capture_output=True,
            text=True,
            timeout=300,
            env={
                **os.environ,
                "COLUMNS": "79",
                "PYTHONIOENCODING": "utf-8",
                **environ,
            },
        )


def assert_example(case, name, text):
    """The documentation shows exactly this; with ACME_WRITE_EXAMPLES set, it
    does from now on."""
    path = EXAMPLES / name
    text = text.rstrip("\n") + "\n"
    if os.environ.get("ACME_WRITE_EXAMPLES"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    case.assertEqual(path.read_text(), text)
