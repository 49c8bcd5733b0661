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

"""Base class of plugins for engines on a disk.

A pool is on a block device, in an image file, or in a directory on a file
system that has other users. Root creates and mounts it (``init``, ``mount``).
"""

import abc
from collections.abc import Mapping
import logging
import os
import pathlib
from typing import Any
from typing import ClassVar

from acme_appliance.engines import base
from acme_appliance.engines import plugin
from acme_appliance.engines.plugin import Plan
from acme_appliance.engines.plugin import PoolError
from acme_appliance.host import commands
from acme_appliance.host import filesystem

LOG = logging.getLogger(__name__)


class DiskPlugin(plugin.Plugin):
    """The plugin of an engine that creates its own file system."""

    #: The type of file system for a device or image, as mount(8) names it.
    filesystem: ClassVar[str]
    #: Minimum size of the device or image.
    min_bytes: ClassVar[int]

    @abc.abstractmethod
    def make_filesystem(
        self, source: str, label: str, *, discard: bool
    ) -> None:
        """Create the file system on an empty device or image.

        :param discard: discard all blocks first; useless on a new image.
        :raises commands.CommandError: it is not empty, or too small.
        """

    @abc.abstractmethod
    def why_unusable(self, path: str) -> str | None:
        """Why a pool cannot use the file system of a directory; None: it can.

        :raises OSError: the directory does not exist.
        """

    @abc.abstractmethod
    def prepare(self, path: str) -> None:
        """Turn a directory into a pool, unless it is one.

        :raises base.EngineError: this fails.
        """

    @abc.abstractmethod
    def warnings(self, path: str) -> list[str]:
        """What the operator should improve on a mounted pool."""

    def mount_options(self, options: Mapping[str, Any] | None) -> str:
        """Further mount options of a pool.

        :param options: the pool's; None: a pool that ``init`` creates.
        """
        return ""

    def label(self, plan: Plan) -> str:
        """The file system's label, by which a second ``init`` recognizes
        it."""
        return f"acme-{plan.name}"

    def make_pool(self, plan: Plan) -> list[str]:
        done: list[str] = []
        try:
            if plan.source is None:
                self._check_directory(plan.path)
            else:
                done += self._make_mounted(plan, plan.source)
            os.makedirs(plan.path, mode=0o755, exist_ok=True)
            self.prepare(plan.path)
        except (OSError, commands.CommandError, base.EngineError) as error:
            raise PoolError(f"pool {plan.name}: {error}") from error
        done.append(f"pool {plan.name} is ready in {plan.path}")
        done += [f"WARNING: {line}" for line in self.warnings(plan.path)]
        return done

    def mount(self, pool: plugin.Pool) -> bool:
        if pool.device is None:
            return False
        return self._ensure_mounted(
            pool.device, pool.path, self.mount_options(pool.options)
        )

    def _ensure_mounted(self, source: str, path: str, options: str) -> bool:
        """:param source: block device, image file, or UUID=... as mount
        takes it."""
        try:
            if filesystem.is_mount_point(path):
                return False
            if os.geteuid() != 0:
                raise PoolError(
                    f"{path} is not mounted, and only root can mount it: run"
                    " acme-appliance mount as root"
                )
            os.makedirs(path, mode=0o755, exist_ok=True)
            if os.listdir(path):
                raise PoolError(
                    f"{path} is not mounted and not empty: a mount would hide"
                    " its content. Move the content away, or mount manually"
                )
            filesystem.mount(
                source,
                path,
                self.filesystem,
                options,
                loop=os.path.isfile(source),
            )
        except (OSError, commands.CommandError) as error:
            raise PoolError(
                f"{source} cannot be mounted at {path}: {error}"
            ) from error
        LOG.info("Mounted %s at %s", source, path)
        return True

    def _check_directory(self, path: str) -> None:
        parent = pathlib.Path(path)
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir():
            raise PoolError(f"{parent} is not a directory")
        wrong = self.why_unusable(str(parent))
        if wrong is not None:
            raise PoolError(
                f"{wrong}. Specify another directory, a block device to"
                " format (--device), or an image file (--image)"
            )

    def _make_mounted(self, plan: Plan, source: str) -> list[str]:
        if filesystem.is_mount_point(plan.path):
            wrong = self.why_unusable(plan.path)
            if wrong is not None:
                raise PoolError(
                    f"{wrong}, which is already mounted: unmount it, or"
                    " specify another --path"
                )
            return [f"{plan.path} is already mounted"]
        done = []
        if plan.device is not None:
            _check_device(plan.device)
        elif not os.path.exists(source):
            done += self._make_image(plan, source)
        if self._must_format(plan, source):
            label = self.label(plan)
            self.make_filesystem(
                source, label, discard=plan.device is not None
            )
            done.append(
                f"created {self.filesystem} with label {label} on {source}"
            )
        self._ensure_mounted(source, plan.path, self.mount_options(None))
        done.append(f"mounted {source} at {plan.path}")
        return done

    def _make_image(self, plan: Plan, source: str) -> list[str]:
        if plan.image_bytes is None:
            raise PoolError(
                f"{source} does not exist: specify --size to create it"
            )
        if plan.image_bytes < self.min_bytes:
            raise PoolError(
                f"--size must be at least {self.min_bytes >> 20} MiB, which"
                f" {self.filesystem} needs for itself"
            )
        os.makedirs(os.path.dirname(source) or ".", mode=0o755, exist_ok=True)
        filesystem.create_image(source, plan.image_bytes)
        return [f"created {source}, {plan.image_bytes >> 20} MiB, sparse"]

    def _must_format(self, plan: Plan, source: str) -> bool:
        """Whether to format: it is empty, or ``force`` is set.

        :raises PoolError: it has other data.
        """
        found = _signature(source)
        ours = (self.filesystem, self.label(plan))
        if (found.get("TYPE"), found.get("LABEL")) == ours:
            return False
        if not found:
            return True
        what = " ".join(f"{key}={value}" for key, value in found.items())
        if not plan.force:
            raise PoolError(
                f"{source} has data ({what}); nothing was changed. To erase"
                " this data, repeat with --force"
            )
        # Like mkfs, refuses a mounted device, or one that is in use.
        commands.run(["wipefs", "--all", "--", source])
        return True


def _check_device(device: str) -> None:
    try:
        block = filesystem.is_block_device(device)
    except FileNotFoundError as error:
        raise PoolError(
            f"{device} does not exist: lsblk lists the block devices"
        ) from error
    if not block:
        raise PoolError(
            f"{device} is not a block device: lsblk lists them. Use --image"
            " for an image file"
        )


def _signature(path: str) -> dict[str, str]:
    """blkid's output: TYPE, LABEL, PTTYPE...; empty: no signature."""
    try:
        text = commands.run(
            ["blkid", "--probe", "--output", "export", "--", path]
        )
    except commands.CommandError as error:
        if error.status == 2:  # blkid found nothing
            return {}
        raise
    pairs = (line.partition("=") for line in text.splitlines())
    wanted = ("TYPE", "LABEL", "UUID", "PTTYPE")
    return {key: value for key, _, value in pairs if key in wanted}
