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

"""Temporary copies of attached volumes, for upload to an image.

A copy is a separate share, which is not in Cinder. Its labels have its purpose
and its creator.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import datetime
import uuid

from cinder import objects
from oslo_log import log as logging

from acme_cinder import holders
from acme_cinder import identity
from acme_cinder import mount
from acme_cinder import shares
import acme_client

LOG = logging.getLogger(__name__)

_COPY_LABEL = "cinder.copy_of"
_IMAGE_LABEL = "cinder.image_id"
#: The host and the mount point base: a service with both of them can check
#: the locks that show whether a copy is in use.
_MAKER_LABEL = "cinder.copy_made_by"
_MAKER_LENGTH = 255
#: No copy takes longer; older ones are reported as leftovers.
_OLD = datetime.timedelta(days=1)


class Copies:
    """Creates copies, and removes those whose creator has died."""

    def __init__(
        self, volume_shares: shares.Shares, mounts: mount.Mounts
    ) -> None:
        self._shares = volume_shares
        self._mounts = mounts
        self._reported: set[str] = set()

    @contextlib.contextmanager
    def made(self, volume: objects.Volume, image_id: str) -> Iterator[str]:
        """Create and mount a copy of a volume's current content; yield the
        path of its file.

        The copy is a temporary share, which is not in Cinder. If the service
        dies, see :meth:`remove_if_orphaned`.
        """
        copy = _copy_of(volume, image_id)
        origin = shares.Origin.of_volume(volume)
        labels = {
            _COPY_LABEL: volume.id,
            _IMAGE_LABEL: image_id,
            _MAKER_LABEL: self._maker(),
        }
        with self._mounts.at_work(_work_on(copy.id)):
            copy.update(self._shares.create(copy, origin, labels))
            try:
                with self._shares.mounted(copy) as path:
                    yield path
            finally:
                self._shares.discard(copy)

    def _maker(self) -> str:
        where = f"{holders.this_host()}:{self._mounts.base}"
        return where[:_MAKER_LENGTH]

    def is_of_this_host(self, share: acme_client.Share) -> bool:
        """Whether only processes of this host can be using a copy."""
        return share.labels.get(_MAKER_LABEL) == self._maker()

    def is_idle(self, share: acme_client.Share) -> bool:
        """Whether no process of this host is using a copy."""
        with self._mounts.idle(_work_on(share.id)) as is_idle:
            return is_idle

    def remove_if_orphaned(self, share: acme_client.Share) -> bool:
        """Delete a copy for an image whose creator has died; return whether
        that was done.

        A copy of this host is in use only while a process here holds its lock,
        which ends with the process. For copies of other hosts this is unknown:
        they stay, and old ones are reported once.
        """
        if not self.is_of_this_host(share):
            self._report_if_old(share)
            return False
        with self._mounts.idle(_work_on(share.id)) as is_idle:
            if not is_idle or not self._mounts.reap(
                share.id, lambda: self._shares.revoke_own(share.id)
            ):
                return False
            was_there = self._shares.api.delete_share(share.id)
        if was_there:
            LOG.warning(
                "Deleted share %(share)s, a copy of volume %(volume)s for "
                "image %(image)s: the service died while it made the image",
                _about_copy(share),
            )
        return True

    def _report_if_old(self, share: acme_client.Share) -> None:
        age = datetime.datetime.now(datetime.UTC) - share.created_at
        if age < _OLD or share.id in self._reported:
            return
        self._reported.add(share.id)
        LOG.warning(
            "Share %(share)s is a copy of volume %(volume)s for image "
            "%(image)s, made by %(maker)s more than a day ago. Delete it "
            "where nothing there makes that image any more",
            _about_copy(share),
        )


def is_copy(share: acme_client.Share) -> bool:
    """Whether it is a copy for an image, not a volume."""
    return _COPY_LABEL in share.labels


def maker_of(share: acme_client.Share) -> str:
    """The host that made a copy, and more; for people."""
    return share.labels.get(_MAKER_LABEL, "an earlier release")


def _about_copy(share: acme_client.Share) -> dict[str, str]:
    return {
        "share": share.id,
        "volume": share.labels[_COPY_LABEL],
        "image": share.labels.get(_IMAGE_LABEL, "unknown"),
        "maker": maker_of(share),
    }


def _work_on(copy_id: str) -> str:
    """The lock that is held as long as the copy exists."""
    return f"copy-{copy_id}"


def _copy_of(volume: objects.Volume, image_id: str) -> objects.Volume:
    """A volume that is not in Cinder, with a recognizable id."""
    return objects.Volume(
        context=volume.obj_context,
        id=str(uuid.uuid5(uuid.UUID(identity.share_id(volume)), image_id)),
        _name_id=None,
        size=volume.size,
        host=volume.host,
    )
