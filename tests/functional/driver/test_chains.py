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

"""Clones of clones on btrfs, deleted in any order."""

import os
import pathlib
import random
from typing import Any

import ddt

from tests.functional.driver import test_nfs
from tests.unit.driver import chains

BLOCK = 4096


@ddt.ddt
class ChainTest(test_nfs.NfsCase, chains.ChainCase):
    def path(self, volume: Any) -> pathlib.Path:
        """On the server's own file system."""
        folder = pathlib.Path(self.pool.directory)
        return folder / "shares" / volume.name_id / volume.name

    def mark(self, volume: Any, number: int) -> None:
        with self.path(volume).open("r+b") as file:
            file.seek(number * BLOCK)
            file.write(bytes([number + 1]) * BLOCK)
            os.fsync(file.fileno())

    def marks(self, volume: Any) -> list[int]:
        with self.path(volume).open("rb") as file:
            data = file.read((chains.LENGTH + 2) * BLOCK)
        blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
        return [
            number
            for number, block in enumerate(blocks)
            if block == bytes([number + 1]) * BLOCK
        ]

    @ddt.data(1, 2)
    def test_any_order(self, seed: int) -> None:
        self.make_chain()
        self.delete_chain(random.Random(seed))
