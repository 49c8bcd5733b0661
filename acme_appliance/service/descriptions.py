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

"""What stands in a pool about its shares and snapshots, and the way back.

The metadata of a share or snapshot is its row, without what only holds for
a moment (state, job) and without the access rules, which stand with the
exports. It is written by the change that it belongs to, before the result
of that change is committed: a lost database can be rebuilt from it. See
:mod:`acme_appliance.engines.metadata` for where it is kept.
"""

import datetime
import logging
from typing import Any

from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes.context import Context
from acme_appliance.engines import base as engines

LOG = logging.getLogger(__name__)

_COMMON = (
    "id",
    "namespace",
    "name",
    "generation",
    "size_bytes",
    "file",
    "labels",
    "create_request",
)
_COLUMNS = {
    engines.Kind.SHARE: (*_COMMON, "origin_type", "origin_id"),
    engines.Kind.SNAPSHOT: (*_COMMON, "share_id"),
}
_TIMES = ("created_at", "updated_at")
#: These change without anything else: with each access rule, for example.
_VOLATILE = ("generation", "updated_at")


def columns(kind: engines.Kind) -> tuple[str, ...]:
    """The columns of a row that its metadata has."""
    return (*_COLUMNS[kind], *_TIMES)


def of(row: Any, kind: engines.Kind) -> types.Body:
    """A row, or its :func:`columns`, as metadata."""
    return {
        **{name: getattr(row, name) for name in _COLUMNS[kind]},
        **{name: views.time(getattr(row, name)) for name in _TIMES},
    }


def of_share(row: Any) -> types.Body:
    return of(row, engines.Kind.SHARE)


def of_snapshot(row: Any) -> types.Body:
    return of(row, engines.Kind.SNAPSHOT)


def same(one: types.Body | None, other: types.Body | None) -> bool:
    """Whether two say the same about a share or snapshot."""
    return _lasting(one) == _lasting(other)


def values(metadata: types.Body, kind: engines.Kind) -> dict[str, Any]:
    """Metadata as the columns of a row.

    :raises ValueError: something is missing, or is not what it should be.
    """
    try:
        return {
            **{name: metadata[name] for name in _COLUMNS[kind]},
            **{
                name: datetime.datetime.fromisoformat(metadata[name])
                for name in _TIMES
            },
        }
    except (KeyError, TypeError) as error:
        raise ValueError(f"unusable metadata: {error!r}") from error


def write_after_commit(
    context: Context,
    pool: str,
    subject: engines.Reference,
    metadata: types.Body,
) -> None:
    """Write metadata for a change that is committed already. What cannot be
    written now is written by the comparison at the next start.

    A pool that hangs is not written to: the caller holds the share.
    """
    try:
        context.pools.check(pool)
        context.pools.engine(pool).metadata.write(subject, metadata)
    except engines.EngineError as error:
        LOG.warning(
            "The metadata of the %s %s in the pool %s is old until the next"
            " start: %s",
            subject.kind,
            subject.id,
            pool,
            error,
        )


def _lasting(metadata: types.Body | None) -> types.Body | None:
    if metadata is None:
        return None
    return {k: v for k, v in metadata.items() if k not in _VOLATILE}
