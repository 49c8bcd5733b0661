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

"""What keeps clients within their share: whose its directory is, and how
much of the pool they can take."""

import dataclasses

from acme_appliance.engines import base as engines
from acme_appliance.engines.memory import engine as memory
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

OWNER = engines.Owner(64061, 64061)
MIB = fixtures.MIB
ROOTS = (engines.ROOT, 0o755)
THEIRS = (OWNER, 0o770)


class Case(case.ServiceCase):
    def directory(self, share_id):
        found = self.fixture.engine.root_of(fixtures.share(share_id))
        return found.owner, found.mode

    def make_old(self, share_id):
        """Leave the directory as an earlier release made it."""
        found = self.fixture.engine.root_of(fixtures.share(share_id))
        found.owner, found.mode = THEIRS
        return share_id

    def restart(self, **settings):
        self.fixture.settings = dataclasses.replace(
            self.fixture.settings, **settings
        )
        return self.fixture.restart()


class TestWithVolumeFiles(Case):
    def test_new_shares_and_clones(self):
        id_ = self.make_share(file={"uid": 1001})
        kept = self.make_snapshot(id_)
        self.assertEqual(ROOTS, self.directory(id_))
        for type_, source in (("share", id_), ("snapshot", kept)):
            clone = self.fixture.clone(type_, source).body["id"]
            self.assertEqual(ROOTS, self.directory(clone))

    def test_shares_of_earlier_releases_at_the_next_start(self):
        ids = [self.make_old(self.make_share()) for _ in range(3)]
        self.fixture.put_access(ids[0])
        before = self.fixture.exporter.exported()
        kept = self.make_snapshot(ids[0])
        for _ in range(2):
            self.assertEqual([], self.fixture.restart().lines())
            for id_ in ids:
                self.assertEqual(ROOTS, self.directory(id_))
        self.assertEqual(before, self.fixture.exporter.exported())
        # The snapshot is as it was; what is made from it is not.
        clone = self.fixture.clone("snapshot", kept).body["id"]
        self.assertEqual(ROOTS, self.directory(clone))

    def test_looking_changes_nothing(self):
        id_ = self.make_old(self.make_share())
        self.fixture.service.reconciliation.run(False)
        self.assertEqual(THEIRS, self.directory(id_))

    def test_a_share_that_is_gone_keeps_no_other_from_it(self):
        ids = [self.make_old(self.make_share()) for _ in range(3)]
        for id_ in (min(ids), max(ids)):
            self.fixture.engine.delete_share(id_)
        self.fixture.restart()
        self.assertEqual(ROOTS, self.directory(sorted(ids)[1]))


class TestWithoutVolumeFiles(Case):
    settings = {"volume_file": False}

    def test_clients_make_the_file(self):
        id_ = self.make_share()
        clone = self.fixture.clone("share", id_).body["id"]
        self.fixture.restart()
        for each in (id_, clone):
            self.assertIsNone(self.share(each)["file"])
            self.assertEqual(THEIRS, self.directory(each))

    def test_the_share_decides_and_not_what_the_pool_does_today(self):
        """A feature may be switched on and off; shares stay as they are."""
        theirs = self.make_share()
        self.restart(volume_file=True)
        ours = self.make_share()
        clone = self.fixture.clone("share", theirs).body["id"]
        self.assertEqual(THEIRS, self.directory(clone))
        self.restart(volume_file=False)
        self.assertEqual(ROOTS, self.directory(ours))
        self.assertEqual(THEIRS, self.directory(theirs))
        clone = self.fixture.clone("share", ours).body
        self.assertIsNone(clone["file"])
        self.assertEqual(THEIRS, self.directory(clone["id"]))


def limit(size_bytes, taken=0):
    return taken + 8 * size_bytes + 64 * MIB


class TestHardLimit(Case):
    def setUp(self):
        super().setUp()
        self.fixture.engine.capabilities = engines.Capabilities(
            hard_limit=True
        )

    def limit_of(self, share_id):
        return self.fixture.engine.root_of(
            fixtures.share(share_id)
        ).limit_bytes

    def write(self, share_id, blocks, name="volume"):
        entry = self.fixture.engine.entries(fixtures.share(share_id))[name]
        entry.write(0, b"x" * (4096 * blocks))

    def test_it_is_announced(self):
        pool = self.fixture.service.pools.get("gold")
        self.assertIn("share.hard_limit", pool["features"])

    def test_new_and_grown_shares(self):
        id_ = self.make_share(size_bytes=2 * MIB)
        self.assertEqual(limit(2 * MIB), self.limit_of(id_))
        self.write(id_, 3)
        self.fixture.patch_share(id_, size_bytes=3 * MIB)
        self.assertEqual(limit(3 * MIB, 3 * 4096), self.limit_of(id_))

    def test_what_is_kept_leaves_room_for_as_much_again(self):
        for keep in (
            self.make_snapshot,
            lambda id_: self.fixture.clone("share", id_),
        ):
            id_ = self.make_share()
            self.write(id_, 5)
            keep(id_)
            self.assertEqual(limit(MIB, 5 * 4096), self.limit_of(id_))

    def test_the_limit_is_there_before_the_snapshot(self):
        """What a client writes in between must fit already."""
        id_ = self.make_share()
        self.write(id_, 5)
        seen = []
        self.fixture.engine.create_snapshot = lambda *_: seen.append(
            self.limit_of(id_)
        )
        self.make_snapshot(id_)
        self.assertEqual([limit(MIB, 5 * 4096)], seen)

    def test_a_clone_has_a_limit_of_its_own(self):
        kept = self.make_snapshot(self.make_share())
        clone = self.fixture.clone("snapshot", kept, size_bytes=3 * MIB).body
        self.assertEqual(limit(3 * MIB), self.limit_of(clone["id"]))

    def test_shares_of_earlier_releases_at_the_next_start(self):
        id_, other = self.make_share(), self.make_share()
        self.fixture.engine.root_of(fixtures.share(id_)).limit_bytes = None
        self.fixture.engine.root_of(fixtures.share(other)).limit_bytes = 5
        self.write(id_, 1)
        self.fixture.restart()
        self.assertEqual(limit(MIB, 4096), self.limit_of(id_))
        # A restart is nothing that a client could use to get more.
        self.assertEqual(5, self.limit_of(other))


class TestOversized(Case):
    def test_a_file_that_a_client_made_longer_is_reported(self):
        kept_to_it, longer = self.make_share(), self.make_share()
        for id_, size_bytes in ((kept_to_it, MIB), (longer, 2 * MIB)):
            entry = self.fixture.engine.entries(fixtures.share(id_))["volume"]
            entry.write(0, b"x" * size_bytes)
        self.assertEqual(
            [f"gold/{longer}"],
            self.fixture.service.reconciliation.run(False)["oversized_shares"],
        )
        report = self.fixture.restart()
        self.assertEqual([f"gold/{longer}"], report.oversized_shares)
        # Nothing is cut off: it is somebody's data.
        entry = self.fixture.engine.entries(fixtures.share(longer))["volume"]
        self.assertEqual(2 * MIB, entry.size_bytes)


class TestHardLimitWithoutVolumeFiles(TestHardLimit):
    settings = {"volume_file": False}

    def write(self, share_id, blocks, name="volume"):
        entries = self.fixture.engine.entries(fixtures.share(share_id))
        entries.setdefault(name, memory.Entry())
        super().write(share_id, blocks, name)
