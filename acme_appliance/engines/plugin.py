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

"""What the appliance asks an engine before a pool of it is open.

An engine is a folder with all that belongs to it: the engine, its options,
how pools are made and mounted. Its :class:`Plugin` is an entry point of the
group ``acme_appliance.engines``, whose name is what ``engine`` of a pool's
configuration says. No other module knows the names.
"""

import abc
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import ClassVar
from typing import Final

from oslo_config import cfg

from acme_appliance.engines import base

#: The engine of a pool that names none.
DEFAULT: Final = "btrfs"


class PoolError(Exception):
    """The pool cannot be made or mounted; the text says what to do."""


@dataclasses.dataclass(frozen=True)
class Pool:
    """A configured pool.

    ``path`` is its directory; an engine that is not on a disk has a made-up
    one. ``options`` are the values of the plugin's options.
    """

    name: str
    engine: str
    path: str
    device: str | None
    options: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A pool to be; ``device`` and ``image`` None: a directory.

    ``path`` is where the pool is, or is mounted. ``image_bytes`` is for an
    image that is not there yet. ``force`` formats what holds other data.
    """

    name: str
    path: str
    device: str | None = None
    image: str | None = None
    image_bytes: int | None = None
    force: bool = False

    @property
    def source(self) -> str | None:
        return self.device or self.image


class Plugin(abc.ABC):
    """One kind of engine. Made without arguments, and has no state."""

    #: One line for the configuration's sample.
    help: ClassVar[str]
    #: The engine's own options in the group of a pool.
    options: ClassVar[Sequence[cfg.Opt]] = ()
    #: Whether pools are directories on a disk: they have a ``path``, may
    #: have a ``device``, and ``acme-appliance init`` makes them.
    on_disk: ClassVar[bool] = True

    @abc.abstractmethod
    def open(self, pool: Pool) -> base.Engine:
        """The engine of a pool. Does not look at the disk: one that cannot
        be used says so by :meth:`base.Engine.check`."""

    @abc.abstractmethod
    def make_pool(self, plan: Plan) -> list[str]:
        """Make the pool ready, as far as it is not; what was done, in
        words. May be repeated.

        :raises PoolError: before anything was changed, where that can be
            told.
        """

    @abc.abstractmethod
    def new_pool_options(self, plan: Plan) -> str:
        """What ``init`` writes into the group of a pool that it makes, past
        engine, path and device: lines, with a comment that says why."""

    @abc.abstractmethod
    def mount(self, pool: Pool) -> bool:
        """Mount a pool that has a device, unless something is mounted.

        :returns: whether it was mounted now.
        :raises PoolError: it cannot be.
        """

    @abc.abstractmethod
    def apply_options(self, pool: Pool) -> None:
        """Switch on what the pool's options ask of its file system. Root
        calls it at every start, after :meth:`mount`.

        :raises PoolError: it cannot be.
        """
