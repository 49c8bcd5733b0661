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

"""One way from a volume to its share, at each moment of a migration."""

import ast
import pathlib
import unittest
import uuid

from cinder import exception
from cinder.volume import manager
import ddt

from acme_cinder import identity
from tests.unit.driver import base
from tests.unit.driver import cinderdb

SHARE = "6c1b7a52-4a05-4b7e-9d1c-3f4b8f1d2e01"


@ddt.ddt
class IdentityTest(unittest.TestCase):
    def test_the_providers_id_first(self):
        volume = cinderdb.volume(provider_id=SHARE)
        self.assertEqual(SHARE, identity.share_id(volume))
        snapshot = cinderdb.snapshot(volume, provider_id=SHARE)
        self.assertEqual(SHARE, identity.snapshot_id(snapshot))

    @ddt.data(None, "", "64702.3", SHARE.upper(), SHARE.replace("-", ""))
    def test_without_one_that_can_be_ours(self, known):
        """Of a reply that was lost, and of another vendor's driver."""
        volume = cinderdb.volume(provider_id=known)
        self.assertEqual(volume.id, identity.share_id(volume))
        volume.update({"_name_id": SHARE})
        self.assertEqual(SHARE, identity.share_id(volume))
        snapshot = cinderdb.snapshot(volume, provider_id=known)
        self.assertEqual(snapshot.id, identity.snapshot_id(snapshot))

    def test_nothing_else_decides_it(self):
        """Cinder's name for it is no share's, once a volume is managed."""
        folder = pathlib.Path(identity.__file__).parent
        found = [
            f"{path.name}:{node.lineno}"
            for path in sorted(folder.rglob("*.py"))
            if path.name not in ("identity.py", "migration.py")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and node.attr == "name_id"
        ]
        self.assertEqual([], found)


class MigrationCase(base.DriverTestCase):
    """A volume whose data has just been copied to a new one, by Cinder's own
    code, between two pools of the driver."""

    def setUp(self):
        super().setUp()
        self.volume = self.create()
        self.source = self.volume.id
        self.temporary = self.create(
            migration_status=f"target:{self.volume.id}"
        )
        self.target = self.temporary.id

    def update(self):
        """As the service of the target does: it has the driver for it."""
        service = manager.VolumeManager.__new__(manager.VolumeManager)
        service.driver = self.driver
        service.update_migrated_volume(
            self.context, self.volume, self.temporary, "available"
        )

    def finish(self):
        """As the service of the source does after that."""
        self.volume.refresh()
        self.temporary.refresh()
        self.volume.finish_volume_migration(self.temporary)

    def shares(self):
        """Of the volume, and of the temporary one that Cinder deletes."""
        return (
            identity.share_id(cinderdb.reloaded(self.volume)),
            identity.share_id(cinderdb.reloaded(self.temporary)),
        )


class MigrationTest(MigrationCase):
    def test_before_and_after(self):
        self.assertEqual((self.source, self.target), self.shares())
        self.update()
        self.finish()
        self.assertEqual((self.target, self.source), self.shares())
        volume = cinderdb.reloaded(self.volume)
        self.driver.extend_volume(volume, 2)
        self.assert_file(volume, 2)
        self.driver.delete_volume(cinderdb.reloaded(self.temporary))
        self.assertIsNone(self.find_share(self.source))
        self.assertIsNotNone(self.find_share(self.target))

    def test_nobody_finishes_it(self):
        """The volume is where its file and its export are told to be."""
        self.update()
        volume = cinderdb.reloaded(self.volume)
        self.assertEqual(self.source, volume.provider_id)
        self.assertEqual(self.target, identity.share_id(volume))
        self.driver.extend_volume(volume, 2)
        self.assert_file(volume, 2)

        with self.assertRaisesRegex(
            exception.VolumeIsBusy, f"{self.volume.id}.*cinder unmanage"
        ):
            self.driver.delete_volume(cinderdb.reloaded(self.temporary))
        self.assertIsNotNone(self.find_share(self.target))

    def test_a_row_of_the_database(self):
        """The sweep reads rows, for all attachments at once."""
        row = base.connector("cmp-1")
        self.attach(self.volume, row)
        self.update()
        self.driver._sweep.run()
        self.assertEqual(
            self.volume.id, self.share(self.volume).labels["cinder.volume_id"]
        )

    def test_to_another_vendors_driver(self):
        """Its manager swaps the id of the provider; ours deletes."""
        self.temporary.update({"provider_id": str(uuid.uuid4())})
        self.temporary.save()
        self.volume.finish_volume_migration(self.temporary)
        self.driver.delete_volume(cinderdb.reloaded(self.temporary))
        self.assertIsNone(self.find_share(self.source))
