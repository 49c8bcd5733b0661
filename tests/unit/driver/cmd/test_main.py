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

"""What all subcommands have in common."""

import contextlib
import importlib.metadata
import io
import subprocess
import sys
import unittest

import ddt

from acme_cinder.cmd import arguments
from acme_cinder.cmd import output
from tests.unit.driver.cmd import base


@ddt.ddt
class MainTest(base.CommandCase):
    def test_version(self):
        done = self.run_command("--version")
        self.assertEqual(0, done.returncode)
        version = importlib.metadata.version("acme-cinder")
        self.assertEqual(f"acme-cinder {version}\n", done.stdout)

    def test_help(self):
        done = self.run_command("--help")
        self.assertEqual(0, done.returncode)
        base.assert_example(self, "help.txt", done.stdout)

    @ddt.data("check", "orphans", "reap", "support-bundle", "volumes")
    def test_help_of_a_command(self, name):
        done = self.run_command(name, "--help")
        self.assertEqual(0, done.returncode)
        base.assert_example(self, f"help-{name}.txt", done.stdout)

    def test_help_imports_nothing_of_cinder(self):
        """It would take seconds."""
        code = (
            "import sys; from acme_cinder.cmd import main; "
            "main.arguments.parser(); "
            "sys.exit(any(n.startswith('cinder') for n in sys.modules))"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

    @ddt.data((), ("--nonsense",), ("nonsense",), ("check", "-f", "xml"))
    def test_a_wrong_command_line(self, words):
        done = self.run_command(*words)
        self.assertEqual(2, done.returncode)
        self.assertIn("usage: acme-cinder", done.stderr)

    def test_an_unknown_user(self):
        done = self.run_command("--user", "no-such-user", "reap")
        self.assertEqual(2, done.returncode)
        self.assertIn("no-such-user", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_all_commands_say_what_they_do(self):
        text = arguments.parser().format_help()
        for name in ("check", "orphans", "reap", "support-bundle", "volumes"):
            self.assertRegex(text, rf"\n    {name}\s+\w")


class OutputTest(unittest.TestCase):
    def test_a_table_fits(self):
        rows = [("a" * 30, "word " * 60), ("b", "c")]
        text = output.table(("One", "Two"), rows, 79)
        self.assertEqual({79}, {len(line) for line in text.splitlines()})
        self.assertEqual(60, text.count("word"))

    def test_a_terminal_without_unicode(self):
        raw = io.BytesIO()
        terminal = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
        with contextlib.redirect_stdout(terminal):
            output.show(f"{output.CROSS} {output.ARROW} \N{SNOWMAN}")
        self.assertEqual(b"X > ?\n", raw.getvalue())
