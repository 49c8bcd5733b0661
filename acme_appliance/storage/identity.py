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

"""Verify that the database belongs to the pools.

The database and each pool store a random id; the pool also stores the number
of the newest event. A database that does not know the id or the event is not
the one that was last used with this pool: it is empty, another one, or an
older copy. Its access rules and unfinished changes may be wrong, so they are
not applied. ``acme-appliance recover`` brings it up to date.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import enum
import logging
import threading
from typing import Any
from typing import Final
import uuid

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance.db import models
from acme_appliance.db.session import Database
from acme_appliance.engines import base as engines

LOG = logging.getLogger(__name__)

_ADVICE: Final = (
    "Nothing was changed. See: acme-appliance recover, which shows what it"
    " would do"
)


class Relation(enum.Enum):
    """The relation of a database to a pool."""

    #: The database that was last used with the pool.
    OURS = "ours"
    #: Neither knows the other, and they do not conflict.
    NEW = "new"
    #: The database does not know the contents of the pool.
    LOST = "lost"
    #: The database is an older copy.
    OLDER = "older"
    #: The database belongs to another pool with this name.
    OTHER = "other"


class Mismatch(engines.Unavailable):
    """The database does not match the pool; the text says what to do."""


@dataclasses.dataclass(frozen=True)
class _View:
    """The records of both sides about a pool."""

    #: The pool's id, by the database and by the pool.
    known_id: str | None
    identity: Mapping[str, Any] | None
    #: The newest event that the database has.
    sequence: int
    #: Shares and snapshots: in the pool, and in the database.
    held: frozenset[str]
    rows: frozenset[str]

    def relation(self) -> Relation:
        if self.known_id is None and not self.held and not self.rows:
            # Whatever the id: there is nothing to lose.
            return Relation.NEW
        if self.identity is None:
            return self._without_identity()
        if self.known_id not in (None, self.identity["id"]):
            return Relation.OTHER
        if self.identity["sequence"] > self.sequence:
            return Relation.OLDER if self.rows else Relation.LOST
        if self.known_id is not None:
            return Relation.OURS
        # Adoption was interrupted between pool and database.
        if self.held & self.rows or not self.held:
            return Relation.NEW
        return Relation.LOST

    def _without_identity(self) -> Relation:
        if self.known_id is not None:
            return Relation.OTHER
        if not self.held or self.held & self.rows:
            return Relation.NEW
        return Relation.LOST


class Identities:
    """Thread-safe. Checks a pool once, and again after it was unavailable."""

    def __init__(
        self,
        database: Database,
        pools: Mapping[str, engines.Engine],
        system_id: str,
    ) -> None:
        self.database = database
        self.pools = pools
        self._system_id = system_id
        self._locks = {pool: threading.Lock() for pool in pools}
        #: Of the pools that are known to be the database's.
        self._verified: dict[str, dict[str, Any]] = {}

    def relation(self, pool: str) -> Relation:
        """What the database is to a pool. :raises engines.EngineError:"""
        if not self.pools[pool].capabilities.durable:
            return Relation.NEW
        return self._look(pool).relation()

    def is_verified(self, pool: str) -> bool:
        """Whether an earlier check found that the pool is ours."""
        return pool in self._verified

    def check(self, pool: str, *, adopt: bool = True) -> None:
        """:param adopt: make a pool ours that is new.
        :raises Mismatch: nothing may be done with this pool.
        """
        if pool in self._verified:
            return
        # One lock per pool, so that a pool that hangs blocks no other.
        with self._locks[pool]:
            if pool not in self._verified:
                self._verify(pool, adopt)

    def check_all(self, pools: Iterable[str], *, adopt: bool = True) -> None:
        """Check several pools, all of which can be used now.

        :raises Mismatch: with a line for each pool that is wrong.
        """
        wrong = []
        for pool in pools:
            try:
                self.check(pool, adopt=adopt)
            except Mismatch as error:
                wrong.append(str(error))
        if wrong:
            raise Mismatch("\n".join(wrong))

    def forget(self, pool: str) -> None:
        """The pool is unavailable; another one may replace it."""
        self._verified.pop(pool, None)

    def adopt(self, pool: str, *, system_id: str | None = None) -> None:
        """Write the id of a pool to both sides, the pool first.

        :param system_id: the appliance's id, where it is not the one that
            this process has; a pool keeps it for when all else is lost.
        """
        engine = self.pools[pool]
        identity = read(engine) or {}
        identity.setdefault("id", str(uuid.uuid4()))
        with self.database.read() as session:
            identity["sequence"] = newest_event(session)
        identity.update(name=pool, system_id=system_id or self._system_id)
        engine.metadata.prepare()
        engine.metadata.write_identity(identity)
        engine.sync()
        with self.database.write() as session:
            session.merge(models.Pool(name=pool, id=identity["id"]))
        self._verified[pool] = identity

    def mark(self, pool: str, sequence: int) -> None:
        """Store the number of the newest event in the pool.

        :raises engines.EngineError: it cannot be written now.
        """
        identity = self._verified.get(pool)
        if identity is None or identity["sequence"] == sequence:
            return
        if not self.pools[pool].capabilities.durable:
            return
        store = self.pools[pool].metadata
        found = store.read_identity() or {}
        if found.get("id") != identity["id"]:
            # Another disk has replaced it: check it before any change.
            self.forget(pool)
            return
        marked = {**identity, "sequence": sequence}
        store.write_identity(marked)
        self._verified[pool] = marked

    def _verify(self, pool: str, adopt: bool) -> None:
        engine = self.pools[pool]
        if not engine.capabilities.durable:
            self._verified[pool] = {"id": None, "sequence": 0}
            return
        view = self._look(pool)
        relation = view.relation()
        if relation == Relation.NEW:
            if adopt:
                # After an interrupted recovery the id may still be needed.
                kept = (view.identity or {}) if view.held else {}
                self.adopt(pool, system_id=kept.get("system_id"))
            return
        if relation != Relation.OURS:
            raise Mismatch(f"pool {pool}: {_explain(relation, view)}")
        self._verified[pool] = dict(view.identity or {})

    def _look(self, pool: str) -> _View:
        engine = self.pools[pool]
        identity = read(engine)
        held = engine.ids(engines.Kind.SHARE) | engine.ids(
            engines.Kind.SNAPSHOT
        )
        with self.database.read() as session:
            known = session.get(models.Pool, pool)
            return _View(
                known_id=None if known is None else known.id,
                identity=identity,
                sequence=newest_event(session),
                held=frozenset(held),
                rows=frozenset(_ids(session, pool)),
            )


def read(engine: engines.Engine) -> dict[str, Any] | None:
    """The pool's stored identity; None: missing or unreadable.

    :raises engines.EngineError: it cannot be read now.
    """
    identity = engine.metadata.read_identity()
    if identity is None:
        return None
    if isinstance(identity.get("id"), str) and isinstance(
        identity.get("sequence"), int
    ):
        return identity
    LOG.warning("The identity of a pool is invalid: %.200r", identity)
    return None


def newest_event(session: orm.Session) -> int:
    """The number of the newest event; 0: there was none yet."""
    return session.scalar(sa.select(sa.func.max(models.Event.seq))) or 0


def _ids(session: orm.Session, pool: str) -> set[str]:
    return {
        id_
        for table in (models.Share, models.Snapshot)
        for id_ in session.scalars(
            sa.select(table.id).where(table.pool == pool)
        )
    }


def _explain(relation: Relation, view: _View) -> str:
    if relation == Relation.OTHER:
        return (
            "the database knows another pool by this name. Is another disk"
            " mounted here, or the database of another appliance? Nothing"
            " was changed. Mount the right disk, or restore the right"
            " database; to use the contents of this pool, move the database"
            " away and see: acme-appliance recover"
        )
    if relation == Relation.OLDER:
        return (
            "the database is an older copy: the pool has seen event"
            f" {(view.identity or {}).get('sequence')}, and the newest one"
            f" in the database is {view.sequence}. {_ADVICE}"
        )
    return (
        f"it holds {len(view.held)} shares and snapshots, and the database"
        f" does not know the pool. Has the database been lost? {_ADVICE}"
    )
