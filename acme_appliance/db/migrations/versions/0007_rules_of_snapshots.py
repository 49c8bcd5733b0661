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

"""Access rules of shares and of snapshots, in one table."""

from alembic import op
import sqlalchemy as sa

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A new table, because SQLite can neither change a primary key nor drop a
    # foreign key.
    op.rename_table("access_rules", "access_rules_of_shares")
    if op.get_bind().dialect.name == "postgresql":
        # The old table keeps the index, whose name the new one needs.
        op.execute(
            "ALTER INDEX pk_access_rules RENAME TO pk_access_rules_of_shares"
        )
    op.create_table(
        "access_rules",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("object_id", sa.String(length=36), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("clients", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("level", sa.String(length=2), nullable=False),
        sa.PrimaryKeyConstraint(
            "kind", "object_id", "holder", name="pk_access_rules"
        ),
    )
    op.execute(
        "INSERT INTO access_rules (kind, object_id, holder, clients, level)"
        " SELECT 'share', share_id, holder, clients, level"
        " FROM access_rules_of_shares"
    )
    op.drop_table("access_rules_of_shares")
