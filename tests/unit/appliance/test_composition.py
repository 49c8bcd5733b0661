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

import os
import pathlib
import tempfile
import unittest
import unittest.mock
import uuid

from acme_appliance import composition
from acme_appliance import locks


class StateTest(unittest.TestCase):
    """What is made in the state directory."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name)

    def test_the_id_is_on_disk_before_it_has_its_name(self):
        """Or a power cut could leave it empty, for ever."""
        file = composition.system_id_file(self.directory)
        synced = []
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            synced.append((os.fstat(descriptor).st_size, file.exists()))
            sync(descriptor)

        with unittest.mock.patch("os.fsync", fsync):
            system_id = composition.system_id(self.directory)
        self.assertIn((len(f"{system_id}\n"), False), synced)
        self.assertTrue(synced[-1][1])
        self.assertEqual(["system-id"], os.listdir(self.directory))
        self.assertEqual(system_id, composition.system_id(self.directory))

    def test_whoever_is_first_decides_about_the_id(self):
        file = composition.system_id_file(self.directory)
        other = str(uuid.uuid4())
        link = os.link

        def late(source: pathlib.Path, target: pathlib.Path) -> None:
            file.write_text(other)
            link(source, target)

        with unittest.mock.patch("os.link", late):
            self.assertEqual(other, composition.system_id(self.directory))
        self.assertEqual(["system-id"], os.listdir(self.directory))

    def test_a_lock_that_root_makes_is_the_services_too(self):
        given = []
        lock = locks.Lock(self.directory / "a.lock")
        with (
            unittest.mock.patch("os.geteuid", lambda: 0),
            unittest.mock.patch(
                "os.fchown", lambda *arguments: given.append(arguments[1:])
            ),
        ):
            lock.take()
        lock.leave()
        owner = self.directory.stat()
        self.assertEqual([(owner.st_uid, owner.st_gid)], given)
