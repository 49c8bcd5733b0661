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

"""What all parts of the service share."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import dataclasses
import datetime
import logging
import secrets
import threading
import time
from typing import Any
from typing import TypeVar
import uuid

from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance.db import models
from acme_appliance.db import rows
from acme_appliance.db.session import Database
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.service import identity
from acme_appliance.service import queue
from acme_appliance.service import types
from acme_appliance.service import views
from acme_appliance.service import watch
from acme_appliance.service.generations import Generations
from acme_appliance.service.groupsync import GroupSync

LOG = logging.getLogger(__name__)

Clock = Callable[[], datetime.datetime]
OnStep = Callable[[str, str], None]
_Answer = TypeVar("_Answer")


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Core:
    """The database, pools, exporter, settings and the queue."""

    def __init__(
        self,
        database: Database,
        pools: Mapping[str, engines.Engine],
        exporter: exporters.Exporter,
        settings: types.Settings,
        *,
        clock: Clock,
        on_step: OnStep,
    ) -> None:
        if not pools:
            raise ValueError("an appliance has at least one pool")
        self.database = database
        self.pools = dict(pools)
        self.exporter = exporter
        self.settings = settings
        self.clock = clock
        self.on_step = on_step
        self.queue = queue.FairQueue()
        self.generations = Generations(database)
        #: Share to clients that are exported although no access rule
        #: explains it. Only an operator takes them away.
        self.unexplained_exports: dict[str, exporters.Clients] = {}
        self.identities = identity.Identities(
            database, self.pools, settings.system_id
        )
        self.share_room = Room()
        self.events_changed = threading.Condition()
        #: Counts announcements, so that none is missed while looking.
        self.events_version = 0
        self.watches = {
            name: watch.PoolWatch(name, engine, settings.answer_seconds, clock)
            for name, engine in pools.items()
        }
        self.exporter_watch = watch.Watch(
            "the NFS server", settings.answer_seconds
        )
        self._syncs = {
            name: GroupSync(engine.sync) for name, engine in pools.items()
        }

    @property
    def default_pool(self) -> str:
        """The pool of creates that name none."""
        return next(iter(self.pools))

    def engine(self, pool: str) -> engines.Engine:
        """:raises engines.Unavailable: the pool is configured no more."""
        try:
            return self.pools[pool]
        except KeyError:
            raise engines.Unavailable(
                f"the pool {pool} is not configured"
            ) from None

    def sync(self, pool: str) -> None:
        """Return when all changes made in the pool so far are on disk."""
        self.engine(pool)
        self._syncs[pool]()

    def features(self, pool: str) -> list[str]:
        """What the API announces for a pool."""
        able = self.engine(pool).capabilities
        features = []
        if self.settings.volume_file and able.volume_file:
            features.append(types.FEATURE_VOLUME_FILE)
            if able.grow_online:
                features.append(types.FEATURE_GROW_ONLINE)
        if able.hard_limit:
            features.append(types.FEATURE_HARD_LIMIT)
        return features

    def has_volume_file(self, pool: str) -> bool:
        return types.FEATURE_VOLUME_FILE in self.features(pool)

    def add_event(
        self,
        session: orm.Session,
        type_: str,
        intent: types.Intent,
        *,
        job: bool = True,
        detail: types.Body | None = None,
    ) -> None:
        """Log a change in the transaction that makes it."""
        rows.insert(
            session,
            models.Event,
            {
                "time": self.clock(),
                "type": type_,
                "namespace": intent.namespace,
                "share_id": intent.share_id,
                "snapshot_id": intent.snapshot_id,
                "actor": intent.actor,
                "request_id": intent.request_id,
                "job_id": intent.id if job else None,
                "detail": detail or {},
            },
        )

    def touch(self, row: models.Share | models.Snapshot) -> None:
        """A client sees something else now: the next generation begins.

        Also where a change is only begun, or was undone: whoever asks
        with the old ETag must not be told that nothing has changed.
        """
        row.generation = self.generations.next()
        row.updated_at = self.clock()

    def announce(self) -> None:
        """Wake those who wait for events; call it after the commit."""
        with self.events_changed:
            self.events_version += 1
            self.events_changed.notify_all()

    def wait_for_events(self, version: int, timeout_seconds: float) -> None:
        """Return once there were announcements since that version."""
        with self.events_changed:
            self.events_changed.wait_for(
                lambda: self.events_version != version, timeout_seconds
            )

    def share_body(
        self, row: Any, access_rules: types.Body | None = None
    ) -> types.Body:
        """A share as clients see it, but for what :meth:`measured` adds;
        its rules must be loadable, where they are not given."""
        if access_rules is None:
            access_rules = views.rules(row.access_rules)
        return views.share(row, access_rules, self.export_locations(row))

    def measured(self, body: types.Body) -> types.Body:
        """A share's body with what only its storage knows.

        Never to be called while a transaction is open or a share is held:
        a disk that hangs would stop all who wait for those.
        """
        return self.measured_all([body])[0]

    def measured_all(self, bodies: Iterable[types.Body]) -> list[types.Body]:
        """As :meth:`measured`; the pools are asked at the same time, and one
        that hangs leaves its own shares without a figure."""
        bodies = list(bodies)
        files: dict[str, list[tuple[str, str]]] = {}
        for body in bodies:
            if body["file"] is not None and body["pool"] in self.watches:
                files.setdefault(body["pool"], []).append(
                    (body["id"], body["file"]["name"])
                )
        answers = [
            self.watches[pool].start_measuring(each)
            for pool, each in files.items()
        ]
        used: dict[str, int | None] = {}
        for answer in answers:
            with contextlib.suppress(watch.NotAnswering):
                used |= answer.get()
        return [
            {**body, "used_bytes": used.get(body["id"])} for body in bodies
        ]

    def answer(
        self, outcome: types.Done | types.Accepted
    ) -> types.Done | types.Accepted:
        """A change of a share, when it was made, with a measured body."""
        if isinstance(outcome, types.Accepted) or outcome.body is None:
            return outcome
        return dataclasses.replace(outcome, body=self.measured(outcome.body))

    def export_locations(self, row: Any) -> list[types.Body]:
        """Where to mount a share; empty if its pool is configured no more."""
        engine = self.pools.get(row.pool)
        if engine is None:
            return []
        path = self.exporter.path(engine.directory(row.id))
        return [
            {
                "address": portal.address,
                "path": path,
                "preferred": portal.preferred,
                "nfs_versions": list(self.settings.nfs_versions),
            }
            for portal in self.settings.portals
        ]

    def exported_share(
        self, row: models.Share, rules: exporters.Rules
    ) -> exporters.ExportedShare:
        """A share as the exporter wants it, with these access rules."""
        owner = row.file or dataclasses.asdict(self.settings.file_defaults)
        return exporters.ExportedShare(
            row.id,
            self.engine(row.pool).directory(row.id),
            owner["uid"],
            owner["gid"],
            rules,
        )

    def clients_to_export(
        self, share_id: str, rules: exporters.Rules
    ) -> exporters.Clients:
        """The clients of a share's rules, and those that no rule explains
        but that may be in use."""
        kept = self.unexplained_exports.get(share_id, {})
        return exporters.merge_clients(
            [
                *((rule.clients, rule.level) for rule in rules.values()),
                *(((client,), level) for client, level in kept.items()),
            ]
        )

    def explain_exports(self, share_id: str, clients: Iterable[str]) -> None:
        """A rule explains these clients from now on: once it is revoked,
        they have to go."""
        kept = self.unexplained_exports.pop(share_id, {})
        left = {c: level for c, level in kept.items() if c not in {*clients}}
        if left:
            self.unexplained_exports[share_id] = left

    def still_unexplained(self) -> dict[str, exporters.Clients]:
        """What of :attr:`unexplained_exports` is exported now."""
        if not self.unexplained_exports:
            return {}
        try:
            found = self.exporter_watch.ask(self.exporter.exported)
        except watch.NotAnswering:
            # Nobody knows; they are not forgotten for that.
            return dict(self.unexplained_exports)
        return {
            share_id: clients
            for share_id, clients in sorted(
                [*self.unexplained_exports.items()]
            )
            if clients.items() & found.get(share_id, {}).items()
        }

    def look_at_pools(self) -> dict[str, watch.Sighting]:
        """How all pools are, asked at the same time: in the order of the
        configuration."""
        answers = {
            name: each.start_look() for name, each in self.watches.items()
        }
        return {
            name: self.watches[name].finish_look(answer)
            for name, answer in answers.items()
        }

    def check_identities(self, *, adopt: bool = True) -> dict[str, str]:
        """Check that the database is that of all pools that answer.

        :param adopt: make pools ours that are new.
        :return: the pools that cannot be used now, with the reason.
        :raises identity.Mismatch: nothing may be done with these.
        """
        unusable, answers, wrong = {}, {}, []
        for pool, sighting in self.look_at_pools().items():
            if sighting.reasons:
                unusable[pool] = sighting.reasons[0]
            else:
                answers[pool] = self._start_identity(pool, adopt)
        for pool, answer in answers.items():
            try:
                answer.get()
            except identity.Mismatch as error:
                wrong.append(str(error))
            except (watch.NotAnswering, engines.EngineError) as error:
                unusable[pool] = str(error)
        if wrong:
            raise identity.Mismatch("\n".join(wrong))
        return unusable

    def check_pool(self, pool: str, *, adopt: bool = True) -> None:
        """Returns or raises soon, also where the pool hangs.

        :param adopt: make a pool ours that is new.
        :raises engines.Unavailable: nothing can be written there, or the
            database is not the pool's.
        """
        self.engine(pool)
        obstacles = self.watches[pool].obstacles()
        if obstacles:
            self.identities.forget(pool)
            raise engines.Unavailable(f"the pool {pool}: {obstacles[0]}")
        if not self.identities.is_verified(pool):
            self._ask(pool, lambda: self.identities.check(pool, adopt=adopt))

    def exists(self, pool: str, reference: engines.Reference) -> bool:
        """Whether the pool holds it; returns or raises soon.

        :raises engines.Unavailable: it does not answer.
        """
        engine = self.engine(pool)
        return self._ask(pool, lambda: engine.exists(reference))

    def _ask(self, pool: str, question: Callable[[], _Answer]) -> _Answer:
        try:
            return self.watches[pool].ask(question)
        except watch.NotAnswering as error:
            raise engines.Unavailable(str(error)) from error

    def _start_identity(self, pool: str, adopt: bool) -> watch.Answer[None]:
        return self.watches[pool].start(
            lambda: self.identities.check(pool, adopt=adopt)
        )

    def check_exporter(self) -> list[str]:
        """Why shares cannot be served; empty: they can."""
        try:
            return self.exporter_watch.ask(self.exporter.check)
        except watch.NotAnswering as error:
            return [str(error)]

    def stop_watching(self) -> None:
        for each in (*self.watches.values(), self.exporter_watch):
            each.stop()


class Room:
    """Whether there may be one more of something, seldom counted."""

    def __init__(self) -> None:
        self._left = 0

    def take(self, count: Callable[[], int]) -> bool:
        """Called by whoever makes one, in the transaction that makes it.

        :param count: how many more there may be; asked when as many as
            it last said were made. Those that went meanwhile, or came to
            nothing, only make it be asked earlier.
        """
        if self._left <= 0:
            self._left = count()
        self._left -= 1
        return self._left >= 0


class Deadline:
    """A point in time that several waits share."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + max(0.0, seconds)

    def remaining(self) -> float:
        return max(0.0, self._end - time.monotonic())


def new_id() -> str:
    """A UUID of version 7: ids sort by the time they were made."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def check_precondition(
    if_match: int | None, generation: int | None, what: str
) -> None:
    """Hold a request to its ``If-Match``.

    ``generation`` None: the thing does not exist.
    :raises problems.Problem: ``precondition.failed``.
    """
    if if_match is None or if_match == generation:
        return
    now = f'is at "{generation}"' if generation else "does not exist"
    raise problems.Problem(
        "precondition.failed",
        f'If-Match is "{if_match}", but the {what} {now}.',
        pointer="/header/If-Match",
    )
