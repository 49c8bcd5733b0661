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

"""Access rules: which clients may mount a share, one rule per holder."""

from collections.abc import Iterable
import dataclasses
import logging
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
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
from acme_appliance.service.shares import bodies
from acme_appliance.service.shares import operations as share_operations

LOG = logging.getLogger(__name__)


def rules_of(rows: Iterable[models.AccessRule]) -> exporters.Rules:
    """A share's rules as the exporter wants them."""
    return {
        row.holder: exporters.Rule(tuple(row.clients), row.level)
        for row in rows
    }


def exported_share(
    context: Context, row: models.Share, rules: exporters.Rules
) -> exporters.ExportedShare:
    """A share as the exporter wants it, with these access rules."""
    owner = row.file or dataclasses.asdict(context.settings.file_defaults)
    return exporters.ExportedShare(
        row.id,
        context.pools.engine(row.pool).directory(row.id),
        owner["uid"],
        owner["gid"],
        rules,
    )


def rule_body(
    context: Context, row: models.Share, holder: str, access: types.Body
) -> types.Body:
    """A rule as clients see it: with all that an attachment needs."""
    locations = bodies.export_locations(context, row)
    return views.access_rule(row.id, holder, access, locations)


class ChangeAccess(share_operations.ShareOperation):
    """Arguments: pool, holder, rule (clients, level) or None."""

    def check(self) -> None:
        """Exports are changed also where the pool cannot be used."""

    def settle(self) -> None:
        """The exporter has what it did on disk before it returns."""

    def begin(self, session: orm.Session) -> None:
        self.take(self.row(session))

    def abandon(self, session: orm.Session, problem: problems.Problem) -> None:
        self.end(self.row(session))

    def export(self, share: exporters.ExportedShare) -> None:
        self.context.exports.exporter.apply(
            share, self.context.exports.clients(share.id, share.rules)
        )

    def narrow(self, without: str | None = None) -> None:
        """Export to those whom the database has, but for one holder.

        A share that is not in its pool any more is exported to nobody.
        """
        with self.context.database.read() as session:
            row = self.row(session)
            rules = dict(rules_of(row.access_rules))
            if without is not None:
                rules.pop(without, None)
            share = exported_share(self.context, row, rules)
        try:
            self.export(share)
        except exporters.ExporterError:
            if not self._is_gone():
                raise
            self.context.exports.exporter.withdraw(share.id)

    def _is_gone(self) -> bool:
        """Whether the share is proven not to be there."""
        share = engines.Reference(engines.Kind.SHARE, self.intent.share_id)
        try:
            self.context.pools.check(self.pool)
            return not self.engine.exists(share)
        except engines.EngineError:
            return False


