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

"""Access rules: which clients may mount a share or a snapshot, one rule per
holder.

A snapshot's rules differ from a share's in three ways: the level is always
``ro``, the pool must be able to export snapshots, and a change also claims
the snapshot's share.
"""

from collections.abc import Iterable
import dataclasses
import logging
from typing import Any
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes import claims
from acme_appliance.changes import operation
from acme_appliance.changes.context import Context
from acme_appliance.changes.runner import Runner
from acme_appliance.db import models
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.service import fields
from acme_appliance.service import lookup
from acme_appliance.service import snapshots
from acme_appliance.service.shares import bodies

LOG = logging.getLogger(__name__)


def rules_of(rows: Iterable[Any]) -> exporters.Rules:
    """Convert rows of rules for the exporter."""
    return {
        row.holder: exporters.Rule(tuple(row.clients), row.level)
        for row in rows
    }


def exported_directory(
    context: Context,
    reference: references.Reference,
    row: Any,
    rules: exporters.Rules,
) -> exporters.ExportedDirectory:
    """Convert a share or snapshot for the exporter, with these rules."""
    owner = row.file or dataclasses.asdict(context.settings.file_defaults)
    return exporters.ExportedDirectory(
        reference,
        context.pools.engine(row.pool).directory(reference),
        owner["uid"],
        owner["gid"],
        rules,
    )


def rule_body(
    context: Context,
    reference: references.Reference,
    row: Any,
    holder: str,
    access: types.Body,
) -> types.Body:
    """A rule for clients, with everything that an attachment needs, such as
    the name of a snapshot's file at that time."""
    locations = bodies.export_locations(context, reference, row.pool)
    body = views.access_rule(reference, holder, access, locations)
    if reference.kind == references.Kind.SNAPSHOT:
        body["file"] = row.file
    return body


class ChangeAccess(operation.Operation):
    """Arguments: pool, holder, rule (clients, level) or None."""

    @property
    def reference(self) -> references.Reference:
        """The rule's share or snapshot; jobs of earlier releases: a share."""
        if self.intent.snapshot_id is None:
            return references.share(self.intent.share_id)
        return references.snapshot(self.intent.snapshot_id)

    def row(self, session: orm.Session) -> Any:
        return session.get_one(
            lookup.TABLES[self.reference.kind], self.reference.id
        )

    def check(self) -> None:
        """Exports can be changed even if the pool is unusable."""

    def settle(self) -> None:
        """Nothing to do: the exporter's changes are already on disk."""

    def begin(self, session: orm.Session) -> None:
        self.take(self.row(session))

    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        self.end(self.row(session))

    def export(self, directory: exporters.ExportedDirectory) -> None:
        self.context.exports.exporter.apply(
            directory, self.context.exports.clients(directory)
        )

    def narrow(self, without: str | None = None) -> None:
        """Export to all holders in the database except one.

        A share or snapshot that is gone from its pool is not exported.
        """
        with self.context.database.read() as session:
            row = self.row(session)
            rules = dict(rules_of(row.access_rules))
            if without is not None:
                rules.pop(without, None)
            directory = exported_directory(
                self.context, self.reference, row, rules
            )
        try:
            self.export(directory)
        except exporters.ExporterError:
            if not self._is_gone():
                raise
            self.context.exports.exporter.withdraw(self.reference)

    def _is_gone(self) -> bool:
        """Whether the share or snapshot is proven to be missing."""
        try:
            self.context.pools.check(self.pool)
            engine = self.context.pools.engine(self.pool)
            return not engine.exists(self.reference)
        except engines.EngineError:
            return False


def make_ready(
    context: Context, reference: references.Reference, row: Any
) -> None:
    """Prepare the share or snapshot before clients get access."""
    engine = context.pools.engine(row.pool)
    if reference.kind == references.Kind.SNAPSHOT:
        engine.ensure_reachable(reference.kind)
    elif row.file is not None:
        _ensure_file_size(engine, row)


def _ensure_file_size(engine: engines.Engine, row: models.Share) -> None:
    """Extend a volume file that a client has truncated.

    cinder-backup's restore opens the file with ``wb`` and writes only
    non-zero data; the next attachment needs the full size. A missing file
    does not prevent a grant: a client with access can restore it.
    """
    assert row.file is not None  # noqa: S101
    try:
        engine.grow_file(
            row.id,
            row.file["name"],
            row.size_bytes,
            row.file["allocation"],
        )
    except engines.FileChanged as error:
        LOG.warning("Access to share %s without its file: %s", row.id, error)


