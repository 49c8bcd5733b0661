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

"""Claims: the resources that a change uses, exclusively or shared.

The queue holds a change's claims while it runs. They are also written with
its intent and stay until its job ends. So a restart knows the resources of
every open job, whatever its kind.
"""

from collections.abc import Mapping
import enum
from typing import NamedTuple

from acme_appliance.references import GroupKind
from acme_appliance.references import Kind


class Claim(enum.Enum):
    #: No other change may claim it.
    EXCLUSIVE = "exclusive"
    #: Others may share it, for example the source of a clone.
    SHARED = "shared"


class Resource(NamedTuple):
    """An object that can be claimed."""

    #: A value of :class:`Kind` or :class:`GroupKind`; open jobs of later
    #: releases may have others.
    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


Claims = Mapping[Resource, Claim]


def share(share_id: str) -> Resource:
    return Resource(Kind.SHARE.value, share_id)


def snapshot(snapshot_id: str) -> Resource:
    return Resource(Kind.SNAPSHOT.value, snapshot_id)


def group(group_id: str) -> Resource:
    return Resource(GroupKind.GROUP.value, group_id)


def group_snapshot(group_snapshot_id: str) -> Resource:
    return Resource(GroupKind.GROUP_SNAPSHOT.value, group_snapshot_id)


def exclusive(*resources: Resource) -> Claims:
    return dict.fromkeys(resources, Claim.EXCLUSIVE)


def conflict(one: Claims, other: Claims) -> bool:
    """Whether two changes must not run at the same time."""
    return any(
        Claim.EXCLUSIVE in (one[resource], other[resource])
        for resource in one.keys() & other.keys()
    )
