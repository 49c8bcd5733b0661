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

"""The check of tests/harness/sequence.py finds what is wrong."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

from tests.harness import sequence


def written(count: int) -> bytearray:
    data = bytearray(sequence.SLOTS * sequence.SLOT_BYTES)
    for number in range(1, count + 1):
        put(data, number)
    return data


def put(data: bytearray, number: int) -> None:
    place = number % sequence.SLOTS * sequence.SLOT_BYTES
    data[place : place + sequence.SLOT_BYTES] = sequence.slot(number)


class LastNumberTest(unittest.TestCase):
    def test_every_length(self) -> None:
        for count in (0, 1, 2, 63, 64, 65, 127, 128, 1000):
            with self.subTest(count):
                self.assertEqual(count, sequence.last_number(written(count)))

    def test_a_number_is_missing(self) -> None:
        for count, later in ((0, 2), (10, 12), (100, 102), (100, 170)):
            data = written(count)
            put(data, later)
            with self.subTest(count), self.assertRaises(sequence.Inconsistent):
                sequence.last_number(data)

    def test_a_slot_is_older_than_the_ring(self) -> None:
        data = written(200)
        put(data, 150 - sequence.SLOTS)
        with self.assertRaises(sequence.Inconsistent):
            sequence.last_number(data)

    def test_a_part_of_a_number(self) -> None:
        data = written(100)
        data[5 * sequence.SLOT_BYTES + 4095] ^= 1
        with self.assertRaises(sequence.Inconsistent):
            sequence.last_number(data)

    def test_the_program(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.truncate(1 << 20)
            with subprocess.Popen(
                [sys.executable, sequence.__file__, file.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as writer:
                assert writer.stdout is not None and writer.stdin is not None
                for expected in range(1, 100):
                    self.assertEqual(f"{expected}\n", writer.stdout.readline())
                writer.stdin.close()
                rest = writer.stdout.read().split()
                last = int(rest[-1]) if rest else 99
            self.assertEqual(0, writer.returncode)
            data = pathlib.Path(file.name).read_bytes()
            self.assertEqual(last, sequence.last_number(data))
