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

"""What the appliance tells, as frozen dataclasses.

Every ``from_json`` takes a decoded JSON object, ignores members that it
does not know (a newer appliance may send more), and raises KeyError,
TypeError or ValueError where one that it needs is missing or of another
type; the client turns these into ProtocolError. Sizes are integer bytes,
times are aware datetimes.
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

#: Also IPv4 addresses; nothing that a command takes for an option.
_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")
_NFS_VERSION = re.compile(r"[34](\.[0-9])?")


def _typed(body: Json, key: str, kind: type[_T]) -> _T:
    value = body[key]
    if not isinstance(value, kind) or (
        isinstance(value, bool) and kind is not bool
    ):
        raise TypeError(f"{key}: {kind.__name__} expected")
    return value


def _optional(body: Json, key: str, kind: type[_T]) -> _T | None:
    return None if body.get(key) is None else _typed(body, key, kind)


def _texts(body: Json, key: str) -> tuple[str, ...]:
    values = _optional(body, key, list) or []
    if not all(isinstance(value, str) for value in values):
        raise TypeError(f"{key}: a list of strings expected")
    return tuple(values)


def _mapping(body: Json, key: str) -> Json:
    return _optional(body, key, dict) or {}


def _labels(body: Json) -> Mapping[str, str]:
    return {key: str(value) for key, value in _mapping(body, "labels").items()}


def _time(body: Json, key: str) -> datetime.datetime | None:
    text = _optional(body, key, str)
    if text is None:
        return None
    time = datetime.datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{key}: a time zone expected")
    return time


def _each(body: Json, key: str, read: Callable[[Json], _T]) -> tuple[_T, ...]:
    return tuple(
        read(_object(item)) for item in _optional(body, key, list) or []
    )


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise TypeError("an object expected")
    return cast(Json, value)


@dataclasses.dataclass(frozen=True)
class System:
    """The appliance as a whole.

    ``health`` is ``ok``, ``starting`` or ``degraded``; ``portals`` are its
    NFS addresses, the preferred one first.
    """

    id: str
    name: str
    product: str
    version: str
    health: str
    features: frozenset[str]
    limits: Mapping[str, int]
    portals: tuple[str, ...]
    nfs_versions: tuple[str, ...]

    @classmethod
    def from_json(cls, body: Json) -> "System":
        return cls(
            id=_typed(body, "id", str),
            name=_typed(body, "name", str),
            product=_optional(body, "product", str) or "",
            version=_optional(body, "version", str) or "",
            health=_typed(body, "health", str),
            features=frozenset(_texts(body, "features")),
            limits={
                key: _typed(_mapping(body, "limits"), key, int)
                for key in _mapping(body, "limits")
            },
            portals=_texts(body, "portals"),
            nfs_versions=_texts(body, "nfs_versions"),
        )


@dataclasses.dataclass(frozen=True)
class Pool:
    """Capacity and features of one pool.

    ``state`` is ``up``, ``down`` or ``unavailable``: such a pool did not
    answer, and its figures are those of ``observed_at`` (RFC 3339), or zero
    where that is None.
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
    observed_at: str | None = None

    @classmethod
    def from_json(cls, body: Json) -> "Pool":
        return cls(
            name=_typed(body, "name", str),
            state=_typed(body, "state", str),
            engine=_optional(body, "engine", str) or "",
            total_bytes=_typed(body, "total_bytes", int),
            free_bytes=_typed(body, "free_bytes", int),
            used_bytes=_typed(body, "used_bytes", int),
            provisioned_bytes=_typed(body, "provisioned_bytes", int),
            share_count=_typed(body, "share_count", int),
            snapshot_count=_optional(body, "snapshot_count", int) or 0,
            features=frozenset(_texts(body, "features")),
            observed_at=_optional(body, "observed_at", str),
        )


@dataclasses.dataclass(frozen=True)
class Stats:
    """All pools at one moment, and how the appliance is."""

    system_id: str
    system_name: str
    health: str
    portals: tuple[str, ...]
    nfs_versions: tuple[str, ...]
    pools: tuple[Pool, ...]

    @classmethod
    def from_json(cls, body: Json) -> "Stats":
        return cls(
            system_id=_typed(body, "system_id", str),
            system_name=_typed(body, "system_name", str),
            health=_typed(body, "health", str),
            portals=_texts(body, "portals"),
            nfs_versions=_texts(body, "nfs_versions"),
            pools=_each(body, "pools", Pool.from_json),
        )


