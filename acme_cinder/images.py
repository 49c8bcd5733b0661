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
import json
import os
import tempfile
from typing import Any

from castellan import key_manager
from cinder import exception
from cinder import objects
from cinder.image import accelerator
from cinder.image import image_utils
from cinder.volume import volume_utils
from oslo_config import cfg
from oslo_utils import imageutils

from acme_cinder import copies
from acme_cinder import errors
from acme_cinder import records
from acme_cinder import shares
from acme_cinder import specs
from acme_cinder import volumefile

_RAW = "raw"
#: Those that Cinder recognizes reliably, and has qemu-img read as nothing
#: else.
_DISK_FORMATS = ("raw", "qcow2", "vmdk", "vhdx", "vdi", "iso")
#: The container format of an image that is compressed as a whole.
_PACKED = "compressed"
_MAY_BE_PACKED = "allow_compression_on_image_upload"
#: An image file has less than this part of its disk's size as metadata.
_METADATA_SHARE = 16
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
            with self._converted(path, image_meta) as (made, made_meta):
                volume_utils.upload_volume(
                    context,
                    image_service,
                    made_meta,
                    made,
                    volume,
                    volume_format=image_meta["disk_format"],
                    run_as_root=self._as_root,
                )

    @contextlib.contextmanager
    def _converted(
        self, path: str, image_meta: dict[str, Any]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Have a volume file as the image is to be.

        Cinder's own upload has qemu-img find out what is in the file: a
        guest can write there what makes it read other files of this host.

        :returns: a path, and ``image_meta`` for what is to be done yet:
            nothing but to send it.
        """
        disk_format = image_meta["disk_format"]
        image_utils.check_image_conversion_disable(
            disk_format, _RAW, image_meta["id"], upload=True
        )
        is_packed = _is_packed(image_meta)
        if disk_format == _RAW and not is_packed:
            yield path, image_meta
            return
        with image_utils.temporary_file(prefix="acme_upload_") as made:
            image_utils.convert_image(
                path,
                made,
                image_utils.fixup_disk_format(disk_format),
                src_format=_RAW,
                run_as_root=self._as_root,
                compress=True,
                image_id=image_meta["id"],
                data=_raw_info(path, self._shares.files.get_size(path)),
            )
            if is_packed:
                accelerator.ImageAccel(made, made).compress_img(
                    run_as_root=self._as_root
                )
            yield made, {**image_meta, "container_format": "bare"}

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
        """Write an image into a file, after all that can be said against it.

        Cinder checks what the image is, and whether it fits.
        """
        image_meta = image_service.show(context, image_id)
        check_format(image_id, image_meta)
        with contextlib.ExitStack() as stack:
            if _is_packed(image_meta) and cfg.CONF[_MAY_BE_PACKED]:
                packed_path = stack.enter_context(
                    _fetched(context, image_service, image_id)
                )
                self._check_unpacked_size(volume, image_id, packed_path)
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

    def _check_unpacked_size(
        self, volume: objects.Volume, image_id: str, packed_path: str
    ) -> None:
        """Refuse a gzip file that would fill this host's disk.

        It is unpacked once without being kept: what its own header says of
        its size is whatever its author likes.
        """
        size_bytes = shares.bytes_of(volume.size)
        limit = size_bytes + size_bytes // _METADATA_SHARE
        out, _ = self._execute(
            *("sh", "-c", 'gzip -dc "$1" | head -c "$2" | wc -c', "sh"),
            *(packed_path, str(limit + 1)),
        )
        if int(out) > limit:
            raise exception.ImageUnacceptable(
                image_id=image_id,
                reason=f"unpacked, it is larger than the volume's "
                f"{volume.size} GiB",
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


def check_format(image_id: str, image_meta: dict[str, Any]) -> None:
    """Refuse what Cinder cannot read, or has something else find out about.

    Of an ``ami`` qemu-img guesses the format; that may be one that names
    files of this host. Cinder calls a ``vhd`` by a name that qemu-img does
    not know, and unpacks one in an ``ovf`` without any limit.

    :raises ImageUnacceptable: saying what is supported.
    """
    disk_format = image_meta.get("disk_format")
    if disk_format not in _DISK_FORMATS:
        raise exception.ImageUnacceptable(
            image_id=image_id,
            reason=f"the disk format {disk_format} is not supported; these "
            f"are: {', '.join(_DISK_FORMATS)}",
        )


def _is_packed(image_meta: dict[str, Any]) -> bool:
    return image_meta.get("container_format") == _PACKED


@contextlib.contextmanager
def _fetched(context: Any, image_service: Any, image_id: str) -> Iterator[str]:
    """Have an image's file here, as Cinder has fetched it or is told to."""
    here = image_utils.TemporaryImages.for_image_service(image_service)
    path = here.get(context, image_id)
    if path:
        yield path
        return
    with image_utils.TemporaryImages.fetch(
        image_service, context, image_id
    ) as path:
        yield path


def _raw_info(path: str, size_bytes: int) -> imageutils.QemuImgInfo:
    """What ``qemu-img info`` says where it is told that a file is raw."""
    found = {"filename": path, "format": _RAW, "virtual-size": size_bytes}
    return imageutils.QemuImgInfo(json.dumps(found), format="json")


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
    """The volume's passphrase in a file without a name.

    It is in memory, and ends with this process, however that dies. qemu-img,
    as the service's user or as root, opens it by the service's descriptor.
    """
    key: Any = key_manager.API(cfg.CONF).get(
        context, encryption["encryption_key_id"]
    )
    with open(os.memfd_create("acme_luks"), "wb", buffering=0) as file:
        file.write(binascii.hexlify(key.get_encoded()))
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"
