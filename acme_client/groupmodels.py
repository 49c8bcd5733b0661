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

"""Groups and group snapshots, as :mod:`acme_client.models`."""

from collections.abc import Mapping
import dataclasses
import datetime
from typing import Any

from acme_client import models


@dataclasses.dataclass(frozen=True)
class GroupSource:
    """The source of a group: ``type`` is ``group`` or ``group_snapshot``."""

    type: str
    id: str

    def to_json(self) -> dict[str, str]:
        return {"type": self.type, "id": self.id}


@dataclasses.dataclass(frozen=True)
class GroupShareSpec:
    """A share to create in a group, as a copy; see ``create_share``.

    ``size_bytes`` None: as the source.
    """

    id: str
    name: str
    size_bytes: int | None = None
    file: models.VolumeFileSpec | None = None
    labels: Mapping[str, str] | None = None
    qos: models.Qos | None = None

    def to_json(self) -> dict[str, Any]:
        return _without_none(
            id=self.id,
            name=self.name,
            size_bytes=self.size_bytes,
            file=None if self.file is None else self.file.to_json(),
            labels=None if self.labels is None else dict(self.labels),
            qos=None if self.qos is None else self.qos.to_json(),
        )


@dataclasses.dataclass(frozen=True)
class SnapshotSpec:
    """A snapshot to create in a group snapshot.

    ``name`` None: as the group snapshot.
    """

    id: str
    name: str | None = None
    labels: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        return _without_none(
            id=self.id,
            name=self.name,
            labels=None if self.labels is None else dict(self.labels),
        )


@dataclasses.dataclass(frozen=True)
class Moment:
    """How snapshots were taken at one moment.

    ``pause_ms``: how long the shares' clients had to wait.
    """

    method: str
    pause_ms: int

    @classmethod
    def from_json(cls, body: models.Json) -> "Moment":
        return cls(
            method=models.typed(body, "method", str),
            pause_ms=models.typed(body, "pause_ms", int),
        )


@dataclasses.dataclass(frozen=True)
class Group:
    """A group and the ids of its shares.

    ``moment`` is that of a group whose shares are copies of another's.
    """

    id: str
    name: str
    namespace: str
    pool: str
    state: str
    generation: int
    share_ids: tuple[str, ...]
    moment: Moment | None
    labels: Mapping[str, str]
    created_at: datetime.datetime
    updated_at: datetime.datetime
    job_id: str | None

    @classmethod
    def from_json(cls, body: models.Json) -> "Group":
        return cls(share_ids=models.texts(body, "share_ids"), **_common(body))


@dataclasses.dataclass(frozen=True)
class GroupSnapshot:
    """A group snapshot: by the id of the share, that of its snapshot."""

    id: str
    name: str
    namespace: str
    pool: str
    group_id: str | None
    state: str
    generation: int
    snapshots: Mapping[str, str]
    moment: Moment | None
    labels: Mapping[str, str]
    created_at: datetime.datetime
    updated_at: datetime.datetime
    job_id: str | None

    @classmethod
    def from_json(cls, body: models.Json) -> "GroupSnapshot":
        snapshots = models.typed(body, "snapshots", dict)
        return cls(
            group_id=models.optional(body, "group_id", str),
            snapshots={
                key: models.typed(snapshots, key, str) for key in snapshots
            },
            **_common(body),
        )


def _common(body: models.Json) -> dict[str, Any]:
    moment = models.optional(body, "moment", dict)
    return {
        "id": models.typed(body, "id", str),
        "name": models.typed(body, "name", str),
        "namespace": models.typed(body, "namespace", str),
        "pool": models.typed(body, "pool", str),
        "state": models.typed(body, "state", str),
        "generation": models.typed(body, "generation", int),
        "moment": None if moment is None else Moment.from_json(moment),
        "labels": models.labels(body),
        "created_at": models.time(body, "created_at"),
        "updated_at": models.time(body, "updated_at"),
        "job_id": models.optional(body, "job_id", str),
    }


def _without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
