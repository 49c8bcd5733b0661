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

"""What a change touches: of each thing, exclusively or shared with others.

The queue holds a change's claims while it is at work. They are written with
its intent, too, and stay until its job ends: so whatever a job left open
touches is known after a restart, without asking what kind of job it is.
"""

from collections.abc import Mapping
import enum
from typing import NamedTuple

from acme_appliance.engines.base import Kind


class Claim(enum.Enum):
    #: Nobody else may have it meanwhile.
    EXCLUSIVE = "exclusive"
    #: Others may share it: the source of a clone.
    SHARED = "shared"


class Thing(NamedTuple):
    """What can be claimed."""

    #: A :class:`Kind`'s value; open jobs of later releases may have others.
    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


Claims = Mapping[Thing, Claim]


def share(share_id: str) -> Thing:
    return Thing(Kind.SHARE.value, share_id)


def snapshot(snapshot_id: str) -> Thing:
    return Thing(Kind.SNAPSHOT.value, snapshot_id)


def exclusive(*things: Thing) -> Claims:
    return dict.fromkeys(things, Claim.EXCLUSIVE)


def conflict(one: Claims, other: Claims) -> bool:
    """Whether two changes cannot be at work at the same time."""
    return any(
        Claim.EXCLUSIVE in (one[thing], other[thing])
        for thing in one.keys() & other.keys()
    )
