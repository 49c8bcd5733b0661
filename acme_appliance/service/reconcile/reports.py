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

"""Results of a comparison of database, pools and exports."""

import dataclasses
from typing import Any

from acme_appliance import types


@dataclasses.dataclass
class Report:
    """Results of a comparison; ``pool/id`` for objects in a pool."""

    #: In the database, not in the pool.
    missing_shares: list[str] = dataclasses.field(default_factory=list)
    missing_snapshots: list[str] = dataclasses.field(default_factory=list)
    #: The share exists, but its volume file is missing or replaced.
    damaged_shares: list[str] = dataclasses.field(default_factory=list)
    #: The volume file exceeds the share's size: a client extended it.
    oversized_shares: list[str] = dataclasses.field(default_factory=list)
    #: In the pool, not in the database.
    unknown_shares: list[str] = dataclasses.field(default_factory=list)
    unknown_snapshots: list[str] = dataclasses.field(default_factory=list)
    #: ``{share_id or snapshot_id, wanted, found}``: something was missing or
    #: had other options; repaired if ``applied``.
    export_differences: list[types.Body] = dataclasses.field(
        default_factory=list
    )
    #: ``{share_id or snapshot_id, clients}``: clients that have access, now
    #: or after a restart of the machine, and that no access rule explains.
    unexplained_exports: list[types.Body] = dataclasses.field(
        default_factory=list
    )
    #: Missing or outdated metadata in the pool; written if ``applied``.
    old_metadata: list[str] = dataclasses.field(default_factory=list)
    #: Parts of a share or snapshot whose create failed; to be deleted.
    unfinished_creates: list[str] = dataclasses.field(default_factory=list)
    #: Ids of jobs that could be neither finished nor undone yet.
    open_jobs: list[str] = dataclasses.field(default_factory=list)
    #: Open jobs that this release cannot read: id to reason.
    unreadable_jobs: dict[str, str] = dataclasses.field(default_factory=dict)
    #: Pools that could not be read, with the reason.
    unusable_pools: dict[str, str] = dataclasses.field(default_factory=dict)
    applied: bool = False

    def add(self, other: "Report") -> None:
        """Merge the report of another pool."""
        for field in dataclasses.fields(self):
            mine, theirs = (getattr(r, field.name) for r in (self, other))
            if isinstance(mine, dict):
                mine.update(theirs)
            elif isinstance(mine, list):
                mine.extend(theirs)

    def lines(self) -> list[str]:
        """The findings for a log, one line per kind; empty: no findings."""
        found = dataclasses.asdict(self)
        del found["applied"]
        return [
            f"{len(each)} {name.replace('_', ' ')}, such as {_example(each)}"
            for name, each in found.items()
            if each
        ]


def _example(found: list[Any] | dict[str, Any]) -> str:
    first = next(iter(found))
    return (
        f"{first}: {found[first]}" if isinstance(found, dict) else f"{first}"
    )


def _list() -> Any:
    return dataclasses.field(default_factory=list)


@dataclasses.dataclass
class RestorationReport:
    """Results of a restoration; ``pool/id`` for objects in a pool."""

    #: The database's relation to each pool: see
    #: :class:`acme_appliance.storage.identity.Relation`.
    pools: dict[str, str] = dataclasses.field(default_factory=dict)
    #: Skipped pools, with the reason.
    skipped_pools: dict[str, str] = dataclasses.field(default_factory=dict)
    added_shares: list[str] = _list()
    added_snapshots: list[str] = _list()
    adopted_shares: list[str] = _list()
    updated_shares: list[str] = _list()
    updated_snapshots: list[str] = _list()
    removed_shares: list[str] = _list()
    removed_snapshots: list[str] = _list()
    #: Groups and group snapshots.
    added_groups: list[str] = _list()
    updated_groups: list[str] = _list()
    removed_groups: list[str] = _list()
    #: Group snapshots that were not complete; their snapshots are in none.
    incomplete_groups: list[str] = _list()
    #: ``{share_id or snapshot_id, granted, revoked}``: holders.
    changed_rules: list[types.Body] = _list()
    closed_jobs: list[str] = _list()
    #: Interrupted reverts and moves; the next start resumes them.
    reopened_jobs: list[str] = _list()
    #: Data without metadata, and why it was not adopted.
    undescribed: dict[str, str] = dataclasses.field(default_factory=dict)
    #: Metadata without data, or invalid.
    without_data: list[str] = _list()
    #: Data of an id that is in use in another pool, and in which.
    duplicates: dict[str, str] = dataclasses.field(default_factory=dict)
    #: Snapshots whose share is missing.
    without_share: list[str] = _list()
    #: Of all shares; their tokens must be created again.
    namespaces: list[str] = _list()
    #: The appliance's id, by its pools; None: they say none.
    system_id: str | None = None
    applied: bool = False
