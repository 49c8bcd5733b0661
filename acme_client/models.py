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

"""The resources of the API, as frozen dataclasses.

Every ``from_json`` takes a decoded JSON object and ignores unknown members (a
newer appliance may send more). It raises KeyError, TypeError or ValueError if
a required member is missing or invalid; the client turns these into
ProtocolError. Sizes are integer bytes, times are aware datetimes.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import datetime
import ipaddress
import re
from typing import Any
from typing import cast
from typing import TypeVar

_T = TypeVar("_T")
Json = Mapping[str, Any]

#: Also IPv4 addresses; never looks like a command's option.
_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_IPV4 = re.compile(r"[0-9.]+")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")
_NFS_VERSION = re.compile(r"[34](\.[0-9])?")


def typed(body: Json, key: str, kind: type[_T]) -> _T:
    value = body[key]
    if not isinstance(value, kind) or (
        isinstance(value, bool) and kind is not bool
    ):
        raise TypeError(f"{key}: {kind.__name__} expected")
    return value


def optional(body: Json, key: str, kind: type[_T]) -> _T | None:
    """A member that must be present but may be null."""
    return None if body[key] is None else typed(body, key, kind)


def texts(body: Json, key: str) -> tuple[str, ...]:
    values = typed(body, key, list)
    if not all(isinstance(value, str) for value in values):
        raise TypeError(f"{key}: a list of strings expected")
    return tuple(values)


def labels(body: Json) -> Mapping[str, str]:
    found = typed(body, "labels", dict)
    return {key: typed(found, key, str) for key in found}


def time(body: Json, key: str) -> datetime.datetime:
    found = datetime.datetime.fromisoformat(typed(body, key, str))
    if found.tzinfo is None:
        raise ValueError(f"{key}: a time zone expected")
    return found


def _time_or_none(body: Json, key: str) -> datetime.datetime | None:
    return None if body[key] is None else time(body, key)


def _each(body: Json, key: str, read: Callable[[Json], _T]) -> tuple[_T, ...]:
    return tuple(read(_object(item)) for item in typed(body, key, list))


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise TypeError("an object expected")
    return cast(Json, value)


@dataclasses.dataclass(frozen=True)
class OwnToken:
    """The permissions of the client's credential.

    ``scope`` is ``admin``, ``operator``, ``driver`` or ``metrics``; without
    a ``namespace`` it sees all of them.
    """

    name: str
    scope: str
    namespace: str | None
    expires_at: datetime.datetime | None

    @classmethod
    def from_json(cls, body: Json) -> "OwnToken":
        return cls(
            name=typed(body, "name", str),
            scope=typed(body, "scope", str),
            namespace=optional(body, "namespace", str),
            expires_at=_time_or_none(body, "expires_at"),
        )


@dataclasses.dataclass(frozen=True)
class Pool:
    """Capacity and features of one pool.

    ``state`` is ``up``, ``down`` or ``unavailable``. An unavailable pool did
    not answer; its figures are those of ``observed_at``, or zero if that is
    None.
    """

    name: str
    state: str
    engine: str
    total_bytes: int
    free_bytes: int
    used_bytes: int
    provisioned_bytes: int
    share_count: int
    snapshot_count: int
    features: frozenset[str]
    observed_at: datetime.datetime | None

    @classmethod
    def from_json(cls, body: Json) -> "Pool":
        return cls(
            name=typed(body, "name", str),
            state=typed(body, "state", str),
            engine=typed(body, "engine", str),
            total_bytes=typed(body, "total_bytes", int),
            free_bytes=typed(body, "free_bytes", int),
            used_bytes=typed(body, "used_bytes", int),
            provisioned_bytes=typed(body, "provisioned_bytes", int),
            share_count=typed(body, "share_count", int),
            snapshot_count=typed(body, "snapshot_count", int),
            features=frozenset(texts(body, "features")),
            observed_at=_time_or_none(body, "observed_at"),
        )


@dataclasses.dataclass(frozen=True)
class Stats:
    """The figures of all pools, and the state of the appliance."""

    system_id: str
    system_name: str
    health: str
    portals: tuple[str, ...]
    nfs_versions: tuple[str, ...]
    pools: tuple[Pool, ...]

    @classmethod
    def from_json(cls, body: Json) -> "Stats":
        return cls(
            system_id=typed(body, "system_id", str),
            system_name=typed(body, "system_name", str),
            health=typed(body, "health", str),
            portals=texts(body, "portals"),
            nfs_versions=texts(body, "nfs_versions"),
            pools=_each(body, "pools", Pool.from_json),
        )


@dataclasses.dataclass(frozen=True)
class Source:
    """The source of a share: ``type`` is ``share`` or ``snapshot``."""

    type: str
    id: str

    @classmethod
    def from_json(cls, body: Json) -> "Source":
        return cls(type=typed(body, "type", str), id=typed(body, "id", str))

    def to_json(self) -> dict[str, str]:
        return {"type": self.type, "id": self.id}


@dataclasses.dataclass(frozen=True)
class VolumeFileSpec:
    """The requested volume file; None: the appliance's default.

    ``allocation`` is ``sparse`` or ``full``, ``mode`` octal text like
    ``0660``. Needs the pool's feature ``share.volume_file``.
    """

    name: str | None = None
    format: str | None = None
    allocation: str | None = None
    uid: int | None = None
    gid: int | None = None
    mode: str | None = None

    def to_json(self) -> dict[str, str | int]:
        return {
            key: value
            for key, value in dataclasses.asdict(self).items()
            if value is not None
        }


@dataclasses.dataclass(frozen=True)
class Qos:
    """The requested limits; None: unlimited.

    The first two need the pool's feature ``share.qos_bandwidth``, the last
    ``share.qos_iops``.
    """

    max_read_bytes_per_second: int | None = None
    max_write_bytes_per_second: int | None = None
    max_iops: int | None = None

    def to_json(self) -> dict[str, int | None]:
        """All members: a merge patch removes the limits that are null."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, body: Json) -> "Qos":
        """Members that are missing are None."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(
            **{name: optional(body, name, int) for name in known & body.keys()}
        )


@dataclasses.dataclass(frozen=True)
class VolumeFile:
    """The volume file of a share."""

    name: str
    format: str
    allocation: str
    uid: int
    gid: int
    mode: str

    @classmethod
    def from_json(cls, body: Json) -> "VolumeFile":
        return cls(
            name=typed(body, "name", str),
            format=typed(body, "format", str),
            allocation=typed(body, "allocation", str),
            uid=typed(body, "uid", int),
            gid=typed(body, "gid", int),
            mode=typed(body, "mode", str),
        )


def _file(body: Json) -> VolumeFile | None:
    file = optional(body, "file", dict)
    return None if file is None else VolumeFile.from_json(file)


def _address(body: Json, key: str) -> str:
    text = typed(body, key, str)
    if not (_HOST_NAME.fullmatch(text) or _IPV6.fullmatch(text)):
        raise ValueError(f"{key}: an IP address or a host name expected")
    if ":" in text or _IPV4.fullmatch(text):
        # A ValueError where it is none.
        if ipaddress.ip_address(text).is_unspecified:
            raise ValueError(f"{key}: {text} is the address of no host")
    return text


def _path(body: Json, key: str) -> str:
    text = typed(body, key, str)
    if (
        not text.startswith("/")
        or not text.isprintable()
        or any(char.isspace() for char in text)
        or ".." in text.split("/")
    ):
        raise ValueError(f"{key}: an absolute, printable path expected")
    return text


def _nfs_versions(body: Json, key: str) -> tuple[str, ...]:
    versions = texts(body, key)
    if not all(_NFS_VERSION.fullmatch(version) for version in versions):
        raise ValueError(f"{key}: versions like 4.2 expected")
    return versions


@dataclasses.dataclass(frozen=True)
class ExportLocation:
    """Where a share can be mounted from.

    Validated strictly, because root uses it in a mount command on every host
    that the share is attached to.
    """

    address: str
    path: str
    preferred: bool
    nfs_versions: tuple[str, ...]

    @classmethod
    def from_json(cls, body: Json) -> "ExportLocation":
        return cls(
            address=_address(body, "address"),
            path=_path(body, "path"),
            preferred=typed(body, "preferred", bool),
            nfs_versions=_nfs_versions(body, "nfs_versions"),
        )


@dataclasses.dataclass(frozen=True)
class AccessRule:
    """The addresses that one holder may mount the share from.

    ``level`` is ``rw`` or ``ro``.
    """

    holder: str
    clients: tuple[str, ...]
    level: str


def access_rules(body: Json) -> Mapping[str, AccessRule]:
    """All access rules of a share or snapshot, by holder: ``access``."""
    rules = typed(body, "access", dict)
    return {
        holder: AccessRule(
            holder, texts(rule, "clients"), typed(rule, "level", str)
        )
        for holder, rule in (
            (holder, _object(rules[holder])) for holder in rules
        )
    }


@dataclasses.dataclass(frozen=True)
class GrantedAccess(AccessRule):
    """The rule in the reply to a grant.

    Includes the export locations and all current rules of the share or
    snapshot.
    """

    export_locations: tuple[ExportLocation, ...]
    access: Mapping[str, AccessRule]

    @classmethod
    def from_json(cls, body: Json) -> "GrantedAccess":
        return cls(
            holder=typed(body, "holder", str),
            clients=texts(body, "clients"),
            level=typed(body, "level", str),
            export_locations=_each(
                body, "export_locations", ExportLocation.from_json
            ),
            access=access_rules(body),
        )


@dataclasses.dataclass(frozen=True)
class GrantedSnapshotAccess(GrantedAccess):
    """As :class:`GrantedAccess`, with the volume file as it was."""

    file: VolumeFile | None

    @classmethod
    def from_json(cls, body: Json) -> "GrantedSnapshotAccess":
        rule = GrantedAccess.from_json(body)
        return cls(**vars(rule), file=_file(body))


@dataclasses.dataclass(frozen=True)
class Share:
    """A share with its access rules and export locations."""

    id: str
    name: str
    namespace: str
    pool: str
    state: str
    generation: int
    size_bytes: int
    used_bytes: int | None
    file: VolumeFile | None
    origin: Source | None
    export_locations: tuple[ExportLocation, ...]
    access: Mapping[str, AccessRule]
    labels: Mapping[str, str]
    group_id: str | None
    #: None: no limits.
    qos: Qos | None
    created_at: datetime.datetime
    updated_at: datetime.datetime
    job_id: str | None

    @classmethod
    def from_json(cls, body: Json) -> "Share":
        qos = optional(body, "qos", dict)
        origin = optional(body, "origin", dict)
        return cls(
            id=typed(body, "id", str),
            name=typed(body, "name", str),
            namespace=typed(body, "namespace", str),
            pool=typed(body, "pool", str),
            state=typed(body, "state", str),
            generation=typed(body, "generation", int),
            size_bytes=typed(body, "size_bytes", int),
            used_bytes=optional(body, "used_bytes", int),
            file=_file(body),
            origin=None if origin is None else Source.from_json(origin),
            export_locations=_each(
                body, "export_locations", ExportLocation.from_json
            ),
            access=access_rules(body),
            labels=labels(body),
            group_id=optional(body, "group_id", str),
            qos=None if qos is None else Qos.from_json(qos),
            created_at=time(body, "created_at"),
            updated_at=time(body, "updated_at"),
            job_id=optional(body, "job_id", str),
        )


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A read-only copy of a share at a point in time.

    ``size_bytes`` is the share's size at that time, and ``file`` its volume
    file.
    """

    id: str
    share_id: str
    group_snapshot_id: str | None
    name: str
    namespace: str
    pool: str
    state: str
    generation: int
    size_bytes: int
    file: VolumeFile | None
    export_locations: tuple[ExportLocation, ...]
    access: Mapping[str, AccessRule]
    labels: Mapping[str, str]
    created_at: datetime.datetime
    updated_at: datetime.datetime
    job_id: str | None

    @classmethod
    def from_json(cls, body: Json) -> "Snapshot":
        return cls(
            id=typed(body, "id", str),
            share_id=typed(body, "share_id", str),
            group_snapshot_id=optional(body, "group_snapshot_id", str),
            name=typed(body, "name", str),
            namespace=typed(body, "namespace", str),
            pool=typed(body, "pool", str),
            state=typed(body, "state", str),
            generation=typed(body, "generation", int),
            size_bytes=typed(body, "size_bytes", int),
            file=_file(body),
            export_locations=_each(
                body, "export_locations", ExportLocation.from_json
            ),
            access=access_rules(body),
            labels=labels(body),
            created_at=time(body, "created_at"),
            updated_at=time(body, "updated_at"),
            job_id=optional(body, "job_id", str),
        )


