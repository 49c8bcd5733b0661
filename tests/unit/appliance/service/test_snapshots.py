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

"""Snapshots: creating, changing, deleting, and everything twice."""

import ddt

from acme_appliance.engines import base as engines
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

ID = "33333333-3333-4333-8333-333333333333"


@ddt.ddt
class TestSnapshots(case.ServiceCase):
    def setUp(self):
        super().setUp()
        self.share_id = self.make_share(size_bytes=2 * fixtures.MIB)

    def put(self, **body):
        return self.fixture.put_snapshot(self.share_id, ID, **body)

    def patch(self, patch, if_match=None):
        return self.fixture.service.snapshots.patch(
            fixtures.CALLER, ID, patch, wait_seconds=9, if_match=if_match
        ).body

    def test_all_that_is_to_be_known_is_in_the_reply(self):
        before = self.share(self.share_id)
        done = self.put(name="snap", labels={"a": "b"})
        now = "2026-01-02T03:04:05.000000Z"
        self.assertTrue(done.created)
        self.assertEqual(
            {
                "id": ID,
                "name": "snap",
                "namespace": "a",
                "pool": "gold",
                "share_id": self.share_id,
                "group_snapshot_id": None,
                "state": "available",
                "generation": done.body["generation"],
                "size_bytes": 2 * fixtures.MIB,
                "used_bytes": None,
                "file": before["file"],
                "export_locations": done.body["export_locations"],
                "access": {},
                "labels": {"a": "b"},
                "created_at": now,
                "updated_at": now,
                "job_id": None,
            },
            done.body,
        )
        self.assertEqual(
            done.body, self.fixture.service.snapshots.get(fixtures.CALLER, ID)
        )
        self.assertEqual(before, self.share(self.share_id))

    def test_same_again_and_after_a_patch(self):
        first = self.put()
        again = self.put()
        self.assertEqual((first.body, False), (again.body, again.created))
        self.patch({"name": "new"})
        self.assertEqual("new", self.put().body["name"])
        self.assertEqual(1, self.fixture.events().count("snapshot.created"))

    def test_other_body(self):
        self.put()
        other = self.make_share()
        for request in (
            lambda: self.put(name="other"),
            lambda: self.put(labels={"a": "b"}),
            lambda: self.fixture.put_snapshot(other, ID),
        ):
            self.check_as_before(
                lambda r=request: self.check_problem(
                    "snapshot.exists_mismatch", r
                )
            )

    def test_share_that_is_not_there(self):
        self.check_problem(
            "share.not_found",
            lambda: self.fixture.put_snapshot(fixtures.new_id(), ID),
            "/share_id",
        )

    def test_size_is_that_of_the_moment(self):
        self.put()
        self.fixture.patch_share(
            self.share_id,
            size_bytes=5 * fixtures.MIB,
            file={"name": "renamed"},
        )
        clone = self.fixture.clone("snapshot", ID).body
        self.assertEqual(2 * fixtures.MIB, clone["size_bytes"])
        self.assertEqual("volume", clone["file"]["name"])

    @ddt.data(
        ({"name": "new"}, {"name": "new"}),
        ({"labels": {"a": None, "c": "d"}}, {"labels": {"c": "d"}}),
    )
    @ddt.unpack
    def test_patch(self, patch, expected):
        before = self.put(labels={"a": "b"}).body
        self.fixture.clock.advance(seconds=1)
        body = self.patch(patch)
        self.assertEqual(
            {
                **before,
                **expected,
                "generation": body["generation"],
                "updated_at": "2026-01-02T03:04:06.000000Z",
            },
            body,
        )
        self.assertGreater(body["generation"], before["generation"])
        self.assertEqual(body, self.patch(patch))
        self.assertEqual(1, self.fixture.events().count("snapshot.updated"))

    def test_labels_do_not_add_up_without_end(self):
        self.put(labels={"a": "b"})
        self.check_problem(
            "request.invalid",
            lambda: self.patch({"labels": {f"k{n}": "" for n in range(32)}}),
            "/labels",
        )

    def test_patch_of_other_members(self):
        self.put()
        self.check_problem(
            "request.unknown_field",
            lambda: self.patch({"share_id": self.share_id}),
            "/share_id",
        )

    def test_if_match(self):
        made = self.put().body["generation"]
        patched = self.patch({"name": "2"}, if_match=made)["generation"]
        self.check_problem(
            "precondition.failed", lambda: self.patch({"name": "3"}, made)
        )
        delete = self.fixture.service.snapshots.delete
        self.check_problem(
            "precondition.failed",
            lambda: delete(fixtures.CALLER, ID, wait_seconds=9, if_match=made),
        )
        delete(fixtures.CALLER, ID, wait_seconds=9, if_match=patched)

    def test_delete_twice_whatever_was_cloned(self):
        self.put()
        clone = self.fixture.clone("snapshot", ID).body["id"]
        for _ in range(2):
            self.assertIsNone(self.fixture.delete_snapshot(ID).body)
        self.check_problem(
            "snapshot.not_found",
            lambda: self.fixture.service.snapshots.get(fixtures.CALLER, ID),
        )
        self.assertEqual(set(), self.fixture.engine.ids(engines.Kind.SNAPSHOT))
        self.assertEqual("available", self.share(clone)["state"])

    def test_list(self):
        other = self.make_share()
        ids = sorted(
            self.make_snapshot(share_id, name=name)
            for share_id, name in (
                (self.share_id, "n"),
                (self.share_id, "m"),
                (other, "n"),
            )
        )

        def count(**filters):
            page = self.fixture.service.snapshots.page(
                fixtures.CALLER, filters, 10, None
            )
            return len(page.items)

        self.assertEqual(3, count())
        self.assertEqual(2, count(share_id=self.share_id))
        self.assertEqual(2, count(name="n"))
        self.assertEqual(1, count(name="n", share_id=other))
        self.assertEqual(0, count(state="error"))
        page = self.fixture.service.snapshots.page(
            fixtures.CALLER, {}, 2, None
        )
        rest = self.fixture.service.snapshots.page(
            fixtures.CALLER, {}, 2, page.next_marker
        )
        found = [body["id"] for body in page.items + rest.items]
        self.assertEqual((ids, None), (found, rest.next_marker))
