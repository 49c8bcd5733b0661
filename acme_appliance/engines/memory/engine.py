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

"""Shares in memory: for unit tests, and to try the API without a disk.

It models a disk: directories of files with sizes, owners, modes and written
blocks, shared copy-on-write between clones.
:meth:`MemoryEngine.lose_unsynced` is a power cut. Tests act as an NFS client
through :meth:`MemoryEngine.entries`.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import copy
import dataclasses
import json
import threading

from acme_appliance import references
from acme_appliance.engines import base
from acme_appliance.engines import metadata

BLOCK_BYTES = 4096


@dataclasses.dataclass
class Entry:
    """One directory entry; a regular file by default."""

    type: str = "file"
    size_bytes: int = 0
    #: Allocated, not necessarily written.
    reserved_bytes: int = 0
    owner: base.Owner = dataclasses.field(
        default_factory=lambda: base.Owner(0, 0)
    )
    mode: int = 0o644
    blocks: dict[int, bytes] = dataclasses.field(default_factory=dict)

    @property
    def used_bytes(self) -> int:
        return max(self.reserved_bytes, len(self.blocks) * BLOCK_BYTES)

    def write(self, offset: int, data: bytes) -> None:
        """Like pwrite, for whole blocks."""
        if offset % BLOCK_BYTES or len(data) % BLOCK_BYTES:
            raise ValueError("the memory engine writes whole blocks")
        for start in range(0, len(data), BLOCK_BYTES):
            block = data[start : start + BLOCK_BYTES]
            self.blocks[(offset + start) // BLOCK_BYTES] = block
        self.size_bytes = max(self.size_bytes, offset + len(data))

    def read(self, offset: int, size: int) -> bytes:
        """Like pread, for whole blocks."""
        first, last = offset // BLOCK_BYTES, (offset + size) // BLOCK_BYTES
        zeros = bytes(BLOCK_BYTES)
        return b"".join(self.blocks.get(n, zeros) for n in range(first, last))


@dataclasses.dataclass
class Directory:
    """A share's or snapshot's root directory."""

    owner: base.Owner
    mode: int
    limit_bytes: int | None = None
    qos: base.Qos = base.Qos()
    entries: dict[str, Entry] = dataclasses.field(default_factory=dict)


State = dict[base.Kind, dict[str, Directory]]


class MemoryStore(metadata.MetadataStore):
    """Metadata as JSON in memory, with a copy as of the last sync."""

    def __init__(
        self, changing: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        self._changing = changing
        #: None: the pool's identity.
        self._texts: dict[references.Subject | None, str] = {}
        self._durable: dict[references.Subject | None, str] = {}

    def sync(self) -> None:
        self._durable = dict(self._texts)

    def lose_unsynced(self) -> None:
        self._texts = dict(self._durable)

    def prepare(self) -> None:
        return

    def write(
        self, reference: references.Subject, metadata: metadata.Metadata
    ) -> None:
        base.check_id(reference.id)
        self._write(reference, metadata)

    def read(self, reference: references.Subject) -> metadata.Metadata | None:
        base.check_id(reference.id)
        return self._read(reference)

    def delete(self, reference: references.Subject) -> None:
        base.check_id(reference.id)
        with self._changing():
            self._texts.pop(reference, None)

    def ids(self, kind: references.SubjectKind) -> set[str]:
        with self._changing():
            return {
                reference.id
                for reference in self._texts
                if reference is not None and reference.kind == kind
            }

    def write_identity(self, identity: metadata.Metadata) -> None:
        self._write(None, identity)

    def read_identity(self) -> metadata.Metadata | None:
        return self._read(None)

    def _write(
        self, key: references.Subject | None, values: metadata.Metadata
    ) -> None:
        with self._changing():
            self._texts[key] = json.dumps(values)

    def _read(
        self, key: references.Subject | None
    ) -> metadata.Metadata | None:
        with self._changing():
            text = self._texts.get(key)
        return None if text is None else dict(json.loads(text))


class MemoryEngine(base.Engine):
    """See the module.

    :param total_bytes: the pool's size.
    :param hard_limit: store limits, without enforcing them.
    :param durable: keep a copy as of the last sync, for tests that pass the
        engine to the next service.
    """

    name = "memory"
    metadata: MemoryStore

    def __init__(
        self,
        total_bytes: int = 1 << 40,
        root: str = "/memory",
        *,
        hard_limit: bool = False,
        durable: bool = True,
    ) -> None:
        self.capabilities = base.Capabilities(
            hard_limit=hard_limit,
            durable=durable,
            copy_file=True,
            qos_bandwidth=True,
            qos_iops=True,
        )
        self.metadata = MemoryStore(self._changing)
        self.total_bytes = total_bytes
        self.root = root
        #: The result of ``check``; tests set it to make the pool fail.
        self.reasons: list[str] = []
        #: Number of syncs.
        self.sync_count = 0
        self._lock = threading.RLock()
        self._state: State = {kind: {} for kind in base.Kind}
        self._durable: State = copy.deepcopy(self._state)
        #: Objects that may differ between the two.
        self._touched: set[base.Reference] = set()

    # -- for tests: the client, and the power cut

    def entries(self, reference: base.Reference) -> dict[str, Entry]:
        """The entries of a directory; tests change them as clients do."""
        return self._get(reference).entries

    def root_of(self, reference: base.Reference) -> Directory:
        return self._get(reference)

    def lose_unsynced(self) -> None:
        """Revert to the state of the last :meth:`sync`."""
        with self._lock:
            self._copy_touched(self._durable, self._state)
            self.metadata.lose_unsynced()

    # -- the interface

    def check(self) -> list[str]:
        return list(self.reasons)

    def warnings(self) -> list[str]:
        return []

    def usage(self) -> base.Usage:
        with self._changing():
            used = sum(
                entry.used_bytes
                for kind in self._state.values()
                for directory in kind.values()
                for entry in directory.entries.values()
            )
        free = max(0, self.total_bytes - used)
        return base.Usage(self.total_bytes, used, free)

    def ids(self, kind: base.Kind) -> set[str]:
        with self._changing():
            return set(self._state[kind])

    def exists(self, reference: base.Reference) -> bool:
        base.check_id(reference.id)
        with self._changing():
            return reference.id in self._state[reference.kind]

    def directory(self, reference: base.Reference) -> str:
        id_ = base.check_id(reference.id)
        return f"{self.root}/{reference.kind}s/{id_}"

    def create_share(self, share_id: str, owner: base.Owner | None) -> None:
        base.check_id(share_id)
        with self._changing():
            shares = self._state[base.Kind.SHARE]
            shares.setdefault(share_id, Directory(base.ROOT, 0))
            self.set_directory(share_id, owner)

    def set_directory(self, share_id: str, owner: base.Owner | None) -> None:
        with self._changing():
            directory = self._share(share_id)
            directory.owner, directory.mode = base.directory_rights(owner)

    def set_limit(self, share_id: str, size_bytes: int) -> None:
        with self._changing():
            directory = self._share(share_id)
            if self.capabilities.hard_limit:
                taken = sum(
                    entry.used_bytes for entry in directory.entries.values()
                )
                directory.limit_bytes = base.limit_for(taken, size_bytes)

    def has_limit(self, share_id: str) -> bool:
        with self._changing():
            directory = self._share(share_id)
            return not (
                self.capabilities.hard_limit and directory.limit_bytes is None
            )

    def set_qos(self, share_id: str, qos: base.Qos) -> None:
        with self._changing():
            self._share(share_id).qos = qos

    def clone_share(self, source: base.Reference, share_id: str) -> None:
        base.check_id(share_id)
        with self._changing():
            if share_id not in self._state[base.Kind.SHARE]:
                content = copy.deepcopy(self._get(source))
                content.limit_bytes = None
                content.qos = base.Qos()
                self._put(base.Reference(base.Kind.SHARE, share_id), content)

    def ensure_file(self, share_id: str, file: base.VolumeFile) -> None:
        base.check_file_name(file.name)
        with self._changing():
            directory = self._share(share_id)
            entry = directory.entries.get(file.name)
            if entry is None:
                entry = directory.entries[file.name] = Entry()
            self._shape(_regular(entry, file.name), file)

    def adopt(
        self, share_id: str, old_name: str, file: base.VolumeFile
    ) -> None:
        with self._changing():
            self.rename_file(share_id, old_name, file.name)
            directory = self._share(share_id)
            self._shape(_regular(directory.entries[file.name], ""), file)
            self.set_directory(share_id, None)

    def rename_file(self, share_id: str, old: str, new: str) -> None:
        base.check_file_name(new)
        with self._changing():
            entries = self._share(share_id).entries
            if old == new or (old not in entries and new in entries):
                _regular(entries.get(new), new)
                return
            _regular(entries.get(old), old)
            if new in entries:
                raise base.FileChanged(f"{new!r} already exists")
            entries[new] = entries.pop(old)

    def grow_file(
        self, share_id: str, name: str, size_bytes: int, allocation: str
    ) -> None:
        with self._changing():
            entry = _regular(self._share(share_id).entries.get(name), name)
            if entry.size_bytes < size_bytes:
                self._grow(entry, size_bytes, allocation)

    def drop_excess(self, share_id: str, name: str, size_bytes: int) -> None:
        with self._changing():
            entry = self._share(share_id).entries.get(name)
            if entry is not None:
                if all(n * BLOCK_BYTES < size_bytes for n in entry.blocks):
                    entry.size_bytes = min(entry.size_bytes, size_bytes)
                entry.reserved_bytes = min(
                    entry.reserved_bytes, entry.size_bytes
                )

    def revert_file(
        self,
        share_id: str,
        file: base.VolumeFile,
        snapshot_id: str,
        snapshot_file: str,
    ) -> None:
        base.check_file_name(snapshot_file)
        with self._changing():
            target = _regular(
                self._share(share_id).entries.get(file.name), file.name
            )
            kept = self._get(base.Reference(base.Kind.SNAPSHOT, snapshot_id))
            source = _regular(kept.entries.get(snapshot_file), snapshot_file)
            target.blocks = dict(source.blocks)
            target.size_bytes = source.size_bytes
            target.reserved_bytes = source.reserved_bytes
            self._shape(target, file)

    @contextlib.contextmanager
    def open_file(
        self, share_id: str, name: str, *, write: bool = False
    ) -> Iterator["OpenEntry"]:
        base.check_file_name(name)
        with self._changing():
            entry = _regular(self._share(share_id).entries.get(name), name)
        yield OpenEntry(self, share_id, entry)

    def delete_share(self, share_id: str) -> None:
        base.check_id(share_id)
        with self._changing():
            self._put(base.Reference(base.Kind.SHARE, share_id), None)

    def create_snapshot(self, share_id: str, snapshot_id: str) -> None:
        base.check_id(snapshot_id)
        with self._changing():
            if snapshot_id not in self._state[base.Kind.SNAPSHOT]:
                content = copy.deepcopy(self._share(share_id))
                kept = base.Reference(base.Kind.SNAPSHOT, snapshot_id)
                self._put(kept, content)

    def stage_at_once(
        self, members: base.Members, seconds: float
    ) -> base.Staged:
        staged = base.NamedSnapshots(self, members)
        with self._changing():
            # Every change takes this lock.
            staged.create()
        return staged

    def delete_snapshot(self, snapshot_id: str) -> None:
        base.check_id(snapshot_id)
        with self._changing():
            self._put(base.Reference(base.Kind.SNAPSHOT, snapshot_id), None)

    def used_bytes(self, share_id: str, name: str) -> int | None:
        with self._lock:
            if not self.file_intact(share_id, name):
                return None
            return self._share(share_id).entries[name].used_bytes

    def file_size(self, share_id: str, name: str) -> int | None:
        with self._lock:
            directory = self._state[base.Kind.SHARE].get(share_id)
            entry = directory.entries.get(name) if directory else None
            if entry is None or entry.type != "file":
                return None
            return entry.size_bytes

    def find_file(self, share_id: str) -> base.VolumeFile | None:
        with self._changing():
            entries = list(self._share(share_id).entries.items())
        if len(entries) != 1 or entries[0][1].type != "file":
            return None
        name, entry = entries[0]
        return base.VolumeFile(
            name=name,
            size_bytes=entry.size_bytes,
            allocation=base.ALLOCATION_SPARSE,
            owner=entry.owner,
            mode=entry.mode,
        )

    def sync(self) -> None:
        with self._changing():
            self.sync_count += 1
            if not self.capabilities.durable:
                # Nothing reverts to this state.
                self._touched.clear()
                return
            self._copy_touched(self._state, self._durable)
            self.metadata.sync()

    # -- helpers

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        if self.reasons:
            raise base.Unavailable(self.reasons[0])
        with self._lock:
            yield

    def _get(self, reference: base.Reference) -> Directory:
        base.check_id(reference.id)
        self._touched.add(reference)
        try:
            return self._state[reference.kind][reference.id]
        except KeyError:
            raise base.NotFound(
                f"{reference.kind} {reference.id} does not exist"
            ) from None

    def _put(
        self, reference: base.Reference, content: Directory | None
    ) -> None:
        self._touched.add(reference)
        self._state[reference.kind].pop(reference.id, None)
        if content is not None:
            self._state[reference.kind][reference.id] = content

    def _copy_touched(self, source: State, target: State) -> None:
        for reference in self._touched:
            content = source[reference.kind].get(reference.id)
            target[reference.kind].pop(reference.id, None)
            if content is not None:
                target[reference.kind][reference.id] = copy.deepcopy(content)
        self._touched.clear()

    def _share(self, share_id: str) -> Directory:
        return self._get(base.Reference(base.Kind.SHARE, share_id))

    def _shape(self, entry: Entry, file: base.VolumeFile) -> None:
        self._grow(entry, file.size_bytes, file.allocation)
        entry.owner, entry.mode = file.owner, file.mode

    def _grow(self, entry: Entry, size_bytes: int, allocation: str) -> None:
        if allocation == base.ALLOCATION_FULL:
            wanted = max(size_bytes, entry.reserved_bytes)
            if wanted - entry.used_bytes > self.usage().free_bytes:
                raise base.NoSpace(f"no space for {size_bytes} bytes")
            entry.reserved_bytes = wanted
        entry.size_bytes = max(entry.size_bytes, size_bytes)


class OpenEntry(base.OpenFile):
    """Reads and writes whole blocks."""

    def __init__(
        self, engine: MemoryEngine, share_id: str, entry: Entry
    ) -> None:
        self._engine = engine
        self._reference = base.Reference(base.Kind.SHARE, share_id)
        self._entry = entry
        self.size_bytes = entry.size_bytes

    def extents(self) -> Iterator[tuple[int, int]]:
        with self._engine._changing():
            numbers = sorted(self._entry.blocks)
        for number in numbers:
            yield number * BLOCK_BYTES, BLOCK_BYTES

    def read(self, offset: int, length: int) -> bytes:
        with self._engine._changing():
            return self._entry.read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        with self._engine._changing():
            room = self._engine.usage().free_bytes
            room += self._entry.reserved_bytes
            if len(data) > room:
                raise base.NoSpace(f"no space for {len(data)} bytes")
            # Marks it as changed.
            self._engine.entries(self._reference)
            size_bytes = self._entry.size_bytes
            self._entry.write(offset, data)
            # The last block may be a part of one.
            self._entry.size_bytes = size_bytes

    def flush(self) -> None:
        """A power cut loses it nevertheless, as a new file without sync."""


def _regular(entry: Entry | None, name: str) -> Entry:
    if entry is None:
        raise base.FileChanged(f"volume file {name!r} is missing")
    if entry.type != "file":
        raise base.FileChanged(f"{name!r} is not a regular file")
    return entry
