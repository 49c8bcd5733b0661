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

"""The interface of an engine's plugin: options, creating and mounting pools.

An engine is a folder with all its code: the engine, its options, and how to
create and mount pools. Its :class:`Plugin` is an entry point of the group
``acme_appliance.engines``. The entry point's name is the value of a pool's
option ``engine``. No other module knows these names.
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

#: The default of a pool's option ``engine``.
DEFAULT: Final = "btrfs"


def quota_option(value: str, text: str, note: str = "") -> cfg.Opt:
    """The option ``quota``: hard limits for shares, or none.

    :param value: the choice with hard limits; ``text`` describes it.
    """
    return cfg.StrOpt(
        "quota",
        default="none",
        choices=[
            ("none", "only the size of its volume file limits a share"),
            (value, text),
        ],
        help="How to prevent a client from filling the pool by extending its"
        f" volume file.{note}",
    )


class PoolError(Exception):
    """The pool cannot be created or mounted; the text has the solution."""


@dataclasses.dataclass(frozen=True)
class Pool:
    """A configured pool.

    ``path`` is its directory, an invented one for an engine without a disk.
    ``options`` are the values of the plugin's options.
    """

    name: str
    engine: str
    path: str
    device: str | None
    options: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A pool to create; ``device`` and ``image`` None: in a directory.

    ``path`` is the pool's directory or mount point. ``image_bytes`` is the
    size of a new image. ``force`` erases other data.
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
    """One type of engine. Stateless, and constructed without arguments."""

    #: One line for the sample configuration.
    help: ClassVar[str]
    #: The engine's own options in the group of a pool.
    options: ClassVar[Sequence[cfg.Opt]] = ()
    #: Whether pools are directories on a disk: they have a ``path``, may
    #: have a ``device``, and ``acme-appliance init`` creates them.
    on_disk: ClassVar[bool] = True

    @abc.abstractmethod
    def open(self, pool: Pool) -> base.Engine:
        """Return the engine of a pool. Does not access the disk:
        :meth:`base.Engine.check` reports problems."""

    @abc.abstractmethod
    def make_pool(self, plan: Plan) -> list[str]:
        """Create the pool, or complete it. Return a text for each step.
        Idempotent.

        :raises PoolError: if possible, before anything was changed.
        """

    @abc.abstractmethod
    def new_pool_options(self, plan: Plan) -> str:
        """Lines for the group of a pool that ``init`` creates, besides
        engine, path and device, with a comment that explains them."""

    @abc.abstractmethod
    def mount(self, pool: Pool) -> bool:
        """Mount a pool that has a device, unless its path is a mount point.

        :returns: whether this call mounted it.
        :raises PoolError: it cannot be mounted.
        """

    @abc.abstractmethod
    def apply_options(self, pool: Pool) -> None:
        """Apply the pool's options to its file system. Root calls this at
        every start, after :meth:`mount`.

        :raises PoolError: they cannot be applied.
        """
