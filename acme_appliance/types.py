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

"""Types of the service's arguments and results."""

from collections.abc import Mapping
import dataclasses
import enum
from typing import Any

#: A JSON object, as the API sends and gets it.
Body = dict[str, Any]

#: The namespace of objects that an admin or operator creates.
DEFAULT_NAMESPACE = "default"

FEATURE_VOLUME_FILE = "share.volume_file"
FEATURE_THICK = "share.thick"
FEATURE_GROW_ONLINE = "share.grow_online"
FEATURE_HARD_LIMIT = "share.hard_limit"
FEATURE_QOS_BANDWIDTH = "share.qos_bandwidth"
FEATURE_QOS_IOPS = "share.qos_iops"
FEATURE_SNAPSHOT_EXPORT = "snapshot.export"
FEATURE_REVERT = "share.revert"
FEATURE_MOVE_POOL = "share.move_pool"
FEATURE_GROUP = "share.group"
FEATURE_GROUP_SNAPSHOT = "group.snapshot_crash_consistent"

#: The members of a share that a merge patch can change.
PATCHABLE = frozenset(
    {"name", "size_bytes", "labels", "file", "qos", "group_id", "pool"}
)

#: Maximum per share or snapshot; ``openapi.yaml`` has the same for a create.
MAX_LABELS = 32


class State(enum.StrEnum):
    """The state of a share or snapshot."""

    CREATING = "creating"
    AVAILABLE = "available"
    EXTENDING = "extending"
    REVERTING = "reverting"
    MOVING = "moving"
    DEGRADED = "degraded"
    DELETING = "deleting"
    ERROR = "error"


class JobState(enum.StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: A job in any other state is open, including states of later releases.
ENDED_JOB_STATES = frozenset(
    {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
)


@dataclasses.dataclass(frozen=True)
class Caller:
    """The authenticated caller. ``namespace`` None: sees everything (admin,
    operator)."""

    name: str
    scope: str
    namespace: str | None
    request_id: str

    @property
    def home(self) -> str:
        """The namespace of new objects."""
        return self.namespace or DEFAULT_NAMESPACE

    def sees(self, namespace: str) -> bool:
        return self.namespace is None or self.namespace == namespace


@dataclasses.dataclass(frozen=True)
class Done:
    """A change is done and on disk. ``body`` None: no content.

    :ivar absent: the object did not exist.
    """

    body: Body | None
    created: bool = False
    absent: bool = False


@dataclasses.dataclass(frozen=True)
class Accepted:
    """A change is in progress; ``job`` is the body of its job."""

    job: Body


@dataclasses.dataclass(frozen=True)
class Page:
    """Part of a list; ``next_marker`` None: the last page."""

    items: list[Body]
    next_marker: str | None


@dataclasses.dataclass(frozen=True)
class Portal:
    """An address that clients mount shares from."""

    address: str
    preferred: bool = True


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits in ``/v1/system``. Those of pages are ``openapi.yaml``'s,
    which requests are validated against."""

    max_shares: int = 20_000
    max_snapshots_per_share: int = 1_000
    max_access_rules_per_share: int = 256
    max_clients_per_rule: int = 64
    max_share_bytes: int = 1 << 50
    #: Of groups, and of group snapshots.
    max_groups: int = 10_000
    max_shares_per_group: int = 100
    default_page: int = 200
    max_page: int = 1_000


@dataclasses.dataclass(frozen=True)
class FileDefaults:
    """Defaults for the members of a volume file."""

    name: str = "volume"
    format: str = "raw"
    allocation: str = "sparse"
    #: Ubuntu's and Debian's cinder user.
    uid: int = 64061
    gid: int = 64061
    mode: str = "0660"


@dataclasses.dataclass(frozen=True)
class AllowedOwners:
    """Users and groups that a create may set, besides the defaults.

    By default all except root, system accounts (below 1000, Debian policy
    9.2.2) and nobody (65534), which a squashed root becomes.
    """

    uids: tuple[range, ...] = (range(1000, 65534),)
    gids: tuple[range, ...] = (range(1000, 65534),)


@dataclasses.dataclass(frozen=True)
class Quota:
    """The limits of a namespace; None: unlimited.

    ``max_bytes`` limits the total size of its shares.
    """

    max_bytes: int | None = None
    max_shares: int | None = None
    max_snapshots: int | None = None


@dataclasses.dataclass(frozen=True)
class ServiceSettings:
    """The service's configuration."""

    system_id: str
    system_name: str
    version: str = ""
    portals: tuple[Portal, ...] = ()
    nfs_versions: tuple[str, ...] = ("4.2", "4.1")
    limits: Limits = Limits()
    file_defaults: FileDefaults = FileDefaults()
    allowed_owners: AllowedOwners = AllowedOwners()
    #: By namespace; others have no quota.
    quotas: Mapping[str, Quota] = dataclasses.field(default_factory=dict)
    #: False: a minimal appliance, without volume files.
    volume_file: bool = True
    #: How long requests wait for a pool or the NFS server to answer. After
    #: that it is considered to hang.
    answer_seconds: float = 5.0
    #: Maximum number of concurrent changes per pool; more are queued.
    workers: int = 32
    job_retention_days: int = 30
    event_retention_days: int = 400


@dataclasses.dataclass(frozen=True)
class Intent:
    """A change to make, as the journal stores it.

    ``share_id``: empty in a change of a group or group snapshot.
    """

    id: str
    kind: str
    namespace: str
    share_id: str
    snapshot_id: str | None
    arguments: Mapping[str, Any]
    actor: str
    request_id: str
    group_id: str | None = None
    group_snapshot_id: str | None = None

    @property
    def subject(self) -> str:
        """The object that is changed, for logs."""
        if self.group_snapshot_id is not None:
            return f"group snapshot {self.group_snapshot_id}"
        if self.group_id is not None and not self.share_id:
            return f"group {self.group_id}"
        return f"share {self.share_id}"
