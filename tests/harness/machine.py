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

"""Root, disks and file systems for functional tests."""

import contextlib
import ctypes
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from acme_appliance.engines.btrfs import engine as btrfs
from acme_appliance.engines.reflink import engine as reflink
from acme_appliance.host import filesystem
from acme_appliance.host import projectquota

_CLONE_NEWNS = 0x00020000


@functools.cache
def private_mounts():
    """Make this process's mounts private; they end with it.

    Not in a sandbox, which ends as a whole: its NFS server must see them.
    """
    if "SANDBOX_KIND" in os.environ:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def require_btrfs():
    """Skip, with the reason, without root or btrfs."""
    require_filesystem("btrfs")


def require_filesystem(kind):
    """Skip, with the reason, if none can be created and mounted."""
    if os.geteuid() != 0:
        raise unittest.SkipTest("only root may mount")
    if shutil.which(f"mkfs.{kind}") is None:
        raise unittest.SkipTest(f"mkfs.{kind} is not installed")
    subprocess.run(["modprobe", "-q", kind], check=False)
    systems = pathlib.Path("/proc/filesystems").read_text().split()
    if kind not in systems:
        raise unittest.SkipTest(f"this kernel has no {kind}")
    private_mounts()


def require_nfsd():
    """Skip, with the reason, if no kernel NFS server is running."""
    require_btrfs()
    threads = pathlib.Path("/proc/fs/nfsd/threads")
    if not threads.exists() or int(threads.read_text()) == 0:
        raise unittest.SkipTest("no NFS server is running in this kernel")


@contextlib.contextmanager
def nfs_server_paused():
    """A running NFS server keeps file systems busy for minutes."""
    threads = pathlib.Path("/proc/fs/nfsd/threads")
    count = threads.read_text().strip() if threads.exists() else "0"
    if count == "0":
        yield
        return
    subprocess.run(["rpc.nfsd", "0"], check=True)
    try:
        yield
    finally:
        subprocess.run(["rpc.nfsd", count], check=True)
        # There is nothing to reclaim; otherwise opens would wait.
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/fs/nfsd/v4_end_grace").write_text("Y")


class Pool:
    """A mounted btrfs in an image file; ``close`` removes all."""

    kind = "btrfs"
    options = ""
    #: Minimum size of a pool of this kind.
    min_bytes = 0

    def __init__(self, size_bytes=1 << 30, parent=None):
        require_filesystem(self.kind)
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=parent))
        self.image = self.folder / "pool.img"
        self.directory = self.folder / "pool"
        self.directory.mkdir()
        filesystem.create_image(
            str(self.image), max(size_bytes, self.min_bytes)
        )
        self.make_filesystem()
        self.mount()
        self.prepare()

    def make_filesystem(self):
        filesystem.make_btrfs(str(self.image), "acme-test")

    def prepare(self):
        btrfs.prepare(str(self.directory))

    def engine(self, **options):
        return btrfs.BtrfsEngine(str(self.directory), **options)

    def mount(self):
        filesystem.mount(
            str(self.image),
            str(self.directory),
            self.kind,
            self.options,
            loop=True,
        )

    def unmount(self):
        with nfs_server_paused():
            filesystem.unmount(str(self.directory))

    def close(self):
        if filesystem.is_mount_point(str(self.directory)):
            self.unmount()
        shutil.rmtree(self.folder)


class ReflinkPool(Pool):
    """Directories on btrfs."""

    def prepare(self):
        reflink.prepare(str(self.directory))

    def engine(self, **options):
        return reflink.ReflinkEngine(str(self.directory), **options)


class XfsPool(ReflinkPool):
    """Directories on XFS."""

    kind = "xfs"
    min_bytes = 320 << 20

    def make_filesystem(self):
        filesystem.make_xfs(str(self.image), "acme-test", discard=False)

    @property
    def options(self):
        return "prjquota" if projectquota.is_supported() else ""
