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

"""The first tables."""

from alembic import op
import sqlalchemy as sa

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("time", sa.DateTime(), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("namespace", sa.String(length=255), nullable=False),
        sa.Column("share_id", sa.String(length=36), nullable=False),
        sa.Column("snapshot_id", sa.String(length=36)),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("job_id", sa.String(length=36)),
        sa.Column("detail", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_namespace_seq", "events", ["namespace", "seq"])
    op.create_index("ix_events_time", "events", ["time"])

    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("namespace", sa.String(length=255), nullable=False),
        sa.Column("share_id", sa.String(length=36), nullable=False),
        sa.Column("snapshot_id", sa.String(length=36)),
        sa.Column("arguments", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("undo", sa.Boolean(), nullable=False),
        sa.Column("problem", sa.JSON(none_as_null=True)),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime()),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at"])
    op.create_index("ix_jobs_namespace_id", "jobs", ["namespace", "id"])
    op.create_index("ix_jobs_share_id_id", "jobs", ["share_id", "id"])
    op.create_index("ix_jobs_state_id", "jobs", ["state", "id"])

    op.create_table(
        "shares",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("namespace", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("pool", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("file", sa.JSON(none_as_null=True)),
        sa.Column("origin_type", sa.String(length=16)),
        sa.Column("origin_id", sa.String(length=36)),
        sa.Column("labels", sa.JSON(none_as_null=True), nullable=False),
        sa.Column(
            "create_request", sa.JSON(none_as_null=True), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.Column("job_id", sa.String(length=36)),
        sa.PrimaryKeyConstraint("id", name="pk_shares"),
    )
    op.create_index("ix_shares_name_id", "shares", ["name", "id"])
    op.create_index("ix_shares_namespace_id", "shares", ["namespace", "id"])
    op.create_index("ix_shares_origin_id_id", "shares", ["origin_id", "id"])
    op.create_index(
        "ix_shares_pool_id_size_bytes", "shares", ["pool", "id", "size_bytes"]
    )
    op.create_index("ix_shares_state_id", "shares", ["state", "id"])

    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("namespace", sa.String(length=255)),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime()),
        sa.Column("revoked_at", sa.DateTime()),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("hash", name="uq_tokens_hash"),
    )
    op.create_index(
        "ix_tokens_kind_expires_at", "tokens", ["kind", "expires_at"]
    )
    op.create_index("ix_tokens_name_kind", "tokens", ["name", "kind"])

    op.create_table(
        "access_rules",
        sa.Column("share_id", sa.String(length=36), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("clients", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("level", sa.String(length=2), nullable=False),
        sa.ForeignKeyConstraint(
            ["share_id"],
            ["shares.id"],
            name="fk_access_rules_share_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("share_id", "holder", name="pk_access_rules"),
    )
    op.create_table(
        "share_labels",
        sa.Column("share_id", sa.String(length=36), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["share_id"],
            ["shares.id"],
            name="fk_share_labels_share_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("share_id", "key", name="pk_share_labels"),
    )
    op.create_index(
        "ix_share_labels_key_value_share_id",
        "share_labels",
        ["key", "value", "share_id"],
    )

    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("share_id", sa.String(length=36), nullable=False),
        sa.Column("namespace", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("pool", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("file", sa.JSON(none_as_null=True)),
        sa.Column("labels", sa.JSON(none_as_null=True), nullable=False),
        sa.Column(
            "create_request", sa.JSON(none_as_null=True), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.Column("job_id", sa.String(length=36)),
        sa.ForeignKeyConstraint(
            ["share_id"], ["shares.id"], name="fk_snapshots_share_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_snapshots"),
    )
    op.create_index("ix_snapshots_name_id", "snapshots", ["name", "id"])
    op.create_index(
        "ix_snapshots_namespace_id", "snapshots", ["namespace", "id"]
    )
    op.create_index("ix_snapshots_pool_id", "snapshots", ["pool", "id"])
    op.create_index(
        "ix_snapshots_share_id_id", "snapshots", ["share_id", "id"]
    )
