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

"""Claims of open jobs.

Open jobs get the claims that their release held only in memory: the share, the
snapshot, and the source of a clone.
"""

from collections.abc import Iterator
import json
from typing import Any

from alembic import op
import sqlalchemy as sa

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ENDED = ("succeeded", "failed", "cancelled")


def upgrade() -> None:
    claims = op.create_table(
        "job_claims",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("object_id", sa.String(length=36), nullable=False),
        sa.Column("claim", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["jobs.id"],
            name="fk_job_claims_job_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "job_id", "kind", "object_id", name="pk_job_claims"
        ),
    )
    op.create_index(
        "ix_job_claims_object_id_kind", "job_claims", ["object_id", "kind"]
    )
    found = [
        {"job_id": job.id, "kind": kind, "object_id": id_, "claim": claim}
        for job in _open_jobs()
        for (kind, id_), claim in _claims(job).items()
    ]
    if found:
        op.bulk_insert(claims, found)


def _open_jobs() -> Iterator[Any]:
    # As text: an unreadable job must not stop the upgrade.
    jobs = sa.table(
        "jobs",
        *(sa.column(name, sa.Text) for name in ("id", "kind", "arguments")),
        *(
            sa.column(name, sa.Text)
            for name in ("share_id", "snapshot_id", "state")
        ),
    )
    arguments = sa.cast(jobs.c.arguments, sa.Text).label("arguments")
    yield from op.get_bind().execute(
        sa.select(
            jobs.c.id,
            jobs.c.kind,
            jobs.c.share_id,
            jobs.c.snapshot_id,
            arguments,
        ).where(jobs.c.state.not_in(_ENDED))
    )


def _claims(job: Any) -> dict[tuple[str, str], str]:
    claims = {("share", job.share_id): "alone"}
    if job.snapshot_id is not None:
        claims["snapshot", job.snapshot_id] = "alone"
    if job.kind == "share.create":
        try:
            source = json.loads(job.arguments)["source"] or {}
            origin = source.get("type"), source.get("id")
        except (AttributeError, KeyError, TypeError, ValueError):
            return claims
        for resource in _of_source(*origin):
            claims.setdefault(resource, "together")
    return claims


def _of_source(kind: Any, id_: Any) -> Iterator[tuple[str, str]]:
    """The source of a clone, and the share of a snapshot."""
    if not isinstance(id_, str) or kind not in ("share", "snapshot"):
        return
    yield kind, id_
    if kind == "snapshot":
        snapshots = sa.table(
            "snapshots", sa.column("id"), sa.column("share_id")
        )
        share_id = op.get_bind().scalar(
            sa.select(snapshots.c.share_id).where(snapshots.c.id == id_)
        )
        if share_id is not None:
            yield "share", share_id
