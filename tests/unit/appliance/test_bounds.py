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

"""What keeps clients within their share: whose its directory is."""

import dataclasses

from acme_appliance.engines import base as engines
from tests.unit.appliance import case
from tests.unit.appliance import world as worlds

OWNER = engines.Owner(64061, 64061)
ROOTS = (engines.ROOT, 0o755)
THEIRS = (OWNER, 0o770)


class Case(case.ServiceCase):
    def directory(self, share_id):
        found = self.world.engine.root_of(worlds.share(share_id))
        return found.owner, found.mode

    def make_old(self, share_id):
        """Leave the directory as an earlier release made it."""
        found = self.world.engine.root_of(worlds.share(share_id))
        found.owner, found.mode = THEIRS
        return share_id

    def restart(self, **settings):
        self.world.settings = dataclasses.replace(
            self.world.settings, **settings
        )
        return self.world.restart()


class TestWithVolumeFiles(Case):
    def test_new_shares_and_clones(self):
        id_ = self.make_share(file={"uid": 1001})
        kept = self.make_snapshot(id_)
        self.assertEqual(ROOTS, self.directory(id_))
        for type_, source in (("share", id_), ("snapshot", kept)):
            clone = self.world.clone(type_, source).body["id"]
            self.assertEqual(ROOTS, self.directory(clone))

    def test_shares_of_earlier_releases_at_the_next_start(self):
        ids = [self.make_old(self.make_share()) for _ in range(3)]
        self.world.put_access(ids[0])
        before = self.world.exporter.exported()
        kept = self.make_snapshot(ids[0])
        for _ in range(2):
            self.assertEqual([], self.world.restart().lines())
            for id_ in ids:
                self.assertEqual(ROOTS, self.directory(id_))
        self.assertEqual(before, self.world.exporter.exported())
        # The snapshot is as it was; what is made from it is not.
        clone = self.world.clone("snapshot", kept).body["id"]
        self.assertEqual(ROOTS, self.directory(clone))

    def test_looking_changes_nothing(self):
        id_ = self.make_old(self.make_share())
        self.world.service.reconcile(False)
        self.assertEqual(THEIRS, self.directory(id_))

    def test_a_share_that_is_gone_keeps_no_other_from_it(self):
        ids = [self.make_old(self.make_share()) for _ in range(3)]
        for id_ in (min(ids), max(ids)):
            self.world.engine.delete_share(id_)
        self.world.restart()
        self.assertEqual(ROOTS, self.directory(sorted(ids)[1]))


class TestWithoutVolumeFiles(Case):
    settings = {"volume_file": False}

    def test_clients_make_the_file(self):
        id_ = self.make_share()
        clone = self.world.clone("share", id_).body["id"]
        self.world.restart()
        for each in (id_, clone):
            self.assertIsNone(self.share(each)["file"])
            self.assertEqual(THEIRS, self.directory(each))

    def test_the_share_decides_and_not_what_the_pool_does_today(self):
        """A feature may be switched on and off; shares stay as they are."""
        theirs = self.make_share()
        self.restart(volume_file=True)
        ours = self.make_share()
        clone = self.world.clone("share", theirs).body["id"]
        self.assertEqual(THEIRS, self.directory(clone))
        self.restart(volume_file=False)
        self.assertEqual(ROOTS, self.directory(ours))
        self.assertEqual(THEIRS, self.directory(theirs))
        clone = self.world.clone("share", ours).body
        self.assertIsNone(clone["file"])
        self.assertEqual(THEIRS, self.directory(clone["id"]))
