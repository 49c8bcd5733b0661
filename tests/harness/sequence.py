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

"""A writer whose file shows whether a copy of it is of one moment.

It writes the numbers from 1 on, each into the next slot of a ring, and syncs
each before it writes the next one. So at any moment the file has all numbers
up to one, less what the ring has overwritten. Run as a program, with the path
of an existing file: it prints each number once that is on the disk, and ends
with its standard input.
"""

from __future__ import annotations

import os
import select
import struct
import sys

SLOTS = 64
SLOT_BYTES = 4096
_NUMBER = struct.Struct(">Q")
_REPEATED = SLOT_BYTES // _NUMBER.size


class Inconsistent(Exception):
    """The file is of no moment."""


def slot(number: int) -> bytes:
    """What a slot with this number has in it."""
    return _NUMBER.pack(number) * _REPEATED


def write(path: str) -> None:
    """Write until standard input ends, and print what is written."""
    file = os.open(path, os.O_RDWR)
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        os.pwrite(file, slot(number), number % SLOTS * SLOT_BYTES)
        os.fsync(file)
        print(number, flush=True)
    os.close(file)


def last_number(data: bytes) -> int:
    """The last number in a file; all before it are there, too.

    :param data: the file's beginning; slots without a number are zeros.
    :raises Inconsistent: a number is missing, or one is only partly there.
    """
    numbers = [
        _number(data[place * SLOT_BYTES : (place + 1) * SLOT_BYTES])
        for place in range(SLOTS)
    ]
    last = max(numbers)
    for place, seen in enumerate(numbers):
        expected = last - (last - place) % SLOTS
        if seen != max(expected, 0):
            raise Inconsistent(
                f"slot {place} has {seen} instead of {expected}, while {last} "
                "is there"
            )
    return last


def _number(data: bytes) -> int:
    number: int = _NUMBER.unpack_from(data)[0]
    if data != slot(number):
        raise Inconsistent(f"only a part of number {number} is there")
    return number


if __name__ == "__main__":
    write(sys.argv[1])
