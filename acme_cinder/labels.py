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

"""The labels of shares, snapshots and groups, which show the appliance's
operator their names and projects in Cinder."""

from typing import Any
from typing import Final

VOLUME: Final = "cinder.volume_id"
SNAPSHOT: Final = "cinder.snapshot_id"
GROUP: Final = "cinder.group_id"
GROUP_SNAPSHOT: Final = "cinder.group_snapshot_id"
PROJECT: Final = "cinder.project_id"
#: A change of labels that removes all of these.
REMOVED: Final = dict.fromkeys((VOLUME, SNAPSHOT, PROJECT))


def of_volume(volume: Any) -> dict[str, str]:
    return {VOLUME: volume.id, **of_project(volume.project_id)}


def of_snapshot(snapshot: Any) -> dict[str, str]:
    return {SNAPSHOT: snapshot.id, **of_project(snapshot.project_id)}


def of_group(group: Any) -> dict[str, str]:
    return {GROUP: group.id, **of_project(group.project_id)}


def of_group_snapshot(group_snapshot: Any) -> dict[str, str]:
    return {
        GROUP_SNAPSHOT: group_snapshot.id,
        GROUP: group_snapshot.group_id,
        **of_project(group_snapshot.project_id),
    }


def of_project(project_id: str | None) -> dict[str, str]:
    """None: in a Cinder without projects."""
    return {PROJECT: project_id} if project_id else {}
