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

"""Copy images to volumes and back, with LUKS, through the driver's own mounts.

Cinder's base class is not suitable: it attaches the volume with os-brick,
which does not unmount it, checks the file as root, and uses a LUKS encryptor
that replaces the volume's file by a symbolic link.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
import contextlib
import os
import tempfile
from typing import Any

from castellan import key_manager
from cinder import exception
from cinder import objects
from cinder.image import image_utils
from cinder.volume import volume_utils
from oslo_config import cfg

from acme_cinder import copies
from acme_cinder import errors
from acme_cinder import records
from acme_cinder import shares
from acme_cinder import specs
from acme_cinder import volumefile

#: Size of the data of the LUKS image whose header is used; any is possible.
_DUMMY_BYTES = 1024 * 1024
#: Minimum size of a LUKS 1 header by qemu-img.
_LEAST_HEADER = 512 * 1024


class Images:
    """Copies between Glance and volume files.

    :param execute: the driver's, for qemu-img.
    :param as_root: access volume files as root.
    :param blocksize: as ``volume_dd_blocksize``.
    """

    def __init__(
        self,
        volume_shares: shares.Shares,
        image_copies: copies.Copies,
        *,
        execute: Any,
        as_root: bool,
        blocksize: str,
    ) -> None:
        self._shares = volume_shares
        self._copies = image_copies
        self._execute = execute
        self._as_root = as_root
        self._blocksize = blocksize

    def download(
        self,
        context: Any,
        volume: objects.Volume,
        image_service: Any,
        image_id: str,
        *,
        disable_sparse: bool,
    ) -> None:
        """Write an unmodified image to a volume."""
        with self._shares.mounted(volume) as path:
            self._fetch(
                context, volume, image_service, image_id, path, disable_sparse
            )
            # qemu-img has changed the file's size to the image's.
            self._finish(volume, image_id, path)

    def download_encrypted(
        self,
        context: Any,
        volume: objects.Volume,
        image_service: Any,
        image_id: str,
        *,
        disable_sparse: bool,
    ) -> None:
        """Write an image to a LUKS volume.

        :raises ImageTooBig: it does not fit with the header.
        """
        encryption = volume_utils.check_encryption_provider(volume, context)
        folder = volume_utils.image_conversion_dir()
        with tempfile.NamedTemporaryFile(
            prefix="acme_image_", dir=folder
        ) as raw:
            self._fetch(
                context,
                volume,
                image_service,
                image_id,
                raw.name,
                disable_sparse,
            )
            # qemu-img refuses other images that do not fit.
            _check_fits(
                volume, image_id, os.path.getsize(raw.name) + _LEAST_HEADER
            )
            with (
                _passphrase_file(context, encryption) as passphrase_path,
                self._shares.mounted(volume) as path,
            ):
                self._shares.files.get_size(path)
                self._encrypt(raw.name, path, passphrase_path, disable_sparse)

    def _encrypt(
        self,
        raw_path: str,
        path: str,
        passphrase_path: str,
        disable_sparse: bool,
    ) -> None:
        """Write to the existing LUKS volume, without changing its header, its
        size and its allocated space."""
        self._execute(
            "qemu-img",
            "convert",
            "-n",
            *(("-S", "0") if disable_sparse else ()),
            "-f",
            "raw",
            "--object",
            f"secret,id=luks_sec,format=raw,file={passphrase_path}",
            "--target-image-opts",
            raw_path,
            f"driver=luks,key-secret=luks_sec,file.filename={path}",
            run_as_root=self._as_root,
        )

    def upload(
        self,
        context: Any,
        volume: objects.Volume,
        image_service: Any,
        image_meta: dict[str, Any],
    ) -> None:
        """Write a volume to an image.

        Uses a temporary copy of an attached volume: the guest's QEMU locks the
        file and keeps writing.
        """
        if records.read(volume).records:
            source = self._copies.made(volume, str(image_meta["id"]))
        else:
            source = self._shares.mounted(volume)
        with source as path:
            # Before Cinder opens it without a time limit.
            self._shares.grow_if_short(volume, path)
            volume_utils.upload_volume(
                context,
                image_service,
                image_meta,
                path,
                volume,
                run_as_root=self._as_root,
            )

    def format_new(
        self, volume: objects.Volume, update: dict[str, Any]
    ) -> None:
        """Like :meth:`format_luks`; deletes the share after errors.

        :param update: the model update of its creation.
        """
        try:
            volume.update(update)
            self.format_luks(volume)
        except Exception:
            self._shares.discard(volume)
            raise

    def format_luks(self, volume: objects.Volume) -> None:
        """Write a LUKS header to a new volume.

        The guest can use the volume's size less the header, as on any block
        device.

        :raises VolumeDriverException: for a provider other than LUKS 1.
        """
        context = volume.obj_context
        encryption = volume_utils.check_encryption_provider(volume, context)
        with (
            tempfile.TemporaryDirectory(
                prefix="acme_luks_", dir=volume_utils.image_conversion_dir()
            ) as folder,
            _passphrase_file(context, encryption) as passphrase_path,
        ):
            header_path = os.path.join(folder, "header")
            self._make_luks(header_path, passphrase_path, encryption)
            with open(header_path, "rb") as header:
                size = volumefile.luks_offset(header.read(4096))
            if size is None:
                raise errors.FileError("qemu-img has made no LUKS 1 header")
            with self._shares.mounted(volume) as path:
                self._shares.files.get_size(path)
                self._shares.files.put_header(header_path, path, size)

    def _make_luks(
        self, path: str, passphrase_path: str, encryption: dict[str, Any]
    ) -> None:
        cipher = _cipher(encryption)
        self._execute(
            "qemu-img",
            "create",
            "-f",
            "luks",
            "--object",
            f"secret,id=luks_sec,format=raw,file={passphrase_path}",
            "-o",
            "key-secret=luks_sec,"
            f"cipher-alg={cipher['cipher_alg']},"
            f"cipher-mode={cipher['cipher_mode']},"
            f"ivgen-alg={cipher['ivgen_alg']}",
            path,
            str(_DUMMY_BYTES),
            # On a busy machine it may fail to measure how long deriving a
            # key takes.
            attempts=5,
        )

    def _fetch(
        self,
        context: Any,
        volume: objects.Volume,
        image_service: Any,
        image_id: str,
        path: str,
        disable_sparse: bool,
    ) -> None:
        image_utils.fetch_to_raw(
            context,
            image_service,
            image_id,
            path,
            self._blocksize,
            size=volume.size,
            run_as_root=self._as_root,
            disable_sparse=disable_sparse,
        )

    def _finish(
        self, volume: objects.Volume, image_id: str, path: str
    ) -> None:
        _check_fits(volume, image_id, self._shares.files.get_size(path))
        size_bytes = shares.bytes_of(volume.size)
        self._shares.files.ensure_size(
            path,
            size_bytes,
            full=self._shares.provisioning.is_full(specs.of_volume(volume)),
        )


def _check_fits(
    volume: objects.Volume, image_id: str, needed_bytes: int
) -> None:
    size_bytes = shares.bytes_of(volume.size)
    if needed_bytes > size_bytes:
        raise exception.ImageTooBig(
            image_id=image_id,
            reason=f"it takes {needed_bytes} bytes, the volume has "
            f"{size_bytes}",
        )


def _cipher(encryption: dict[str, Any]) -> dict[str, str]:
    cipher: dict[str, str] = image_utils.decode_cipher(
        encryption["cipher"], encryption["key_size"]
    )
    return cipher


@contextlib.contextmanager
def _passphrase_file(
    context: Any, encryption: dict[str, Any]
) -> Iterator[str]:
    """The volume's passphrase in a file that only the service can read."""
    key: Any = key_manager.API(cfg.CONF).get(
        context, encryption["encryption_key_id"]
    )
    secret: bytes = key.get_encoded()
    folder = volume_utils.image_conversion_dir()
    with tempfile.NamedTemporaryFile(prefix="luks_", dir=folder) as file:
        file.write(binascii.hexlify(secret))
        file.flush()
        yield file.name
