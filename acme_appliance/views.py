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

"""Convert rows to the API's objects, see ``openapi.yaml``."""

from collections.abc import Iterable
import datetime
from typing import Any

from acme_appliance import types
from acme_appliance.db import models
from acme_appliance.references import Reference


def time(value: datetime.datetime) -> str:
    """RFC 3339, in UTC, with microseconds."""
    return value.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def maybe_time(value: datetime.datetime | None) -> str | None:
    return None if value is None else time(value)


def rules(rows: Iterable[Any]) -> types.Body:
    """Access rules by holder, from model objects or rows."""
    return {
        row.holder: {"clients": row.clients, "level": row.level}
        for row in rows
    }


def share(
    row: Any,
    access_rules: types.Body,
    export_locations: list[types.Body],
) -> types.Body:
    """:param row: a share, or a row with its columns.
    :param access_rules: from :func:`rules`.
    """
    origin = None
    if row.origin_type is not None:
        origin = {"type": row.origin_type, "id": row.origin_id}
    return {
        "id": row.id,
        "name": row.name,
        "namespace": row.namespace,
        "pool": row.pool,
        "state": str(row.state),
        "generation": row.generation,
        "size_bytes": row.size_bytes,
        # Set later, from the storage.
        "used_bytes": None,
        "file": row.file,
        "origin": origin,
        "group_id": row.group_id,
        "qos": row.qos,
        "export_locations": export_locations,
        "access": access_rules,
        "replication": None,
        "labels": row.labels,
        "created_at": time(row.created_at),
        "updated_at": time(row.updated_at),
        "job_id": row.job_id,
    }


def access_rule(
    reference: Reference,
    holder: str,
    access: types.Body,
    export_locations: list[types.Body],
) -> types.Body:
    """One holder's rule.

    :param access: all rules of the share or snapshot, from :func:`rules`.
    """
    return {
        **named(reference),
        "holder": holder,
        **access[holder],
        "export_locations": export_locations,
        "access": access,
    }


def access_left(reference: Reference, access: types.Body) -> types.Body:
    return {**named(reference), "access": access}


def named(reference: Reference) -> types.Body:
    """``share_id`` or ``snapshot_id``."""
    return {f"{reference.kind}_id": reference.id}


def snapshot(
    row: models.Snapshot,
    access_rules: types.Body,
    export_locations: list[types.Body],
) -> types.Body:
    """:param access_rules: from :func:`rules`."""
    return {
        "id": row.id,
        "name": row.name,
        "namespace": row.namespace,
        "pool": row.pool,
        "share_id": row.share_id,
        "group_snapshot_id": row.group_snapshot_id,
        "state": str(row.state),
        "generation": row.generation,
        "size_bytes": row.size_bytes,
        "used_bytes": None,
        "file": row.file,
        "export_locations": export_locations,
        "access": access_rules,
        "labels": row.labels,
        "created_at": time(row.created_at),
        "updated_at": time(row.updated_at),
        "job_id": row.job_id,
    }


def group(row: Any, share_ids: list[str]) -> types.Body:
    """:param row: a group."""
    return {
        **_described(row),
        "share_ids": share_ids,
        "moment": row.moment,
    }


def group_snapshot(row: Any, snapshots: dict[str, str]) -> types.Body:
    """:param row: a group snapshot.
    :param snapshots: by the id of the share.
    """
    return {
        **_described(row),
        "group_id": row.group_id,
        "snapshots": snapshots,
        "moment": row.moment,
    }


def _described(row: Any) -> types.Body:
    return {
        "id": row.id,
        "name": row.name,
        "namespace": row.namespace,
        "pool": row.pool,
        "state": str(row.state),
        "generation": row.generation,
        "labels": row.labels,
        "created_at": time(row.created_at),
        "updated_at": time(row.updated_at),
        "job_id": row.job_id,
    }


def job(row: Any, progress: types.Body | None = None) -> types.Body:
    """:param row: a valid job, see ``jobrows``.
    :param progress: the schema Progress.
    """
    state = str(row.state)
    if state not in set(types.JobState):
        # A state that clients do not know: open, and not cancellable.
        state = types.JobState.RUNNING.value
    return {
        "id": row.id,
        "kind": row.kind,
        "state": state,
        "namespace": row.namespace,
        "share_id": row.share_id or None,
        "snapshot_id": row.snapshot_id,
        "group_id": row.group_id,
        "group_snapshot_id": row.group_snapshot_id,
        "actor": row.actor,
        "request_id": row.request_id,
        "problem": row.problem,
        "progress": progress,
        "attempts": row.attempts,
        "last_problem": row.last_problem,
        "created_at": time(row.created_at),
        "finished_at": maybe_time(row.finished_at),
    }


def event(row: models.Event) -> types.Body:
    return {
        "seq": row.seq,
        "type": row.type,
        "time": time(row.time),
        "namespace": row.namespace,
        "share_id": row.share_id or None,
        "snapshot_id": row.snapshot_id,
        "group_id": row.group_id,
        "group_snapshot_id": row.group_snapshot_id,
        "job_id": row.job_id,
        "actor": row.actor,
        "request_id": row.request_id,
        "detail": row.detail,
    }
