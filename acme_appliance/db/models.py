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

"""The tables.

``generation`` grows with each change that a client can see. It is the ETag,
and no id gets the same one twice. ``create_request`` is the original body of
the create: a second PUT with the same body matches, whatever was patched
since. A job's row is its journal entry; a queued or running job is an open
intent.
"""

import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance.db.types import UtcDateTime

ID = sa.String(36)
NAME = sa.String(255)

Json = dict[str, Any]


class Base(orm.DeclarativeBase):
    """Fixes the names of constraints, so that migrations can drop them."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        Json: sa.JSON(none_as_null=True),
        list[str]: sa.JSON(none_as_null=True),
        datetime.datetime: UtcDateTime,
        int: sa.BigInteger,
    }


def _few(table: str, *columns: str) -> list[sa.Index]:
    """Indices of columns that most rows do not have: those cost nothing."""
    return [
        sa.Index(
            f"ix_{table}_{column}_id",
            column,
            "id",
            sqlite_where=sa.text(f"{column} IS NOT NULL"),
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )
        for column in columns
    ]


class Share(Base):
    __tablename__ = "shares"

    id: orm.Mapped[str] = orm.mapped_column(ID, primary_key=True)
    namespace: orm.Mapped[str] = orm.mapped_column(NAME)
    name: orm.Mapped[str] = orm.mapped_column(NAME)
    pool: orm.Mapped[str] = orm.mapped_column(NAME)
    state: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    generation: orm.Mapped[int] = orm.mapped_column()
    size_bytes: orm.Mapped[int] = orm.mapped_column()
    #: ``{name, format, allocation, uid, gid, mode}``; NULL: no volume file.
    file: orm.Mapped[Json | None] = orm.mapped_column()
    origin_type: orm.Mapped[str | None] = orm.mapped_column(sa.String(16))
    origin_id: orm.Mapped[str | None] = orm.mapped_column(ID)
    labels: orm.Mapped[Json] = orm.mapped_column()
    #: No foreign key: recovery may find the share before the group.
    group_id: orm.Mapped[str | None] = orm.mapped_column(ID)
    #: ``{max_read_bytes_per_second, max_write_bytes_per_second, max_iops}``;
    #: NULL: no limits.
    qos: orm.Mapped[Json | None] = orm.mapped_column()
    #: The last ones: by id, the snapshot that it was reverted to.
    reverts: orm.Mapped[Json] = orm.mapped_column(server_default="{}")
    create_request: orm.Mapped[Json] = orm.mapped_column(deferred=True)
    created_at: orm.Mapped[datetime.datetime] = orm.mapped_column()
    updated_at: orm.Mapped[datetime.datetime] = orm.mapped_column()
    #: The open job of this share, if any.
    job_id: orm.Mapped[str | None] = orm.mapped_column(ID)

    access_rules: orm.Mapped[list["AccessRule"]] = orm.relationship(
        primaryjoin="and_(Share.id == foreign(AccessRule.object_id),"
        " AccessRule.kind == 'share')",
        order_by="AccessRule.holder",
        viewonly=True,
    )
    label_rows: orm.Mapped[list["ShareLabel"]] = orm.relationship(
        cascade="all, delete-orphan", passive_deletes=True
    )

    __table_args__ = (
        # One per list filter, within a namespace and across all.
        sa.Index(None, "namespace", "id"),
        sa.Index(None, "namespace", "name", "id"),
        sa.Index(None, "namespace", "pool", "id"),
        sa.Index(None, "namespace", "state", "id"),
        sa.Index(None, "name", "id"),
        sa.Index(None, "origin_id", "id"),
        sa.Index(None, "group_id", "id"),
        sa.Index(None, "state", "id"),
        # Covers the statistics' sums and the filter by pool.
        sa.Index(None, "pool", "id", "size_bytes"),
    )


class ShareLabel(Base):
    """Search index of labels, one row per label."""

    __tablename__ = "share_labels"

    share_id: orm.Mapped[str] = orm.mapped_column(
        ID,
        sa.ForeignKey("shares.id", ondelete="CASCADE"),
        primary_key=True,
    )
    key: orm.Mapped[str] = orm.mapped_column(NAME, primary_key=True)
    value: orm.Mapped[str] = orm.mapped_column(NAME)

    __table_args__ = (sa.Index(None, "key", "value", "share_id"),)


class AccessRule(Base):
    """Of a share or snapshot; see ``service.rules``."""

    __tablename__ = "access_rules"

    kind: orm.Mapped[str] = orm.mapped_column(sa.String(16), primary_key=True)
    #: No foreign key: it is in one of two tables.
    object_id: orm.Mapped[str] = orm.mapped_column(ID, primary_key=True)
    holder: orm.Mapped[str] = orm.mapped_column(NAME, primary_key=True)
    clients: orm.Mapped[list[str]] = orm.mapped_column()
    level: orm.Mapped[str] = orm.mapped_column(sa.String(2))

    __table_args__ = (sa.Index(None, "holder", "kind", "object_id"),)


class Snapshot(Base):
    __tablename__ = "snapshots"

    id: orm.Mapped[str] = orm.mapped_column(ID, primary_key=True)
    #: No cascade: a snapshot's row is deleted after its data.
    share_id: orm.Mapped[str] = orm.mapped_column(
        ID, sa.ForeignKey("shares.id")
    )
    group_snapshot_id: orm.Mapped[str | None] = orm.mapped_column(ID)
    namespace: orm.Mapped[str] = orm.mapped_column(NAME)
    name: orm.Mapped[str] = orm.mapped_column(NAME)
    pool: orm.Mapped[str] = orm.mapped_column(NAME)
    state: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    generation: orm.Mapped[int] = orm.mapped_column()
    #: The share's size and file when the snapshot was taken.
    size_bytes: orm.Mapped[int] = orm.mapped_column()
    file: orm.Mapped[Json | None] = orm.mapped_column()
    labels: orm.Mapped[Json] = orm.mapped_column()
    create_request: orm.Mapped[Json] = orm.mapped_column(deferred=True)
    created_at: orm.Mapped[datetime.datetime] = orm.mapped_column()
    updated_at: orm.Mapped[datetime.datetime] = orm.mapped_column()
    job_id: orm.Mapped[str | None] = orm.mapped_column(ID)

    access_rules: orm.Mapped[list["AccessRule"]] = orm.relationship(
        primaryjoin="and_(Snapshot.id == foreign(AccessRule.object_id),"
        " AccessRule.kind == 'snapshot')",
        order_by="AccessRule.holder",
        viewonly=True,
    )

    __table_args__ = (
        sa.Index(None, "share_id", "id"),
        sa.Index(None, "group_snapshot_id", "id"),
        sa.Index(None, "namespace", "id"),
        sa.Index(None, "namespace", "name", "id"),
        sa.Index(None, "namespace", "state", "id"),
        sa.Index(None, "name", "id"),
        sa.Index(None, "state", "id"),
        sa.Index(None, "pool", "id"),
    )


class Group(Base):
    """Shares whose snapshots are taken at one moment."""

    __tablename__ = "groups"

    id: orm.Mapped[str] = orm.mapped_column(ID, primary_key=True)
    namespace: orm.Mapped[str] = orm.mapped_column(NAME)
    name: orm.Mapped[str] = orm.mapped_column(NAME)
    #: Of all its shares.
    pool: orm.Mapped[str] = orm.mapped_column(NAME)
    state: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    generation: orm.Mapped[int] = orm.mapped_column()
    #: ``{method, pause_ms}`` of a group whose shares are copies.
    moment: orm.Mapped[Json | None] = orm.mapped_column()
    labels: orm.Mapped[Json] = orm.mapped_column()
    create_request: orm.Mapped[Json] = orm.mapped_column(deferred=True)
    created_at: orm.Mapped[datetime.datetime] = orm.mapped_column()
    updated_at: orm.Mapped[datetime.datetime] = orm.mapped_column()
    job_id: orm.Mapped[str | None] = orm.mapped_column(ID)

    __table_args__ = (
        sa.Index(None, "namespace", "id"),
        sa.Index(None, "namespace", "name", "id"),
        sa.Index(None, "namespace", "pool", "id"),
        sa.Index(None, "name", "id"),
        sa.Index(None, "pool", "id"),
    )


class GroupSnapshot(Base):
    """Snapshots of several shares, taken at one moment."""

    __tablename__ = "group_snapshots"

    id: orm.Mapped[str] = orm.mapped_column(ID, primary_key=True)
    #: No foreign key: it outlives the group.
    group_id: orm.Mapped[str | None] = orm.mapped_column(ID)
    namespace: orm.Mapped[str] = orm.mapped_column(NAME)
    name: orm.Mapped[str] = orm.mapped_column(NAME)
    pool: orm.Mapped[str] = orm.mapped_column(NAME)
    state: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    generation: orm.Mapped[int] = orm.mapped_column()
    #: ``{method, pause_ms}``
    moment: orm.Mapped[Json | None] = orm.mapped_column()
    labels: orm.Mapped[Json] = orm.mapped_column()
    create_request: orm.Mapped[Json] = orm.mapped_column(deferred=True)
    created_at: orm.Mapped[datetime.datetime] = orm.mapped_column()
    updated_at: orm.Mapped[datetime.datetime] = orm.mapped_column()
    job_id: orm.Mapped[str | None] = orm.mapped_column(ID)

    __table_args__ = (
        sa.Index(None, "group_id", "id"),
        sa.Index(None, "namespace", "id"),
        sa.Index(None, "namespace", "name", "id"),
        sa.Index(None, "name", "id"),
        sa.Index(None, "pool", "id"),
    )


class Job(Base):
    __tablename__ = "jobs"

    id: orm.Mapped[str] = orm.mapped_column(ID, primary_key=True)
    kind: orm.Mapped[str] = orm.mapped_column(sa.String(32))
    namespace: orm.Mapped[str] = orm.mapped_column(NAME)
    #: No foreign keys: a job outlives its share. Empty: it changes a group
    #: or group snapshot.
    share_id: orm.Mapped[str] = orm.mapped_column(ID)
    snapshot_id: orm.Mapped[str | None] = orm.mapped_column(ID)
    group_id: orm.Mapped[str | None] = orm.mapped_column(ID)
    group_snapshot_id: orm.Mapped[str | None] = orm.mapped_column(ID)
    #: Deferred: a broken value must not break lists of jobs.
    arguments: orm.Mapped[Json] = orm.mapped_column(deferred=True)
    state: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    #: Set when the undo begins; a restart then continues the undo.
    undo: orm.Mapped[bool] = orm.mapped_column()
    #: Why the job failed or is being undone.
    problem: orm.Mapped[Json | None] = orm.mapped_column()
    #: Number of failed attempts to finish or undo it, and the time and
    #: problem of the last one.
    attempts: orm.Mapped[int] = orm.mapped_column()
    attempted_at: orm.Mapped[datetime.datetime | None] = orm.mapped_column()
    last_problem: orm.Mapped[Json | None] = orm.mapped_column()
    request_id: orm.Mapped[str] = orm.mapped_column(sa.String(128))
    actor: orm.Mapped[str] = orm.mapped_column(NAME)
    created_at: orm.Mapped[datetime.datetime] = orm.mapped_column()
    finished_at: orm.Mapped[datetime.datetime | None] = orm.mapped_column()

    __table_args__ = (
        sa.Index(None, "state", "id"),
        sa.Index(None, "namespace", "id"),
        sa.Index(None, "namespace", "state", "id"),
        sa.Index(None, "share_id", "id"),
        sa.Index(None, "finished_at"),
        *_few("jobs", "group_id", "group_snapshot_id"),
    )


class JobClaim(Base):
    """A resource that an open job claims; deleted when the job ends."""

    __tablename__ = "job_claims"

    job_id: orm.Mapped[str] = orm.mapped_column(
        ID, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    kind: orm.Mapped[str] = orm.mapped_column(sa.String(16), primary_key=True)
    #: No foreign key: the job may be creating the object.
    object_id: orm.Mapped[str] = orm.mapped_column(ID, primary_key=True)
    claim: orm.Mapped[str] = orm.mapped_column(sa.String(16))

    __table_args__ = (sa.Index(None, "object_id", "kind"),)


class Event(Base):
    """The event log: one row per change, written with the change."""

    __tablename__ = "events"

    # SQLite autoincrements only INTEGER columns, which have 64 bits there.
    seq: orm.Mapped[int] = orm.mapped_column(
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    )
    time: orm.Mapped[datetime.datetime] = orm.mapped_column()
    type: orm.Mapped[str] = orm.mapped_column(sa.String(32))
    namespace: orm.Mapped[str] = orm.mapped_column(NAME)
    #: As of a job.
    share_id: orm.Mapped[str] = orm.mapped_column(ID)
    snapshot_id: orm.Mapped[str | None] = orm.mapped_column(ID)
    group_id: orm.Mapped[str | None] = orm.mapped_column(ID)
    group_snapshot_id: orm.Mapped[str | None] = orm.mapped_column(ID)
    actor: orm.Mapped[str] = orm.mapped_column(NAME)
    request_id: orm.Mapped[str] = orm.mapped_column(sa.String(128))
    job_id: orm.Mapped[str | None] = orm.mapped_column(ID)
    detail: orm.Mapped[Json] = orm.mapped_column()

    __table_args__ = (
        sa.Index(None, "namespace", "seq"),
        sa.Index(None, "time"),
        # Never reuse a number, even after pruning the newest row.
        {"sqlite_autoincrement": True},
    )


class Counter(Base):
    """Numbers that only grow, see ``changes.generations``."""

    __tablename__ = "counters"

    name: orm.Mapped[str] = orm.mapped_column(sa.String(32), primary_key=True)
    value: orm.Mapped[int] = orm.mapped_column()


class Pool(Base):
    """The pools of this database, see ``storage.identity``."""

    __tablename__ = "pools"

    name: orm.Mapped[str] = orm.mapped_column(NAME, primary_key=True)
    #: The id that the pool stores.
    id: orm.Mapped[str] = orm.mapped_column(ID)


class Token(Base):
    """Credentials; the secret itself is not stored."""

    __tablename__ = "tokens"

    id: orm.Mapped[str] = orm.mapped_column(ID, primary_key=True)
    #: The credential's name; two long tokens may share it while rotating.
    name: orm.Mapped[str] = orm.mapped_column(NAME)
    #: SHA-256 of the secret, hexadecimal.
    hash: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    scope: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    namespace: orm.Mapped[str | None] = orm.mapped_column(NAME)
    #: ``long`` or ``session``.
    kind: orm.Mapped[str] = orm.mapped_column(sa.String(8))
    created_at: orm.Mapped[datetime.datetime] = orm.mapped_column()
    expires_at: orm.Mapped[datetime.datetime | None] = orm.mapped_column()
    revoked_at: orm.Mapped[datetime.datetime | None] = orm.mapped_column()

    __table_args__ = (
        sa.UniqueConstraint("hash"),
        sa.Index(None, "name", "kind"),
        sa.Index(None, "kind", "expires_at"),
    )