@dataclasses.dataclass(frozen=True)
class Progress:
    """How much of its data a job has copied."""

    done_bytes: int
    total_bytes: int

    @classmethod
    def from_json(cls, body: Json) -> "Progress":
        return cls(
            done_bytes=typed(body, "done_bytes", int),
            total_bytes=typed(body, "total_bytes", int),
        )


@dataclasses.dataclass(frozen=True)
class Job:
    """Work that takes longer than a request waits.

    ``state`` goes ``queued -> running -> succeeded|failed|cancelled``;
    ``problem`` is the problem+json object of one that failed. ``progress`` is
    None if it copies nothing now.
    """

    id: str
    kind: str
    state: str
    share_id: str | None
    snapshot_id: str | None
    request_id: str
    problem: Json | None
    progress: Progress | None

    @property
    def finished(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled")

    @classmethod
    def from_json(cls, body: Json) -> "Job":
        progress = optional(body, "progress", dict)
        return cls(
            id=typed(body, "id", str),
            kind=typed(body, "kind", str),
            state=typed(body, "state", str),
            share_id=optional(body, "share_id", str),
            snapshot_id=optional(body, "snapshot_id", str),
            request_id=typed(body, "request_id", str),
            problem=optional(body, "problem", dict),
            progress=None
            if progress is None
            else Progress.from_json(progress),
        )


def list_of(
    key: str, read: Callable[[Json], _T]
) -> Callable[[Json], tuple[_T, ...]]:
    """A reader of the objects in the required member ``key``."""

    def read_all(body: Json) -> tuple[_T, ...]:
        typed(body, key, list)
        return _each(body, key, read)

    return read_all
