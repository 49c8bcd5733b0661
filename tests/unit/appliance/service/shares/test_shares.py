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

"""Shares: changing, deleting, listing, and sending everything twice."""

import dataclasses

import ddt

from acme_appliance.engines import base as engines
from acme_appliance.engines.memory import engine as memory
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
class TestPatch(case.ServiceCase):
    def setUp(self):
        super().setUp()
        self.fixture.put_share(ID, size_bytes=MIB, labels={"a": "1", "b": "2"})

    def entry(self, name="volume"):
        return self.fixture.engine.entries(fixtures.share(ID))[name]

    @ddt.data(
        ({"name": "new"}, {"name": "new"}),
        ({"labels": {"a": None, "c": "3"}}, {"labels": {"b": "2", "c": "3"}}),
        ({"labels": {"a": "x"}}, {"labels": {"a": "x", "b": "2"}}),
        ({"size_bytes": 3 * MIB}, {"size_bytes": 3 * MIB}),
        ({"file": {"name": "f"}}, {"file": {**FILE, "name": "f"}}),
        (
            {"name": "new", "size_bytes": 3 * MIB, "file": {"name": "f"}},
            {
                "name": "new",
                "size_bytes": 3 * MIB,
                "file": {**FILE, "name": "f"},
            },
        ),
    )
    @ddt.unpack
    def test_change_and_change_again(self, patch, expected):
        before = self.share(ID)
        self.fixture.clock.advance(seconds=5)
        first = self.fixture.patch_share(ID, **patch).body
        self.assertEqual(
            {
                **before,
                **expected,
                "generation": first["generation"],
                "updated_at": "2026-01-02T03:04:10.000000Z",
            },
            first,
        )
        self.assertGreater(first["generation"], before["generation"])
        self.assertEqual(first, self.share(ID))
        second = self.fixture.patch_share(ID, **patch)
        self.assertEqual(first, second.body)
        self.assertEqual(1, self.fixture.events().count("share.updated"))

    @ddt.data(
        {},
        {"name": "volume"},
        {"labels": {"a": "1", "zz": None}},
        {"labels": {}},
        {"size_bytes": MIB},
        {"pool": "gold"},
        {"file": {"name": "volume"}},
        {"file": {}},
    )
    def test_what_changes_nothing(self, patch):
        before = self.share(ID)
        self.fixture.clock.advance(seconds=5)
        self.assertEqual(before, self.fixture.patch_share(ID, **patch).body)
        self.assertEqual(["share.created"], self.fixture.events())

    @ddt.data(
        ({"size_bytes": MIB - 1}, "share.shrink_refused", "/size_bytes"),
        ({"size_bytes": (1 << 50) + 1}, "request.invalid", "/size_bytes"),
        ({"id": ID}, "request.unknown_field", "/id"),
    )
    @ddt.unpack
    def test_bad_requests(self, patch, code, pointer):
        self.check_as_before(
            lambda: self.check_problem(
                code, lambda: self.fixture.patch_share(ID, **patch), pointer
            )
        )

    def test_labels_do_not_add_up_without_end(self):
        many = {f"k{number}": "x" for number in range(31)}
        self.check_problem(
            "request.invalid",
            lambda: self.fixture.patch_share(ID, labels=many),
            "/labels",
        )
        self.fixture.patch_share(ID, labels={**many, "a": None})
        self.assertEqual(32, len(self.share(ID)["labels"]))

    def test_file_grows_under_a_client(self):
        self.fixture.put_access(ID)
        self.entry().write(0, b"d" * 4096)
        self.fixture.patch_share(ID, size_bytes=4 * MIB)
        self.assertEqual(4 * MIB, self.entry().size_bytes)
        self.assertEqual(b"d" * 4096, self.entry().read(0, 4096))

    def test_no_grow_under_a_client_where_the_engine_cannot(self):
        self.fixture.engine.capabilities = engines.Capabilities(
            grow_online=False, revert=False, snapshot_export=False
        )
        self.assertEqual(
            [
                "group.snapshot_crash_consistent",
                "share.group",
                "share.thick",
                "share.volume_file",
            ],
            self.fixture.service.system.describe()["features"],
        )
        self.fixture.put_access(ID)
        self.check_problem(
            "share.in_use",
            lambda: self.fixture.patch_share(ID, size_bytes=4 * MIB),
        )
        self.fixture.delete_access(ID)
        self.fixture.patch_share(ID, size_bytes=4 * MIB)

    def test_file_that_a_client_took_away(self):
        entries = self.fixture.engine.entries(fixtures.share(ID))
        file = entries.pop("volume")
        for patch in (
            {"size_bytes": 2 * MIB},
            {"file": {"name": "x"}},
        ):
            self.check_problem(
                "share.degraded",
                lambda patch=patch: self.fixture.patch_share(ID, **patch),
            )
            self.assertEqual("degraded", self.share(ID)["state"])
        self.assertIsNone(self.share(ID)["used_bytes"])
        # It is not lost for that: it can be granted, renamed, snapshotted.
        self.fixture.put_access(ID)
        self.fixture.patch_share(ID, name="n")
        self.make_snapshot(ID)
        self.fixture.engine.entries(fixtures.share(ID))["volume"] = file
        self.fixture.patch_share(ID, size_bytes=2 * MIB)
        self.assertEqual("available", self.share(ID)["state"])

    def test_full_file_that_cannot_grow_keeps_its_space(self):
        id_ = self.make_share(size_bytes=MIB, file={"allocation": "full"})
        self.fixture.engine.total_bytes = 4 * MIB
        grow = self.fixture.engine.grow_file

        def take_and_fail(share_id, name, size_bytes, allocation):
            entry = self.fixture.engine.entries(fixtures.share(share_id))[name]
            entry.reserved_bytes = 3 * MIB
            grow(share_id, name, size_bytes, allocation)

        self.fixture.engine.grow_file = take_and_fail
        self.check_problem(
            "pool.no_space",
            lambda: self.fixture.patch_share(id_, size_bytes=9 * MIB),
        )
        body = self.share(id_)
        self.assertEqual(
            ("available", MIB, MIB),
            (body["state"], body["size_bytes"], body["used_bytes"]),
        )

    def test_if_match(self):
        made = self.share(ID)["generation"]
        self.fixture.patch_share(ID, name="2", if_match=made)
        for stale in (1, made, made + 2):
            self.check_problem(
                "precondition.failed",
                lambda n=stale: self.fixture.patch_share(
                    ID, name="3", if_match=n
                ),
            )
        self.assertEqual("2", self.share(ID)["name"])

    def test_absent(self):
        self.check_problem(
            "share.not_found",
            lambda: self.fixture.patch_share(fixtures.new_id(), name="x"),
        )


