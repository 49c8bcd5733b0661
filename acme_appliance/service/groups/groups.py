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

"""The use cases of groups."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes import claims
from acme_appliance.changes import operation
from acme_appliance.changes.runner import Runner
from acme_appliance.db import models
from acme_appliance.service import descriptions
from acme_appliance.service import fields
from acme_appliance.service import lookup
from acme_appliance.service import membership
from acme_appliance.service import objects
from acme_appliance.service import pages
from acme_appliance.service.groups import copies
from acme_appliance.service.groups import deletion
from acme_appliance.service.groups import groupoperation
from acme_appliance.service.shares import shares

_CREATABLE = frozenset({"name", "pool", "labels", "source", "shares"})
_PATCHABLE = frozenset({"name", "labels", "add_share_ids", "remove_share_ids"})


class Groups:
    """The use cases of groups; see :mod:`acme_appliance.service`."""

    def __init__(self, runner: Runner, members: shares.Shares) -> None:
        self.runner = runner
        self.context = runner.context
        self._copies = copies.Copies(runner.context)
        self._deletion = deletion.Deletion(runner, members)

    def get(self, caller: types.Caller, group_id: str) -> types.Body:
        """``group.not_found``."""
        with self.context.database.read() as session:
            return _body(session, _get_visible(session, caller, group_id))

    def page(
        self,
        caller: types.Caller,
        filters: Mapping[str, Any],
        limit: int,
        marker: str | None,
    ) -> types.Page:
        """``filters``: name, pool."""
        return pages.read_page(
            self.context.database,
            pages.visible(models.Group, caller, filters),
            models.Group.id,
            limit=limit,
            marker=marker,
            show=_show,
        )

    # -- creating

    def put(
        self,
        caller: types.Caller,
        group_id: str,
        body: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Create a group; ``body`` is the schema GroupCreate.

        ``group.exists_mismatch``, ``pool.not_found``, ``pool.unsupported``,
        ``limit.groups``. With a source, also what its shares can raise, see
        :meth:`shares.Shares.put`, and ``group.not_found``,
        ``group_snapshot.not_found``, ``moment.unavailable``.
        """
        fields.check_fields(body, _CREATABLE)
        body = fields.without_nulls(body)
        return self.runner.run(
            lambda: self._copies.wanted_claims(group_id, body),
            lambda: self._decide_put(caller, group_id, body, if_match),
            wait_seconds,
        )

    def _decide_put(
        self,
        caller: types.Caller,
        group_id: str,
        body: types.Body,
        if_match: int | None,
    ) -> operation.Decision:
        with self.context.database.read() as session:
            row = session.get(models.Group, group_id)
            if row is not None:
                objects.check_same_create(caller, row, body, if_match)
                return types.Done(_body(session, row))
        fields.check_precondition(if_match, None, "group")
        if "source" in body:
            return self._copies.decide(caller, group_id, body)
        pool = body.get("pool", self.context.pools.default)
        if pool not in self.context.pools:
            raise problems.Problem(
                "pool.not_found", f"There is no pool {pool}.", pointer="/pool"
            )
        groupoperation.check_feature(self.context, pool)
        self.context.pools.check(pool)
        intent = operation.new_intent(
            caller,
            "group.create",
            "",
            namespace=caller.home,
            group_id=group_id,
            arguments={},
        )
        return operation.Work(pool, lambda: self._create(intent, pool, body))

    def _create(
        self, intent: types.Intent, pool: str, body: types.Body
    ) -> types.Done:
        """Create an empty group. The pool gets its metadata afterwards: if
        this fails, the comparison at the next start writes it."""
        assert intent.group_id is not None  # noqa: S101
        now = self.context.clock()
        with self.context.database.write() as session:
            groupoperation.check_count(self.context, session, models.Group)
            row = models.Group(
                id=intent.group_id,
                namespace=intent.namespace,
                name=body["name"],
                pool=pool,
                state=types.State.AVAILABLE,
                generation=self.context.generations.next(),
                moment=None,
                labels=body.get("labels", {}),
                create_request=body,
                created_at=now,
                updated_at=now,
            )
            session.add(row)
            self.context.events.add(
                session,
                "group.created",
                intent,
                job=False,
                detail={"name": row.name},
            )
            answer = views.group(row, [])
            metadata = descriptions.of(row, references.GroupKind.GROUP)
        descriptions.write_after_commit(
            self.context, pool, references.group(row.id), metadata
        )
        self.context.events.announce()
        return types.Done(answer, created=True)

    # -- changing

    def patch(
        self,
        caller: types.Caller,
        group_id: str,
        patch: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Merge-patch name and labels, add and remove shares; ``patch`` is
        the schema GroupPatch.

        ``group.not_found``, ``share.not_found``, ``share.in_group``,
        ``group.other_pool``, ``limit.group_shares``.
        """
        fields.check_fields(patch, _PATCHABLE)
        added = set(patch.get("add_share_ids", ()))
        removed = set(patch.get("remove_share_ids", ()))
        for share_id in sorted(added & removed):
            raise groupoperation.twice(share_id, "/remove_share_ids")
        return self.runner.run(
            lambda: claims.exclusive(
                claims.group(group_id),
                *map(claims.share, sorted(added | removed)),
            ),
            lambda: self._decide_patch(
                caller, group_id, patch, added, removed, if_match
            ),
            wait_seconds,
        )

    def _decide_patch(
        self,
        caller: types.Caller,
        group_id: str,
        patch: types.Body,
        added: set[str],
        removed: set[str],
        if_match: int | None,
    ) -> operation.Decision:
        with self.context.database.read() as session:
            row = _get_visible(session, caller, group_id)
            fields.check_precondition(if_match, row.generation, "group")
            lookup.check_usable(row)
            name = patch.get("name") or row.name
            labels = row.labels
            if "labels" in patch:
                labels = fields.merge_labels(labels, patch["labels"])
            joining = self._joining(session, caller, row, added)
            leaving = self._leaving(session, row, removed)
            if not joining and not leaving:
                if (name, labels) == (row.name, row.labels):
                    return types.Done(_body(session, row))
            intent = operation.new_intent(
                caller,
                "group.update",
                "",
                namespace=row.namespace,
                group_id=group_id,
                arguments={"name": name, "labels": labels},
            )
            pool = row.pool
        return operation.Work(
            pool, lambda: self._update(intent, joining, leaving)
        )

    def _joining(
        self,
        session: orm.Session,
        caller: types.Caller,
        row: models.Group,
        added: set[str],
    ) -> list[str]:
        """The shares to add that are not in the group yet."""
        found = []
        for share_id in sorted(added):
            reference = references.share(share_id)
            share = lookup.get_visible(
                session, caller, reference, "/add_share_ids"
            )
            if share.namespace != row.namespace:
                raise lookup.not_found(reference, "/add_share_ids")
            if share.group_id == row.id:
                continue
            if share.group_id is not None:
                raise shares.in_group(share, "/add_share_ids")
            lookup.check_usable(share)
            if share.pool != row.pool:
                raise problems.Problem(
                    "group.other_pool",
                    f"The share {share_id} is in the pool {share.pool}, and"
                    f" the group {row.id} in {row.pool}.",
                    pointer="/add_share_ids",
                )
            found.append(share_id)
        return found

    def _leaving(
        self, session: orm.Session, row: models.Group, removed: set[str]
    ) -> list[str]:
        ours = membership.shares(session, row.id)[row.id]
        return sorted(removed.intersection(ours))

    def _update(
        self, intent: types.Intent, joining: list[str], leaving: list[str]
    ) -> types.Done:
        group_id = intent.group_id
        assert group_id is not None  # noqa: S101
        with self.context.database.write() as session:
            row = session.get_one(models.Group, group_id)
            membership.check_join(
                self.context,
                session,
                group_id,
                namespace=row.namespace,
                pool=row.pool,
                added=len(joining) - len(leaving),
            )
            row.name = intent.arguments["name"]
            row.labels = intent.arguments["labels"]
            self.context.touch(row)
            moved = membership.move(
                self.context,
                session,
                {
                    **dict.fromkeys(joining, group_id),
                    **dict.fromkeys(leaving),
                },
            )
            session.flush()
            self.context.events.add(
                session,
                "group.updated",
                intent,
                job=False,
                detail={"added": joining, "removed": leaving},
            )
            answer = _body(session, row)
            metadata = descriptions.of(row, references.GroupKind.GROUP)
        for subject, each in {
            references.group(group_id): metadata,
            **moved,
        }.items():
            descriptions.write_after_commit(
                self.context, answer["pool"], subject, each
            )
        self.context.events.announce()
        return types.Done(answer)

    # -- deleting

    def delete(
        self,
        caller: types.Caller,
        group_id: str,
        *,
        shares: str = "keep",
        snapshots: str = "fail",
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Delete a group, with ``shares="delete"`` its shares too; success
        if it does not exist.

        :param snapshots: of its shares, see :meth:`shares.Shares.delete`.

        ``group.shares_left``, with an entry in ``errors`` for each share that
        could not be deleted; the others are.
        """
        return self._deletion.delete(
            caller,
            group_id,
            snapshots=snapshots if shares == "delete" else None,
            wait_seconds=wait_seconds,
            if_match=if_match,
        )


def _get_visible(
    session: orm.Session, caller: types.Caller, group_id: str
) -> models.Group:
    row: models.Group = lookup.get_visible(
        session, caller, references.group(group_id)
    )
    return row


def _show(
    session: orm.Session | sa.Connection, found: Sequence[Any]
) -> Iterator[types.Body]:
    share_ids = membership.shares(session, *(row.id for row in found))
    for row in found:
        yield views.group(row, share_ids[row.id])


def _body(session: orm.Session, row: models.Group) -> types.Body:
    (body,) = _show(session, [row])
    return body
