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

"""Pools on a disk: what their engines have in common.

A pool is on a block device, in an image file, or in a directory on a file
system that others use, too. Root makes and mounts it (``init``, ``mount``).
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
    """An engine on a file system that it makes by itself."""

    #: What is made on a device or image, by the name that mount(8) knows.
    filesystem: ClassVar[str]
    #: The least that it can be made on.
    min_bytes: ClassVar[int]

    @abc.abstractmethod
    def make_filesystem(
        self, source: str, label: str, *, discard: bool
    ) -> None:
        """Make it on a device or an image, which must be empty.

        :param discard: tell the disk first that all of it is free; a new
            image has nothing to give back.
        :raises commands.CommandError: it is not empty, or too small.
        """

    @abc.abstractmethod
    def why_unusable(self, path: str) -> str | None:
        """Why a pool cannot be on the file system of a directory; None: it
        can.

        :raises OSError: it is not there.
        """

    @abc.abstractmethod
    def prepare(self, path: str) -> None:
        """Make a directory a pool; one that is one already stays.

        :raises base.EngineError: it cannot be.
        """

    @abc.abstractmethod
    def warnings(self, path: str) -> list[str]:
        """What the operator should change on a pool that is mounted."""

    def mount_options(self, options: Mapping[str, Any] | None) -> str:
        """Further options of a pool's mount.

        :param options: the pool's; None: a pool that ``init`` makes.
        """
        return ""

    def label(self, plan: Plan) -> str:
        """By which a second ``init`` knows its own work."""
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
                    f"{path} is not mounted, and only root mounts: run"
                    " acme-appliance mount as root"
                )
            os.makedirs(path, mode=0o755, exist_ok=True)
            if os.listdir(path):
                raise PoolError(
                    f"{path} is not mounted and not empty: a mount would hide"
                    " what is in it. Move that away, or mount by hand"
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
                f"{wrong}. Give another directory, a block device to format"
                " (--device), or an image file (--image)"
            )

    def _make_mounted(self, plan: Plan, source: str) -> list[str]:
        if filesystem.is_mount_point(plan.path):
            wrong = self.why_unusable(plan.path)
            if wrong is not None:
                raise PoolError(
                    f"{wrong}, which is mounted already: unmount it, or"
                    " choose another --path"
                )
            return [f"{plan.path} is mounted already"]
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
                f"made {self.filesystem}, labelled {label}, on {source}"
            )
        self._ensure_mounted(source, plan.path, self.mount_options(None))
        done.append(f"mounted {source} at {plan.path}")
        return done

    def _make_image(self, plan: Plan, source: str) -> list[str]:
        if plan.image_bytes is None:
            raise PoolError(f"{source} does not exist: give --size to make it")
        if plan.image_bytes < self.min_bytes:
            raise PoolError(
                f"--size must be at least {self.min_bytes >> 20} MiB:"
                f" {self.filesystem} needs about that much for itself"
            )
        os.makedirs(os.path.dirname(source) or ".", mode=0o755, exist_ok=True)
        filesystem.create_image(source, plan.image_bytes)
        return [f"made {source} of {plan.image_bytes >> 20} MiB, sparse"]

    def _must_format(self, plan: Plan, source: str) -> bool:
        """Whether there is nothing on it; or, by force, whatever there is.

        :raises PoolError: it holds data that is not ours.
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
                f"{source} holds data ({what}), and nothing was changed. If"
                " it can be lost, for good, repeat with --force"
            )
        # Refuses, as mkfs does, what is mounted or part of something in use.
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
            f"{device} is not a block device: lsblk lists them. An image"
            " file is given by --image"
        )


def _signature(path: str) -> dict[str, str]:
    """What blkid finds: TYPE, LABEL, PTTYPE...; empty: nothing."""
    try:
        text = commands.run(
            ["blkid", "--probe", "--output", "export", "--", path]
        )
    except commands.CommandError as error:
        if error.status == 2:  # blkid: nothing was found
            return {}
        raise
    pairs = (line.partition("=") for line in text.splitlines())
    wanted = ("TYPE", "LABEL", "UUID", "PTTYPE")
    return {key: value for key, _, value in pairs if key in wanted}