class TestDelete(case.ServiceCase):
    def test_twice(self):
        id_ = self.make_share()
        for _ in range(2):
            done = self.fixture.delete_share(id_)
            self.assertIsNone(done.body)
        self.check_problem("share.not_found", lambda: self.share(id_))
        self.assertEqual(set(), self.fixture.engine.ids(engines.Kind.SHARE))
        self.assertEqual(1, self.fixture.events().count("share.deleted"))

    def test_snapshots_are_in_the_way_or_go_too(self):
        id_ = self.make_share()
        kept = [self.make_snapshot(id_) for _ in range(3)]
        clone = self.fixture.clone("snapshot", kept[0]).body["id"]
        self.check_as_before(
            lambda: self.check_problem(
                "share.has_snapshots", lambda: self.fixture.delete_share(id_)
            )
        )
        self.fixture.delete_share(id_, "cascade")
        self.assertEqual(set(), self.fixture.engine.ids(engines.Kind.SNAPSHOT))
        self.assertEqual([], self.fixture.state()["snapshots"])
        self.assertEqual("available", self.share(clone)["state"])

    def test_clones_are_never_in_the_way(self):
        id_ = self.make_share()
        clone = self.fixture.clone("share", id_).body["id"]
        self.fixture.delete_share(id_)
        self.assertEqual(
            {"type": "share", "id": id_}, self.share(clone)["origin"]
        )

    def test_share_that_is_exported(self):
        id_ = self.make_share()
        self.fixture.put_access(id_, "cmp-1")
        problem = None
        before = self.fixture.state()
        problem = self.check_problem(
            "share.in_use", lambda: self.fixture.delete_share(id_)
        )
        self.assertIn("cmp-1", problem.detail)
        self.assertEqual(before, self.fixture.state())
        self.fixture.delete_access(id_, "cmp-1")
        self.fixture.delete_share(id_)

    def test_if_match(self):
        id_ = self.make_share()
        made = self.share(id_)["generation"]
        delete = self.fixture.service.shares.delete
        self.check_problem(
            "precondition.failed",
            lambda: delete(fixtures.CALLER, id_, wait_seconds=9, if_match=1),
        )
        delete(fixtures.CALLER, id_, wait_seconds=9, if_match=made)
        # Sent again after a lost reply: gone is gone.
        delete(fixtures.CALLER, id_, wait_seconds=9, if_match=made)


