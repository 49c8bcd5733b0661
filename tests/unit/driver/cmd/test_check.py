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

"""``acme-cinder check``, with an appliance, from outside and inside."""

import getpass
import json
import re
from unittest import mock

from acme_cinder.checks import findings
from acme_cinder.cmd import check
from tests.unit.driver import test_checks
from tests.unit.driver.cmd import base


class CommandTest(base.ApplianceCase):
    """There is no NFS server here: all is well but that."""

    def check(self, *options, **given):
        more = "volume_backend_name = acme\nnfs_mount_options = port=1\n"
        return self.run_with_cinder("check", *options, more=more, **given)

    def test_findings_for_scripts(self):
        done = self.check("--format", "json")
        self.assertEqual(1, done.returncode, done.stderr)
        found = json.loads(done.stdout)
        self.assertEqual({"acme"}, {each["backend"] for each in found})
        wrong = {
            each["check"]: each["state"]
            for each in found
            if each["state"] in ("failed", "not checked")
        }
        self.assertEqual(
            {"nfs-port": "failed", "mount": "not checked"}, wrong, done.stdout
        )
        self.assertNotIn(self.appliance.token, done.stdout + done.stderr)
        options = [each for each in found if each["check"] == "options"]
        self.assertEqual(["ok"], [each["state"] for each in options], options)

    def test_a_database_that_is_not_there(self):
        with mock.patch.object(self, "copy_database", autospec=True):
            done = self.check("-f", "json")
        self.assertEqual(1, done.returncode, done.stderr)
        [failed] = [
            each
            for each in json.loads(done.stdout)
            if each["check"] == "database"
        ]
        self.assertEqual("failed", failed["state"], failed)

    def test_wrong_options(self):
        done = self.check(token="", url="")
        self.assertEqual(1, done.returncode, done.stderr)
        for name in ("acme_api_token", "acme_api_addresses"):
            self.assertIn(name, done.stdout)

    def test_no_back_end(self):
        done = self.check("--backend", "lvm")
        self.assertEqual(2, done.returncode)
        self.assertIn("[lvm] volume_driver", done.stderr)


class ExampleTest(test_checks.CheckCase):
    """What the documentation shows."""

    def shown(self, found):
        """Without what differs from run to run."""
        text = check.table("acme-1", [self.plain(each) for each in found], 79)
        return re.sub(r" +$", "", text, flags=re.MULTILINE)

    def plain(self, found):
        text = found.text
        for old, new in (
            (f"127.0.0.1:{self.appliance.port}", "192.0.2.10:8443"),
            (f"port {self.nfs_port}", "port 2049"),
            (self.base, "/var/lib/cinder/mnt"),
            ("127.0.0.1", "192.0.2.10"),
            (f"checked as {getpass.getuser()}", "checked as cinder"),
            (self.appliance.token_name, "cinder"),
            ("test-appliance", "appliance-1"),
        ):
            text = text.replace(old, new)
        text = re.sub(r"\d{4}-\d\d-\d\d", "2036-11-27", text)
        text = re.sub(r"/[\w/]+/(mount.nfs|qemu-img)", r"/usr/sbin/\1", text)
        text = re.sub(r"/shares/[0-9a-f-]{36}", "/shares/0b6c...", text)
        text = re.sub(r"metrics-[0-9a-f]{8}", "monitoring", text)
        text = re.sub(r"os-brick [\d.]+", "os-brick 7.1.1", text)
        text = re.sub(r"as [\w-]+, like", "as libvirt-qemu, like", text)
        return findings.Finding(found.check, found.state, text, found.remedy)

    def all_but_user(self, found):
        """Tests may be run by root."""
        user = findings.Finding("user", findings.State.OK, "checked as cinder")
        return [user if each.check == "user" else each for each in found]

    def test_all_is_well(self):
        found = self.all_but_user(self.look())
        base.assert_example(self, "check.txt", self.shown(found))

    def test_not_all_is_well(self):
        found = self.all_but_user(
            self.look(
                acme_api_token=self.appliance.make_token("metrics"),
                acme_pools=["silver"],
            )
        )
        text = self.shown(
            [each for each in found if each.state is not findings.State.OK]
        )
        base.assert_example(self, "check-failed.txt", text)
