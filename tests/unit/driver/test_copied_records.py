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

"""Records that Cinder makes by copying another volume's, ids and all."""

from __future__ import annotations

from typing import Any
import unittest.mock as unittest_mock

from cinder import exception
from cinder import objects
from cinder.volume import manager

from acme_cinder import shares
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb

MARK = b"of the first".ljust(4096, b".")


class CopiedRecordTest(base.DriverTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.first = self.create()
        entry = self.entries(self.first)[self.first.name]
        entry.write(0, MARK)

    def copied(self, **values: Any) -> objects.Volume:
        """As for the image cache, and for the target of a migration."""
        skip = {
            *manager.VolumeManager._VOLUME_CLONE_SKIP_PROPERTIES,
            *("snapshot_id", "source_volid"),
        }
        names = set(self.first.keys()) - skip
        copied = {name: self.first[name] for name in names}
        made = objects.Volume(
            context=self.context,
            **{**copied, "status": "creating", **values},
        )
        made.create()
        found = cinderdb.reloaded(made)
        self.assertEqual(self.first.provider_id, found.provider_id)
        return found

    def assert_first_is_whole(self) -> None:
        entry = self.assert_file(self.first, 1)
        self.assertEqual(MARK, entry.read(0, 4096))

    def test_it_gets_a_share_of_its_own(self) -> None:
        for clones in (False, True):
            with self.subTest(clones=clones):
                copy = self.copied()
                update = (
                    self.driver.create_cloned_volume(copy, self.first)
                    if clones
                    else self.driver.create_volume(copy)
                )
                cinderdb.save(copy, update)
                copy = self.available(copy)
                self.assertNotEqual(self.first.provider_id, copy.provider_id)
                self.assertIn(copy.provider_id, copy.provider_location)
                self.assert_file(copy, 1)
                self.driver.delete_volume(copy)
                self.assertIsNone(self.find_share(copy.id))
                self.assert_first_is_whole()

    def test_its_creation_fails(self) -> None:
        """And it is deleted, as Cinder does at once for the image cache."""
        self.driver = self.new_driver(
            [transports.problem(507, "pool.no_space")],
            matches=lambda request: request.method == "PUT",
        )
        copy = self.copied()
        with self.assertRaises(exception.VolumeBackendAPIException):
            self.driver.create_cloned_volume(copy, self.first)
        self.driver.delete_volume(cinderdb.reloaded(copy))
        self.assert_first_is_whole()

    def test_the_service_dies_before_its_creation(self) -> None:
        copy = self.copied(status="error")
        self.driver.delete_volume(copy)
        self.assert_first_is_whole()

    def test_the_service_dies_in_its_creation(self) -> None:
        copy = self.copied()
        with (
            unittest_mock.patch.object(
                shares.Shares, "_create", side_effect=SystemExit
            ),
            self.assertRaises(SystemExit),
        ):
            self.driver.create_volume(copy)
        self.driver.delete_volume(cinderdb.reloaded(copy))
        self.assert_first_is_whole()
