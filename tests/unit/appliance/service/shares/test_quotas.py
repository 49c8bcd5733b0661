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

"""What a namespace may have."""

import threading

import ddt

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.engines import base as engines
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

MIB = fixtures.MIB


class Case(case.ServiceCase):
    quota = types.Quota(max_bytes=10 * MIB, max_shares=3, max_snapshots=2)

    def setUp(self):
        self.settings = {**self.settings, "quotas": {"a": self.quota}}
        super().setUp()

    def check_refused(self, code, request):
        """Nothing has changed, and nobody else is concerned."""
        self.check_as_before(lambda: self.check_problem(code, request))

    def usage(self, caller=fixtures.CALLER):
        return self.fixture.service.system.describe(caller)["namespace"]

    def at_once(self, *requests):
        """Codes of those that failed, of requests sent side by side."""
        codes = []
        barrier = threading.Barrier(len(requests))

        def send(request):
            barrier.wait(120)
            try:
                request()
            except problems.Problem as problem:
                codes.append(problem.code)

        threads = [threading.Thread(target=send, args=(r,)) for r in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        return codes


@ddt.ddt
class TestQuota(Case):
    def test_bytes(self):
        id_ = self.make_share(size_bytes=6 * MIB)
        kept = self.make_snapshot(id_)
        for refused in (
            lambda: self.make_share(size_bytes=5 * MIB),
            lambda: self.fixture.clone("share", id_),
            lambda: self.fixture.clone("snapshot", kept),
            lambda: self.fixture.patch_share(id_, size_bytes=11 * MIB),
        ):
            self.check_refused("limit.bytes", refused)
        self.fixture.patch_share(id_, size_bytes=9 * MIB)
        self.make_share(size_bytes=MIB)
        # What adds nothing is not refused.
        self.fixture.patch_share(id_, name="other")
        self.fixture.delete_share(id_, "cascade")
        self.make_share(size_bytes=9 * MIB)

    def test_shares(self):
        ids = [self.make_share() for _ in range(3)]
        self.check_refused("limit.shares", self.make_share)
        self.check_refused(
            "limit.shares", lambda: self.fixture.clone("share", ids[0])
        )
        self.fixture.delete_share(ids[0])
        self.make_share()

    def test_snapshots_of_all_shares_together(self):
        ids = [self.make_share() for _ in range(3)]
        kept = [self.make_snapshot(id_) for id_ in ids[:2]]
        self.check_refused(
            "limit.snapshots", lambda: self.make_snapshot(ids[2])
        )
        self.fixture.delete_snapshot(kept[0])
        self.make_snapshot(ids[2])

    def test_other_namespaces_have_their_own(self):
        for _ in range(5):
            self.make_share(size_bytes=9 * MIB, caller=fixtures.OTHER)
        self.make_share(size_bytes=9 * MIB)
        self.assertEqual(9 * MIB, self.usage()["provisioned_bytes"])

    def test_an_operator_is_held_to_the_namespace_that_it_changes(self):
        id_ = self.make_share()
        self.check_refused(
            "limit.bytes",
            lambda: self.fixture.patch_share(
                id_, caller=fixtures.ADMIN, size_bytes=11 * MIB
            ),
        )

    def test_the_same_create_again_is_none(self):
        for _ in range(3):
            last = fixtures.new_id()
            self.fixture.put_share(last)
        self.assertFalse(self.fixture.put_share(last).created)

    def test_what_failed_is_given_back(self):
        self.fixture.engine.total_bytes = MIB
        for _ in range(5):
            self.check_problem(
                "pool.no_space",
                lambda: self.make_share(
                    size_bytes=9 * MIB, file={"allocation": "full"}
                ),
            )
        self.make_share(size_bytes=9 * MIB)

    def test_what_it_may_have_and_has(self):
        id_ = self.make_share(size_bytes=2 * MIB)
        self.make_snapshot(id_)
        self.assertEqual(
            {
                "name": "a",
                "max_bytes": 10 * MIB,
                "max_shares": 3,
                "max_snapshots": 2,
                "provisioned_bytes": 2 * MIB,
                "share_count": 1,
                "snapshot_count": 1,
            },
            self.usage(),
        )
        other = self.usage(fixtures.OTHER)
        self.assertEqual(
            ("b", None, None, 0),
            (
                other["name"],
                other["max_bytes"],
                other["max_shares"],
                other["share_count"],
            ),
        )
        self.assertIsNone(self.usage(fixtures.ADMIN))

    def test_creates_at_once_do_not_share_what_is_left(self):
        codes = self.at_once(
            *[lambda: self.make_share(size_bytes=4 * MIB)] * 8
        )
        self.assertEqual(6, len(codes))
        self.assertEqual({"limit.bytes"}, set(codes))
        self.assertEqual(8 * MIB, self.usage()["provisioned_bytes"])

    def test_extends_at_once_do_not_share_what_is_left(self):
        """Also while one that was let through has not grown yet."""
        ids = [self.make_share(size_bytes=MIB) for _ in range(3)]
        barrier = threading.Barrier(2)
        grow = self.fixture.engine.grow_file

        def slow(*arguments):
            barrier.wait(120)
            grow(*arguments)

        self.fixture.engine.grow_file = slow
        first = threading.Thread(
            target=self.fixture.patch_share,
            args=(ids[0],),
            kwargs={"size_bytes": 7 * MIB},
        )
        first.start()
        while self.usage()["provisioned_bytes"] < 9 * MIB:
            first.join(0.01)
        self.check_problem(
            "limit.bytes",
            lambda: self.fixture.patch_share(ids[1], size_bytes=3 * MIB),
        )
        barrier.wait(120)
        first.join(120)
        self.fixture.engine.grow_file = grow
        self.fixture.patch_share(ids[1], size_bytes=2 * MIB)
        self.assertEqual(10 * MIB, self.usage()["provisioned_bytes"])
        self.assertEqual(set(ids), self.fixture.engine.ids(engines.Kind.SHARE))


class TestWithoutVolumeFiles(Case):
    settings = {"volume_file": False}

    def test_an_extend_that_only_the_database_sees(self):
        id_ = self.make_share(size_bytes=6 * MIB)
        self.check_refused(
            "limit.bytes",
            lambda: self.fixture.patch_share(id_, size_bytes=11 * MIB),
        )
        self.fixture.patch_share(id_, size_bytes=10 * MIB)


class TestLowered(Case):
    quota = types.Quota(max_bytes=0, max_shares=0, max_snapshots=0)

    def test_nothing_more(self):
        self.check_refused("limit.bytes", self.make_share)
