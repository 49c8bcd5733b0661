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

"""Access to the pools; one that hangs does not block others."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import datetime
from typing import TypeVar

from acme_appliance import types
from acme_appliance.db.session import Database
from acme_appliance.engines import base as engines
from acme_appliance.storage import identity
from acme_appliance.storage import watch
from acme_appliance.storage.groupsync import GroupSync

_Answer = TypeVar("_Answer")


class Pools(Mapping[str, engines.Engine]):
    """Engines by name, in the order of the configuration.

    :param database: that the pools must belong to.
    """

    def __init__(
        self,
        database: Database,
        pools: Mapping[str, engines.Engine],
        settings: types.ServiceSettings,
        clock: Callable[[], datetime.datetime],
    ) -> None:
        if not pools:
            raise ValueError("an appliance has at least one pool")
        self._engines = dict(pools)
        self._volume_file = settings.volume_file
        self.identities = identity.Identities(
            database, self._engines, settings.system_id
        )
        self.watches = {
            name: watch.PoolWatch(name, engine, settings.answer_seconds, clock)
            for name, engine in pools.items()
        }
        self._syncs = {
            name: GroupSync(engine.sync) for name, engine in pools.items()
        }

    def __getitem__(self, name: str) -> engines.Engine:
        return self._engines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._engines)

    def __len__(self) -> int:
        return len(self._engines)

    @property
    def default(self) -> str:
        """The pool of creates that name none."""
        return next(iter(self))

    def engine(self, pool: str) -> engines.Engine:
        """:raises engines.Unavailable: the pool is no longer configured."""
        try:
            return self[pool]
        except KeyError:
            raise engines.Unavailable(
                f"the pool {pool} is not configured"
            ) from None

    def sync(self, pool: str) -> None:
        """Return when all changes made in the pool so far are on disk."""
        self.engine(pool)
        self._syncs[pool]()

    def features(self, pool: str) -> list[str]:
        """The features that the API announces for a pool."""
        able = self.engine(pool).capabilities
        features = []
        if self._volume_file and able.volume_file:
            features += [types.FEATURE_VOLUME_FILE, types.FEATURE_THICK]
            if able.grow_online:
                features.append(types.FEATURE_GROW_ONLINE)
            if able.revert:
                features.append(types.FEATURE_REVERT)
            if able.copy_file:
                features.append(types.FEATURE_MOVE_POOL)
        if able.hard_limit:
            features.append(types.FEATURE_HARD_LIMIT)
        if able.qos_bandwidth:
            features.append(types.FEATURE_QOS_BANDWIDTH)
        if able.qos_iops:
            features.append(types.FEATURE_QOS_IOPS)
        if self._volume_file and able.snapshot_export:
            # Without a volume file nobody could say what to read in one.
            features.append(types.FEATURE_SNAPSHOT_EXPORT)
        if self._volume_file:
            features += [types.FEATURE_GROUP, types.FEATURE_GROUP_SNAPSHOT]
        return features

    def has_volume_file(self, pool: str) -> bool:
        return types.FEATURE_VOLUME_FILE in self.features(pool)

    def look(self) -> dict[str, watch.PoolStatus]:
        """The status of all pools, checked concurrently."""
        answers = {
            name: each.start_look() for name, each in self.watches.items()
        }
        return {
            name: self.watches[name].finish_look(answer)
            for name, answer in answers.items()
        }

    def check_identities(self, *, adopt: bool = True) -> dict[str, str]:
        """Check that the database matches all pools that answer.

        :param adopt: adopt new pools.
        :return: the unusable pools, with the reason.
        :raises identity.Mismatch: nothing may be done with these.
        """
        unusable, answers, wrong = {}, {}, []
        for pool, status in self.look().items():
            if status.reasons:
                unusable[pool] = status.reasons[0]
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

    def check(self, pool: str, *, adopt: bool = True) -> None:
        """Return or raise soon, even if the pool hangs.

        :param adopt: adopt a new pool.
        :raises engines.Unavailable: the pool is not writable, or the
            database does not match it.
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

    def stop(self) -> None:
        for each in self.watches.values():
            each.stop()
