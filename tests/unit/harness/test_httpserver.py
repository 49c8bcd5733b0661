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

"""The tests' HTTP servers, in whatever order things are imported."""

import pathlib
import subprocess
import sys
import unittest

import ddt

_ROOT = pathlib.Path(__file__).resolve().parents[3]
#: Ends at once, or hangs where the server waits in an eventlet hub.
_PROGRAM = """
import pathlib
import sys
import tempfile
import threading
import {first}
import eventlet.wsgi
from tests.harness import images
from tests.harness import inprocess
from tests.unit.client import wire
with tempfile.TemporaryDirectory() as folder:
    server = images.serve(0, pathlib.Path(folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.shutdown()
    server.server_close()
    thread.join()
inprocess.RunningAppliance(https=False).start().stop()
wire.Server(lambda seen: wire.Reply(204)).close()
print("stopped")
"""


@ddt.ddt
class StopTest(unittest.TestCase):
    @ddt.data("http.server", "eventlet.wsgi", "socketserver")
    def test_beside_eventlet(self, first: str) -> None:
        done = subprocess.run(
            [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                _PROGRAM.format(first=first),
            ],
            cwd=_ROOT,
            env={"PYTHONPATH": str(_ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual("stopped\n", done.stdout, done.stderr[-4000:])
