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

"""The part of the NFS server's configuration that ``init`` changes."""

import pathlib
import shutil
from typing import Final

from acme_appliance.cmd.common import CommandError
from acme_appliance.host import commands
from acme_appliance.host import exportfs
from acme_appliance.host import filesystem

DEFAULT_FILE: Final = "/etc/nfs.conf.d/acme-appliance.conf"

_EXPORTS: Final = pathlib.Path("/etc/exports")
EXPORTS_DIR: Final = pathlib.Path("/etc/exports.d")


def check(file: pathlib.Path, root: str) -> None:
    """:raises CommandError: setting ``rootdir`` would break something."""
    if root == "/" or _text(root) == _read(file):
        return
    others = [
        path
        for path in [_EXPORTS, *sorted(EXPORTS_DIR.glob("*.exports"))]
        if not path.name.startswith("acme-") and _has_entries(path)
    ]
    if others:
        raise CommandError(
            f"{', '.join(map(str, others))} exports other directories, and"
            f" [exports] rootdir = {root} would move them all. Remove those"
            " exports, or give --nfs-root / to mount shares by their full"
            " path"
        )
    present = _present_root()
    if present not in ("/", root) and not file.exists():
        raise CommandError(
            f"the NFS server already has [exports] rootdir = {present} (see"
            f" nfsconf --dump): give --nfs-root {present} and a pool below it"
        )


def write(file: pathlib.Path, root: str) -> bool:
    """Write the NFS server's configuration; return whether it changed."""
    if root == "/" or _text(root) == _read(file):
        return False
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    filesystem.write_durably(file, _text(root))
    return True


def ensure_exports_directory() -> bool:
    """Create the directory, which Debian's NFS server reads but lacks."""
    if EXPORTS_DIR.is_dir():
        return False
    EXPORTS_DIR.mkdir(mode=0o755)
    return True


def _text(root: str) -> str:
    return (
        "# Written by acme-appliance init: the directory that NFS clients\n"
        "# see as /, the same as [nfs] root of the appliance.\n"
        f"[exports]\nrootdir = {root}\n"
    )


def _read(file: pathlib.Path) -> str | None:
    try:
        return file.read_text()
    except FileNotFoundError:
        return None


def _has_entries(path: pathlib.Path) -> bool:
    lines = (_read(path) or "").splitlines()
    return any(line.strip() and line.strip()[0] != "#" for line in lines)


def _present_root() -> str:
    """The NFS server's configured ``rootdir``; default: ``/``."""
    if shutil.which("nfsconf", path=commands.PATH) is None:
        return "/"
    try:
        return exportfs.configured_root()
    except commands.CommandError as error:
        raise CommandError(str(error)) from error