class TestWithoutVolumeFile(case.ServiceCase):
    """A minimal appliance: shares are directories, and that is all."""

    settings = {"volume_file": False}

    def test_share_is_an_empty_directory_of_the_owner(self):
        body = self.fixture.put_share(ID).body
        self.assertIsNone(body["file"])
        self.assertIsNone(body["used_bytes"])
        root = self.fixture.engine.root_of(fixtures.share(ID))
        self.assertEqual({}, root.entries)
        self.assertEqual(
            (engines.Owner(64061, 64061), 0o770), (root.owner, root.mode)
        )
        self.assertEqual(
            ["share.qos_bandwidth", "share.qos_iops"],
            self.fixture.service.system.describe()["features"],
        )

    def test_file_is_not_known(self):
        self.check_problem(
            "request.unknown_field",
            lambda: self.fixture.put_share(file={"name": "x"}),
            "/file",
        )
        self.fixture.put_share(ID)
        self.check_problem(
            "request.unknown_field",
            lambda: self.fixture.patch_share(ID, file={"name": "x"}),
            "/file",
        )
        self.check_problem(
            "request.unknown_field",
            lambda: self.fixture.clone("share", ID, file={"name": "x"}),
            "/file",
        )

    def test_share_from_before_volume_files(self):
        """The pool makes them now, this share has none all the same."""
        self.fixture.put_share(ID)
        self.fixture.settings = dataclasses.replace(
            self.fixture.settings, volume_file=True
        )
        self.fixture.restart()
        problem = self.check_problem(
            "request.unknown_field",
            lambda: self.fixture.patch_share(ID, file={"name": "x"}),
            "/file",
        )
        self.assertIn(f"share {ID} has no volume file", problem.detail)

    def test_size_is_only_noted(self):
        self.fixture.put_share(ID, size_bytes=MIB)
        self.assertEqual(
            3 * MIB,
            self.fixture.patch_share(ID, size_bytes=3 * MIB).body[
                "size_bytes"
            ],
        )
        self.assertEqual([], self.fixture.service.system.status()["open_jobs"])
        self.check_problem(
            "share.shrink_refused",
            lambda: self.fixture.patch_share(ID, size_bytes=MIB),
        )

    def test_clone_keeps_whatever_is_inside(self):
        self.fixture.put_share(ID, size_bytes=MIB)
        entry = memory.Entry(size_bytes=MIB)
        entry.write(0, b"v" * 4096)
        self.fixture.engine.entries(fixtures.share(ID))["by-client"] = entry
        kept = self.make_snapshot(ID)
        for type_, source in (("share", ID), ("snapshot", kept)):
            clone = self.fixture.clone(type_, source, size_bytes=2 * MIB).body
            self.assertEqual(2 * MIB, clone["size_bytes"])
            entries = self.fixture.engine.entries(fixtures.share(clone["id"]))
            self.assertEqual(b"v" * 4096, entries["by-client"].read(0, 4096))
            self.assertEqual(MIB, entries["by-client"].size_bytes)


