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

"""Shares: what is asked for, checked against what is there."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.service import changes
from acme_appliance.service import core
from acme_appliance.service import pages
from acme_appliance.service import queue
from acme_appliance.service import share_operations as operations
from acme_appliance.service import types

_CREATABLE = frozenset(
    {"name", "pool", "size_bytes", "source", "file", "labels"}
)
_USABLE = (types.State.AVAILABLE, types.State.DEGRADED)


def not_found(share_id: str, pointer: str | None = None) -> problems.Problem:
    return problems.Problem(
        "share.not_found", f"There is no share {share_id}.", pointer=pointer
    )


def find_visible(
    session: orm.Session, caller: types.Caller, share_id: str
) -> models.Share | None:
    """The share, if it is there and the caller may see it."""
    row = session.get(models.Share, share_id)
    return row if row is not None and caller.sees(row.namespace) else None


def get_visible(
    session: orm.Session,
    caller: types.Caller,
    share_id: str,
    pointer: str | None = None,
) -> models.Share:
    """:raises problems.Problem: ``share.not_found``."""
    row = find_visible(session, caller, share_id)
    if row is None:
        raise not_found(share_id, pointer)
    return row


def check_usable(row: models.Share) -> None:
    """:raises problems.Problem: ``share.wrong_state``."""
    if row.state not in _USABLE:
        raise problems.Problem(
            "share.wrong_state",
            f"The share {row.id} is in state {row.state}; it can only be"
            " deleted.",
        )


class Shares:
    """The use cases; see the facade for what callers may rely on."""

    def __init__(self, changer: changes.Changer) -> None:
        self.changer = changer
        self.core = changer.core

    # -- reading

    def get(self, caller: types.Caller, share_id: str) -> types.Body:
        with self.core.database.read() as session:
            return self.core.share_body(get_visible(session, caller, share_id))

    def page(
        self,
        caller: types.Caller,
        filters: Mapping[str, Any],
        limit: int,
        marker: str | None,
    ) -> types.Page:
        statement = sa.select(models.Share).options(
            orm.selectinload(models.Share.access_rules)
        )
        if caller.namespace is not None:
            statement = statement.where(
                models.Share.namespace == caller.namespace
            )
        for name, value in filters.items():
            if name == "labels":
                statement = _with_labels(statement, value)
            elif name == "group_id":
                # Groups are not there yet: no share is in one.
                statement = statement.where(sa.false())
            else:
                column = getattr(models.Share, name)
                statement = statement.where(column == value)
        with self.core.database.read() as session:
            return pages.read_page(
                session,
                statement,
                models.Share.id,
                limit=limit,
                marker=marker,
                show=self.core.share_body,
            )

    # -- creating

    def put(
        self,
        caller: types.Caller,
        share_id: str,
        body: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None,
    ) -> types.Done | types.Accepted:
        body = changes.without_nulls(body)
        changes.check_fields(body, _CREATABLE)
        return self.changer.run(
            lambda: self._create_claims(share_id, body),
            lambda: self._decide_create(caller, share_id, body, if_match),
            wait_seconds,
        )

    def _create_claims(
        self, share_id: str, body: types.Body
    ) -> changes.Claims:
        claims = dict(changes.alone(share_id))
        source = body.get("source")
        if source is None:
            return claims
        origin = source["id"]
        if source["type"] == engines.Kind.SNAPSHOT:
            with self.core.database.read() as session:
                snapshot = session.get(models.Snapshot, origin)
            if snapshot is None:
                return claims
            origin = snapshot.share_id
        # Clones of one source are made side by side.
        claims.setdefault(changes.share_key(origin), queue.Claim.TOGETHER)
        return claims

    def _decide_create(
        self,
        caller: types.Caller,
        share_id: str,
        body: types.Body,
        if_match: int | None,
    ) -> changes.Decision:
        with self.core.database.read() as session:
            row = session.get(models.Share, share_id)
            if row is not None:
                return self._same_share(caller, row, body, if_match)
            core.check_precondition(if_match, None, "share")
            arguments = self._create_arguments(session, caller, body)
        pool = arguments["pool"]
        self.core.check_pool(pool)
        share = engines.Reference(engines.Kind.SHARE, share_id)
        if self.core.engine(pool).exists(share):
            raise problems.Problem(
                "share.exists_mismatch",
                f"The pool {pool} holds a share {share_id} that the database"
                " does not know; see: acme-appliance reconcile.",
            )
        return operations.CreateShare(
            self.core,
            changes.new_intent(
                caller,
                operations.CreateShare.kind,
                share_id,
                namespace=caller.home,
                arguments=arguments,
            ),
        )

    def _same_share(
        self,
        caller: types.Caller,
        row: models.Share,
        body: types.Body,
        if_match: int | None,
    ) -> types.Done:
        if not caller.sees(row.namespace):
            raise problems.Problem(
                "share.exists_mismatch", f"The id {row.id} is taken."
            )
        changes.check_no_open_job(row)
        core.check_precondition(if_match, row.generation, "share")
        if row.create_request != body:
            raise problems.Problem(
                "share.exists_mismatch",
                f"The share {row.id} was created by another request.",
            )
        check_usable(row)
        return types.Done(self.core.share_body(row))

    def _create_arguments(
        self, session: orm.Session, caller: types.Caller, body: types.Body
    ) -> types.Body:
        arguments: types.Body = {
            "name": body.get("name", ""),
            "labels": body.get("labels", {}),
            "request": body,
        }
        if "source" in body:
            arguments.update(self._from_source(session, caller, body))
        else:
            arguments.update(self._from_nothing(body))
        limit = self.core.settings.limits.max_share_bytes
        if arguments["size_bytes"] > limit:
            raise problems.Problem(
                "request.invalid",
                f"A share has at most {limit} bytes here.",
                pointer="/size_bytes",
            )
        return arguments

    def _from_nothing(self, body: types.Body) -> types.Body:
        pool = body.get("pool", self.core.default_pool)
        if pool not in self.core.pools:
            raise problems.Problem(
                "pool.not_found", f"There is no pool {pool}.", pointer="/pool"
            )
        if "size_bytes" not in body:
            raise problems.Problem(
                "request.invalid",
                "A share without a source needs a size.",
                pointer="/size_bytes",
            )
        defaults = dataclasses.asdict(self.core.settings.file_defaults)
        file = None
        if self.core.has_volume_file(pool):
            file = {**defaults, **body.get("file", {})}
        else:
            self._refuse_file(body, pool)
        owner = file or defaults
        return {
            "pool": pool,
            "size_bytes": body["size_bytes"],
            "file": file,
            "owner": {"uid": owner["uid"], "gid": owner["gid"]},
            "source": None,
        }

    def _from_source(
        self, session: orm.Session, caller: types.Caller, body: types.Body
    ) -> types.Body:
        source = self._source(session, caller, body["source"])
        pool = source.pool
        if body.get("pool", pool) != pool:
            raise problems.Problem(
                "request.invalid",
                f"The source is in the pool {pool}, so the share must be.",
                pointer="/pool",
            )
        size_bytes = body.get("size_bytes", source.size_bytes)
        if size_bytes < source.size_bytes:
            raise problems.Problem(
                "request.invalid",
                f"The source has {source.size_bytes} bytes.",
                pointer="/size_bytes",
            )
        file = None
        if source.file is not None and self.core.has_volume_file(pool):
            file = {**source.file, **body.get("file", {})}
        else:
            self._refuse_file(body, pool)
        return {
            "pool": pool,
            "size_bytes": size_bytes,
            "file": file,
            "owner": None,
            "source": {
                **body["source"],
                "file_name": source.file["name"] if source.file else None,
            },
        }

    def _source(
        self, session: orm.Session, caller: types.Caller, source: types.Body
    ) -> models.Share | models.Snapshot:
        if source["type"] == engines.Kind.SHARE:
            share = get_visible(session, caller, source["id"], "/source/id")
            changes.check_no_open_job(share)
            check_usable(share)
            return share
        snapshot = session.get(models.Snapshot, source["id"])
        if snapshot is None or not caller.sees(snapshot.namespace):
            raise problems.Problem(
                "snapshot.not_found",
                f"There is no snapshot {source['id']}.",
                pointer="/source/id",
            )
        changes.check_no_open_job(snapshot)
        if snapshot.state != types.State.AVAILABLE:
            raise problems.Problem(
                "snapshot.wrong_state",
                f"The snapshot {snapshot.id} is in state {snapshot.state}.",
            )
        return snapshot

    def _refuse_file(self, body: types.Body, pool: str) -> None:
        if "file" in body:
            raise problems.Problem(
                "request.unknown_field",
                f"The pool {pool} does not make volume files.",
                pointer="/file",
            )

    # -- changing

    def patch(
        self,
        caller: types.Caller,
        share_id: str,
        patch: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None,
    ) -> types.Done | types.Accepted:
        changes.check_fields(patch, types.PATCHABLE)
        return self.changer.run(
            lambda: changes.alone(share_id),
            lambda: self._decide_patch(caller, share_id, patch, if_match),
            wait_seconds,
        )

    def _decide_patch(
        self,
        caller: types.Caller,
        share_id: str,
        patch: types.Body,
        if_match: int | None,
    ) -> changes.Decision:
        with self.core.database.read() as session:
            row = get_visible(session, caller, share_id)
            changes.check_no_open_job(row)
            core.check_precondition(if_match, row.generation, "share")
            check_usable(row)
            wanted = self._patched(row, patch)
            before = _patchable(row)
            if wanted == before:
                return types.Done(self.core.share_body(row))
            intent = changes.new_intent(
                caller,
                operations.UpdateShare.kind,
                share_id,
                namespace=row.namespace,
                arguments={
                    **wanted,
                    "pool": row.pool,
                    "state": row.state,
                    "old_name": before["file_name"],
                    "allocation": row.file and row.file["allocation"],
                },
            )
            pool = row.pool
            touches_file = row.file is not None and (
                wanted["size_bytes"] != before["size_bytes"]
                or wanted["file_name"] != before["file_name"]
            )
        if touches_file:
            self.core.check_pool(pool)
            return operations.UpdateShare(self.core, intent)
        return self._update_row(intent)

    def _patched(self, row: models.Share, patch: types.Body) -> types.Body:
        """What the share is to be; :raises problems.Problem: it cannot."""
        wanted = _patchable(row)
        wanted["name"] = patch.get("name") or row.name
        if "labels" in patch:
            wanted["labels"] = changes.merge_labels(
                row.labels, patch["labels"]
            )
        wanted["size_bytes"] = self._patched_size(row, patch)
        file = patch.get("file")
        if file is not None:
            if row.file is None:
                self._refuse_file(patch, row.pool)
                raise problems.Problem(
                    "request.unknown_field",
                    f"The share {row.id} has no volume file.",
                    pointer="/file",
                )
            wanted["file_name"] = file.get("name") or row.file["name"]
        return wanted

    def _patched_size(self, row: models.Share, patch: types.Body) -> int:
        size_bytes: int = patch.get("size_bytes") or row.size_bytes
        limit = self.core.settings.limits.max_share_bytes
        if size_bytes < row.size_bytes:
            raise problems.Problem(
                "share.shrink_refused",
                f"The share {row.id} has {row.size_bytes} bytes already.",
                pointer="/size_bytes",
            )
        if size_bytes > limit:
            raise problems.Problem(
                "request.invalid",
                f"A share has at most {limit} bytes here.",
                pointer="/size_bytes",
            )
        return size_bytes

    def _update_row(self, intent: types.Intent) -> types.Done:
        """A change of the database alone needs no journal."""
        given = intent.arguments
        with self.core.database.write() as session:
            row = session.get_one(models.Share, intent.share_id)
            row.name = given["name"]
            row.size_bytes = given["size_bytes"]
            operations.set_labels(row, given["labels"])
            row.generation += 1
            row.updated_at = self.core.clock()
            self.core.add_event(session, "share.updated", intent, job=False)
            body = self.core.share_body(row)
        self.core.announce()
        return types.Done(body)

    # -- deleting

    def delete(
        self,
        caller: types.Caller,
        share_id: str,
        *,
        snapshots: str,
        wait_seconds: float,
        if_match: int | None,
    ) -> types.Done | types.Accepted:
        return self.changer.run(
            lambda: changes.alone(share_id),
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
    ) -> changes.Decision:
        with self.core.database.read() as session:
            row = find_visible(session, caller, share_id)
            if row is None:
                return types.Done(None)
            changes.check_no_open_job(row)
            core.check_precondition(if_match, row.generation, "share")
            if row.access_rules:
                holders = ", ".join(rule.holder for rule in row.access_rules)
                raise problems.Problem(
                    "share.in_use",
                    f"The share {share_id} is exported for {holders}.",
                )
            snapshots = self._snapshots_of(session, share_id)
            if snapshots and not cascade:
                raise problems.Problem(
                    "share.has_snapshots",
                    f"The share {share_id} has {len(snapshots)} snapshots.",
                )
            intent = changes.new_intent(
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
        self.core.check_pool(pool)
        return operations.DeleteShare(self.core, intent)

    def _snapshots_of(
        self, session: orm.Session, share_id: str
    ) -> dict[str, str]:
        rows = session.scalars(
            sa.select(models.Snapshot)
            .where(models.Snapshot.share_id == share_id)
            .order_by(models.Snapshot.id)
        ).all()
        for row in rows:
            changes.check_no_open_job(row)
        return {row.id: row.state for row in rows}


def _patchable(row: models.Share) -> types.Body:
    return {
        "name": row.name,
        "size_bytes": row.size_bytes,
        "labels": row.labels,
        "file_name": row.file["name"] if row.file else None,
    }


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
