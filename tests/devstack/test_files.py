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

"""The shell and CI files, without devstack and root."""

import pathlib
import re
import shutil
import subprocess
import sys
import unittest

import yaml

PROJECT = pathlib.Path(__file__).parent.parent.parent
#: Sourced by devstack: no name and no mode tells a hook that they are shell.
SOURCED = [
    PROJECT / "devstack" / name
    for name in ("override-defaults", "settings", "plugin.sh", "lib/acme")
]
SHELL = [
    *SOURCED,
    *sorted((PROJECT / "playbooks").rglob("*.sh")),
    *sorted((PROJECT / "tests" / "devstack").glob("*.sh")),
]
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))


def _run(*command):
    done = subprocess.run(
        command,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout


class ShellTestCase(unittest.TestCase):
    def test_bashate_finds_nothing(self):
        """With devstack's choice of errors."""
        code, output = _run(
            sys.executable,
            *("-m", "bashate.bashate", "-iE006", "-eE005,E042"),
            *map(str, SHELL),
        )
        self.assertEqual((0, ""), (code, output))

    def test_shellcheck_finds_nothing(self):
        if not shutil.which("shellcheck"):
            self.skipTest("shellcheck is not installed")
        code, output = _run("shellcheck", "-x", *map(str, SHELL))
        self.assertEqual((0, ""), (code, output))

    def test_every_setting_is_documented(self):
        settings = (PROJECT / "devstack" / "settings").read_text()
        page = PROJECT / "doc" / "source" / "admin" / "devstack.rst"
        names = re.findall(r"^(ACME_\w+)=\$\{\1:-", settings, re.MULTILINE)
        places = {"ACME_DATA_DIR", "ACME_CONF_DIR", "ACME_CONF"}
        self.assertIn("ACME_API_ADDRESSES", names)
        for name in set(names) - places:
            with self.subTest(name):
                self.assertTrue(f"``{name}``" in page.read_text())


class ContinuousIntegrationTestCase(unittest.TestCase):
    def test_zuul_jobs_are_all_defined_or_known_parents(self):
        items = yaml.safe_load((PROJECT / ".zuul.yaml").read_text())
        jobs = {i["job"]["name"]: i["job"] for i in items if "job" in i}
        foreign = {"base", "tox", "devstack-tempest"}
        for job in jobs.values():
            self.assertIn(job["parent"], foreign | jobs.keys())
            if "run" in job:
                self.assertTrue((PROJECT / job["run"]).is_file(), job["run"])
        (project,) = (i["project"] for i in items if "project" in i)
        for pipeline in project.values():
            self.assertLessEqual(set(pipeline["jobs"]), jobs.keys())
        abstract = {n for n, j in jobs.items() if j.get("abstract")}
        self.assertEqual(jobs.keys() - abstract, set(project["check"]["jobs"]))

    def test_playbook_runs_the_test_command(self):
        play = (PROJECT / "playbooks" / "test" / "run.yaml").read_text()
        self.assertIn("cmd: tools/test.sh", play)
        yaml.safe_load(play)

    def test_plugin_is_tested(self):
        for name in ("playbooks/test/run.yaml", ".github/workflows/test.yml"):
            with self.subTest(name):
                text = (PROJECT / name).read_text()
                self.assertIn("DEVSTACK_DIR", text)
                self.assertIn("openstack/devstack", text)

    def test_tempest_gets_its_regex_first(self):
        """tox.ini has "tempest run --regex {posargs}"."""
        script = (PROJECT / "playbooks/devstack/tempest.sh").read_text()
        self.assertRegex(script, r"(?m)^exec tox -e all -- '")

    def test_backup_has_swift_where_it_is_on(self):
        items = yaml.safe_load((PROJECT / ".zuul.yaml").read_text())
        for job in (item["job"] for item in items if "job" in item):
            services = job.get("vars", {}).get("devstack_services", {})
            off = {name for name, on in services.items() if not on}
            if services.get("c-bak"):
                self.assertFalse({n for n in off if n.startswith("s-")})

    def test_workflows_run_the_tests_and_devstack(self):
        texts = {p.stem: p.read_text() for p in WORKFLOWS}
        self.assertEqual({"devstack", "test"}, texts.keys())
        self.assertIn("tools/test.sh", texts["test"])
        self.assertIn("stack.sh", texts["devstack"])
        for text in texts.values():
            workflow = yaml.safe_load(text)
            self.assertEqual({"contents": "read"}, workflow["permissions"])
            for job in workflow["jobs"].values():
                self.assertIn("timeout-minutes", job)

    def test_scripts_that_workflows_call_are_there(self):
        named = set()
        for path in WORKFLOWS:
            found = re.findall(r"playbooks/[\w/.-]+\.sh", path.read_text())
            named.update(found)
        self.assertTrue(named)
        for name in named:
            self.assertTrue((PROJECT / name).stat().st_mode & 0o111, name)
