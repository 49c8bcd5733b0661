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

"""Validate and decide the creation of shares."""

from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from acme_appliance.changes import claims
from acme_appliance.changes import operation
from acme_appliance.changes.context import Context
from acme_appliance.db import models
from acme_appliance.db.rows import find
from acme_appliance.engines import base as engines
from acme_appliance.service import fields
from acme_appliance.service import lookup
from acme_appliance.service import objects
from acme_appliance.service.shares import bodies
from acme_appliance.service.shares import operations
from acme_appliance.service.shares import owners
from acme_appliance.service.shares import qos

CREATABLE = frozenset(
    {
        *("name", "pool", "size_bytes", "source", "file", "labels", "qos"),
        "group_id",
    }
)


class Creation:
    """The claims and the decision of a create."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def wanted_claims(self, share_id: str, body: types.Body) -> claims.Claims:
        wanted = dict(claims.exclusive(claims.share(share_id)))
        if "group_id" in body:
            # Others may join at the same time, but not delete it.
            wanted[claims.group(body["group_id"])] = claims.Claim.SHARED
        source = body.get("source")
        if source is None:
            return wanted
        origin = source["id"]
        # Clones of one source are created concurrently.
        if source["type"] == engines.Kind.SNAPSHOT:
            wanted[claims.snapshot(origin)] = claims.Claim.SHARED
            with self.context.database.read() as session:
                snapshot = session.get(models.Snapshot, origin)
            if snapshot is None:
                return wanted
            origin = snapshot.share_id
        wanted.setdefault(claims.share(origin), claims.Claim.SHARED)
        return wanted

    def decide(
        self,
        caller: types.Caller,
        share_id: str,
        body: types.Body,
        if_match: int | None,
    ) -> operation.Decision:
        with self.context.database.read_rows() as connection:
            row = find(connection, models.Share, share_id)
        if row is not None:
            return self._same_share(caller, share_id, body, if_match)
        fields.check_precondition(if_match, None, "share")
        check_id(share_id)
        arguments = self.arguments(caller, body)
        pool = arguments["pool"]
        self.context.pools.check(pool)
        objects.check_free(self.context, pool, references.share(share_id))
        return operations.CreateShare(
            self.context,
            operation.new_intent(
                caller,
                operations.CreateShare.kind,
                share_id,
                namespace=caller.home,
                group_id=body.get("group_id"),
                arguments=arguments,
            ),
        )

    def _same_share(
        self,
        caller: types.Caller,
        share_id: str,
        body: types.Body,
        if_match: int | None,
    ) -> types.Done:
        with self.context.database.read() as session:
            row = session.get_one(models.Share, share_id)
            objects.check_same_create(caller, row, body, if_match)
            return types.Done(bodies.of(self.context, row))

    def arguments(self, caller: types.Caller, body: types.Body) -> types.Body:
        """The arguments of a create; see :meth:`Shares.put`."""
        arguments: types.Body = {
            "name": body.get("name", ""),
            "labels": body.get("labels", {}),
            "group_id": body.get("group_id"),
            "request": body,
        }
        owners.check(body.get("file", {}), self.context.settings)
        if "source" in body:
            with self.context.database.read() as session:
                arguments.update(self._from_source(session, caller, body))
        else:
            arguments.update(self._from_nothing(body))
        pool, wanted = arguments["pool"], qos.merged(None, body.get("qos"))
        qos.check(wanted, pool, self.context.pools.features(pool))
        arguments["qos"] = wanted
        limit = self.context.settings.limits.max_share_bytes
        if arguments["size_bytes"] > limit:
            raise problems.Problem(
                "request.invalid",
                f"A share has at most {limit} bytes here.",
                pointer="/size_bytes",
            )
        return arguments

    def _from_nothing(self, body: types.Body) -> types.Body:
        pool = body.get("pool", self.context.pools.default)
        if pool not in self.context.pools:
            raise problems.Problem(
                "pool.not_found", f"There is no pool {pool}.", pointer="/pool"
            )
        if "size_bytes" not in body:
            raise problems.Problem(
                "request.invalid",
                "A share without a source needs a size.",
                pointer="/size_bytes",
            )
        file = None
        if self.context.pools.has_volume_file(pool):
            defaults = vars(self.context.settings.file_defaults)
            file = {**defaults, **body.get("file", {})}
        elif "file" in body:
            raise no_file(f"The pool {pool} does not create volume files.")
        return {
            "pool": pool,
            "size_bytes": body["size_bytes"],
            "file": file,
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
                f"The share must be in the pool of its source, {pool}.",
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
        if source.file is not None and self.context.pools.has_volume_file(
            pool
        ):
            inherited = owners.inherited(source.file, self.context.settings)
            file = {**inherited, **body.get("file", {})}
        elif "file" in body:
            raise no_file(
                "The pool creates no volume files, or the source has none."
            )
        return {
            "pool": pool,
            "size_bytes": size_bytes,
            "file": file,
            "source": {
                **body["source"],
                "file_name": source.file["name"] if source.file else None,
                "size_bytes": source.size_bytes,
            },
        }

    def _source(
        self, session: orm.Session, caller: types.Caller, source: types.Body
    ) -> models.Share | models.Snapshot:
        kind = engines.Kind(source["type"])
        reference = engines.Reference(kind, source["id"])
        row: models.Share | models.Snapshot = lookup.get_visible(
            session, caller, reference, "/source/id"
        )
        lookup.check_usable(row)
        return row


def check_id(share_id: str, pointer: str = "/path/share_id") -> None:
    """The variant that RFC 9562 reserves is that of exported snapshots, see
    ``exporters.kernel.tablechanges.fsid``."""
    if share_id[19] in "ef":
        raise problems.Problem(
            "request.invalid",
            "An id of this variant (RFC 9562, section 4.1) is not for shares.",
            pointer=pointer,
        )


def no_file(detail: str) -> problems.Problem:
    """The body names a volume file, but there can be none."""
    return problems.Problem("request.unknown_field", detail, pointer="/file")
