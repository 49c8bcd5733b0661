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

"""Groups of shares, and snapshots of several shares at one moment."""

from alembic import op
import sqlalchemy as sa

revision = "0011"
down_revision = "0009"
branch_labels = None
depends_on = None

_INDICES = (
    ("shares", "group_id", "id"),
    ("snapshots", "group_snapshot_id", "id"),
    ("groups", "namespace", "id"),
    ("groups", "namespace", "name", "id"),
    ("groups", "namespace", "pool", "id"),
    ("groups", "name", "id"),
    ("groups", "pool", "id"),
    ("group_snapshots", "group_id", "id"),
    ("group_snapshots", "namespace", "id"),
    ("group_snapshots", "namespace", "name", "id"),
    ("group_snapshots", "name", "id"),
    ("group_snapshots", "pool", "id"),
)


def upgrade() -> None:
    op.create_table(
        "groups",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("namespace", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("pool", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("moment", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("labels", sa.JSON(none_as_null=True), nullable=False),
        sa.Column(
            "create_request", sa.JSON(none_as_null=True), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
    )
    op.create_table(
        "group_snapshots",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("group_id", sa.String(length=36), nullable=True),
        sa.Column("namespace", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("pool", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("moment", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("labels", sa.JSON(none_as_null=True), nullable=False),
        sa.Column(
            "create_request", sa.JSON(none_as_null=True), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_group_snapshots"),
    )
    for table, column in (
        ("shares", "group_id"),
        ("snapshots", "group_snapshot_id"),
        ("jobs", "group_id"),
        ("jobs", "group_snapshot_id"),
        ("events", "group_id"),
        ("events", "group_snapshot_id"),
    ):
        op.add_column(
            table, sa.Column(column, sa.String(length=36), nullable=True)
        )
    for column in ("group_id", "group_snapshot_id"):
        # Most jobs have neither.
        op.create_index(
            f"ix_jobs_{column}_id",
            "jobs",
            [column, "id"],
            sqlite_where=sa.text(f"{column} IS NOT NULL"),
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )
    for table, *columns in _INDICES:
        op.create_index(
            f"ix_{table}_{'_'.join(columns)}", table, list(columns)
        )
