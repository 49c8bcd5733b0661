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

"""A share as clients see it."""

from collections.abc import Iterable
import contextlib
import dataclasses
from typing import Any

from acme_appliance import references
from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes.context import Context
from acme_appliance.storage import watch


def of(
    context: Context, row: Any, access_rules: types.Body | None = None
) -> types.Body:
    """The whole body, except what :func:`measured` adds.

    :param access_rules: default: the row's, which must be loadable.
    """
    if access_rules is None:
        access_rules = views.rules(row.access_rules)
    locations = export_locations(context, references.share(row.id), row.pool)
    return views.share(row, access_rules, locations)


def export_locations(
    context: Context, reference: references.Reference, pool: str
) -> list[types.Body]:
    """Where to mount a share or snapshot; empty if its pool is no longer
    configured, or exports no snapshots."""
    engine = context.pools.get(pool)
    if engine is None:
        return []
    if reference.kind == references.Kind.SNAPSHOT and (
        types.FEATURE_SNAPSHOT_EXPORT not in context.pools.features(pool)
    ):
        return []
    path = context.exports.exporter.path(engine.directory(reference))
    return [
        {
            "address": portal.address,
            "path": path,
            "preferred": portal.preferred,
            "nfs_versions": list(context.settings.nfs_versions),
        }
        for portal in context.settings.portals
    ]


def measured(context: Context, body: types.Body) -> types.Body:
    """A share's body with the figures from its storage.

    Must not be called in a transaction or while a share is held: a disk that
    hangs would block all that wait for those.
    """
    return measured_all(context, [body])[0]


def measured_all(
    context: Context, bodies: Iterable[types.Body]
) -> list[types.Body]:
    """Like :func:`measured`; asks the pools concurrently. Shares of a pool
    that hangs have no figure."""
    bodies = list(bodies)
    watches = context.pools.watches
    files: dict[str, list[tuple[str, str]]] = {}
    for body in bodies:
        if body["file"] is not None and body["pool"] in watches:
            files.setdefault(body["pool"], []).append(
                (body["id"], body["file"]["name"])
            )
    answers = [
        watches[pool].start_measuring(each) for pool, each in files.items()
    ]
    used: dict[str, int | None] = {}
    for answer in answers:
        with contextlib.suppress(watch.NotAnswering):
            used |= answer.get()
    return [{**body, "used_bytes": used.get(body["id"])} for body in bodies]


def measured_outcome(
    context: Context, outcome: types.Done | types.Accepted
) -> types.Done | types.Accepted:
    """The outcome of a change, with a measured body if it is done."""
    if isinstance(outcome, types.Accepted) or outcome.body is None:
        return outcome
    return dataclasses.replace(outcome, body=measured(context, outcome.body))
