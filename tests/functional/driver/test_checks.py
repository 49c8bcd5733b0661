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

"""The share of ``acme-cinder check``, on kernel NFS. Run by
tools/sandbox.sh.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from typing import Any

from acme_cinder import checks
from acme_cinder.checks import findings
from acme_cinder.checks import trial
from tests.functional.driver import test_nfs
from tests.unit.driver import base

_WANTED = (
    *checks.AT_START,
    checks.network.NFS_PORT,
    trial.MOUNT,
)


class CheckTest(test_nfs.NfsCase):
    def look(self) -> list[findings.Finding]:
        """Of the last check."""
        scene = findings.Scene(
            self.driver._settings,
            self.driver._api,
            self.driver._mounts,
            "ctl-1@acme",
        )
        found = list(findings.run(scene, _WANTED))
        return [each for each in found if each.check == "mount"]

    def shares(self) -> list[Any]:
        return list(self.driver._api.list_shares())

    def test_written_and_read_as_the_driver_and_as_qemu(self) -> None:
        found = self.look()
        self.assertEqual(
            ["ok"] * 3, [str(each.state) for each in found], found
        )
        # Another user, whom the server maps to the file's owner.
        become = [
            command
            for command in self.execute.commands
            if "setpriv" in command
        ]
        self.assertEqual(1, len(become))
        self.assertNotIn("--reuid=0", become[0])
        self.assert_nothing_mounted()
        self.assertEqual([], self.shares())

    def test_no_nfs_server(self) -> None:
        """It fails within its limits, and leaves nothing."""
        subprocess.run(["rpc.nfsd", "0"], check=True)
        self.addCleanup(subprocess.run, ["rpc.nfsd", "8"], check=True)
        with (
            contextlib.suppress(ConnectionRefusedError),
            socket.create_connection((test_nfs.PORTAL, 2049), 5),
        ):
            self.fail("the NFS server still runs")
        [found] = self.look()
        self.assertEqual("not checked", found.state)
        self.assertIn("nfs-port", found.text)
        self.assertEqual([], self.shares())


class MinimalCheckTest(base.WithoutVolumeFile, CheckTest):
    """The driver makes the file."""
