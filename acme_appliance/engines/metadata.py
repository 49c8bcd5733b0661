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

"""Metadata in a pool, beside its shares and snapshots.

The service stores here what its database has about each, and the identity of
the pool. So a lost database can be rebuilt from the pool alone. Clients of
shares have no access to it.

:class:`FolderStore` is for pools that are a directory::

    POOL/metadata/pool           the pool's identity
    POOL/metadata/shares/ID      a share
    POOL/metadata/snapshots/ID   a snapshot
    POOL/metadata/groups/ID      a group
    POOL/metadata/group_snapshots/ID   a group snapshot

Each is a small JSON object in an extended attribute of an empty file. One
commit of the file system puts all names and attributes on disk, but the
content of a file needs an fsync each. An object that is too large for an
attribute is the file's content, with that fsync.
"""

import abc
from collections.abc import Iterator
import contextlib
import errno
import json
import logging
import os
from typing import Any
from typing import Final

from acme_appliance import references
from acme_appliance.engines import base

LOG = logging.getLogger(__name__)

#: A JSON object.
Metadata = dict[str, Any]

_FOLDERS: Final = {
    base.Kind.SHARE: "shares",
    base.Kind.SNAPSHOT: "snapshots",
    references.GroupKind.GROUP: "groups",
    references.GroupKind.GROUP_SNAPSHOT: "group_snapshots",
}
_IDENTITY: Final = "pool"
_ATTRIBUTE: Final = "user.acme.metadata"
#: On btrfs an attribute must fit into a node. Its size is 16 KiB unless
#: mkfs.btrfs(8) had a smaller --nodesize.
_MAX_ATTRIBUTE_BYTES: Final = 12_288
_TOO_LARGE: Final = (errno.ENOSPC, errno.E2BIG)


class MetadataStore(abc.ABC):
    """The metadata of one pool. Methods are thread-safe for different
    shares, idempotent, and raise :class:`base.EngineError`. Changes are on
    disk after :meth:`base.Engine.sync`.
    """

    @abc.abstractmethod
    def prepare(self) -> None:
        """Prepare a new pool for metadata."""

    @abc.abstractmethod
    def write(self, reference: references.Subject, metadata: Metadata) -> None:
        """Store the metadata of an object, atomically."""

    @abc.abstractmethod
    def read(self, reference: references.Subject) -> Metadata | None:
        """The stored metadata; None: it is missing or unreadable."""

    @abc.abstractmethod
    def delete(self, reference: references.Subject) -> None:
        """Delete the metadata of an object, if it exists."""

    @abc.abstractmethod
    def ids(self, kind: references.SubjectKind) -> set[str]:
        """The ids of all objects of a kind that have metadata."""

    @abc.abstractmethod
    def write_identity(self, identity: Metadata) -> None:
        """Store the pool's identity, atomically."""

    @abc.abstractmethod
    def read_identity(self) -> Metadata | None:
        """The pool's identity; None: it has none yet."""


class FolderStore(MetadataStore):
    """:param root: the pool's directory."""

    def __init__(self, root: str) -> None:
        self.root = os.path.join(root, "metadata")

    def prepare(self) -> None:
        with _translated(self.root):
            for folder in ("", *_FOLDERS.values()):
                path = os.path.join(self.root, folder)
                self._ensure(path)
                os.chmod(path, 0o700)

    def _ensure(self, folder: str) -> None:
        with _translated(folder), contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)

    def write(self, reference: references.Subject, metadata: Metadata) -> None:
        path = self._path(reference)
        if isinstance(reference, references.GroupReference):
            # Pools of earlier releases have no folders for groups.
            self._ensure(os.path.dirname(path))
        self._write(path, metadata)

    def read(self, reference: references.Subject) -> Metadata | None:
        return self._read(self._path(reference))

    def delete(self, reference: references.Subject) -> None:
        path = self._path(reference)
        with _translated(path), contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def ids(self, kind: references.SubjectKind) -> set[str]:
        path = os.path.join(self.root, _FOLDERS[kind])
        with _translated(path):
            try:
                return base.well_formed_ids(os.listdir(path))
            except FileNotFoundError:
                return set()

    def write_identity(self, identity: Metadata) -> None:
        self._write(os.path.join(self.root, _IDENTITY), identity)

    def read_identity(self) -> Metadata | None:
        return self._read(os.path.join(self.root, _IDENTITY))

    def _path(self, reference: references.Subject) -> str:
        name = base.check_id(reference.id)
        return os.path.join(self.root, _FOLDERS[reference.kind], name)

    def _write(self, path: str, metadata: Metadata) -> None:
        data = json.dumps(metadata, ensure_ascii=False).encode()
        temporary = f"{path}.new"
        with _translated(path):
            fd = _create(temporary)
            try:
                if not _set_attribute(fd, data):
                    _write_content(fd, data)
            finally:
                os.close(fd)
            os.rename(temporary, path)

    def _read(self, path: str) -> Metadata | None:
        with _translated(path):
            try:
                data = _read_data(path)
            except FileNotFoundError:
                return None
        return _parse(path, data)


def _create(path: str) -> int:
    """Create an empty file without attributes, open for writing."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def _set_attribute(fd: int, data: bytes) -> bool:
    """False: it is too large."""
    if len(data) > _MAX_ATTRIBUTE_BYTES:
        return False
    try:
        os.setxattr(fd, _ATTRIBUTE, data)
    except OSError as error:
        if error.errno not in _TOO_LARGE:
            raise
        return False
    return True


def _write_content(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
    os.fsync(fd)


def _read_data(path: str) -> bytes:
    try:
        return os.getxattr(path, _ATTRIBUTE, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
    with open(path, "rb") as file:
        return file.read()


def _parse(path: str, data: bytes) -> Metadata | None:
    try:
        metadata = json.loads(data)
    except ValueError as error:
        LOG.warning("The metadata in %s cannot be read: %s", path, error)
        return None
    return metadata if isinstance(metadata, dict) else None


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """Convert operating system errors to engine errors."""
    try:
        yield
    except OSError as error:
        text = f"{what}: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise base.NoSpace(text) from error
        if error.errno in (errno.EIO, errno.EROFS, errno.ESTALE):
            raise base.Unavailable(text) from error
        raise base.EngineError(text) from error
