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

"""What goes into the service and what comes out of it."""

from collections.abc import Mapping
import dataclasses
import enum
from typing import Any

#: A JSON object, as the API sends and gets it.
Body = dict[str, Any]

#: The namespace of what an admin or operator creates.
DEFAULT_NAMESPACE = "default"

FEATURE_VOLUME_FILE = "share.volume_file"
FEATURE_GROW_ONLINE = "share.grow_online"
FEATURE_HARD_LIMIT = "share.hard_limit"
FEATURE_SNAPSHOT_EXPORT = "snapshot.export"

#: A merge patch's members that :meth:`Service.patch_share` understands.
PATCHABLE = frozenset({"name", "size_bytes", "labels", "file"})

#: Of a share or snapshot; the contract says the same of a create.
MAX_LABELS = 32


class State(enum.StrEnum):
    """Of a share or snapshot."""

    CREATING = "creating"
    AVAILABLE = "available"
    EXTENDING = "extending"
    DEGRADED = "degraded"
    DELETING = "deleting"
    ERROR = "error"


class JobState(enum.StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: Any other state is that of an open job: also one of a later release.
ENDED_JOB_STATES = frozenset(
    {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
)


@dataclasses.dataclass(frozen=True)
class Caller:
    """Who asks. ``namespace`` None sees everything (admin, operator)."""

    name: str
    scope: str
    namespace: str | None
    request_id: str

    @property
    def home(self) -> str:
        """The namespace that new things belong to."""
        return self.namespace or DEFAULT_NAMESPACE

    def sees(self, namespace: str) -> bool:
        return self.namespace is None or self.namespace == namespace


@dataclasses.dataclass(frozen=True)
class Done:
    """A change is made and on disk. ``body`` None: nothing to show.

    :ivar absent: there was nothing to change.
    """

    body: Body | None
    created: bool = False
    absent: bool = False


@dataclasses.dataclass(frozen=True)
class Accepted:
    """A change is being made; ``job`` is its representation."""

    job: Body


@dataclasses.dataclass(frozen=True)
class Page:
    """Part of a list; ``next_marker`` None: there is no more."""

    items: list[Body]
    next_marker: str | None


@dataclasses.dataclass(frozen=True)
class Portal:
    """An address by which clients mount shares."""

    address: str
    preferred: bool = True


@dataclasses.dataclass(frozen=True)
class Limits:
    """All are published in ``/v1/system``; those of pages are the
    contract's, which holds requests to them."""

    max_shares: int = 20_000
    max_snapshots_per_share: int = 1_000
    max_access_rules_per_share: int = 256
    max_clients_per_rule: int = 64
    max_share_bytes: int = 1 << 50
    default_page: int = 200
    max_page: int = 1_000


@dataclasses.dataclass(frozen=True)
class FileDefaults:
    """A volume file's members where the request leaves them out."""

    name: str = "volume"
    format: str = "raw"
    allocation: str = "sparse"
    #: Ubuntu's and Debian's cinder user.
    uid: int = 64061
    gid: int = 64061
    mode: str = "0660"


@dataclasses.dataclass(frozen=True)
class AllowedOwners:
    """Users and groups that a create may name, besides the defaults.

    By default neither root, nor system accounts (below 1000, Debian policy
    9.2.2), nor nobody (65534), as whom a squashed root acts.
    """

    uids: tuple[range, ...] = (range(1000, 65534),)
    gids: tuple[range, ...] = (range(1000, 65534),)


@dataclasses.dataclass(frozen=True)
class Quota:
    """What a namespace may have; None: as much as there is.

    ``max_bytes`` is of the sizes of its shares together.
    """

    max_bytes: int | None = None
    max_shares: int | None = None
    max_snapshots: int | None = None


@dataclasses.dataclass(frozen=True)
class ServiceSettings:
    """What the service is told about the world."""

    system_id: str
    system_name: str
    version: str = ""
    portals: tuple[Portal, ...] = ()
    nfs_versions: tuple[str, ...] = ("4.2", "4.1")
    limits: Limits = Limits()
    file_defaults: FileDefaults = FileDefaults()
    allowed_owners: AllowedOwners = AllowedOwners()
    #: By namespace; one that is not there has none.
    quotas: Mapping[str, Quota] = dataclasses.field(default_factory=dict)
    #: False stands for a minimal appliance, which knows nothing of files.
    volume_file: bool = True
    #: How long a request waits for what a pool or the NFS server has to
    #: tell, before they are taken to hang.
    answer_seconds: float = 5.0
    #: Changes of one pool that are at work at the same time; more of them
    #: are queued jobs.
    workers: int = 32
    job_retention_days: int = 30
    event_retention_days: int = 400


@dataclasses.dataclass(frozen=True)
class Intent:
    """A change that was decided on; a journal entry keeps all of it."""

    id: str
    kind: str
    namespace: str
    share_id: str
    snapshot_id: str | None
    arguments: Mapping[str, Any]
    actor: str
    request_id: str
