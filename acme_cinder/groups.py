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

"""Consistent groups: their shares are in one group of the appliance.

Cinder knows what is in a group; the group on the appliance repeats it, so that
one request can concern all of it. The two differ if a service died after the
driver's call and before Cinder recorded its result. Then Cinder is right, and
the next call corrects the appliance.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import TypeVar

from cinder import exception
from cinder import objects
from oslo_log import log as logging

from acme_cinder import errors
from acme_cinder import groupdeletion
from acme_cinder import grouping
from acme_cinder import identity
from acme_cinder import labels
from acme_cinder import shares
from acme_cinder import undo
import acme_client

LOG = logging.getLogger(__name__)

_Reply = TypeVar("_Reply")


class Groups:
    """The operations on groups.

    All raise the errors in :data:`acme_cinder.errors.BELOW`.
    """

    def __init__(self, volume_shares: shares.Shares) -> None:
        self._shares = volume_shares
        self._api = volume_shares.api
        self._deletion = groupdeletion.GroupDeletion(volume_shares)

    def create(self, group: objects.Group) -> None:
        """Create an empty group."""
        grouping.ensure(self._api, group)

    def update(
        self,
        group: objects.Group,
        added: Sequence[objects.Volume] = (),
        removed: Sequence[objects.Volume] = (),
    ) -> None:
        """Add and remove volumes: all, or none.

        A volume can be in another group of the appliance only by an
        interrupted call: Cinder does not add one that it has in a group.
        """

        def request() -> acme_client.Group:
            return self._api.update_group(
                group.id,
                add_share_ids=sorted(map(identity.share_id, added)),
                remove_share_ids=sorted(map(identity.share_id, removed)),
            )

        try:
            grouping.in_existing(self._api, group, request)
        except acme_client.Conflict as error:
            if error.code != "share.in_group":
                raise
            self._leave_others(group, added)
            request()

    def _leave_others(
        self, group: objects.Group, volumes: Sequence[objects.Volume]
    ) -> None:
        for volume in volumes:
            share = self._api.get_share(identity.share_id(volume))
            if share.group_id in (None, group.id):
                continue
            LOG.warning(
                "Share %(share)s of %(volume)s leaves the group %(other)s of "
                "the appliance: Cinder does not have it there",
                {
                    "share": share.id,
                    "volume": volume.name,
                    "other": share.group_id,
                },
            )
            self._api.update_group(share.group_id, remove_share_ids=[share.id])

    def create_from_snapshots(
        self,
        group: objects.Group,
        volumes: Sequence[objects.Volume],
        group_snapshot: objects.GroupSnapshot,
        snapshots: Sequence[objects.Snapshot],
    ) -> list[dict[str, Any]]:
        """Create a group from a group snapshot; return the model updates.

        :param volumes: the new ones, in the order of the snapshots.
        """
        return self._create_from(
            group,
            volumes,
            acme_client.GroupSource("group_snapshot", group_snapshot.id),
            [shares.Origin.of_snapshot(each) for each in snapshots],
            lambda create: create(),
        )

    def create_from_group(
        self,
        group: objects.Group,
        volumes: Sequence[objects.Volume],
        source: objects.Group,
        source_volumes: Sequence[objects.Volume],
    ) -> list[dict[str, Any]]:
        """Like :meth:`create_from_snapshots`: as the volumes of another group
        are at one moment."""

        def with_all(create: Callable[[], _Reply]) -> _Reply:
            try:
                return create()
            except acme_client.NotFound:
                # The source, or one of its shares is not in it.
                self.update(source, source_volumes)
                return create()

        return self._create_from(
            group,
            volumes,
            acme_client.GroupSource("group", source.id),
            [shares.Origin.of_volume(each) for each in source_volumes],
            with_all,
        )

    def _create_from(
        self,
        group: objects.Group,
        volumes: Sequence[objects.Volume],
        source: acme_client.GroupSource,
        origins: Sequence[shares.Origin],
        attempted: Callable[
            [Callable[[], acme_client.Group]], acme_client.Group
        ],
    ) -> list[dict[str, Any]]:
        specs = [
            self._shares.spec(volume, labels.of_volume(volume))
            for volume in volumes
        ]

        def create() -> acme_client.Group:
            return self._api.create_group(
                group.id,
                name=grouping.name_of(group),
                labels=labels.of_group(group),
                source=source,
                shares={
                    origin.source.id: spec()
                    for origin, spec in zip(origins, specs, strict=True)
                },
            )

        with undo.if_unsure(lambda: self._discard(group, volumes)):
            self._shares.with_known_features(lambda: attempted(create))
        try:
            return self._finish(group, volumes, origins)
        except (*errors.BELOW, exception.CinderException):
            self._discard(group, volumes)
            raise

    def _finish(
        self,
        group: objects.Group,
        volumes: Sequence[objects.Volume],
        origins: Sequence[shares.Origin],
    ) -> list[dict[str, Any]]:
        made = {
            share.id: share
            for share in self._api.list_shares(group_id=group.id)
        }
        return [
            {
                "id": volume.id,
                "status": "available",
                **self._shares.finish_create(
                    volume, origin, made[identity.share_id(volume)]
                ),
            }
            for volume, origin in zip(volumes, origins, strict=True)
        ]

    def _discard(
        self, group: objects.Group, volumes: Sequence[objects.Volume]
    ) -> None:
        """Delete a new group after an error; failures are only logged.

        Cinder still has all of it, in error.
        """
        with undo.left_on_error(f"The group of {len(volumes)}", group.id):
            self._deletion.delete(group, volumes)

    def delete(
        self, group: objects.Group, volumes: Sequence[objects.Volume]
    ) -> dict[str, str]:
        """See :meth:`.groupdeletion.GroupDeletion.delete`."""
        return self._deletion.delete(group, volumes)