class PutAccess(ChangeAccess):
    kind: ClassVar[str] = "access.put"

    def steps(self) -> list[operation.Step]:
        given = self.intent.arguments["rule"]
        holder = self.intent.arguments["holder"]
        rule = exporters.Rule(tuple(given["clients"]), given["level"])
        # The undo restores the exports of the database, without the grant.
        return [
            operation.Step("make ready", self._make_ready),
            operation.Step(
                "export", lambda: self._grant(holder, rule), self.narrow
            ),
        ]

    def _make_ready(self) -> None:
        with self.context.database.read() as session:
            row = self.row(session)
        make_ready(self.context, self.reference, row)

    def _grant(self, holder: str, rule: exporters.Rule) -> None:
        with self.context.database.read() as session:
            row = self.row(session)
            rules = {**rules_of(row.access_rules), holder: rule}
            directory = exported_directory(
                self.context, self.reference, row, rules
            )
        self.export(directory)

    def finish(self, session: orm.Session) -> types.Done:
        reference = self.reference
        holder = self.intent.arguments["holder"]
        given = self.intent.arguments["rule"]
        row = self.row(session)
        access = {**views.rules(row.access_rules), holder: given}
        key = {
            "kind": reference.kind.value,
            "object_id": reference.id,
            "holder": holder,
        }
        rule = session.get(models.AccessRule, key)
        created = rule is None
        if rule is None:
            rule = models.AccessRule(**key)
            session.add(rule)
        rule.clients = given["clients"]
        rule.level = given["level"]
        self.context.exports.explain(reference, given["clients"])
        self.end(row)
        self.context.events.add(
            session,
            "access.granted",
            self.intent,
            detail={"holder": holder, **given},
        )
        body = rule_body(self.context, reference, row, holder, access)
        return types.Done(body, created=created)


class DeleteAccess(ChangeAccess):
    kind: ClassVar[str] = "access.delete"
    #: A failed revoke is never undone, but retried.
    undoable = False

    def steps(self) -> list[operation.Step]:
        holder = self.intent.arguments["holder"]
        return [operation.Step("export", lambda: self.narrow(holder))]

    def finish(self, session: orm.Session) -> types.Done:
        reference = self.reference
        holder = self.intent.arguments["holder"]
        row = self.row(session)
        left = views.rules(
            rule for rule in row.access_rules if rule.holder != holder
        )
        session.execute(
            sa.delete(models.AccessRule).where(
                models.AccessRule.kind == reference.kind.value,
                models.AccessRule.object_id == reference.id,
                models.AccessRule.holder == holder,
            )
        )
        self.end(row)
        self.context.events.add(
            session, "access.revoked", self.intent, detail={"holder": holder}
        )
        return types.Done(views.access_left(reference, left))


