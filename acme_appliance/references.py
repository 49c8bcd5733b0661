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

"""Types that engines, exporters and the service share."""

import dataclasses
import enum
from typing import Final


class Kind(enum.StrEnum):
    """The kinds of objects in a pool."""

    SHARE = "share"
    SNAPSHOT = "snapshot"


@dataclasses.dataclass(frozen=True, order=True)
class Reference:
    """A share or snapshot. A share and a snapshot can have the same id."""

    kind: Kind
    id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class GroupKind(enum.StrEnum):
    """Kinds of objects that a pool only describes: they have no data."""

    GROUP = "group"
    GROUP_SNAPSHOT = "group_snapshot"


@dataclasses.dataclass(frozen=True, order=True)
class GroupReference:
    """A group or group snapshot."""

    kind: GroupKind
    id: str

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} {self.id}"


#: Everything that metadata can describe.
Subject = Reference | GroupReference
SubjectKind = Kind | GroupKind
SUBJECT_KINDS: Final[tuple[SubjectKind, ...]] = (*Kind, *GroupKind)


def subject(kind: SubjectKind, id_: str) -> Subject:
    if isinstance(kind, GroupKind):
        return GroupReference(kind, id_)
    return Reference(kind, id_)


def share(share_id: str) -> Reference:
    return Reference(Kind.SHARE, share_id)


def snapshot(snapshot_id: str) -> Reference:
    return Reference(Kind.SNAPSHOT, snapshot_id)


def group(group_id: str) -> GroupReference:
    return GroupReference(GroupKind.GROUP, group_id)


def group_snapshot(group_snapshot_id: str) -> GroupReference:
    return GroupReference(GroupKind.GROUP_SNAPSHOT, group_snapshot_id)
