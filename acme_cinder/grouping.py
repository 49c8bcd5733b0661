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

"""Which groups in Cinder are groups of the appliance.

Those whose type asks for consistent snapshots. The others exist only in
Cinder, whose manager works on each of their volumes by itself if the driver
raises NotImplementedError (volume/manager.py, ``_create_group_generic`` and
so on).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import TypeVar

from cinder import objects
from cinder.volume import volume_utils

from acme_cinder import labels
import acme_client

_Reply = TypeVar("_Reply")


def check(group: objects.Group | objects.GroupSnapshot) -> None:
    """:raises NotImplementedError: its type does not ask for consistent
    snapshots."""
    if not _is_consistent(group):
        raise NotImplementedError(
            f"{group.id} is of a type without consistent snapshots"
        )


def of_volume(volume: objects.Volume) -> objects.Group | None:
    """The group whose group on the appliance a volume's share is in."""
    known = volume.obj_attr_is_set("group_id")
    if not known or volume.group_id is None:
        return None
    group = volume.group
    return group if _is_consistent(group) else None


def _is_consistent(thing: Any) -> bool:
    return bool(volume_utils.is_group_a_cg_snapshot_type(thing))


def name_of(group: objects.Group) -> str:
    """Constant, unlike the name that its owner gives: a repeated request
    must be the same."""
    return f"group-{group.id}"


def ensure(api: acme_client.Client, group: objects.Group) -> None:
    """Create the group on the appliance, unless it exists."""
    pool = volume_utils.extract_host(group.host or "", level="pool")
    api.create_group(
        group.id,
        name=name_of(group),
        pool=str(pool) if pool else None,
        labels=labels.of_group(group),
    )


def in_existing(
    api: acme_client.Client,
    group: objects.Group | None,
    request: Callable[[], _Reply],
) -> _Reply:
    """Send a request that needs the group; create the group if it does not
    exist.

    That is so if its type was changed to a consistent one.
    """
    try:
        return request()
    except acme_client.NotFound as error:
        if group is None or error.code != "group.not_found":
            raise
        ensure(api, group)
        return request()
