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

"""The driver's calls to copy images."""

from __future__ import annotations

from typing import Any

from cinder import objects
from cinder.volume import driver
from cinder.volume import volume_utils

from acme_cinder import errors
from acme_cinder import images
from acme_cinder import imagevolumes
from acme_cinder import parts
from acme_cinder import usermessages


class ImageCalls(driver.CloneableImageVD):
    """Part of the driver class."""

    _parts: parts.Parts

    @volume_utils.trace
    def clone_image(
        self,
        context: Any,
        volume: objects.Volume,
        image_location: Any,
        image_meta: dict[str, Any],
        image_service: Any,
    ) -> tuple[dict[str, Any] | None, bool]:
        """Clone an image that is a volume of this back end, and nothing else.

        Whatever else there is, Cinder's image cache clones.
        """
        failed = usermessages.COPY_IMAGE
        with usermessages.on_failure(*failed, volume, context):
            # Now, before Cinder downloads it.
            images.check_format(image_meta["id"], image_meta)
            update = imagevolumes.clone(
                self._parts.shares, context, volume, image_location, image_meta
            )
        return update, update is not None

    @volume_utils.trace
    def copy_image_to_volume(
        self,
        context: Any,
        volume: objects.Volume,
        image_service: Any,
        image_id: str,
        disable_sparse: bool = False,
    ) -> None:
        with (
            usermessages.on_failure(*usermessages.COPY_IMAGE, volume, context),
            errors.operation(f"Wrote image {image_id} to", volume=volume),
        ):
            self._parts.images.download(
                context,
                volume,
                image_service,
                image_id,
                disable_sparse=disable_sparse,
            )

    @volume_utils.trace
    def copy_image_to_encrypted_volume(
        self,
        context: Any,
        volume: objects.Volume,
        image_service: Any,
        image_id: str,
        disable_sparse: bool = False,
    ) -> None:
        with (
            usermessages.on_failure(*usermessages.COPY_IMAGE, volume, context),
            errors.operation(f"Encrypted image {image_id} to", volume=volume),
        ):
            self._parts.images.download_encrypted(
                context,
                volume,
                image_service,
                image_id,
                disable_sparse=disable_sparse,
            )

    @volume_utils.trace
    def copy_volume_to_image(
        self,
        context: Any,
        volume: objects.Volume,
        image_service: Any,
        image_meta: dict[str, Any],
    ) -> None:
        with errors.operation(
            f"Uploaded to image {image_meta['id']}", volume=volume
        ):
            self._parts.images.upload(
                context, volume, image_service, image_meta
            )