class Access:
    """The use cases of access rules; see :mod:`acme_appliance.service`.

    :param kind: of what they are: one of these for each kind.
    """

    def __init__(self, runner: Runner, kind: references.Kind) -> None:
        self.runner = runner
        self.context = runner.context
        self.kind = kind

    def get(self, caller: types.Caller, id_: str, holder: str) -> types.Body:
        """``share.not_found``, ``snapshot.not_found``,
        ``access.not_found``.
        """
        reference = references.Reference(self.kind, id_)
        with self.context.database.read() as session:
            row = lookup.get_visible(session, caller, reference)
            access = views.rules(row.access_rules)
            if holder not in access:
                raise problems.Problem(
                    "access.not_found",
                    f"{holder} has no access rule on the {reference}.",
                )
            return rule_body(self.context, reference, row, holder, access)

    def put(
        self,
        caller: types.Caller,
        id_: str,
        holder: str,
        body: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Set one holder's rule; it is in effect when this returns.

        The same rule again changes nothing, but repairs the export.
        ``share.not_found``, ``snapshot.not_found``, ``request.invalid``
        for a bad client, a snapshot's level, or a pool that exports none.
        """
        wanted = {
            "clients": self._canonical(body["clients"]),
            "level": body["level"],
        }
        return self.runner.run(
            lambda: self._claims(id_),
            lambda: self._decide_put(caller, id_, holder, wanted, if_match),
            wait_seconds,
        )

    def delete(
        self,
        caller: types.Caller,
        id_: str,
        holder: str,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Revoke one holder's access; success if there is none.

        The body has the remaining rules; None if the share or snapshot does
        not exist.
        """
        return self.runner.run(
            lambda: self._claims(id_),
            lambda: self._decide_delete(caller, id_, holder, if_match),
            wait_seconds,
        )

    def _claims(self, id_: str) -> claims.Claims:
        if self.kind == references.Kind.SNAPSHOT:
            return snapshots.claimed(self.context, id_)
        return claims.exclusive(claims.share(id_))

    def _decide_put(
        self,
        caller: types.Caller,
        id_: str,
        holder: str,
        wanted: types.Body,
        if_match: int | None,
    ) -> operation.Decision:
        grant = None
        reference = references.Reference(self.kind, id_)
        with self.context.database.read() as session:
            row = lookup.get_visible(session, caller, reference)
            fields.check_precondition(if_match, row.generation, self.kind)
            lookup.check_usable(row)
            pool = row.pool
            self._check_exportable(pool, wanted)
            rules = {rule.holder: rule for rule in row.access_rules}
            rule = rules.get(holder)
            if rule is not None and wanted == {
                "clients": rule.clients,
                "level": rule.level,
            }:
                access = views.rules(row.access_rules)
                body = rule_body(self.context, reference, row, holder, access)
                directory = exported_directory(
                    self.context, reference, row, rules_of(row.access_rules)
                )
            else:
                self._check_limit(rules.keys() | {holder})
                intent = self._intent(caller, PutAccess, row, holder, wanted)
                grant = PutAccess(self.context, intent)
        # The NFS server and its tools access the share's directory: if the
        # pool hangs, they would hang for all pools.
        self.context.pools.check(pool)
        if grant is not None:
            return grant

        def repair() -> types.Done:
            # Nothing changes, but the request repairs an export that was
            # removed, or a file that was truncated.
            make_ready(self.context, reference, row)
            self.context.exports.exporter.apply(
                directory, self.context.exports.clients(directory)
            )
            return types.Done(body)

        return operation.Work(pool, repair)

    def _decide_delete(
        self,
        caller: types.Caller,
        id_: str,
        holder: str,
        if_match: int | None,
    ) -> operation.Decision:
        reference = references.Reference(self.kind, id_)
        with self.context.database.read() as session:
            row = lookup.find_visible(session, caller, reference)
            if row is None:
                return types.Done(None, absent=True)
            fields.check_precondition(if_match, row.generation, self.kind)
            rules = {rule.holder: rule for rule in row.access_rules}
            if holder not in rules:
                left = views.rules(row.access_rules)
                return types.Done(views.access_left(reference, left))
            intent = self._intent(caller, DeleteAccess, row, holder, None)
            return DeleteAccess(self.context, intent)

    def _intent(
        self,
        caller: types.Caller,
        kind: type[ChangeAccess],
        row: Any,
        holder: str,
        rule: types.Body | None,
    ) -> types.Intent:
        is_snapshot = self.kind == references.Kind.SNAPSHOT
        return operation.new_intent(
            caller,
            kind.kind,
            row.share_id if is_snapshot else row.id,
            snapshot_id=row.id if is_snapshot else None,
            namespace=row.namespace,
            arguments={"pool": row.pool, "holder": holder, "rule": rule},
        )

    def _check_exportable(self, pool: str, wanted: types.Body) -> None:
        if self.kind == references.Kind.SHARE:
            return
        if wanted["level"] != exporters.LEVEL_READ_ONLY:
            raise problems.Problem(
                "request.invalid",
                "A snapshot is exported with the level ro only.",
                pointer="/level",
            )
        able = self.context.pools.features(pool)
        if types.FEATURE_SNAPSHOT_EXPORT not in able:
            raise problems.Problem(
                "request.invalid", f"The pool {pool} exports no snapshots."
            )

    def _check_limit(self, holders: Iterable[str]) -> None:
        limit = self.context.settings.limits.max_access_rules_per_share
        if len(set(holders)) > limit:
            raise problems.Problem(
                "limit.access_rules",
                f"A {self.kind} has {limit} access rules at most.",
            )

    def _canonical(self, clients: list[str]) -> list[str]:
        limit = self.context.settings.limits.max_clients_per_rule
        if not 1 <= len(clients) <= limit:
            raise problems.Problem(
                "request.invalid",
                f"A rule has between 1 and {limit} clients.",
                pointer="/clients",
            )
        canonical = set()
        for index, client in enumerate(clients):
            try:
                canonical.add(exporters.canonical_client(client))
            except ValueError as error:
                raise problems.Problem(
                    "request.invalid",
                    f"{error}.",
                    pointer=f"/clients/{index}",
                ) from error
        return sorted(canonical)
