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

"""Indexes for the filters of a namespace's lists."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, columns in (
        ("jobs", ["namespace", "state", "id"]),
        ("shares", ["namespace", "name", "id"]),
        ("shares", ["namespace", "pool", "id"]),
        ("shares", ["namespace", "state", "id"]),
        ("snapshots", ["namespace", "name", "id"]),
        ("snapshots", ["namespace", "state", "id"]),
        ("snapshots", ["state", "id"]),
    ):
        op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)
