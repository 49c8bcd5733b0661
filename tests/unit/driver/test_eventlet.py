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

"""The same tests in a process that eventlet has patched.

cinder-volume runs so by default; the other tests run under native threads.
"""

import os
import pathlib
import subprocess
import sys
import unittest

_ROOT = pathlib.Path(__file__).resolve().parents[3]
_PROGRAM = """
import warnings
warnings.simplefilter("ignore")
from cinder import monkey_patch
monkey_patch.patch()
import threading
import eventlet.patcher
if not eventlet.patcher.is_monkey_patched("thread"):
    raise SystemExit("eventlet has patched nothing")
import sys
import unittest
suite = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[1:])
result = unittest.TextTestRunner(verbosity=0).run(suite)
sys.exit(not result.wasSuccessful() or result.testsRun == 0)
"""
_HERE = "tests.unit.driver"
_NAMES = (
    f"{_HERE}.test_volumes.VolumesTest",
    f"{_HERE}.test_volumes.MinimalVendorTest.test_create",
    f"{_HERE}.test_volumes.MinimalVendorTest.test_extend",
    f"{_HERE}.test_attachments.SelfAttachmentTest",
    f"{_HERE}.test_access.LockTest",
    f"{_HERE}.test_images.DownloadTest.test_qcow2",
    f"{_HERE}.test_mount.MountedTest",
    f"{_HERE}.test_commands.CommandsTest",
    f"{_HERE}.test_mount.LeftoverTest",
    "tests.unit.client.test_transport.SlowReplyTest",
)


class EventletTest(unittest.TestCase):
    def test_under_eventlet(self):
        environment = {
            name: value
            for name, value in os.environ.items()
            if name != "OS_CINDER_DISABLE_EVENTLET_PATCHING"
        }
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _PROGRAM, *_NAMES],
            cwd=_ROOT,
            env={**environment, "PYTHONPATH": str(_ROOT)},
            capture_output=True,
            text=True,
            timeout=900,
        )
        self.assertEqual(0, done.returncode, done.stderr[-4000:])
