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

"""Find the shares that were being moved when the database was lost.

Such a share is in two pools; their metadata says which of them has it, see
:mod:`acme_appliance.service.shares.moves`.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses

from acme_appliance import references
from acme_appliance import types
from acme_appliance.changes.context import Context
from acme_appliance.engines import base as engines
from acme_appliance.service import descriptions


@dataclasses.dataclass(frozen=True)
class Move:
    """An interrupted move.

    :ivar marker: from the metadata in the source.
    :ivar is_moved: the target has the share; the source is to be deleted.
    """

    marker: types.Body
    source: str
    target: str
    is_moved: bool

    @property
    def job_id(self) -> str:
        job_id: str = self.marker["job_id"]
        return job_id


@dataclasses.dataclass
class Found:
    """By the share's id, or pool and id."""

    moves: dict[str, Move] = dataclasses.field(default_factory=dict)
    #: What a pool holds of a share that is in the other one.
    elsewhere: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    #: What a pool holds and nobody can judge, with the reason.
    unclear: dict[tuple[str, str], str] = dataclasses.field(
        default_factory=dict
    )


def find(context: Context, pools: Sequence[str]) -> Found:
    """:param pools: those that can be read.
    :raises engines.EngineError: one of them cannot.
    """
    found = Found()
    for pool in pools:
        for id_, metadata in _metadata(context.pools[pool]):
            if descriptions.COPY in metadata:
                found.elsewhere.add((pool, id_))
                source = metadata[descriptions.COPY]["arguments"]["pool"]
                found.unclear[pool, id_] = (
                    f"an incomplete copy of a share of the pool {source}"
                )
            elif descriptions.MOVE in metadata:
                marker = metadata[descriptions.MOVE]
                _judge(context, found, pools, pool, id_, marker)
    return found


def _judge(
    context: Context,
    found: Found,
    pools: Sequence[str],
    source: str,
    id_: str,
    marker: types.Body,
) -> None:
    target = marker["arguments"]["target"]
    if target not in pools:
        found.unclear[source, id_] = (
            f"it was being moved to the pool {target}, which cannot be read:"
            " mount it, and do this again"
        )
        return
    is_moved = _is_whole(context.pools[target], id_)
    if is_moved:
        found.elsewhere.add((source, id_))
    found.moves[id_] = Move(marker, source, target, is_moved)


def _metadata(engine: engines.Engine) -> Iterator[tuple[str, types.Body]]:
    for id_ in sorted(engine.metadata.ids(engines.Kind.SHARE)):
        yield id_, engine.metadata.read(references.share(id_)) or {}


def _is_whole(engine: engines.Engine, id_: str) -> bool:
    metadata = engine.metadata.read(references.share(id_))
    return (
        metadata is not None
        and descriptions.COPY not in metadata
        and engine.exists(references.share(id_))
    )
