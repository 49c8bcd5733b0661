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

"""Validate and decide the creation of a group from a source."""

from typing import Any

from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from acme_appliance.changes import claims
from acme_appliance.changes import operation
from acme_appliance.changes.context import Context
from acme_appliance.db import models
from acme_appliance.references import GroupKind
from acme_appliance.references import Kind
from acme_appliance.service import lookup
from acme_appliance.service import objects
from acme_appliance.service.groups import groupcreation
from acme_appliance.service.groups import groupoperation
from acme_appliance.service.shares import creation

#: What a source has, and the column that says so.
_MEMBERS = {
    GroupKind.GROUP: (Kind.SHARE, "group_id"),
    GroupKind.GROUP_SNAPSHOT: (Kind.SNAPSHOT, "group_snapshot_id"),
}


class Copies:
    """The claims and the decision of a create with a source."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._creation = creation.Creation(context)

    def wanted_claims(self, group_id: str, body: types.Body) -> claims.Claims:
        """Those of any create of a group."""
        wanted = dict(claims.exclusive(claims.group(group_id)))
        if "source" not in body:
            return wanted
        source = body["source"]
        resource = claims.Resource(source["type"], source["id"])
        wanted.setdefault(resource, claims.Claim.SHARED)
        new = [each["id"] for each in body["shares"].values()]
        wanted |= claims.exclusive(*map(claims.share, new))
        if source["type"] == GroupKind.GROUP:
            # Nobody gets access to them, or changes them, at the moment.
            wanted |= claims.exclusive(
                *map(claims.share, body["shares"]),
                *(
                    claims.snapshot(groupcreation.temporary_snapshot(id_))
                    for id_ in new
                ),
            )
            return wanted
        for resource in self._sources(body["shares"]):
            wanted.setdefault(resource, claims.Claim.SHARED)
        return wanted

    def _sources(self, snapshot_ids: types.Body) -> list[claims.Resource]:
        """The snapshots and their shares, as for a clone of each."""
        with self.context.database.read() as session:
            found = [session.get(models.Snapshot, id_) for id_ in snapshot_ids]
        return [
            *map(claims.snapshot, snapshot_ids),
            *(claims.share(each.share_id) for each in found if each),
        ]

    def decide(
        self, caller: types.Caller, group_id: str, body: types.Body
    ) -> operation.Decision:
        """The group does not exist yet."""
        kind, _ = _MEMBERS[GroupKind(body["source"]["type"])]
        with self.context.database.read() as session:
            source = self._source(session, caller, body)
            self._check_members(session, source, body)
            self._check_new(session, body)
            pool = source.pool
        groupoperation.check_feature(self.context, pool)
        if kind == Kind.SHARE:
            groupoperation.check_feature(
                self.context, pool, types.FEATURE_GROUP_SNAPSHOT
            )
        if body.get("pool", pool) != pool:
            raise problems.Problem(
                "group.other_pool",
                f"The group must be in the pool of its source, {pool}.",
                pointer="/pool",
            )
        arguments = {
            each["id"]: self._arguments(caller, group_id, kind, id_, each)
            for id_, each in body["shares"].items()
        }
        self.context.pools.check(pool)
        self._check_free(pool, kind, body)
        return groupcreation.CreateGroup(
            self.context,
            operation.new_intent(
                caller,
                groupcreation.CreateGroup.kind,
                "",
                namespace=caller.home,
                group_id=group_id,
                arguments={
                    "pool": pool,
                    "name": body["name"],
                    "labels": body.get("labels", {}),
                    "request": body,
                    "shares": arguments,
                },
            ),
        )

    def _source(
        self, session: orm.Session, caller: types.Caller, body: types.Body
    ) -> Any:
        row = lookup.get_visible(
            session, caller, _reference(body), "/source/id"
        )
        lookup.check_usable(row)
        return row

    def _check_members(
        self, session: orm.Session, source: Any, body: types.Body
    ) -> None:
        """:raises problems.Problem: ``share.not_found``,
        ``snapshot.not_found``: it is not in the source.
        """
        kind, column = _MEMBERS[GroupKind(body["source"]["type"])]
        for id_ in body["shares"]:
            reference = references.Reference(kind, id_)
            row = session.get(lookup.TABLES[kind], id_)
            if row is None or getattr(row, column) != source.id:
                raise lookup.not_found(reference, f"/shares/{id_}")
            lookup.check_usable(row)

    def _check_new(self, session: orm.Session, body: types.Body) -> None:
        """Check that no id is taken, or used twice."""
        seen: set[str] = set()
        for id_, each in body["shares"].items():
            pointer = f"/shares/{id_}/id"
            creation.check_id(each["id"], pointer)
            if each["id"] in seen:
                raise groupoperation.twice(each["id"], pointer)
            seen.add(each["id"])
            if session.get(models.Share, each["id"]) is not None:
                raise problems.Problem(
                    "share.exists_mismatch",
                    f"The share {each['id']} was created by another request.",
                    pointer=pointer,
                )

    def _check_free(self, pool: str, kind: Kind, body: types.Body) -> None:
        for each in body["shares"].values():
            objects.check_free(
                self.context, pool, references.share(each["id"])
            )
            if kind == Kind.SHARE:
                id_ = groupcreation.temporary_snapshot(each["id"])
                objects.check_free(
                    self.context, pool, references.snapshot(id_)
                )

    def _arguments(
        self,
        caller: types.Caller,
        group_id: str,
        kind: Kind,
        source_id: str,
        given: types.Body,
    ) -> types.Body:
        """Those of the create of one share, as if by itself."""
        request = {
            **{name: value for name, value in given.items() if name != "id"},
            "source": {"type": kind.value, "id": source_id},
            "group_id": group_id,
        }
        arguments = self._creation.arguments(caller, request)
        if kind == Kind.SHARE:
            arguments["source"]["snapshot_id"] = (
                groupcreation.temporary_snapshot(given["id"])
            )
        return arguments


def _reference(body: types.Body) -> references.GroupReference:
    source = body["source"]
    return references.GroupReference(GroupKind(source["type"]), source["id"])