@dataclasses.dataclass(frozen=True)
class Source:
    """What a share is made from: ``type`` is ``share`` or ``snapshot``."""

    type: str
    id: str

    @classmethod
    def from_json(cls, body: Json) -> "Source":
        return cls(type=_typed(body, "type", str), id=_typed(body, "id", str))

    def to_json(self) -> dict[str, str]:
        return {"type": self.type, "id": self.id}


@dataclasses.dataclass(frozen=True)
class VolumeFileSpec:
    """The volume file asked for; None leaves it to the appliance.

    ``allocation`` is ``sparse`` or ``full``, ``mode`` octal text like
    ``0660``. Only where the pool has the feature ``share.volume_file``.
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
class VolumeFile:
    """The volume file of a share, as the appliance knows it."""

    name: str
    format: str
    allocation: str
    uid: int
    gid: int
    mode: str

    @classmethod
    def from_json(cls, body: Json) -> "VolumeFile":
        return cls(
            name=_typed(body, "name", str),
            format=_typed(body, "format", str),
            allocation=_typed(body, "allocation", str),
            uid=_typed(body, "uid", int),
            gid=_typed(body, "gid", int),
            mode=_typed(body, "mode", str),
        )


def _address(body: Json, key: str) -> str:
    text = _typed(body, key, str)
    if _HOST_NAME.fullmatch(text):
        return text
    if not _IPV6.fullmatch(text):
        raise ValueError(f"{key}: an IP address or a host name expected")
    ipaddress.IPv6Address(text)  # a ValueError where it is none
    return text


def _path(body: Json, key: str) -> str:
    text = _typed(body, key, str)
    if (
        not text.startswith("/")
        or not text.isprintable()
        or any(char.isspace() for char in text)
        or ".." in text.split("/")
    ):
        raise ValueError(f"{key}: an absolute, printable path expected")
    return text


def _nfs_versions(body: Json, key: str) -> tuple[str, ...]:
    versions = _texts(body, key)
    if not all(_NFS_VERSION.fullmatch(version) for version in versions):
        raise ValueError(f"{key}: versions like 4.2 expected")
    return versions


@dataclasses.dataclass(frozen=True)
class ExportLocation:
    """Where a share can be mounted from.

    As root, on every host that it is attached to, with these as words of a
    command: so they are what they should be, or no location at all.
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
            preferred=body.get("preferred") is True,
            nfs_versions=_nfs_versions(body, "nfs_versions"),
        )


@dataclasses.dataclass(frozen=True)
class AccessRule:
    """The addresses that one holder may mount the share from.

    ``level`` is ``rw`` or ``ro``. ``export_locations`` and ``access``, all
    rules of the share, are filled in the replies about one rule. In a
    share's ``access`` both are empty, the share has its own. ``access`` is
    None also where an appliance does not send it.
    """

    holder: str
    clients: tuple[str, ...]
    level: str
    export_locations: tuple[ExportLocation, ...] = ()
    access: "Mapping[str, AccessRule] | None" = None

    @classmethod
    def from_json(cls, body: Json) -> "AccessRule":
        return cls(
            holder=_typed(body, "holder", str),
            clients=_texts(body, "clients"),
            level=_typed(body, "level", str),
            export_locations=_each(
                body, "export_locations", ExportLocation.from_json
            ),
            access=access_rules(body) if "access" in body else None,
        )


def access_rules(body: Json) -> dict[str, AccessRule]:
    """The ``access`` of a share, or of a reply about one of its rules."""
    return {
        holder: AccessRule.from_json({**_object(rule), "holder": holder})
        for holder, rule in _mapping(body, "access").items()
    }


