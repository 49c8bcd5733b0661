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

"""The calls of groups; see :class:`acme_client.client.Client`."""

from collections.abc import Mapping
from collections.abc import Sequence

from acme_client import calls
from acme_client import groupmodels as models
from acme_client import messages


class GroupCalls:
    """The part of the client for groups and group snapshots."""

    _calls: calls.Calls

    def create_group(
        self,
        group_id: str,
        *,
        name: str,
        pool: str | None = None,
        labels: Mapping[str, str] | None = None,
        source: models.GroupSource | None = None,
        shares: Mapping[str, models.GroupShareSpec] | None = None,
    ) -> models.Group:
        """Create a group, empty or with copies, or ensure that it exists.

        :param shares: with a source: by the id of its share, or snapshot, the
            share to create. All of them are created, or none.
        :raises AlreadyExists: the id of the group or of a share belongs to
            another, or was created with other arguments.
        :raises NotFound: the source, or what should be in it.
        :raises Unsupported: the pool does not have ``share.group``, or for
            copies of shares ``group.snapshot_crash_consistent``.
        """
        body = messages.without_none(
            name=name,
            pool=pool,
            labels=None if labels is None else dict(labels),
            source=None if source is None else source.to_json(),
            shares=None
            if shares is None
            else {id_: each.to_json() for id_, each in shares.items()},
        )
        path = messages.path("groups", group_id)
        return self._calls.write(
            messages.change("PUT", path, body), models.Group.from_json
        )

    def get_group(self, group_id: str) -> models.Group:
        """:raises NotFound: ``group.not_found``."""
        return self._calls.read(
            messages.get(messages.path("groups", group_id)),
            models.Group.from_json,
        )

    def update_group(
        self,
        group_id: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        add_share_ids: Sequence[str] = (),
        remove_share_ids: Sequence[str] = (),
    ) -> models.Group:
        """Add and remove shares; set what is not None. All, or nothing.

        :raises NotFound: the group, or a share to add.
        :raises Conflict: ``share.in_group``: a share to add is in another
            group; ``group.other_pool``.
        :raises LimitReached: ``limit.group_shares``.
        """
        body = messages.without_none(
            name=name,
            labels=None if labels is None else dict(labels),
            add_share_ids=list(add_share_ids) or None,
            remove_share_ids=list(remove_share_ids) or None,
        )
        path = messages.path("groups", group_id)
        return self._calls.write(
            messages.change("PATCH", path, body), models.Group.from_json
        )

    def delete_group(
        self,
        group_id: str,
        *,
        delete_shares: bool = False,
        cascade: bool = False,
        if_match: int | None = None,
    ) -> bool:
        """Delete the group; absent is success.

        :param delete_shares: False: its shares stay.
        :param cascade: with the snapshots of its shares.
        :param if_match: the generation; shares that join or leave a group
            change it.
        :returns: whether it existed, as for a share.
        :raises SharesLeft: some shares could not be deleted, and ``errors``
            says why, with the pointers ``/shares/ID``. The other shares are
            deleted, and the group stays.
        :raises PreconditionFailed: it has another generation. Nothing was
            deleted, unless an earlier attempt of this call deleted shares.
        """
        query = {
            "shares": "delete" if delete_shares else "keep",
            "snapshots": "cascade" if cascade else "fail",
        }
        return self._calls.remove(
            messages.path("groups", group_id),
            ("group.not_found",),
            query,
            if_match,
        )

    def create_group_snapshot(
        self,
        group_snapshot_id: str,
        snapshots: Mapping[str, models.SnapshotSpec],
        *,
        name: str,
        group_id: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> models.GroupSnapshot:
        """Snapshot shares at one moment, or ensure that it was done.

        :param snapshots: by the id of the share; all of them are created, or
            none.
        :param group_id: all the shares must be in this group.
        :raises AlreadyExists: an id belongs to another, or was created with
            other arguments.
        :raises Unsupported: the pool does not have
            ``group.snapshot_crash_consistent``, or cannot do it now; the
            message says why.
        :raises Unavailable: ``moment.unavailable``: no moment could be had
            until the deadline; nothing was created.
        """
        body = messages.without_none(
            name=name,
            group_id=group_id,
            labels=None if labels is None else dict(labels),
            snapshots={id_: each.to_json() for id_, each in snapshots.items()},
        )
        path = messages.path("group-snapshots", group_snapshot_id)
        return self._calls.write(
            messages.change("PUT", path, body), models.GroupSnapshot.from_json
        )

    def delete_group_snapshot(self, group_snapshot_id: str) -> bool:
        """Delete the group snapshot and its snapshots; absent is success.

        :returns: whether it existed, as for a share.
        :raises InUse: some of the snapshots have access rules, and ``errors``
            says which, with the pointers ``/snapshots/ID``.
        """
        return self._calls.remove(
            messages.path("group-snapshots", group_snapshot_id),
            ("group_snapshot.not_found",),
            {},
        )
