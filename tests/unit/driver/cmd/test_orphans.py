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

"""``acme-cinder orphans``, from outside and inside."""

import contextlib
import dataclasses
import io
import json
import re
from unittest import mock

from acme_cinder.cmd import orphans
from acme_cinder.orphans import orphan
import acme_client
from tests.unit.driver import cinderdb
from tests.unit.driver import test_orphans
from tests.unit.driver.cmd import base


class CommandTest(base.ApplianceCase):
    def setUp(self):
        super().setUp()
        self.kept = self.made()
        self.orphan = self.made()
        self.orphan.destroy()

    def made(self):
        """A volume, as the driver makes it."""
        volume = cinderdb.volume()
        with self.api() as api:
            share = api.create_share(
                volume.id,
                name=volume.name,
                size_bytes=1 << 30,
                labels={"cinder.volume_id": volume.id},
            )
        cinderdb.save(
            volume,
            {
                "status": "available",
                "provider_id": share.id,
                "provider_location": f"127.0.0.1:/shares/{share.id}",
            },
        )
        return volume

    def api(self):
        return acme_client.Client(
            [self.appliance.url],
            acme_client.BearerToken(self.appliance.token),
            verify=self.appliance.ca_file,
        )

    def share_ids(self):
        with self.api() as api:
            return {share.id for share in api.list_shares()}

    def orphans(self, *options, **given):
        return self.run_with_cinder("orphans", *options, **given)

    def test_shown_and_left_alone(self):
        done = self.orphans("--min-age", "0", "-f", "json")
        self.assertEqual(1, done.returncode, done.stderr)
        [found] = json.loads(done.stdout)
        self.assertEqual(self.orphan.id, found["id"])
        self.assertTrue(found["is_proven"], found)
        self.assertEqual({self.kept.id, self.orphan.id}, self.share_ids())

    def test_removed(self):
        done = self.orphans("--min-age", "0", "--clean", "--yes")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("removed", done.stdout)
        self.assertEqual({self.kept.id}, self.share_ids())

    def test_too_young_to_be_removed(self):
        done = self.orphans("--clean", "--yes")
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertEqual({self.kept.id, self.orphan.id}, self.share_ids())

    def assert_refused(self, done, *words):
        self.assertEqual(2, done.returncode, done.stdout)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertEqual("", done.stdout)
        self.assertEqual({self.kept.id, self.orphan.id}, self.share_ids())

    def test_no_database(self):
        with mock.patch.object(self, "copy_database", autospec=True):
            done = self.orphans("--clean", "--yes", "--min-age", "0")
        self.assert_refused(done, "database")

    def test_another_namespace(self):
        token = self.appliance.make_token("driver", "cinder-b")
        done = self.orphans("--clean", "--yes", token=token)
        self.assert_refused(done, "namespace")

    def test_nobody_to_ask(self):
        self.assert_refused(self.orphans("--clean"), "--yes")


class ExampleTest(test_orphans.OrphansCase):
    """What the documentation shows, and what is asked."""

    def setUp(self):
        super().setUp()
        self.deleted = self.deleted_in_cinder()
        self.foreign = self.share_labelled(
            "3f1c7f0e-52a4-4cd9-93f9-3b8f4f1d2a60"
        )
        self.found = self.find()

    def shown(self, results):
        names = {
            self.deleted.id: "9c6d1c1e-8d3c-4c5e-9a57-1f2f0d7a6b41",
            self.foreign.id: "7e0b3a52-0f5d-4c8e-8f0c-6f1f5f0b9d17",
        }

        def plain(text):
            for old, new in names.items():
                text = text.replace(old, new)
            return re.sub(
                r"\d{4}-\d\d-\d\d \d\d:\d\d", "2026-11-27 09:14", text
            )

        changed = [
            dataclasses.replace(
                each,
                orphan=orphan.Orphan(
                    **{
                        key: plain(value) if isinstance(value, str) else value
                        for key, value in vars(each.orphan).items()
                    }
                ),
            )
            for each in sorted(
                results, key=lambda each: plain(each.orphan.why)
            )
        ]
        return orphans.table("acme-1", changed, 79)

    def test_found(self):
        results = [orphans.Result(each) for each in self.found]
        base.assert_example(self, "orphans.txt", self.shown(results))

    def test_removed(self):
        results = orphans.clean(self.found, lambda found: True)
        base.assert_example(self, "orphans-clean.txt", self.shown(results))

    def test_none(self):
        self.assertEqual("[acme-1] no orphans", orphans.table("acme-1", []))

    def test_one_that_fails_keeps_none_of_the_others(self):
        def fail():
            raise acme_client.NotSent("no route")

        bad = orphan.Orphan("share", "1", "one", "broken", remove=fail)
        results = list(orphans.clean([bad, *self.found], lambda found: True))
        self.assertIn("no route", results[0].outcome)
        self.assertIn("removed", [each.outcome for each in results])

    def answered(self, *lines):
        asked = io.StringIO()
        with (
            mock.patch("sys.stdin", io.StringIO("".join(lines))),
            contextlib.redirect_stderr(asked),
        ):
            results = list(orphans.clean(self.found, orphans.ask))
        # Only about what can be removed.
        self.assertEqual(1, asked.getvalue().count("[y/N]"))
        self.assertIn(self.deleted.id, asked.getvalue())
        return [each.outcome for each in results if each.orphan.remove]

    def test_yes(self):
        self.assertEqual(["removed"], self.answered("y\n"))
        self.assertIsNone(self.find_share(self.deleted.id))

    def test_anything_else(self):
        for lines in (("n\n",), ("\n",), (), ("yo\n",)):
            self.assertEqual([""], self.answered(*lines))
        self.assertIsNotNone(self.find_share(self.deleted.id))
