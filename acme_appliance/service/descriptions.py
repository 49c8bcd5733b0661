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

"""Convert between rows and the metadata of objects in a pool.

The metadata is the row without its temporary fields (state, job) and without
access rules, which are stored with the exports. Each change writes it before
it commits its result, so a lost database can be rebuilt. See
:mod:`acme_appliance.engines.metadata` for its place.
"""

from collections.abc import Mapping
import datetime
import logging
from typing import Any
from typing import Final

from acme_appliance import references
from acme_appliance import types
from acme_appliance import views
from acme_appliance.changes import inspection
from acme_appliance.changes.context import Context
from acme_appliance.engines import base as engines

LOG = logging.getLogger(__name__)

_ALL = ("id", "namespace", "name", "generation", "labels", "create_request")
_COMMON = (*_ALL, "size_bytes", "file")
_COLUMNS: Final[Mapping[references.SubjectKind, tuple[str, ...]]] = {
    references.Kind.SHARE: (
        *(*_COMMON, "origin_type", "origin_id"),
        *("qos", "reverts", "group_id"),
    ),
    references.Kind.SNAPSHOT: (*_COMMON, "share_id", "group_snapshot_id"),
    references.GroupKind.GROUP: (*_ALL, "moment"),
    references.GroupKind.GROUP_SNAPSHOT: (*_ALL, "group_id", "moment"),
}
_TIMES = ("created_at", "updated_at")
#: Of a share that is being reverted: what its job needs to go on.
REVERT: Final = inspection.REVERT
#: Of a share that is being moved to another pool: what its job needs to go
#: on. Its data is valid unless the other pool has valid metadata of the share.
MOVE: Final = "move"
#: Instead of the metadata of a copy that is not complete, in the other pool.
COPY: Final = "copy"
#: Fields that may change alone, for example with each access rule.
_VOLATILE = ("generation", "updated_at", REVERT)
#: Fields that metadata has only with another value than this.
_OPTIONAL: Final[Mapping[str, Any]] = {
    "qos": None,
    "reverts": {},
    "group_id": None,
    "group_snapshot_id": None,
    "moment": None,
}


def columns(kind: references.SubjectKind) -> tuple[str, ...]:
    """The columns that the metadata contains."""
    return (*_COLUMNS[kind], *_TIMES)


def of(row: Any, kind: references.SubjectKind) -> types.Body:
    """A row, or its :func:`columns`, as metadata."""
    values = {name: getattr(row, name) for name in _COLUMNS[kind]}
    return {
        **{k: v for k, v in values.items() if not _is_default(k, v)},
        **{name: views.time(getattr(row, name)) for name in _TIMES},
    }


def _is_default(name: str, value: Any) -> bool:
    return name in _OPTIONAL and _OPTIONAL[name] == value


def of_share(row: Any) -> types.Body:
    return of(row, engines.Kind.SHARE)


def of_snapshot(row: Any) -> types.Body:
    return of(row, engines.Kind.SNAPSHOT)


def same(one: types.Body | None, other: types.Body | None) -> bool:
    """Whether two descriptions are equivalent."""
    return _lasting(one) == _lasting(other)


def values(
    metadata: types.Body, kind: references.SubjectKind
) -> dict[str, Any]:
    """Metadata as the columns of a row.

    :raises ValueError: a value is missing or invalid.
    """
    given = {**_OPTIONAL, **metadata}
    try:
        return {
            **{name: given[name] for name in _COLUMNS[kind]},
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
    subject: references.Subject,
    metadata: types.Body,
) -> None:
    """Write metadata for a committed change. If this fails, the comparison at
    the next start writes it.

    Does not write to a pool that hangs, because the caller holds the share.
    """
    try:
        context.pools.check(pool)
        context.pools.engine(pool).metadata.write(subject, metadata)
    except engines.EngineError as error:
        LOG.warning(
            "The metadata of the %s in the pool %s is outdated until the"
            " next start: %s",
            subject,
            pool,
            error,
        )


def _lasting(metadata: types.Body | None) -> types.Body | None:
    if metadata is None:
        return None
    return {k: v for k, v in metadata.items() if k not in _VOLATILE}
