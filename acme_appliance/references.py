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


def share(share_id: str) -> Reference:
    return Reference(Kind.SHARE, share_id)


def snapshot(snapshot_id: str) -> Reference:
    return Reference(Kind.SNAPSHOT, snapshot_id)
