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

"""Checks of this host."""

from __future__ import annotations

from collections.abc import Iterator
import os
import pwd
import shutil
from typing import Final

from os_brick import version as brick_version

from acme_cinder.checks import findings

#: mount.nfs is often only in root's PATH.
_ADMIN_PATH: Final = "/sbin:/usr/sbin:/usr/local/sbin"
_BASE_OPTION: Final = "nfs_mount_point_base"


def _find(program: str) -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), _ADMIN_PATH])
    return shutil.which(program, path=path)


def _user(scene: findings.Scene) -> Iterator[findings.Note]:
    name = _name_of(os.geteuid())
    if os.geteuid() != 0:
        yield findings.ok(f"checked as {name}")
        return
    yield findings.warning(
        "checked as root, whom files and permissions hardly ever refuse",
        "run it as the user that cinder-volume runs as, or name that user "
        "with --user, unless that is root",
    )


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _mount_program(scene: findings.Scene) -> Iterator[findings.Note]:
    path = _find("mount.nfs")
    if path is None:
        yield findings.failed(
            "mount.nfs is not installed",
            "install the package nfs-common (Debian) or nfs-utils, and "
            "restart cinder-volume",
        )
    else:
        yield findings.ok(f"{path} mounts shares")


def _base(scene: findings.Scene) -> Iterator[findings.Note]:
    base = scene.settings.mount_point_base
    try:
        os.makedirs(base, exist_ok=True)
    except OSError as error:
        yield findings.failed(
            f"{_BASE_OPTION}: {base} cannot be made: {error.strerror}",
            "make it, writable for the user that the service runs as",
            is_option=True,
        )
        return
    if not os.access(base, os.W_OK | os.X_OK):
        yield findings.failed(
            f"{_BASE_OPTION}: {base} must be writable for the user that the "
            "service runs as",
            f"chown cinder {base}",
            is_option=True,
        )
        return
    yield findings.ok(f"{base} is writable")


def _programs(scene: findings.Scene) -> Iterator[findings.Note]:
    path = _find("qemu-img")
    if path is None:
        yield findings.failed(
            "qemu-img is not installed: volumes cannot be made of images",
            "install the package qemu-utils (Debian) or qemu-img",
        )
    else:
        yield findings.ok(f"{path} converts images")
    yield findings.ok(f"os-brick {brick_version.__version__}")


USER: Final = findings.Check("user", _user)
MOUNT_PROGRAM: Final = findings.Check("mount.nfs", _mount_program)
BASE: Final = findings.Check("mount-point-base", _base, ("options",))
PROGRAMS: Final = findings.Check("programs", _programs)
