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

"""Creating shares, empty and from others, and sending it twice."""

import ddt

from acme_appliance.service import Limits
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

MIB = fixtures.MIB
ID = "11111111-1111-4111-8111-111111111111"

FILE = {
    "name": "volume",
    "format": "raw",
    "allocation": "sparse",
    "uid": 64061,
    "gid": 64061,
    "mode": "0660",
}


@ddt.ddt
class TestCreate(case.ServiceCase):
    settings = {"pools": ("gold", "silver")}

    def test_all_that_is_to_be_known_is_in_the_reply(self):
        done = self.fixture.put_share(
            ID, name="volume-1", size_bytes=2 * MIB, labels={"a": "b"}
        )
        self.assertTrue(done.created)
        now = "2026-01-02T03:04:05.000000Z"
        self.assertEqual(
            {
                "id": ID,
                "name": "volume-1",
                "namespace": "a",
                "pool": "gold",
                "state": "available",
                "generation": done.body["generation"],
                "size_bytes": 2 * MIB,
                "used_bytes": 0,
                "file": FILE,
                "origin": None,
                "group_id": None,
                "qos": None,
                "export_locations": [
                    {
                        "address": address,
                        "path": f"/gold/shares/{ID}",
                        "preferred": preferred,
                        "nfs_versions": ["4.2", "4.1"],
                    }
                    for address, preferred in (
                        ("192.0.2.10", True),
                        ("192.0.2.11", False),
                    )
                ],
                "access": {},
                "replication": None,
                "labels": {"a": "b"},
                "created_at": now,
                "updated_at": now,
                "job_id": None,
            },
            done.body,
        )
        self.assertEqual(done.body, self.share(ID))
        self.assertEqual({}, self.fixture.exporter.exported())
        entry = self.fixture.engine.entries(fixtures.share(ID))["volume"]
        self.assertEqual(2 * MIB, entry.size_bytes)
        self.assertEqual(["share.created"], self.fixture.events())

    @ddt.data(
        {"size_bytes": MIB},
        {"size_bytes": MIB, "labels": {"a": "b"}, "pool": "silver"},
        {"size_bytes": MIB, "file": {"name": "x", "allocation": "full"}},
        {"size_bytes": MIB, "file": None, "labels": None},
    )
    def test_same_again(self, body):
        first = self.fixture.put_share(ID, **body)
        self.assertTrue(first.created)
        second = self.fixture.put_share(ID, **body)
        self.assertFalse(second.created)
        self.assertEqual(first.body, second.body)
        self.fixture.patch_share(ID, name="patched", size_bytes=3 * MIB)
        self.fixture.put_access(ID)
        third = self.fixture.put_share(ID, **body)
        self.assertEqual(self.share(ID), third.body)
        self.assertEqual("patched", third.body["name"])
        self.assertEqual(1, self.fixture.events().count("share.created"))

    @ddt.data(
        {"size_bytes": 2 * MIB},
        {"name": "other"},
        {"labels": {"a": "c"}},
        {"labels": None},
        {"labels": {}},
        {"pool": "silver"},
        {"file": {"mode": "0600"}},
    )
    def test_other_body(self, change):
        body = {
            "size_bytes": MIB,
            "labels": {"a": "b"},
            "pool": "gold",
            "file": {"mode": "0640"},
        }
        self.fixture.put_share(ID, **body)
        self.check_as_before(
            lambda: self.check_problem(
                "share.exists_mismatch",
                lambda: self.fixture.put_share(ID, **{**body, **change}),
            )
        )

    def test_null_is_as_good_as_nothing(self):
        self.fixture.put_share(ID, labels=None, file={"mode": None})
        self.assertFalse(self.fixture.put_share(ID).created)

    def test_full_allocation_takes_the_space(self):
        id_ = self.make_share(size_bytes=MIB, file={"allocation": "full"})
        self.assertEqual(MIB, self.share(id_)["used_bytes"])

    @ddt.data(
        ({"pool": "iron"}, "pool.not_found", "/pool"),
        ({"size_bytes": None}, "request.invalid", "/size_bytes"),
        ({"size_bytes": (1 << 50) + 1}, "request.invalid", "/size_bytes"),
        ({"id": "x"}, "request.unknown_field", "/id"),
    )
    @ddt.unpack
    def test_bad_requests(self, change, code, pointer):
        self.check_as_before(
            lambda: self.check_problem(
                code, lambda: self.fixture.put_share(**change), pointer
            )
        )

    def test_pool_without_room(self):
        self.fixture.engine.total_bytes = 4 * MIB
        body = {"size_bytes": 5 * MIB, "file": {"allocation": "full"}}
        self.check_as_before(
            lambda: self.check_problem(
                "pool.no_space", lambda: self.fixture.put_share(ID, **body)
            )
        )
        self.assertEqual(["share.create_failed"], self.fixture.events())
        self.fixture.engine.total_bytes = 8 * MIB
        self.assertTrue(self.fixture.put_share(ID, **body).created)

    def test_broken_pool(self):
        self.fixture.engine.reasons = ["no disk"]
        self.check_problem("engine.unavailable", self.fixture.put_share)
        self.fixture.put_share(pool="silver")
        self.fixture.engine.reasons = []
        self.assertEqual(1, len(self.fixture.state()["shares"]))

    def test_if_match_wants_it_to_exist(self):
        body = {"name": "x", "size_bytes": MIB}
        put = self.fixture.service.shares.put
        self.check_problem(
            "precondition.failed",
            lambda: put(fixtures.CALLER, ID, body, wait_seconds=9, if_match=1),
        )
        made = put(fixtures.CALLER, ID, body, wait_seconds=9).body[
            "generation"
        ]
        put(fixtures.CALLER, ID, body, wait_seconds=9, if_match=made)


