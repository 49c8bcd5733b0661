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

"""Who may own a volume file, and who not."""

import ddt

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.db import models
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

ID = "11111111-1111-4111-8111-111111111111"


class Case(case.ServiceCase):
    def owner(self, share_id):
        """What the database and the storage have; they agree."""
        file = self.share(share_id)["file"]
        (entry,) = self.fixture.engine.entries(
            fixtures.share(share_id)
        ).values()
        self.assertEqual(
            (file["uid"], file["gid"], int(file["mode"], 8)),
            (entry.owner.uid, entry.owner.gid, entry.mode),
        )
        return file["uid"], file["gid"]

    def make_old(self, **file):
        """A share as an earlier release made it."""
        id_ = self.make_share()
        with self.fixture.database.write() as session:
            row = session.get_one(models.Share, id_)
            row.file = {**row.file, **file}
        return id_


@ddt.ddt
class TestDefault(Case):
    @ddt.data(0, 1, 165, 999, 65534, 4294967294)
    def test_root_and_system_accounts_are_refused(self, value):
        for field in ("uid", "gid"):
            for source in ({}, {"type": "share", "id": self.make_share()}):
                problem = self.check_problem(
                    "request.invalid",
                    lambda f=field, s=source: self.fixture.put_share(
                        ID, source=s or None, file={f: value}
                    ),
                    f"/file/{field}",
                )
                self.assertIn(f"{field} {value} ", problem.detail)
                self.assertIn(f"[nfs] allowed_{field}s", problem.detail)
        self.assertNotIn(ID, self.fixture.engine.ids(fixtures.share(ID).kind))

    def test_both_are_named_at_once(self):
        with self.assertRaises(problems.Problem) as caught:
            self.fixture.put_share(file={"uid": 0, "gid": 0})
        self.assertEqual(
            ["/file/uid", "/file/gid"],
            [error["pointer"] for error in caught.exception.errors],
        )

    @ddt.data("0777", "0770", "0060", "0461", "1660")
    def test_modes_with_other_bits_are_refused(self, mode):
        for source in ({}, {"type": "share", "id": self.make_share()}):
            self.check_problem(
                "request.invalid",
                lambda s=source: self.fixture.put_share(
                    ID, source=s or None, file={"mode": mode}
                ),
                "/file/mode",
            )
        self.assertNotIn(ID, self.fixture.engine.ids(fixtures.share(ID).kind))

    @ddt.data(1000, 42407, 64061, 65533)
    def test_users_and_the_default_owner_are_allowed(self, value):
        id_ = self.make_share(file={"uid": value, "gid": value})
        self.assertEqual((value, value), self.owner(id_))
        self.assertEqual([], self.fixture.service.system.warnings())


class TestConfigured(Case):
    settings = {
        "file_defaults": types.FileDefaults(uid=7, gid=8),
        "allowed_owners": types.AllowedOwners(uids=(range(165, 166),)),
    }

    def test_a_listed_system_account_is_allowed(self):
        self.assertEqual(
            (165, 8), self.owner(self.make_share(file={"uid": 165}))
        )

    def test_the_default_owner_need_not_be_listed(self):
        self.assertEqual((7, 8), self.owner(self.make_share()))
        self.make_share(file={"uid": 7, "gid": 8})

    def test_what_is_not_listed_is_refused(self):
        self.check_problem(
            "request.invalid",
            lambda: self.make_share(file={"uid": 1000}),
            "/file/uid",
        )


class TestSharesOfEarlierReleases(Case):
    def test_they_go_on_working_and_are_reported(self):
        id_ = self.make_old(uid=0, gid=165)
        with self.assertLogs("acme_appliance", "WARNING") as logs:
            self.fixture.restart()
        self.assertIn("uid 0, gid 165", "\n".join(logs.output))
        self.fixture.patch_share(id_, size_bytes=2 * fixtures.MIB)
        self.fixture.put_access(id_)
        self.assertEqual((0, 165), self.file_owner(id_))
        (warning,) = self.fixture.service.system.warnings()
        self.assertIn("1 shares belong to uid 0, gid 165", warning)
        self.fixture.delete_access(id_)
        self.fixture.delete_share(id_)
        self.assertEqual([], self.fixture.service.system.warnings())

    def file_owner(self, id_):
        file = self.share(id_)["file"]
        return file["uid"], file["gid"]

    def test_same_create_again_is_no_new_request(self):
        id_ = self.make_old(uid=0)
        with self.fixture.database.write() as session:
            row = session.get_one(models.Share, id_)
            row.create_request = {**row.create_request, "file": {"uid": 0}}
        done = self.fixture.put_share(id_, file={"uid": 0})
        self.assertFalse(done.created)

    def test_same_create_again_with_the_mode_of_an_earlier_release(self):
        """Its driver sent 0777."""
        id_ = self.make_old(mode="0777")
        with self.fixture.database.write() as session:
            row = session.get_one(models.Share, id_)
            row.create_request = {
                **row.create_request,
                "file": {"mode": "0777"},
            }
        done = self.fixture.put_share(id_, file={"mode": "0777"})
        self.assertFalse(done.created)
        self.assertEqual("0777", done.body["file"]["mode"])
        self.check_problem(
            "share.exists_mismatch",
            lambda: self.fixture.put_share(id_, file={"mode": "0770"}),
        )

    def test_clones_have_the_default_owner_and_no_special_bits(self):
        id_ = self.make_old(uid=0, gid=1000, mode="0757")
        clone = self.fixture.clone("share", id_).body["id"]
        self.assertEqual((64061, 1000), self.owner(clone))
        self.assertEqual("0646", self.share(clone)["file"]["mode"])
        kept = self.make_snapshot(id_)
        clone = self.fixture.clone("snapshot", kept).body["id"]
        self.assertEqual((64061, 1000), self.owner(clone))

    def test_a_clone_may_not_ask_for_what_its_source_has(self):
        id_ = self.make_old(uid=0)
        self.check_problem(
            "request.invalid",
            lambda: self.fixture.clone("share", id_, file={"uid": 0}),
            "/file/uid",
        )
