# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""tools/sandbox.sh, run inside of a sandbox."""

from __future__ import annotations

import os
import pathlib
import subprocess
import tempfile
import unittest

SANDBOX = pathlib.Path(__file__).parents[2] / "tools" / "sandbox.sh"
TIMEOUT_SECONDS = 600


def state_outside() -> dict[str, str]:
    """State that a sandbox must not change."""
    with open("/proc/self/mounts") as mounts:
        return {
            "mounts": "".join(sorted(mounts)),
            "exports": subprocess.check_output(["exportfs", "-s"], text=True),
            "threads": pathlib.Path("/proc/fs/nfsd/threads").read_text(),
            "loops": subprocess.check_output(["losetup", "-l"], text=True),
        }


class NativeSandboxTestCase(unittest.TestCase):
    """Native sandboxes need a kernel with NFS, which the outer one has."""

    def setUp(self) -> None:
        if "SANDBOX_KIND" not in os.environ:
            self.skipTest("needs NFS: run by 'tools/sandbox.sh run -- ...'")
        # Not below /run, which a sandbox has to itself.
        folder = tempfile.TemporaryDirectory(dir="/var/tmp")
        self.addCleanup(folder.cleanup)
        self.environment = {**os.environ, "ACME_SANDBOXES": folder.name}
        self.environment.pop("ACME_SANDBOX", None)
        self.sandboxes = pathlib.Path(folder.name)

    def sandbox(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SANDBOX), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )

    def run_in(self, script: str) -> subprocess.CompletedProcess[str]:
        return self.sandbox("--native", "run", "--", "bash", "-c", script)

    def test_output_and_exit_code_come_back(self) -> None:
        done = self.run_in(
            "echo out; echo err >&2; echo $SANDBOX_KIND; exit 7"
        )
        self.assertEqual(7, done.returncode, done.stderr)
        self.assertEqual("out\nnative\n", done.stdout)
        self.assertIn("err\n", done.stderr)
        self.assertEqual([], list(self.sandboxes.iterdir()))

    def test_arguments_and_environment_arrive_as_they_are(self) -> None:
        self.environment["ODD"] = "a 'b' \"c\"\n$d"
        done = self.sandbox("--native", "run", "--", "printenv", "ODD")
        self.assertEqual(self.environment["ODD"] + "\n", done.stdout)
        done = self.sandbox("--native", "run", "--", "printf", "%s|", "", "*")
        self.assertEqual("|*|", done.stdout)

    def test_what_is_left_mounted_and_exported_goes_with_it(self) -> None:
        before = state_outside()
        done = self.run_in(
            """set -e
            truncate -s 256M $SANDBOX_SCRATCH/pool.img
            mkfs.btrfs -q -K $SANDBOX_SCRATCH/pool.img >/dev/null 2>&1
            mkdir -p $SANDBOX_EXPORT_ROOT/pool /run/mnt
            mount -o loop $SANDBOX_SCRATCH/pool.img $SANDBOX_EXPORT_ROOT/pool
            echo "/pool 127.0.0.1(rw,no_subtree_check,no_root_squash)" \
                >/etc/exports.d/test.exports
            exportfs -ra
            mount -t nfs -o vers=4.2 127.0.0.1:/pool /run/mnt
            echo hello >/run/mnt/file
            cat $SANDBOX_EXPORT_ROOT/pool/file
            """
        )
        self.assertEqual("hello\n", done.stdout, done.stderr)
        self.assertEqual(before, state_outside())
        self.assertFalse(os.path.exists("/etc/exports.d/test.exports"))
        self.assertEqual([], list(self.sandboxes.iterdir()))

    def test_sandbox_that_is_kept(self) -> None:
        started = self.sandbox("--native", "start", "kept")
        self.assertEqual(0, started.returncode, started.stderr)
        self.addCleanup(self.sandbox, "stop", "kept")
        for expected in ("", "once\n"):
            done = self.sandbox(
                "exec",
                "kept",
                "--",
                "bash",
                "-c",
                "touch $SANDBOX_SCRATCH/f; cat $SANDBOX_SCRATCH/f;"
                " echo once >$SANDBOX_SCRATCH/f; exit 3",
            )
            self.assertEqual((3, expected), (done.returncode, done.stdout))
        self.assertEqual(2, self.sandbox("start", "kept").returncode)
        stopped = self.sandbox("stop", "kept")
        self.assertEqual(0, stopped.returncode, stopped.stderr)
        self.assertEqual([], list(self.sandboxes.iterdir()))
        self.assertEqual(
            2, self.sandbox("exec", "kept", "--", "true").returncode
        )
