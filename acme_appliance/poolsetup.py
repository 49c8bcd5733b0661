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

"""Making a pool and mounting it: what ``init`` and ``serve`` do as root."""

import dataclasses
import logging
import os
import pathlib

from acme_appliance.engines import base
from acme_appliance.engines import btrfs
from acme_appliance.host import btrfsquota
from acme_appliance.host import commands
from acme_appliance.host import filesystem

LOG = logging.getLogger(__name__)

_MIN_BYTES = 128 << 20


class PoolError(Exception):
    """The pool cannot be made or mounted; the text says what to do."""


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

    @property
    def label(self) -> str:
        """By which a second ``init`` knows its own work."""
        return f"acme-{self.name}"


def set_up(plan: Plan) -> list[str]:
    """Make the pool ready, as far as it is not; what was done, in words.

    :raises PoolError: before anything was changed, where that can be told.
    """
    done: list[str] = []
    try:
        if plan.source is None:
            _check_directory(plan.path)
        else:
            done += _set_up_mounted(plan, plan.source)
        os.makedirs(plan.path, mode=0o755, exist_ok=True)
        btrfs.prepare(plan.path)
    except (OSError, commands.CommandError, base.EngineError) as error:
        raise PoolError(f"pool {plan.name}: {error}") from error
    done.append(f"pool {plan.name} is ready in {plan.path}")
    done += [f"WARNING: {line}" for line in warnings(plan.path)]
    return done


def ensure_mounted(source: str, path: str) -> bool:
    """Mount a pool, unless something is mounted there.

    :param source: block device, image file, or UUID=... as mount takes it.
    :returns: whether it was mounted now.
    :raises PoolError: it cannot be.
    """
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
        filesystem.mount(source, path, loop=os.path.isfile(source))
    except (OSError, commands.CommandError) as error:
        raise PoolError(
            f"{source} cannot be mounted at {path}: {error}"
        ) from error
    LOG.info("Mounted %s at %s", source, path)
    return True


def enable_simple_quotas(path: str) -> None:
    """Switch hard limits on for a pool, unless they are.

    :raises PoolError: they cannot be.
    """
    try:
        btrfs.enable_simple_quotas(path)
    except base.EngineError as error:
        raise PoolError(f"{error}") from error


def has_simple_quotas() -> bool:
    """Whether this kernel has them."""
    return btrfsquota.is_supported()


def warnings(path: str) -> list[str]:
    """What the operator should change on a pool that is mounted."""
    return btrfs.BtrfsEngine(path).warnings()


def _check_directory(path: str) -> None:
    parent = pathlib.Path(path)
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise PoolError(f"{parent} is not a directory")
    if not filesystem.is_btrfs(str(parent)):
        raise PoolError(
            f"{parent} is not on btrfs. Give a directory that is, a block"
            " device to format (--device), or an image file (--image)"
        )


def _set_up_mounted(plan: Plan, source: str) -> list[str]:
    if filesystem.is_mount_point(plan.path):
        if not filesystem.is_btrfs(plan.path):
            raise PoolError(
                f"something that is not btrfs is mounted at {plan.path}:"
                " unmount it, or choose another --path"
            )
        return [f"{plan.path} is mounted already"]
    done = []
    if plan.device is not None:
        _check_device(plan.device)
    elif not os.path.exists(source):
        done += _make_image(plan, source)
    if _must_format(plan, source):
        filesystem.make_btrfs(
            source, plan.label, discard=plan.device is not None
        )
        done.append(f"made btrfs, labelled {plan.label}, on {source}")
    ensure_mounted(source, plan.path)
    done.append(f"mounted {source} at {plan.path}")
    return done


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


def _make_image(plan: Plan, source: str) -> list[str]:
    if plan.image_bytes is None:
        raise PoolError(f"{source} does not exist: give --size to make it")
    if plan.image_bytes < _MIN_BYTES:
        raise PoolError(
            f"--size must be at least {_MIN_BYTES >> 20} MiB: btrfs needs"
            " about that much for itself"
        )
    os.makedirs(os.path.dirname(source) or ".", mode=0o755, exist_ok=True)
    filesystem.create_image(source, plan.image_bytes)
    return [f"made {source} of {plan.image_bytes >> 20} MiB, sparse"]


def _must_format(plan: Plan, source: str) -> bool:
    """Whether there is nothing on it; or, by force, whatever there is.

    :raises PoolError: it holds data that is not ours.
    """
    found = _signature(source)
    if found.get("TYPE") == "btrfs" and found.get("LABEL") == plan.label:
        return False
    if not found:
        return True
    what = " ".join(f"{key}={value}" for key, value in found.items())
    if not plan.force:
        raise PoolError(
            f"{source} holds data ({what}), and nothing was changed. If it"
            " can be lost, for good, repeat with --force"
        )
    # Refuses, as mkfs does, what is mounted or part of something in use.
    commands.run(["wipefs", "--all", "--", source])
    return True


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
