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

"""A client with access to one share forges handles of another one."""

import ctypes
import errno
import os
import pathlib
import struct

from tests.functional import test_kernel_exporter as exporter
from tests.harness import machine
from tests.harness import nfswire

#: struct btrfs_fid of fs/btrfs/export.h: inode, subvolume, generation; then,
#: by the type of the handle, the parent directory's.
_FID = struct.Struct("<QQI")
_WITHOUT_PARENT, _WITH_PARENT, _WITH_PARENT_ROOT = 0x4D, 0x4E, 0x4F
_AT_FDCWD = -100
_HANDLE_BYTES = 128
#: The server's handle (struct knfsd_fh): version, authentication, kind of
#: the file system's id, kind of the file's id; then the two ids.
_PREFIX_BYTES = 3
#: How long the file system's id is, by its kind (enum fsid_source and
#: key_len() in fs/nfsd): a number; a UUID, alone or with an inode number.
_FSID_BYTES = {1: 4, 4: 8, 5: 8, 6: 16, 7: 24}

SECRET = b"of somebody else"


def file_id(path):
    """Type and bytes, from name_to_handle_at(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(8 + _HANDLE_BYTES)
    struct.pack_into("<Ii", buffer, 0, _HANDLE_BYTES, 0)
    mount = ctypes.c_int()
    name = os.fsencode(path)
    if libc.name_to_handle_at(_AT_FDCWD, name, buffer, ctypes.byref(mount), 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    size, kind = struct.unpack_from("<Ii", buffer)
    return kind, buffer.raw[8 : 8 + size]


class ForgedHandles(exporter.NfsCase):
    """A client that can read ``self.own``, but not ``self.other``."""

    def setUp(self):
        super().setUp()
        share, self.other = self.make_share(), self.make_share()
        for each in (share, self.other):
            self.volume(each).write_bytes(SECRET)
        os.sync()
        self.own = self.exported(share)
        self.client = nfswire.Client(exporter.LOOPBACK)
        self.addCleanup(self.client.close)

    def exported(self, share):
        """Export the share, or a snapshot of it, and return which."""
        raise NotImplementedError

    def volume(self, share):
        return pathlib.Path(share.directory, "volume")

    def handle(self, share):
        path = self.exporter.path(str(self.volume(share)))
        return self.client.handle(*path.strip("/").split("/"))

    def forged(self):
        """Handles of the other share's file, for exports that the client can
        use: its own share, and the directories above it, which the server
        exports for traversal."""
        path = self.exporter.path(self.own.directory).strip("/").split("/")
        for depth in range(len(path) + 1):
            real = self.client.handle(*path[:depth])
            size = _PREFIX_BYTES + 1 + _FSID_BYTES[real[_PREFIX_BYTES - 1]]
            for kind, name in self.names(self.other):
                fsid = real[_PREFIX_BYTES + 1 : size]
                yield real[:_PREFIX_BYTES] + bytes([kind]) + fsid + name

    def names(self, share):
        """Type and bytes of all handles of a share's file; the last is the
        server's."""
        _, target = file_id(self.volume(share))
        parent = self.parent(share)
        return (
            (_WITHOUT_PARENT, target),
            (_WITH_PARENT_ROOT, target + self.parent(self.own)),
            (_WITH_PARENT_ROOT, target + parent),
            (_WITH_PARENT, target + parent[:12]),
        )

    def parent(self, share):
        inode, subvolume, generation = _FID.unpack(file_id(share.directory)[1])
        return struct.pack("<QIQ", inode, generation, subvolume)

    def check_handles_are_made_up_as_the_server_makes_them(self):
        real = self.handle(self.own)
        kind, name = self.names(self.own)[-1]
        self.assertEqual(kind, real[_PREFIX_BYTES])
        self.assertTrue(real.endswith(name))

    def check_the_other_is_out_of_reach(self):
        with self.assertRaises(OSError):
            self.handle(self.other)
        self.assertEqual(SECRET, self.client.read(self.handle(self.own), 64))
        for caches in ("warm", "cold"):
            for forged in self.forged():
                with self.subTest(caches=caches, handle=forged.hex()):
                    with self.assertRaises(OSError):
                        self.client.read(forged, 64)
                    with self.assertRaises(OSError):
                        self.client.write(forged, b"overwritten")
            os.sync()
            pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
        self.assertEqual(SECRET, self.volume(self.other).read_bytes())


class TestForgedHandles(ForgedHandles):
    def exported(self, share):
        self.exporter.apply(share, {exporter.LOOPBACK: exporter.RW})
        return share

    def test_the_own_file_is_there(self):
        handle = self.handle(self.own)
        self.client.write(handle, b"written")
        self.assertEqual(b"written", self.volume(self.own).read_bytes()[:7])

    def test_handles_are_made_up_as_the_server_makes_them(self):
        self.check_handles_are_made_up_as_the_server_makes_them()

    def test_another_share_by_handles_that_are_made_up(self):
        self.check_the_other_is_out_of_reach()

    def test_another_snapshot_by_handles_that_are_made_up(self):
        self.other = self.make_snapshot(self.other)
        self.check_the_other_is_out_of_reach()


class TestForgedHandlesOfASnapshot(ForgedHandles):
    """A client that can only read a snapshot."""

    def exported(self, share):
        self.origin = share
        snapshot = self.make_snapshot(share)
        self.exporter.apply(snapshot, {exporter.LOOPBACK: exporter.RO})
        return snapshot

    def test_the_own_file_cannot_be_written(self):
        handle = self.handle(self.own)
        with self.assertRaises(OSError) as caught:
            self.client.write(handle, b"written")
        self.assertEqual(errno.EROFS, caught.exception.errno)
        self.assertEqual(SECRET, self.volume(self.own).read_bytes())

    def test_handles_are_made_up_as_the_server_makes_them(self):
        self.check_handles_are_made_up_as_the_server_makes_them()

    def test_the_share_that_it_is_of(self):
        self.other = self.origin
        self.check_the_other_is_out_of_reach()

    def test_another_share(self):
        self.check_the_other_is_out_of_reach()

    def test_another_snapshot(self):
        self.other = self.make_snapshot(self.other)
        self.check_the_other_is_out_of_reach()


class OnXfs(ForgedHandles):
    """All shares of a pool are directories of one file system."""

    pool_class = machine.XfsPool

    def names(self, share):
        # xfs_fileid_type() of fs/xfs/xfs_export.h: with the parent's inode
        # and generation behind the file's it is one more.
        kind, target = file_id(self.volume(share))
        self.assertIn(kind, (0x01, 0x81))
        _, own = file_id(self.own.directory)
        _, parent = file_id(share.directory)
        return (
            (kind, target),
            (kind + 1, target + own),
            (kind + 1, target + parent),
        )


class TestForgedHandlesOnXfs(OnXfs, TestForgedHandles):
    pass


class TestForgedHandlesOfASnapshotOnXfs(OnXfs, TestForgedHandlesOfASnapshot):
    pass


class TestForgedHandlesOnBtrfsDirectories(TestForgedHandles):
    """The reflink engine on btrfs: all shares are in one subvolume."""

    pool_class = machine.ReflinkPool
