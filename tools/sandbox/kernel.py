#!/usr/bin/env python3
# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""usage: kernel.py DIR COMMAND [ARGUMENT...]

Runs a command that sees the user-mode-linux of a later release of Debian
instead of the installed one. DIR has the packages user-mode-linux and libc6 of
that release, unpacked with dpkg -x; nothing of them is installed. That kernel
needs its release's libc, which also serves all programs of this release. Both
are mounted over the installed files, in a mount namespace of the command.
"""

import ctypes
import os
import pathlib
import sys

_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_KERNEL = ("usr/bin/linux.uml", "usr/lib/uml/modules")


def mounts(folder):
    """What to mount, and over what."""
    for name in _KERNEL:
        yield folder / name, pathlib.Path("/", name)
    # Only libc6 has these; the loader is among them.
    for pattern in ("ld-linux-*.so.*", "lib*.so.*"):
        for new in sorted((folder / _LIBRARIES).glob(pattern)):
            old = pathlib.Path("/", _LIBRARIES, new.name)
            if old.exists() and is_of_libc(new.name):
                yield new, old.resolve()


def is_of_libc(name):
    stem = name.split(".")[0]
    return stem.startswith("ld-linux") or stem in {
        "libc",
        "libnss_compat",
        "libnss_dns",
        "libnss_files",
        "libm",
        "libmvec",
        "libanl",
        "libdl",
        "libpthread",
        "libresolv",
        "librt",
        "libthread_db",
        "libutil",
    }


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1]).resolve()
    pairs = [*mounts(folder)]
    for new, old in pairs:
        if not (new.exists() and old.exists()):
            sys.exit(f"sandbox: {new} or {old} does not exist")
    libc = ctypes.CDLL(None, use_errno=True)

    def check(status):
        if status != 0:
            sys.exit(f"sandbox: {os.strerror(ctypes.get_errno())}")

    check(libc.unshare(_CLONE_NEWNS))
    check(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    # By system call: between these no program could start.
    for new, old in pairs:
        check(libc.mount(bytes(new), bytes(old), None, _MS_BIND, None))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606


if __name__ == "__main__":
    main()
