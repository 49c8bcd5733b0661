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

"""Delete a group with its volumes.

The appliance deletes the shares in its group, which must be exactly those of
the group in Cinder: the others are removed from it before, and the group's
generation makes sure that none joins in between.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
from typing import Final

from cinder import exception
from cinder import objects
from oslo_log import log as logging

from acme_cinder import errors
from acme_cinder import identity
from acme_cinder import owners
from acme_cinder import shares
import acme_client

LOG = logging.getLogger(__name__)

#: Each one fails only because the group was changed meanwhile, by a lost
#: attempt of this call, or by another service with the same message.
_ATTEMPTS: Final = 5
DELETED: Final = "deleted"


class GroupDeletion:
    """Deletes groups."""

    def __init__(self, volume_shares: shares.Shares) -> None:
        self._shares = volume_shares
        self._api = volume_shares.api

    def delete(
        self, group: objects.Group, volumes: Sequence[objects.Volume]
    ) -> dict[str, str]:
        """Delete a group and its volumes; gone already is fine.

        Volumes that the appliance cannot delete with the group, and those that
        are not in it, are deleted by themselves, as if they were in no group.

        :returns: by the id of each volume, its status: ``deleted``;
            ``available`` if it is in use; or ``error_deleting``.
        """
        own = {
            volume.id: identity.share_id(volume)
            for volume in volumes
            if owners.other_than(volume, self._api) is None
        }
        gone = self._delete_whole(group, set(own.values()))
        done = {
            volume.id: DELETED
            if own.get(volume.id) in gone
            else self._delete_one(volume)
            for volume in volumes
        }
        is_left = gone != set(own.values())
        if is_left and set(done.values()) <= {DELETED}:
            self._api.delete_group(group.id)
        return done

    def _delete_whole(
        self, group: objects.Group, whole: Collection[str]
    ) -> set[str]:
        """Delete the group with those of its shares that can be deleted.

        :param whole: the shares that may be deleted.
        :returns: the shares that were.
        """
        for _ in range(_ATTEMPTS):
            found = self._without_strangers(group, whole)
            if found is None:
                return set()
            ours = set(found.share_ids)
            try:
                self._api.delete_group(
                    group.id, delete_shares=True, if_match=found.generation
                )
            except acme_client.PreconditionFailed:
                continue
            except acme_client.SharesLeft as error:
                LOG.warning("Group %s: %s", group.id, error)
                return ours - {
                    each.pointer.rpartition("/")[2] for each in error.errors
                }
            return ours
        raise exception.VolumeBackendAPIException(
            data=f"group {group.id} is not deleted: it was changed on the "
            "appliance again and again; delete it again"
        )

    def _without_strangers(
        self, group: objects.Group, whole: Collection[str]
    ) -> acme_client.Group | None:
        """The group, after all other shares have left it; None: it does not
        exist."""
        try:
            found = self._api.get_group(group.id)
        except acme_client.NotFound as error:
            if error.code != "group.not_found":
                raise
            return None
        strangers = sorted(set(found.share_ids).difference(whole))
        if not strangers:
            return found
        LOG.warning(
            "Shares leave the group %(group)s of the appliance before it is "
            "deleted: Cinder does not have them in it: %(shares)s",
            {"group": group.id, "shares": ", ".join(strangers)},
        )
        return self._api.update_group(group.id, remove_share_ids=strangers)

    def _delete_one(self, volume: objects.Volume) -> str:
        try:
            with errors.operation("Deleted", volume=volume):
                self._shares.delete(volume)
        except exception.VolumeIsBusy as error:
            LOG.error("%s is not deleted: %s", volume.name, error)
            return "available"
        except exception.CinderException:
            LOG.exception("%s is not deleted", volume.name)
            return "error_deleting"
        return DELETED
