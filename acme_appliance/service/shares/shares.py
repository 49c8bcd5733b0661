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

"""The use cases of shares."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from acme_appliance.changes import claims
from acme_appliance.changes import operation
from acme_appliance.changes.runner import Runner
from acme_appliance.db import models
from acme_appliance.db.rows import find
from acme_appliance.service import fields
from acme_appliance.service import lookup
from acme_appliance.service import membership
from acme_appliance.service import objects
from acme_appliance.service import pages
from acme_appliance.service import rules
from acme_appliance.service.shares import bodies
from acme_appliance.service.shares import creation
from acme_appliance.service.shares import moves
from acme_appliance.service.shares import operations
from acme_appliance.service.shares import qos


class Shares:
    """The use cases of shares; see :mod:`acme_appliance.service`."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.context = runner.context
        self._creation = creation.Creation(runner.context)
        self._moves = moves.Moves(runner)

    # -- reading

    def get(self, caller: types.Caller, share_id: str) -> types.Body:
        """``share.not_found``, also for another namespace's."""
        with self.context.database.read_rows() as connection:
            row = find(connection, models.Share, share_id)
            if row is None or not caller.sees(row.namespace):
                raise lookup.not_found(references.share(share_id))
            (body,) = self._show(connection, [row])
        return bodies.measured(self.context, body)

    def page(
        self,
        caller: types.Caller,
        filters: Mapping[str, Any],
        limit: int,
        marker: str | None,
    ) -> types.Page:
        """``filters``: name, pool, origin_id, state, group_id; holder, of an
        access rule; and labels, a mapping of which all must match.
        """
        page = pages.read_page(
            self.context.database,
            page_statement(caller, filters),
            models.Share.id,
            limit=limit,
            marker=marker,
            show=self._show,
        )
        return dataclasses.replace(
            page, items=bodies.measured_all(self.context, page.items)
        )

    def _show(
        self, reader: orm.Session | sa.Connection, shares: Sequence[Any]
    ) -> Iterator[types.Body]:
        ids = [row.id for row in shares]
        found = rules.read(reader, references.Kind.SHARE, ids)
        for row in shares:
            yield bodies.of(self.context, row, found.get(row.id, {}))

    # -- changing

    def put(
        self,
        caller: types.Caller,
        share_id: str,
        body: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Create a share; ``body`` is the schema ShareCreate.

        The same body again: the share as it is now, ``created`` False.
        ``share.exists_mismatch``, ``share.not_found``,
        ``snapshot.not_found``, ``pool.not_found``, ``pool.no_space``,
        ``limit.shares``, ``limit.bytes``, ``request.invalid``.
        """
        fields.check_fields(body, creation.CREATABLE)
        body = fields.without_nulls(body)
        outcome = self.runner.run(
            lambda: self._creation.wanted_claims(share_id, body),
            lambda: self._creation.decide(caller, share_id, body, if_match),
            wait_seconds,
        )
        if isinstance(outcome, types.Done) and outcome.created:
            # The create has measured it.
            return outcome
        return bodies.measured_outcome(self.context, outcome)

    def patch(
        self,
        caller: types.Caller,
        share_id: str,
        patch: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Merge-patch a share; ``patch`` is the schema SharePatch.

        A patch without effect keeps the generation. ``share.not_found``,
        ``share.shrink_refused``, ``share.degraded``, ``pool.no_space``; with
        a pool, see :class:`moves.Moves`.
        """
        fields.check_fields(patch, types.PATCHABLE)
        if "pool" in patch:
            return self._moves.patch(
                caller,
                share_id,
                patch,
                wait_seconds=wait_seconds,
                if_match=if_match,
            )
        outcome = self.runner.run(
            lambda: _claims_of_patch(share_id, patch),
            lambda: self._decide_patch(caller, share_id, patch, if_match),
            wait_seconds,
        )
        return bodies.measured_outcome(self.context, outcome)

    def _decide_patch(
        self,
        caller: types.Caller,
        share_id: str,
        patch: types.Body,
        if_match: int | None,
    ) -> operation.Decision:
        with self.context.database.read() as session:
            row = lookup.get_visible(
                session, caller, references.share(share_id)
            )
            fields.check_precondition(if_match, row.generation, "share")
            lookup.check_usable(row)
            wanted = self._patched(row, patch)
            before = _patchable(row)
            if wanted == before:
                return types.Done(bodies.of(self.context, row))
            intent = operation.new_intent(
                caller,
                operations.UpdateShare.kind,
                share_id,
                namespace=row.namespace,
                group_id=wanted["group_id"],
                arguments={
                    **wanted,
                    "pool": row.pool,
                    "state": row.state,
                    "old_name": before["file_name"],
                    "old_qos": before["qos"],
                    "allocation": row.file and row.file["allocation"],
                },
            )
            pool = row.pool
            grows = wanted["size_bytes"] != before["size_bytes"]
            if row.file is not None and grows:
                self._check_growable(row)
        if grows or any(
            wanted[name] != before[name] for name in ("file_name", "qos")
        ):
            self.context.pools.check(pool)
            return operations.UpdateShare(self.context, intent)
        return operation.Work(pool, lambda: self._update_row(intent))

    def _patched(self, row: models.Share, patch: types.Body) -> types.Body:
        """The patched share; :raises problems.Problem: it is invalid."""
        wanted = _patchable(row)
        wanted["name"] = patch.get("name") or row.name
        if "labels" in patch:
            wanted["labels"] = fields.merge_labels(row.labels, patch["labels"])
        wanted["size_bytes"] = self._patched_size(row, patch)
        wanted["group_id"] = _patched_group(row, patch)
        if "qos" in patch:
            wanted["qos"] = qos.merged(row.qos, patch["qos"])
            able = self.context.pools.features(row.pool)
            qos.check(patch["qos"], row.pool, able)
        file = patch.get("file")
        if file is not None:
            if row.file is None:
                raise creation.no_file(
                    f"The share {row.id} has no volume file."
                )
            wanted["file_name"] = file.get("name") or row.file["name"]
        return wanted

    def _patched_size(self, row: models.Share, patch: types.Body) -> int:
        size_bytes: int = patch.get("size_bytes") or row.size_bytes
        limit = self.context.settings.limits.max_share_bytes
        if size_bytes < row.size_bytes:
            raise problems.Problem(
                "share.shrink_refused",
                f"The share {row.id} already has {row.size_bytes} bytes.",
                pointer="/size_bytes",
            )
        if size_bytes > limit:
            raise problems.Problem(
                "request.invalid",
                f"A share has at most {limit} bytes here.",
                pointer="/size_bytes",
            )
        return size_bytes

    def _check_growable(self, row: models.Share) -> None:
        able = self.context.pools.engine(row.pool).capabilities
        if row.access_rules and not able.grow_online:
            raise problems.Problem(
                "share.in_use",
                f"The pool {row.pool} cannot extend an exported share.",
            )

    def _update_row(self, intent: types.Intent) -> types.Done:
        def change(row: models.Share) -> None:
            group_id = intent.arguments["group_id"]
            session = orm.object_session(row)
            assert session is not None  # noqa: S101
            operations.check_regroup(self.context, session, row, group_id)
            if group_id != row.group_id:
                membership.touch_group(
                    self.context, session, row.group_id, group_id
                )
                row.group_id = group_id
            row.name = intent.arguments["name"]
            operations.set_labels(row, intent.arguments["labels"])

        return objects.update(
            self.context,
            references.share(intent.share_id),
            intent,
            change,
            lambda row: bodies.of(self.context, row),
        )

    # -- deleting

    def delete(
        self,
        caller: types.Caller,
        share_id: str,
        *,
        snapshots: str = "fail",
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Delete a share, with ``cascade`` its snapshots too; success if
        it is gone. ``share.has_snapshots``, ``share.in_use``.
        """
        return self.runner.run(
            lambda: claims.exclusive(claims.share(share_id)),
            lambda: self._decide_delete(
                caller, share_id, snapshots == "cascade", if_match
            ),
            wait_seconds,
        )

    def _decide_delete(
        self,
        caller: types.Caller,
        share_id: str,
        cascade: bool,
        if_match: int | None,
    ) -> operation.Decision:
        with self.context.database.read() as session:
            row = lookup.find_visible(
                session, caller, references.share(share_id)
            )
            if row is None:
                return types.Done(None, absent=True)
            fields.check_precondition(if_match, row.generation, "share")
            holders = [rule.holder for rule in row.access_rules]
            rules.check_unused(references.share(share_id), holders)
            snapshots = self._snapshots_of(session, share_id)
            if snapshots and not cascade:
                raise problems.Problem(
                    "share.has_snapshots",
                    f"The share {share_id} has {len(snapshots)} snapshots.",
                )
            used = rules.read(session, references.Kind.SNAPSHOT, snapshots)
            for id_, found in used.items():
                rules.check_unused(references.snapshot(id_), found)
            intent = operation.new_intent(
                caller,
                operations.DeleteShare.kind,
                share_id,
                namespace=row.namespace,
                arguments={
                    "pool": row.pool,
                    "state": row.state,
                    "snapshots": snapshots,
                },
            )
            pool = row.pool
        self.context.pools.check(pool)
        return operations.DeleteShare(self.context, intent)

    def _snapshots_of(
        self, session: orm.Session, share_id: str
    ) -> dict[str, str]:
        found = session.scalars(
            sa.select(models.Snapshot)
            .where(models.Snapshot.share_id == share_id)
            .order_by(models.Snapshot.id)
        ).all()
        return {row.id: row.state for row in found}


def _claims_of_patch(share_id: str, patch: types.Body) -> claims.Claims:
    wanted = [claims.share(share_id)]
    group_id = patch.get("group_id")
    if group_id is not None:
        # Also because the number of its shares is limited.
        wanted.append(claims.group(group_id))
    return claims.exclusive(*wanted)


def _patched_group(row: models.Share, patch: types.Body) -> str | None:
    """:raises problems.Problem: ``share.in_group``."""
    if "group_id" not in patch:
        return row.group_id
    group_id: str | None = patch["group_id"]
    if None not in (group_id, row.group_id) and group_id != row.group_id:
        raise in_group(row, "/group_id")
    return group_id


def in_group(row: models.Share, pointer: str) -> problems.Problem:
    """The share is in another group than the request assumes."""
    return problems.Problem(
        "share.in_group",
        f"The share {row.id} is in the group {row.group_id}."
        if row.group_id is not None
        else f"The share {row.id} is in no group.",
        pointer=pointer,
    )


def _patchable(row: models.Share) -> types.Body:
    return {
        "name": row.name,
        "size_bytes": row.size_bytes,
        "labels": row.labels,
        "qos": row.qos,
        "group_id": row.group_id,
        "file_name": row.file["name"] if row.file else None,
    }


def page_statement(
    caller: types.Caller, filters: Mapping[str, Any]
) -> sa.Select[Any]:
    """The shares that a caller may see; filters as in :meth:`Shares.page`."""
    columns = dict(filters)
    labels = columns.pop("labels", {})
    holder = columns.pop("holder", None)
    statement = pages.visible(
        models.Share, caller, columns, narrow=bool(labels or holder)
    )
    if holder is not None:
        statement = statement.where(
            models.Share.id.in_(
                sa.select(models.AccessRule.object_id).where(
                    models.AccessRule.holder == holder,
                    models.AccessRule.kind == references.Kind.SHARE,
                )
            )
        )
    return _with_labels(statement, labels)


def _with_labels(
    statement: sa.Select[Any], labels: Mapping[str, str]
) -> sa.Select[Any]:
    for key, value in labels.items():
        statement = statement.where(
            models.Share.id.in_(
                sa.select(models.ShareLabel.share_id).where(
                    models.ShareLabel.key == key,
                    models.ShareLabel.value == value,
                )
            )
        )
    return statement
