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

"""Commands on this host, which never take longer than they may."""

import signal
import time
import unittest

from os_brick import exception as brick_exception
from oslo_concurrency import processutils

from acme_cinder import commands


class CommandsTest(unittest.TestCase):
    """The real commands: bounded in time."""

    def setUp(self):
        super().setUp()
        self.commands = commands.Commands("sudo", 60)

    def assert_killed(self, *command):
        started = time.monotonic()
        with self.assertRaises(brick_exception.ExecutionTimeout) as caught:
            self.commands.run(*command, timeout_seconds=0.3)
        self.assertLess(time.monotonic() - started, 120)
        return caught.exception

    def test_a_command_that_hangs_is_killed(self):
        error = self.assert_killed("sleep", "600")
        self.assertIn("killed after 0.3 s", error.stderr)
        self.assertEqual("sleep 600", error.cmd)

    def test_what_a_command_starts_is_killed_with_it(self):
        """As mount(8) and its helper, which has the pipes."""
        self.assert_killed("sh", "-c", "sleep 600; true")

    def test_as_os_bricks_client_asks_for_it(self):
        """It says check_exit_code=0, which alone would hide a time-out."""
        self.commands.timeout_seconds = 0.3
        with self.assertRaises(brick_exception.ExecutionTimeout):
            self.commands.for_brick("sleep", "600", check_exit_code=0)

    def test_a_command_that_was_killed_by_others(self):
        with self.assertRaises(processutils.ProcessExecutionError):
            self.commands.run("sh", "-c", f"kill -{signal.SIGTERM:d} $$")

    def test_its_output(self):
        self.assertEqual("a\n", self.commands.run("echo", "a"))

    def test_its_failure(self):
        with self.assertRaises(processutils.ProcessExecutionError) as caught:
            self.commands.run("sh", "-c", "echo no >&2; exit 32")
        self.assertEqual(32, caught.exception.exit_code)
        self.assertEqual("no\n", caught.exception.stderr)

    def test_a_command_that_is_not_there(self):
        with self.assertRaises(processutils.ProcessExecutionError):
            self.commands.run("no-such-command-anywhere")