@dataclasses.dataclass(frozen=True)
class Share:
    """A share with all that belongs to it."""

    id: str
    name: str
    namespace: str
    pool: str
    state: str
    generation: int
    size_bytes: int
    used_bytes: int | None
    exclusive_bytes: int | None
    file: VolumeFile | None
    origin: Source | None
    export_locations: tuple[ExportLocation, ...]
    access: Mapping[str, AccessRule]
    labels: Mapping[str, str]
    created_at: datetime.datetime | None
    updated_at: datetime.datetime | None
    job_id: str | None

    @classmethod
    def from_json(cls, body: Json) -> "Share":
        file = _optional(body, "file", dict)
        origin = _optional(body, "origin", dict)
        return cls(
            id=_typed(body, "id", str),
            name=_typed(body, "name", str),
            namespace=_optional(body, "namespace", str) or "",
            pool=_typed(body, "pool", str),
            state=_typed(body, "state", str),
            generation=_typed(body, "generation", int),
            size_bytes=_typed(body, "size_bytes", int),
            used_bytes=_optional(body, "used_bytes", int),
            exclusive_bytes=_optional(body, "exclusive_bytes", int),
            file=None if file is None else VolumeFile.from_json(file),
            origin=None if origin is None else Source.from_json(origin),
            export_locations=_each(
                body, "export_locations", ExportLocation.from_json
            ),
            access=access_rules(body),
            labels=_labels(body),
            created_at=_time(body, "created_at"),
            updated_at=_time(body, "updated_at"),
            job_id=_optional(body, "job_id", str),
        )


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A read-only picture of a share at one moment.

    ``size_bytes`` is the share's size then.
    """

    id: str
    share_id: str
    name: str
    namespace: str
    pool: str
    state: str
    generation: int
    size_bytes: int
    labels: Mapping[str, str]
    created_at: datetime.datetime | None
    updated_at: datetime.datetime | None
    job_id: str | None

    @classmethod
    def from_json(cls, body: Json) -> "Snapshot":
        return cls(
            id=_typed(body, "id", str),
            share_id=_typed(body, "share_id", str),
            name=_typed(body, "name", str),
            namespace=_optional(body, "namespace", str) or "",
            pool=_optional(body, "pool", str) or "",
            state=_typed(body, "state", str),
            generation=_typed(body, "generation", int),
            size_bytes=_typed(body, "size_bytes", int),
            labels=_labels(body),
            created_at=_time(body, "created_at"),
            updated_at=_time(body, "updated_at"),
            job_id=_optional(body, "job_id", str),
        )


@dataclasses.dataclass(frozen=True)
class Job:
    """Work that takes longer than a request waits.

    ``state`` goes ``queued -> running -> succeeded|failed|cancelled``;
    ``problem`` is the problem+json object of one that failed.
    """

    id: str
    kind: str
    state: str
    share_id: str | None
    snapshot_id: str | None
    request_id: str | None
    problem: Json | None

    @property
    def finished(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled")

    @classmethod
    def from_json(cls, body: Json) -> "Job":
        return cls(
            id=_typed(body, "id", str),
            kind=_optional(body, "kind", str) or "",
            state=_typed(body, "state", str),
            share_id=_optional(body, "share_id", str),
            snapshot_id=_optional(body, "snapshot_id", str),
            request_id=_optional(body, "request_id", str),
            problem=_optional(body, "problem", dict),
        )


@dataclasses.dataclass(frozen=True)
class Event:
    """One entry of the appliance's change log."""

    seq: int
    type: str
    time: datetime.datetime | None
    share_id: str | None
    snapshot_id: str | None
    job_id: str | None
    actor: str
    request_id: str | None
    data: Json

    @classmethod
    def from_json(cls, body: Json) -> "Event":
        return cls(
            seq=_typed(body, "seq", int),
            type=_typed(body, "type", str),
            time=_time(body, "time"),
            share_id=_optional(body, "share_id", str),
            snapshot_id=_optional(body, "snapshot_id", str),
            job_id=_optional(body, "job_id", str),
            actor=_optional(body, "actor", str) or "",
            request_id=_optional(body, "request_id", str),
            data=_mapping(body, "data"),
        )


@dataclasses.dataclass(frozen=True)
class EventPage:
    """Events in order; ``next_after`` is what to ask for next."""

    events: tuple[Event, ...]
    next_after: int

    @classmethod
    def from_json(cls, body: Json) -> "EventPage":
        return cls(
            events=_each(body, "events", Event.from_json),
            next_after=_typed(body, "next_after", int),
        )


def list_of(
    key: str, read: Callable[[Json], _T]
) -> Callable[[Json], tuple[_T, ...]]:
    """A reader of the objects in the member ``key``, which must be there."""

    def read_all(body: Json) -> tuple[_T, ...]:
        _typed(body, key, list)
        return _each(body, key, read)

    return read_all
