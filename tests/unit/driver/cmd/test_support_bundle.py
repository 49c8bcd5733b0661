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

"""``acme-cinder support-bundle``."""

import base64
import json
import os
import pathlib
import tarfile

from tests.unit.driver.cmd import base

PASSWORD = "hunter2-is-not-it"
DATABASE_PASSWORD = "of-the-database-9"


class BundleTest(base.ApplianceCase):
    def bundle(self, **given):
        self.path = f"{self.folder}/bundle.tar.gz"
        more = (
            f"nas_user = cinder\nnas_password = {PASSWORD}\n"
            f"[DEFAULT]\nlog_dir = {self.folder}\n"
            f"transport_url = rabbit://c:{DATABASE_PASSWORD}@192.0.2.5:5672/\n"
        )
        return self.run_with_cinder(
            "support-bundle", "--output", self.path, more=more, **given
        )

    def members(self):
        with tarfile.open(self.path) as archive:
            return {
                name.partition("/")[2]: archive.extractfile(name).read()
                for name in archive.getnames()
            }

    def test_what_is_inside_and_what_is_not(self):
        pair = base64.b64encode(f"cinder:{PASSWORD}".encode()).decode()
        secrets = (self.appliance.token, PASSWORD, pair, DATABASE_PASSWORD)
        pathlib.Path(f"{self.folder}/cinder-volume.log").write_text(
            "".join(f"1 ERROR acme_cinder a {each} b\n" for each in secrets)
            + "2 WARNING x Authorization: Bearer abcdefghijkl\n3 INFO y\n"
        )
        done = self.bundle()
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(0o600, os.stat(self.path).st_mode & 0o777)
        found = self.members()
        self.assertEqual(
            {
                "versions.json",
                "acme/check.txt",
                "acme/options.json",
                "acme/appliance.json",
                "problems.txt",
            },
            found.keys(),
        )
        everything = b"".join(found.values())
        for secret in (*secrets, "abcdefghijkl"):
            self.assertNotIn(secret.encode(), everything)
        options = json.loads(found["acme/options.json"])
        self.assertEqual("***", options["acme_api_token"])
        self.assertEqual([self.appliance.url], options["acme_api_addresses"])
        appliance = json.loads(found["acme/appliance.json"])
        self.assertEqual("test-appliance", appliance["system"]["name"])
        problems = found["problems.txt"].decode()
        self.assertEqual(4, problems.count("ERROR"))
        self.assertNotIn("INFO", problems)

    def test_without_an_appliance(self):
        done = self.bundle(url="https://127.0.0.1:1")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn(b"error", self.members()["acme/appliance.json"])

    def test_a_file_that_is_there_is_kept(self):
        path = pathlib.Path(f"{self.folder}/bundle.tar.gz")
        path.write_text("kept")
        done = self.bundle(url="https://127.0.0.1:1")
        self.assertEqual(2, done.returncode)
        self.assertEqual("kept", path.read_text())
