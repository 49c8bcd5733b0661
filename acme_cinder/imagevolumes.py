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

"""Images that are volumes of this back end: new volumes are clones of them.

Such an image has a location ``cinder://VOLUME``: Glance keeps its images with
the Cinder store, or Cinder has uploaded it with
``image_upload_use_cinder_backend``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
import urllib.parse

from cinder import exception
from cinder import objects
from oslo_config import cfg
from oslo_log import log as logging
from oslo_utils import uuidutils

from acme_cinder import errors
from acme_cinder import shares

LOG = logging.getLogger(__name__)

_SCHEME = "cinder"
#: Set by Glance's store and by Cinder on the volumes of images.
_OWNER = "image_owner"
_SIGNATURE = "img_signature"
_USABLE = ("available", "in-use")


def clone(
    volume_shares: shares.Shares,
    context: Any,
    volume: objects.Volume,
    image_location: Any,
    image_meta: dict[str, Any],
) -> dict[str, Any] | None:
    """Make a volume as a clone of the volume that the image is.

    :param image_location: the direct URL, and the list of locations.
    :returns: the model update; None: Cinder is to copy the image.
    """
    for source in _sources(context, volume, image_location, image_meta):
        try:
            with errors.operation(
                f"Cloned image {image_meta['id']} to",
                volume=volume,
                source=source,
            ):
                return volume_shares.create(
                    volume, shares.Origin.of_volume(source)
                )
        except exception.CinderException as error:
            LOG.warning(
                "Image %(image)s is copied to %(volume)s, since its volume "
                "%(source)s cannot be cloned: %(error)s",
                {
                    "image": image_meta["id"],
                    "volume": volume.name,
                    "source": source.id,
                    "error": error,
                },
            )
    return None


def _sources(
    context: Any,
    volume: objects.Volume,
    image_location: Any,
    image_meta: dict[str, Any],
) -> Iterator[objects.Volume]:
    """The volumes that the image is, of those that a clone can be made of."""
    reason = _why_not_cloned(image_meta)
    for id_ in sorted(_volume_ids(image_location)):
        source = _find(context, id_)
        why_not = reason or _why_not_usable(source, volume, image_meta)
        if source is not None and why_not is None:
            yield source
        else:
            LOG.info(
                "Image %(image)s is not cloned from volume %(id)s: %(why)s",
                {"image": image_meta["id"], "id": id_, "why": why_not},
            )


def _volume_ids(image_location: Any) -> set[str]:
    direct_url, locations = image_location or (None, None)
    urls = [direct_url, *(each.get("url") for each in locations or ())]
    ids = set()
    for url in filter(None, urls):
        parts = urllib.parse.urlsplit(url)
        # cinder://STORE/VOLUME where Glance has several stores.
        id_ = parts.path.rpartition("/")[2] or parts.netloc
        if parts.scheme == _SCHEME and uuidutils.is_uuid_like(id_):
            ids.add(id_)
    return ids


def _find(context: Any, id_: str) -> objects.Volume | None:
    try:
        return objects.Volume.get_by_id(context.elevated(), id_)
    except exception.VolumeNotFound:
        return None


def _why_not_cloned(image_meta: dict[str, Any]) -> str | None:
    formats = image_meta.get("container_format"), image_meta.get("disk_format")
    if formats != ("bare", "raw"):
        return "it is not raw"
    signed = _SIGNATURE in (image_meta.get("properties") or {})
    if signed and cfg.CONF.verify_glance_signatures != "disabled":
        return "its signature is to be verified, which takes all of its data"
    return None


def _why_not_usable(
    source: objects.Volume | None,
    volume: objects.Volume,
    image_meta: dict[str, Any],
) -> str | None:
    if source is None:
        return "this Cinder has no such volume"
    if not _is_of_owner(source, image_meta):
        # Whoever may set the locations of an image could read any volume.
        return "it does not belong to the image's owner"
    if not _is_beside(source, volume):
        return f"it is in {source.host}, and not in {volume.host}"
    if source.encryption_key_id:
        return "it is encrypted"
    if source.status not in _USABLE:
        return f"it is {source.status}"
    if source.size > volume.size:
        return f"its size is {source.size} GiB"
    return None


def _is_of_owner(source: objects.Volume, image_meta: dict[str, Any]) -> bool:
    owners = {source.project_id, (source.metadata or {}).get(_OWNER)}
    owner = image_meta.get("owner")
    return bool(owner) and owner in owners


def _is_beside(source: objects.Volume, volume: objects.Volume) -> bool:
    """Whether both are in one pool, of this service or of its cluster."""
    if volume.cluster_name:
        return bool(source.cluster_name == volume.cluster_name)
    return bool(source.host == volume.host)
