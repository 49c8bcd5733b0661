# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Digests compare contents, not how they are stored."""

import os
import pathlib
import tempfile
import unittest

import ddt

from tests.harness import content

MIB = 1 << 20


@ddt.ddt
class DigestTestCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def _sparse(self, name: str, size: int) -> str:
        path = self.folder / name
        with path.open("wb") as out:
            out.truncate(size)
        return str(path)

    @ddt.data(64 * MIB, 64 * MIB + 1, 64 * MIB - 1)
    def test_holes_and_zeros_are_the_same(self, size: int) -> None:
        sparse = self._sparse("sparse", size)
        content.write_pattern(sparse, "A")
        full = self.folder / "full"
        full.write_bytes(pathlib.Path(sparse).read_bytes())
        self.assertEqual(content.digest(sparse), content.digest(str(full)))

    @ddt.data(0, 1, 17 * MIB + 5, 64 * MIB - 1)
    def test_one_byte_anywhere_makes_a_difference(self, offset: int) -> None:
        path = self._sparse("file", 64 * MIB)
        before = content.digest(path)
        handle = os.open(path, os.O_WRONLY)
        os.pwrite(handle, b"x", offset)
        os.close(handle)
        self.assertNotEqual(before, content.digest(path))

    def test_where_the_data_is_makes_a_difference(self) -> None:
        digests = set()
        for offset in (0, MIB, 2 * MIB, 2 * MIB + 1):
            path = self._sparse(f"at-{offset}", 8 * MIB)
            handle = os.open(path, os.O_WRONLY)
            os.pwrite(handle, b"x", offset)
            os.close(handle)
            digests.add(content.digest(path))
        self.assertEqual(4, len(digests))

    def test_growing_with_zeros_makes_none(self) -> None:
        path = self._sparse("file", 64 * MIB)
        content.write_pattern(path, "A")
        before = content.digest(path)
        os.truncate(path, 128 * MIB)
        self.assertEqual(before, content.digest(path))
        self.assertEqual(before, content.digest(path, 64 * MIB))

    def test_patterns_differ_by_seed_and_reach_the_last_byte(self) -> None:
        path = self._sparse("file", 32 * MIB)
        content.write_pattern(path, "A")
        first = content.digest(path)
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            self.assertNotEqual(b"\0", file.read())
        content.write_pattern(path, "B")
        self.assertNotEqual(first, content.digest(path))
        self.assertEqual(32 * MIB, os.path.getsize(path))