def ensure_file_size(context: Context, row: models.Share) -> None:
    """Grow a volume file that a client has cut off.

    cinder-backup's restore opens the file with ``wb`` and writes only what
    is not zero; whoever attaches the volume next must find all of it.
    A file that is missing stops no grant: who has access can put it back.
    """
    if row.file is None:
        return
    try:
        context.pools.engine(row.pool).grow_file(
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
        # Undone, exports are as the database has them, without the grant.
        return [
            operation.Step("ensure file size", self._ensure_file_size),
            operation.Step(
                "export", lambda: self._grant(holder, rule), self.narrow
            ),
        ]

    def _ensure_file_size(self) -> None:
        with self.context.database.read() as session:
            row = self.row(session)
        ensure_file_size(self.context, row)

    def _grant(self, holder: str, rule: exporters.Rule) -> None:
        with self.context.database.read() as session:
            row = self.row(session)
            rules = {**rules_of(row.access_rules), holder: rule}
            share = exported_share(self.context, row, rules)
        self.export(share)

    def finish(self, session: orm.Session) -> types.Done:
        holder = self.intent.arguments["holder"]
        given = self.intent.arguments["rule"]
        row = self.row(session)
        access = {**views.rules(row.access_rules), holder: given}
        rule = session.get(models.AccessRule, (row.id, holder))
        created = rule is None
        if rule is None:
            rule = models.AccessRule(share_id=row.id, holder=holder)
            session.add(rule)
        rule.clients = given["clients"]
        rule.level = given["level"]
        self.context.exports.explain(row.id, given["clients"])
        self.end(row)
        self.context.events.add(
            session,
            "access.granted",
            self.intent,
            detail={"holder": holder, **given},
        )
        body = rule_body(self.context, row, holder, access)
        return types.Done(body, created=created)


class DeleteAccess(ChangeAccess):
    kind: ClassVar[str] = "access.delete"
    #: A revoke that failed is never taken back: it is finished later.
    undoable: ClassVar[bool] = False

    def steps(self) -> list[operation.Step]:
        holder = self.intent.arguments["holder"]
        return [operation.Step("export", lambda: self.narrow(holder))]

    def finish(self, session: orm.Session) -> types.Done:
        holder = self.intent.arguments["holder"]
        row = self.row(session)
        left = views.rules(
            rule for rule in row.access_rules if rule.holder != holder
        )
        session.execute(
            sa.delete(models.AccessRule).where(
                models.AccessRule.share_id == row.id,
                models.AccessRule.holder == holder,
            )
        )
        self.end(row)
        self.context.events.add(
            session, "access.revoked", self.intent, detail={"holder": holder}
        )
        return types.Done(views.access_left(row.id, left))


class Access:
    """The use cases of access rules; see :mod:`acme_appliance.service`."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.context = runner.context

    def get(
        self, caller: types.Caller, share_id: str, holder: str
    ) -> types.Body:
        """``share.not_found``, ``access.not_found``."""
        with self.context.database.read() as session:
            row = lookup.get_visible(session, caller, share_id)
            rule = session.get(models.AccessRule, (share_id, holder))
            if rule is None:
                raise problems.Problem(
                    "access.not_found",
                    f"{holder} has no access rule on the share {share_id}.",
                )
            access = views.rules(row.access_rules)
            return rule_body(self.context, row, holder, access)

    def put(
        self,
        caller: types.Caller,
        share_id: str,
        holder: str,
        body: types.Body,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Set one holder's rule; it holds when this returns.

        The same rule again changes nothing, but repairs the export.
        ``share.not_found``, ``request.invalid`` for a bad client.
        """
        wanted = {
            "clients": self._canonical(body["clients"]),
            "level": body["level"],
        }
        return self.runner.run(
            lambda: claims.exclusive(claims.share(share_id)),
            lambda: self._decide_put(
                caller, share_id, holder, wanted, if_match
            ),
            wait_seconds,
        )

    def delete(
        self,
        caller: types.Caller,
        share_id: str,
        holder: str,
        *,
        wait_seconds: float,
        if_match: int | None = None,
    ) -> types.Done | types.Accepted:
        """Take one holder's rule away; success if there is none.

        The body has the rules that are left; None without the share.
        """
        return self.runner.run(
            lambda: claims.exclusive(claims.share(share_id)),
            lambda: self._decide_delete(caller, share_id, holder, if_match),
            wait_seconds,
        )

    def _decide_put(
        self,
        caller: types.Caller,
        share_id: str,
        holder: str,
        wanted: types.Body,
        if_match: int | None,
    ) -> operation.Decision:
        grant = None
        with self.context.database.read() as session:
            row = lookup.get_visible(session, caller, share_id)
            fields.check_precondition(if_match, row.generation, "share")
            lookup.check_usable(row)
            pool = row.pool
            rules = {rule.holder: rule for rule in row.access_rules}
            rule = rules.get(holder)
            if rule is not None and wanted == {
                "clients": rule.clients,
                "level": rule.level,
            }:
                access = views.rules(row.access_rules)
                body = rule_body(self.context, row, holder, access)
                share = exported_share(
                    self.context, row, rules_of(row.access_rules)
                )
            else:
                self._check_limit(rules.keys() | {holder})
                intent = self._intent(caller, PutAccess, row, holder, wanted)
                grant = PutAccess(self.context, intent)
        # The NFS server looks at the share's directory, as do its tools: on
        # a pool that hangs, they would hang for all pools.
        self.context.pools.check(pool)
        if grant is not None:
            return grant

        def repair() -> types.Done:
            # Nothing changes, unless somebody removed the export, or cut the
            # file off, behind our back: asking again repairs that.
            ensure_file_size(self.context, row)
            self.context.exports.exporter.apply(
                share, self.context.exports.clients(share.id, share.rules)
            )
            return types.Done(body)

        return operation.Work(pool, repair)

    def _decide_delete(
        self,
        caller: types.Caller,
        share_id: str,
        holder: str,
        if_match: int | None,
    ) -> operation.Decision:
        with self.context.database.read() as session:
            row = lookup.find_visible(session, caller, share_id)
            if row is None:
                return types.Done(None, absent=True)
            fields.check_precondition(if_match, row.generation, "share")
            rules = {rule.holder: rule for rule in row.access_rules}
            if holder not in rules:
                left = views.rules(row.access_rules)
                return types.Done(views.access_left(row.id, left))
            intent = self._intent(caller, DeleteAccess, row, holder, None)
            return DeleteAccess(self.context, intent)

    def _intent(
        self,
        caller: types.Caller,
        kind: type[ChangeAccess],
        row: models.Share,
        holder: str,
        rule: types.Body | None,
    ) -> types.Intent:
        return operation.new_intent(
            caller,
            kind.kind,
            row.id,
            namespace=row.namespace,
            arguments={"pool": row.pool, "holder": holder, "rule": rule},
        )

    def _check_limit(self, holders: Iterable[str]) -> None:
        limit = self.context.settings.limits.max_access_rules_per_share
        if len(set(holders)) > limit:
            raise problems.Problem(
                "limit.access_rules",
                f"A share has {limit} access rules at most.",
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
