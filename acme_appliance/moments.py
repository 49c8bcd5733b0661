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

"""Snapshots of several shares of a pool at one moment.

A set of snapshots shows one moment if the shares could have looked like this
after a power cut: a write is in the set only if every write is in it that was
acknowledged before that one was sent. There are two ways, tried in this order:

- the engine's own, :meth:`engines.Engine.stage_at_once`: clients notice
  nothing;
- the exporter holds back all replies until the last snapshot is made,
  :meth:`exporters.Exporter.cut`: clients notice one slow request.

Neither can block clients for longer than the limits say, even if the disk
hangs, or the process hangs or is killed.
"""

from collections.abc import Mapping
import dataclasses
import logging
from typing import Final

from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from acme_appliance.storage import limited

LOG = logging.getLogger(__name__)

#: The methods of a :class:`Moment`.
METHOD_ENGINE: Final = "engine"
METHOD_CUT: Final = "cut"


class MomentError(Exception):
    """There are no snapshots of one moment; none of them exists."""


class Unattainable(MomentError):
    """This pool and this machine have no way to make them; the message says
    what the operator can do."""


class Busy(MomentError):
    """It took too long, or the disk does not answer; try again later."""


@dataclasses.dataclass(frozen=True)
class Moment:
    """How the snapshots were made.

    ``method``: ``METHOD_ENGINE`` or ``METHOD_CUT``.
    ``pause_seconds``: how long clients may have waited; with the method
    ``cut``, TCP adds its retransmission time of at least 0.2 seconds.
    """

    method: str
    pause_seconds: float


@dataclasses.dataclass(frozen=True)
class Limits:
    """Time limits in seconds, and the number of tries.

    ``engine``: of all attempts of the engine.
    ``cut``: then replies pass again, whatever happens.
    ``margin``: so much earlier the snapshots must be complete.
    ``write_back``: to write data before replies are held back.
    ``publish``: to give the snapshots their ids, or to remove them.
    ``tries``: how often to hold back replies before :class:`Busy`.
    """

    engine: float = 5.0
    cut: float = 3.0
    margin: float = 0.5
    write_back: float = 60.0
    publish: float = 60.0
    tries: int = 3


def take(
    engine: engines.Engine,
    exporter: exporters.Exporter,
    members: engines.Members,
    *,
    limits: Limits = Limits(),
) -> Moment:
    """Snapshot several shares of one pool at one moment: all or none.

    The caller has claimed the shares and the snapshots, has limited the space
    of the shares (:meth:`engines.Engine.set_limit`), and grants no access to
    any share until this returns: a new client would learn from a read what
    replies to others hide. The snapshots' ids are in its journal, so existing
    ones are of an interrupted call: they are removed first. The snapshots are
    on disk after the next :meth:`engines.Engine.sync`.

    :param members: pairs of a share and the snapshot to make; at least one.
    :raises Unattainable: see :class:`Unattainable`.
    :raises Busy: see :class:`Busy`.
    :raises engines.EngineError: as :meth:`engines.Engine.create_snapshot`.
    """
    if not members:
        raise ValueError("a moment has at least one member")
    taker = _Taker(engine, exporter, list(members), limits)
    try:
        taker.clear()
        return taker.by_engine() or taker.by_cut()
    except limited.TookTooLong as error:
        raise Busy(str(error)) from error


def sweep(
    pools: Mapping[str, engines.Engine], exporter: exporters.Exporter
) -> list[str]:
    """Remove what killed processes left: a rule that holds back replies, and
    snapshots without an id. Call it before the first :func:`take`.

    :param pools: those that answer.
    :return: what could not be removed, one sentence each. Nothing of it
        disturbs clients: the rule has expired.
    """
    failed = []
    try:
        exporter.sweep_cuts()
    except exporters.ExporterError as error:
        failed.append(f"a rule that held back replies is left: {error}")
    for name, engine in pools.items():
        try:
            limited.Limited(engine).call(engine.sweep_staged, Limits.publish)
        except (engines.EngineError, limited.TookTooLong) as error:
            failed.append(f"the pool {name} has unfinished snapshots: {error}")
    return failed


class _Taker:
    def __init__(
        self,
        engine: engines.Engine,
        exporter: exporters.Exporter,
        members: engines.Members,
        limits: Limits,
    ) -> None:
        self._engine = engine
        self._exporter = exporter
        self._members = members
        self._limits = limits
        self._call = limited.Limited(engine).call

    def clear(self) -> None:
        """Remove the snapshots of an interrupted call."""

        self._call(self._remove, self._limits.publish)

    def by_engine(self) -> Moment | None:
        self._write_back()
        seconds = self._limits.engine
        staged = self._call(
            lambda: self._engine.stage_at_once(self._members, seconds),
            2 * seconds,
            late=_discard,
        )
        if staged is None:
            return None
        self._publish(staged)
        return Moment(METHOD_ENGINE, staged.pause_seconds)

    def by_cut(self) -> Moment:
        try:
            staged, pause_seconds = self._stage_by_cut()
        except exporters.CannotCut as error:
            raise Unattainable(
                f"the shares cannot be snapshotted at one moment: {error}"
            ) from error
        except exporters.ExporterError as error:
            raise Busy(str(error)) from error
        self._publish(staged)
        return Moment(METHOD_CUT, pause_seconds)

    def _stage_by_cut(self) -> tuple[engines.Staged, float]:
        with self._exporter.cut() as cut:
            for _ in range(self._limits.tries):
                staged = self._try_cut(cut)
                if staged is not None:
                    return staged, cut.pause_seconds
        raise Busy(
            f"snapshots of {len(self._members)} shares took longer than"
            f" {self._limits.cut - self._limits.margin} s, or replies were"
            " not held back all the time: try again when the pool is less"
            " busy, or with fewer shares"
        )

    def _try_cut(self, cut: exporters.Cut) -> engines.Staged | None:
        """None: the snapshots are not of one moment, and are removed."""
        self._write_back()
        seconds = self._limits.cut - self._limits.margin
        staged = None
        try:
            with cut.shut(self._limits.cut):
                staged = self._call(
                    lambda: self._engine.stage(self._members, seconds),
                    seconds,
                    late=_discard,
                )
            if cut.pause_seconds < seconds:
                kept, staged = staged, None
                return kept
        except (exporters.CutLost, limited.TookTooLong) as error:
            LOG.warning("The snapshots are not of one moment: %s", error)
        finally:
            if staged is not None:
                self._call(staged.discard, self._limits.publish)
        return None

    def _write_back(self) -> None:
        self._call(self._engine.write_back, self._limits.write_back)

    def _publish(self, staged: engines.Staged) -> None:
        self._call(
            staged.publish,
            self._limits.publish,
            late=lambda _: self._remove(),
        )

    def _remove(self) -> None:
        for _, snapshot_id in self._members:
            self._engine.delete_snapshot(snapshot_id)


def _discard(staged: engines.Staged | None) -> None:
    if staged is not None:
        staged.discard()