class TestNamespaces(case.ServiceCase):
    """What belongs to another is not there, whatever is asked."""

    def setUp(self):
        super().setUp()
        self.fixture.put_share(ID, labels={"a": "b"})
        self.kept = self.make_snapshot(ID)
        self.fixture.put_access(ID)

    def test_reads(self):
        service, other = self.fixture.service, fixtures.OTHER
        for code, read in (
            ("share.not_found", lambda: service.shares.get(other, ID)),
            (
                "share.not_found",
                lambda: service.access.get(other, ID, "cmp-1"),
            ),
            (
                "snapshot.not_found",
                lambda: service.snapshots.get(other, self.kept),
            ),
        ):
            self.check_problem(code, read)
        for page in (
            service.shares.page(other, {}, 10, None),
            service.shares.page(other, {"labels": {"a": "b"}}, 10, None),
            service.snapshots.page(other, {"share_id": ID}, 10, None),
            service.jobs.page(other, {}, 10, None),
        ):
            self.assertEqual([], page.items)
        events = service.events.read(other, 0, 0, 100)
        self.assertEqual({"events": [], "next_after": 0}, events)
        job = service.jobs.page(fixtures.CALLER, {}, 1, None).items[0]
        self.check_problem(
            "job.not_found", lambda: service.jobs.get(other, job["id"])
        )
        self.check_problem(
            "job.not_found", lambda: service.jobs.cancel(other, job["id"])
        )

    def test_changes(self):
        fixture, other = self.fixture, fixtures.OTHER
        before = fixture.state()
        self.check_problem(
            "share.not_found",
            lambda: fixture.patch_share(ID, caller=other, name="x"),
        )
        self.check_problem(
            "share.not_found", lambda: fixture.put_access(ID, caller=other)
        )
        self.check_problem(
            "share.not_found",
            lambda: fixture.put_snapshot(ID, caller=other),
            "/share_id",
        )
        for type_, id_ in (("share", ID), ("snapshot", self.kept)):
            self.check_problem(
                f"{type_}.not_found",
                lambda t=type_, i=id_: fixture.clone(t, i, caller=other),
            )
        # Gone, as far as that caller can tell.
        fixture.delete_share(ID, "cascade", caller=other)
        fixture.delete_snapshot(self.kept, caller=other)
        fixture.delete_access(ID, caller=other)
        self.assertEqual(before, fixture.state())

    def test_taken_ids_tell_nothing(self):
        problem = self.check_problem(
            "share.exists_mismatch",
            lambda: self.fixture.put_share(
                ID, caller=fixtures.OTHER, labels={"a": "b"}
            ),
        )
        self.assertNotIn("namespace", problem.detail)
        mine = self.fixture.put_share(caller=fixtures.OTHER).body["id"]
        self.check_problem(
            "snapshot.exists_mismatch",
            lambda: self.fixture.put_snapshot(
                mine, self.kept, caller=fixtures.OTHER
            ),
        )

    def test_admin_sees_all_and_changes_all(self):
        other = self.fixture.put_share(caller=fixtures.OTHER).body["id"]
        mine = self.fixture.put_share(caller=fixtures.ADMIN).body
        self.assertEqual("default", mine["namespace"])
        self.assertEqual(
            {ID, other, mine["id"]},
            {
                body["id"]
                for body in self.fixture.service.shares.page(
                    fixtures.ADMIN, {}, 10, None
                ).items
            },
        )
        kept = self.fixture.put_snapshot(ID, caller=fixtures.ADMIN).body
        self.assertEqual("a", kept["namespace"])
        self.fixture.delete_share(other, caller=fixtures.ADMIN)


class TestList(case.ServiceCase):
    settings = {"pools": ("gold", "silver")}

    def ids(self, limit=1000, marker=None, **filters):
        page = self.fixture.service.shares.page(
            fixtures.CALLER, filters, limit, marker
        )
        return [body["id"] for body in page.items], page.next_marker

    def test_pages_have_everything_once(self):
        made = sorted(self.make_share() for _ in range(7))
        for limit in (1, 2, 3, 6, 7, 8):
            found, marker = [], None
            while True:
                ids, marker = self.ids(limit, marker)
                self.assertLessEqual(len(ids), limit)
                found += ids
                if marker is None:
                    break
            self.assertEqual(made, found, limit)

    def test_deleted_last_row_of_a_page(self):
        made = sorted(self.make_share() for _ in range(4))
        ids, marker = self.ids(2)
        self.fixture.delete_share(ids[-1])
        self.assertEqual(made[2:], self.ids(2, marker)[0])

    def test_marker_of_somebody_else(self):
        for marker in ("x", "ä", "%%%%", "////"):
            self.check_problem(
                "request.invalid",
                lambda m=marker: self.ids(2, m),
                "/query/marker",
            )

    def test_filters(self):
        one = self.make_share(name="n", labels={"a": "1", "b": "2"})
        two = self.make_share(pool="silver", labels={"a": "1"})
        kept = self.make_snapshot(one)
        clone = self.fixture.clone("snapshot", kept, name="n").body["id"]
        for filters, expected in (
            ({}, [one, two, clone]),
            ({"name": "n"}, [one, clone]),
            ({"pool": "silver"}, [two]),
            ({"pool": "iron"}, []),
            ({"origin_id": kept}, [clone]),
            ({"state": "available"}, [one, two, clone]),
            ({"state": "error"}, []),
            ({"group_id": one}, []),
            ({"labels": {"a": "1"}}, [one, two]),
            ({"labels": {"a": "1", "b": "2"}}, [one]),
            ({"labels": {"a": "2"}}, []),
            ({"labels": {"a": "1"}, "pool": "gold"}, [one]),
        ):
            with self.subTest(filters):
                self.assertEqual(sorted(expected), self.ids(**filters)[0])
        self.fixture.patch_share(one, labels={"a": None, "b": "3"})
        self.assertEqual([two], self.ids(labels={"a": "1"})[0])
        self.assertEqual([one], self.ids(labels={"b": "3"})[0])