class TestLimits(case.ServiceCase):
    settings = {
        "limits": Limits(max_shares=2, max_snapshots_per_share=2),
    }

    def test_shares(self):
        first = self.make_share()
        self.make_share()
        self.check_as_before(
            lambda: self.check_problem("limit.shares", self.fixture.put_share)
        )
        self.fixture.delete_share(first)
        self.make_share()

    def test_snapshots(self):
        one, two = self.make_share(), self.make_share()
        for _ in range(2):
            self.make_snapshot(one)
        self.check_as_before(
            lambda: self.check_problem(
                "limit.snapshots", lambda: self.make_snapshot(one)
            )
        )
        self.make_snapshot(two)


@ddt.ddt
class TestCreateFromSource(case.ServiceCase):
    settings = {"pools": ("gold", "silver")}

    def setUp(self):
        super().setUp()
        self.source = self.make_share(
            size_bytes=2 * MIB, file={"name": "source", "mode": "0600"}
        )
        self.entry = self.fixture.engine.entries(fixtures.share(self.source))
        self.entry["source"].write(0, b"s" * 4096)
        self.fixture.put_access(self.source)
        self.kept = self.make_snapshot(self.source)
        self.sources = {"share": self.source, "snapshot": self.kept}

    def read(self, id_, name):
        entries = self.fixture.engine.entries(fixtures.share(id_))
        self.assertEqual([name], list(entries))
        return entries[name].read(0, 4096), entries[name].size_bytes

    @ddt.data("share", "snapshot")
    def test_everything_but_access_comes_from_the_source(self, type_):
        body = self.fixture.clone(type_, self.sources[type_]).body
        self.assertEqual(2 * MIB, body["size_bytes"])
        self.assertEqual(
            {**FILE, "name": "source", "mode": "0600"}, body["file"]
        )
        self.assertEqual({}, body["access"])
        self.assertEqual(
            {"type": type_, "id": self.sources[type_]}, body["origin"]
        )
        self.assertEqual(
            (b"s" * 4096, 2 * MIB), self.read(body["id"], "source")
        )

    @ddt.data("share", "snapshot")
    def test_renamed_and_grown_in_one_call(self, type_):
        body = self.fixture.clone(
            type_,
            self.sources[type_],
            size_bytes=5 * MIB,
            file={"name": "clone", "uid": 1007},
        ).body
        self.assertEqual(1007, body["file"]["uid"])
        self.assertEqual(
            (b"s" * 4096, 5 * MIB), self.read(body["id"], "clone")
        )

    @ddt.data("share", "snapshot")
    def test_same_again(self, type_):
        body = {"size_bytes": 5 * MIB, "file": {"name": "clone"}}
        first = self.fixture.clone(type_, self.sources[type_], ID, **body)
        self.fixture.delete_access(self.source)
        self.fixture.delete_share(self.source, "cascade")
        second = self.fixture.clone(type_, self.sources[type_], ID, **body)
        self.assertFalse(second.created)
        self.assertEqual(first.body, second.body)
        self.check_problem(
            "share.exists_mismatch",
            lambda: self.fixture.put_share(ID, size_bytes=5 * MIB),
        )

    @ddt.data(
        (
            {"size_bytes": 2 * MIB - 1},
            "request.invalid",
            "/size_bytes",
        ),
        ({"pool": "silver"}, "request.invalid", "/pool"),
    )
    @ddt.unpack
    def test_bad_requests(self, change, code, pointer):
        for type_, id_ in self.sources.items():
            self.check_as_before(
                lambda t=type_, i=id_: self.check_problem(
                    code, lambda: self.fixture.clone(t, i, **change), pointer
                )
            )

    def test_source_that_is_not_there(self):
        for type_, code in (
            ("share", "share.not_found"),
            ("snapshot", "snapshot.not_found"),
        ):
            for id_ in (fixtures.new_id(), ID):
                self.check_problem(
                    code,
                    lambda t=type_, i=id_: self.fixture.clone(t, i, ID),
                    "/source/id",
                )

    def test_clone_of_itself(self):
        self.check_problem(
            "share.exists_mismatch",
            lambda: self.fixture.clone("share", self.source, self.source),
        )

    def test_source_whose_file_a_client_took_away(self):
        del self.entry["source"]
        self.check_as_before(
            lambda: self.check_problem(
                "share.degraded",
                lambda: self.fixture.clone("share", self.source),
            )
        )
        # The snapshot still has it.
        self.fixture.clone("snapshot", self.kept)
