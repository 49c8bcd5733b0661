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

"""Delete a group, and its shares one by one where that is asked for."""

from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from acme_appliance.changes import claims
from acme_appliance.changes import operation
from acme_appliance.changes.deadline import Deadline
from acme_appliance.changes.runner import Runner
from acme_appliance.service import descriptions
from acme_appliance.service import fields
from acme_appliance.service import lookup
from acme_appliance.service import membership
from acme_appliance.service.shares import shares as share_service


class Deletion:
    """:param shares: the use cases that delete a share."""

    def __init__(self, runner: Runner, shares: share_service.Shares) -> None:
        self.runner = runner
        self.context = runner.context
        self._shares = shares

    def delete(
        self,
        caller: types.Caller,
        group_id: str,
        *,
        snapshots: str | None,
        wait_seconds: float,
        if_match: int | None,
    ) -> types.Done | types.Accepted:
        """:param snapshots: for each share, see
        :meth:`share_service.Shares.delete`; None: the shares stay.
        """
        if snapshots is None:
            return self.runner.run(
                lambda: self._claims(group_id),
                lambda: self._decide(caller, group_id, if_match, keep=True),
                wait_seconds,
            )
        deadline = Deadline(wait_seconds)
        self._delete_shares(caller, group_id, snapshots, if_match, deadline)
        # Changes of its own shares, which it may have made, changed it.
        return self.runner.run(
            lambda: claims.exclusive(claims.group(group_id)),
            lambda: self._decide(caller, group_id, None, keep=False),
            deadline.remaining(),
        )

    # -- its shares

    def _delete_shares(
        self,
        caller: types.Caller,
        group_id: str,
        snapshots: str,
        if_match: int | None,
        deadline: Deadline,
    ) -> None:
        """Delete all that can be deleted. Each is a change of its own, so a
        share that cannot be deleted, or is busy, does not keep the others.

        :raises problems.Problem: ``group.shares_left``.
        """
        with self.context.database.read() as session:
            row = lookup.find_visible(
                session, caller, references.group(group_id)
            )
            if row is None:
                return
            fields.check_precondition(if_match, row.generation, "group")
            share_ids = membership.shares(session, group_id)[group_id]
        errors = []
        for share_id in share_ids:
            problem = self._delete_share(caller, share_id, snapshots, deadline)
            if problem is not None:
                errors.append(
                    {
                        "pointer": f"/shares/{share_id}",
                        "code": problem.code,
                        "detail": problem.detail,
                    }
                )
        if errors:
            raise problems.Problem(
                "group.shares_left",
                f"Of {len(share_ids)} shares of the group {group_id},"
                f" {len(errors)} could not be deleted.",
                errors=errors,
            )

    def _delete_share(
        self,
        caller: types.Caller,
        share_id: str,
        snapshots: str,
        deadline: Deadline,
    ) -> problems.Problem | None:
        """Why it is still there; None: it is not."""
        try:
            outcome = self._shares.delete(
                caller,
                share_id,
                snapshots=snapshots,
                wait_seconds=deadline.remaining(),
            )
        except problems.Problem as problem:
            return problem
        if isinstance(outcome, types.Accepted):
            return problems.Problem(
                "share.busy",
                f"Its deletion goes on, as job {outcome.job['id']}.",
            )
        return None

    # -- the group itself

    def _claims(self, group_id: str) -> claims.Claims:
        with self.context.database.read() as session:
            share_ids = membership.shares(session, group_id)[group_id]
        return claims.exclusive(
            claims.group(group_id), *map(claims.share, share_ids)
        )

    def _decide(
        self,
        caller: types.Caller,
        group_id: str,
        if_match: int | None,
        *,
        keep: bool,
    ) -> operation.Decision:
        with self.context.database.read() as session:
            row = lookup.find_visible(
                session, caller, references.group(group_id)
            )
            if row is None:
                return types.Done(None, absent=True)
            fields.check_precondition(if_match, row.generation, "group")
            share_ids = membership.shares(session, group_id)[group_id]
            if share_ids and not keep:
                raise _joined(group_id, share_ids)
            intent = operation.new_intent(
                caller,
                "group.delete",
                "",
                namespace=row.namespace,
                group_id=group_id,
                arguments={"name": row.name, "shares": share_ids},
            )
            pool = row.pool
        self.context.pools.check(pool)
        return operation.Work(pool, lambda: self._delete(intent, pool))

    def _delete(self, intent: types.Intent, pool: str) -> types.Done:
        group_id = intent.group_id
        assert group_id is not None  # noqa: S101
        reference = references.group(group_id)
        # First: a group that only the metadata has would come back with a
        # database that is rebuilt.
        self.context.pools.engine(pool).metadata.delete(reference)
        with self.context.database.write() as session:
            moved = membership.move(
                self.context,
                session,
                dict.fromkeys(intent.arguments["shares"]),
            )
            session.delete(self._row(session, reference))
            self.context.events.add(
                session,
                "group.deleted",
                intent,
                job=False,
                detail=dict(intent.arguments),
            )
        for subject, metadata in moved.items():
            descriptions.write_after_commit(
                self.context, pool, subject, metadata
            )
        self.context.events.announce()
        return types.Done(None)

    def _row(
        self, session: orm.Session, reference: references.GroupReference
    ) -> object:
        return session.get_one(lookup.TABLES[reference.kind], reference.id)


def _joined(group_id: str, share_ids: list[str]) -> problems.Problem:
    """Shares joined while the others were deleted."""
    return problems.Problem(
        "group.shares_left",
        f"Shares have joined the group {group_id} meanwhile.",
        errors=[
            {
                "pointer": f"/shares/{share_id}",
                "code": "share.in_group",
                "detail": "It has joined the group meanwhile.",
            }
            for share_id in share_ids
        ],
    )
