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

"""The use cases of group snapshots."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes import claims
from acme_appliance.changes import operation
from acme_appliance.changes.runner import Runner
from acme_appliance.db import models
from acme_appliance.service import fields
from acme_appliance.service import lookup
from acme_appliance.service import membership
from acme_appliance.service import objects
from acme_appliance.service import pages
from acme_appliance.service import rules
from acme_appliance.service.groups import groupoperation
from acme_appliance.service.groups import snapshotoperations
from acme_appliance.service.shares import shares

_CREATABLE = frozenset({"name", "group_id", "snapshots", "labels"})


class GroupSnapshots:
    """The use cases of group snapshots; see :mod:`acme_appliance.service`."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.context = runner.context

    def get(self, caller: types.Caller, group_snapshot_id: str) -> types.Body:
        """``group_snapshot.not_found``."""
        reference = references.group_snapshot(group_snapshot_id)
        with self.context.database.read() as session:
            row = lookup.get_visible(session, caller, reference)
            return _body(session, row)

    def page(
        self,
        caller: types.Caller,
        filters: Mapping[str, Any],
        limit: int,
        marker: str | None,
    ) -> types.Page:
        """``filters``: name, group_id."""
        return pages.read_page(
            self.context.database,
            pages.visible(models.GroupSnapshot, caller, filters),
            models.GroupSnapshot.id,
            limit=limit,
            marker=marker,
            show=_show,
        )

    # -- creating

    def put(
        self,
        caller: types.Caller,
        group_snapshot_id: str,
        body: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Snapshot shares at one moment; ``body`` is the schema
        GroupSnapshotCreate.

        ``group_snapshot.exists_mismatch``, ``snapshot.exists_mismatch``,
        ``group.not_found``, ``share.not_found``, ``share.in_group``,
        ``group.other_pool``, ``pool.unsupported``, ``moment.unavailable``,
        ``limit.snapshots``, ``limit.groups``, ``pool.no_space``.
        """
        fields.check_fields(body, _CREATABLE)
        body = fields.without_nulls(body)
        return self.runner.run(
            lambda: _claims_of_put(group_snapshot_id, body),
            lambda: self._decide_put(
                caller, group_snapshot_id, body, if_match
            ),
            wait_seconds,
        )

    def _decide_put(
        self,
        caller: types.Caller,
        group_snapshot_id: str,
        body: types.Body,
        if_match: int | None,
    ) -> operation.Decision:
        with self.context.database.read() as session:
            row = session.get(models.GroupSnapshot, group_snapshot_id)
            if row is not None:
                objects.check_same_create(caller, row, body, if_match)
                return types.Done(_body(session, row))
            fields.check_precondition(if_match, None, "group snapshot")
            found = self._shares(session, caller, body)
            self._check_new(session, body)
        pool = found[0].pool
        groupoperation.check_feature(
            self.context, pool, types.FEATURE_GROUP_SNAPSHOT
        )
        self.context.pools.check(pool)
        for each in body["snapshots"].values():
            objects.check_free(
                self.context, pool, references.snapshot(each["id"])
            )
        intent = operation.new_intent(
            caller,
            snapshotoperations.CreateGroupSnapshot.kind,
            "",
            namespace=found[0].namespace,
            group_id=body.get("group_id"),
            group_snapshot_id=group_snapshot_id,
            arguments={
                "pool": pool,
                "name": body["name"],
                "labels": body.get("labels", {}),
                "request": body,
                "snapshots": {
                    share.id: _arguments(share, group_snapshot_id, body)
                    for share in found
                },
            },
        )
        return snapshotoperations.CreateGroupSnapshot(self.context, intent)

    def _shares(
        self, session: orm.Session, caller: types.Caller, body: types.Body
    ) -> list[models.Share]:
        """The shares to snapshot, of one namespace and one pool."""
        group_id = body.get("group_id")
        if group_id is not None:
            group = lookup.get_visible(
                session, caller, references.group(group_id), "/group_id"
            )
            lookup.check_usable(group)
        found: list[models.Share] = []
        for share_id in sorted(body["snapshots"]):
            pointer = f"/snapshots/{share_id}"
            reference = references.share(share_id)
            share = lookup.get_visible(session, caller, reference, pointer)
            if found and share.namespace != found[0].namespace:
                raise lookup.not_found(reference, pointer)
            lookup.check_usable(share)
            if group_id is not None and share.group_id != group_id:
                raise shares.in_group(share, pointer)
            if found and share.pool != found[0].pool:
                raise problems.Problem(
                    "group.other_pool",
                    f"The share {share_id} is in the pool {share.pool}, and"
                    f" {found[0].id} in {found[0].pool}: take a group"
                    " snapshot in each.",
                    pointer=pointer,
                )
            found.append(share)
        return found

    def _check_new(self, session: orm.Session, body: types.Body) -> None:
        """Check that no id is taken, or used twice."""
        seen: set[str] = set()
        for share_id, each in body["snapshots"].items():
            pointer = f"/snapshots/{share_id}/id"
            if each["id"] in seen:
                raise groupoperation.twice(each["id"], pointer)
            seen.add(each["id"])
            if session.get(models.Snapshot, each["id"]) is not None:
                raise problems.Problem(
                    "snapshot.exists_mismatch",
                    f"The snapshot {each['id']} was created by another"
                    " request.",
                    pointer=pointer,
                )

    # -- deleting

    def delete(
        self,
        caller: types.Caller,
        group_snapshot_id: str,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Delete a group snapshot with its snapshots, even if they have
        clones; success if it does not exist. ``snapshot.in_use``.
        """
        return self.runner.run(
            lambda: self._claims_of_delete(group_snapshot_id),
            lambda: self._decide_delete(caller, group_snapshot_id, if_match),
            wait_seconds,
        )

    def _claims_of_delete(self, group_snapshot_id: str) -> claims.Claims:
        with self.context.database.read() as session:
            found = membership.snapshots(session, group_snapshot_id)
        ours = found[group_snapshot_id]
        return claims.exclusive(
            claims.group_snapshot(group_snapshot_id),
            *map(claims.share, ours),
            *map(claims.snapshot, ours.values()),
        )

    def _decide_delete(
        self,
        caller: types.Caller,
        group_snapshot_id: str,
        if_match: int | None,
    ) -> operation.Decision:
        reference = references.group_snapshot(group_snapshot_id)
        with self.context.database.read() as session:
            row = lookup.find_visible(session, caller, reference)
            if row is None:
                return types.Done(None, absent=True)
            fields.check_precondition(
                if_match, row.generation, "group snapshot"
            )
            found = membership.snapshot_rows(session, group_snapshot_id)
            _check_unused(session, [each.id for each in found])
            intent = operation.new_intent(
                caller,
                snapshotoperations.DeleteGroupSnapshot.kind,
                "",
                namespace=row.namespace,
                group_id=row.group_id,
                group_snapshot_id=row.id,
                arguments={
                    "pool": row.pool,
                    "state": row.state,
                    "snapshots": {
                        each.id: {
                            "share_id": each.share_id,
                            "state": each.state,
                        }
                        for each in found
                    },
                },
            )
            pool = row.pool
        self.context.pools.check(pool)
        return snapshotoperations.DeleteGroupSnapshot(self.context, intent)


def _claims_of_put(group_snapshot_id: str, body: types.Body) -> claims.Claims:
    """Changes of the shares wait, including grants of access."""
    wanted = dict(
        claims.exclusive(
            claims.group_snapshot(group_snapshot_id),
            *map(claims.share, body["snapshots"]),
            *(
                claims.snapshot(each["id"])
                for each in body["snapshots"].values()
            ),
        )
    )
    if "group_id" in body:
        wanted[claims.group(body["group_id"])] = claims.Claim.SHARED
    return wanted


def _arguments(
    share: models.Share, group_snapshot_id: str, body: types.Body
) -> types.Body:
    """Those of the snapshot of a share."""
    given = body["snapshots"][share.id]
    name = given.get("name", body["name"])
    labels = given.get("labels", {})
    return {
        "id": given["id"],
        "name": name,
        "labels": labels,
        "size_bytes": share.size_bytes,
        "file": share.file,
        "group_snapshot_id": group_snapshot_id,
        # As if it had been created by itself.
        "request": fields.without_nulls(
            {"share_id": share.id, "name": name, "labels": labels}
        ),
    }


def _check_unused(session: orm.Session, snapshot_ids: list[str]) -> None:
    """:raises problems.Problem: ``snapshot.in_use``, for each."""
    used = rules.read(session, references.Kind.SNAPSHOT, snapshot_ids)
    if used:
        raise problems.Problem(
            "snapshot.in_use",
            f"Exported are {len(used)} of the {len(snapshot_ids)} snapshots.",
            errors=[
                {
                    "pointer": f"/snapshots/{id_}",
                    "code": "snapshot.in_use",
                    "detail": f"It is exported for {', '.join(holders)}.",
                }
                for id_, holders in used.items()
            ],
        )


def _show(session: orm.Session, found: Sequence[Any]) -> Iterator[types.Body]:
    snapshots = membership.snapshots(session, *(row.id for row in found))
    for row in found:
        yield views.group_snapshot(row, snapshots[row.id])


def _body(session: orm.Session, row: models.GroupSnapshot) -> types.Body:
    (body,) = _show(session, [row])
    return body
