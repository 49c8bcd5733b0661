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

"""Hard limits by btrfs simple quotas, on a real btrfs.

Needs Linux 6.7 or later; otherwise the tests are skipped.
"""

import errno
import os
import random

from acme_appliance.engines import base
from acme_appliance.engines.btrfs import engine as btrfs
from acme_appliance.host import btrfsquota
from tests.functional import test_btrfs_engine as functional
from tests.unit.appliance import engine_suite as suite

MIB = 1 << 20


class QuotaCase(functional.PoolCase):
    size_bytes = 3 << 30
    #: What a client gets that goes on beyond a limit.
    beyond = errno.EDQUOT

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.enable()

    @classmethod
    def enable(cls):
        if not btrfsquota.is_supported():
            # The class's clean-ups run all the same.
            cls.skip = "this kernel has no btrfs simple quotas (Linux 6.7)"
            return
        cls.skip = None
        btrfs.enable_simple_quotas(str(cls.pool.directory))

    def setUp(self):
        if self.skip:
            self.skipTest(self.skip)
        super().setUp()
        self.engine = self.pool.engine(hard_limit=True)

    def make_limited(self, size_bytes):
        id_ = suite.new_id()
        self.engine.create_share(id_, None)
        self.engine.set_limit(id_, size_bytes)
        self.engine.ensure_file(id_, suite.volume(size_bytes=size_bytes))
        return id_

    def path(self, share_id):
        return os.path.join(
            self.engine.directory(suite.share(share_id)), "volume"
        )

    def write(self, share_id, offset, size_bytes):
        with open(self.path(share_id), "r+b", buffering=0) as file:
            for start in range(offset, offset + size_bytes, 4 * MIB):
                end = min(start + 4 * MIB, offset + size_bytes)
                os.pwrite(file.fileno(), os.urandom(end - start), start)
            os.fsync(file.fileno())

    def used(self):
        self.engine.sync()
        return self.engine.usage().used_bytes


class TestEngine(suite.EngineSuite, QuotaCase):
    """The engine suite with limits enabled."""


class TestHardLimit(QuotaCase):
    def test_the_pool_says_whether_they_are_on(self):
        self.assertEqual([], self.engine.check())
        self.assertTrue(self.engine.capabilities.hard_limit)
        self.enable()

    def test_a_client_cannot_fill_the_pool_from_a_small_share(self):
        id_ = self.make_limited(MIB)
        before = self.used()
        with self.assertRaises(OSError) as caught:
            self.write(id_, 0, 2 << 30)
        self.assertEqual(self.beyond, caught.exception.errno)
        self.assertLess(self.used() - before, 100 * MIB)
        # No other share has less for it, and this one can be deleted.
        other = self.make_limited(256 * MIB)
        self.write(other, 0, 256 * MIB)
        self.engine.delete_share(id_)

    def test_nor_by_attributes_of_its_file(self):
        id_ = self.make_limited(MIB)
        with self.assertRaises(OSError) as caught:
            for number in range(100_000):
                name = f"user.{number}"
                os.setxattr(self.path(id_), name, b"x" * 16_000)
        self.assertIn(caught.exception.errno, (errno.EDQUOT, errno.ENOSPC))

    def test_overwriting_while_snapshots_and_clones_hold_the_old(self):
        size = 64 * MIB
        id_ = self.make_limited(size)
        kept = []
        for version in range(6):
            self.write(id_, 0, size)
            self.engine.set_limit(id_, size)
            new = suite.new_id()
            if version % 2:
                self.engine.clone_share(suite.share(id_), new)
            else:
                self.engine.create_snapshot(id_, new)
                kept.append(new)
        for _ in range(5):
            self.write(id_, 0, size)
        # Where the snapshots go, the limit follows the next time.
        for each in kept:
            self.engine.delete_snapshot(each)
        self.write(id_, 0, size)

    def test_overwriting_in_pieces_of_any_size(self):
        """An extent stays as long as any part of it is used."""
        size = 64 * MIB
        id_ = self.make_limited(size)
        self.write(id_, 0, size)
        chance = random.Random(7)
        written = 0
        while written < 8 * size:
            piece = int(2 ** chance.uniform(12, 24)) & ~4095
            place = chance.randrange(0, size - piece + 1, 4096)
            self.write(id_, place, piece)
            written += piece

    def test_a_share_that_grows_may_be_written_to_its_end(self):
        id_ = self.make_limited(MIB)
        self.engine.set_limit(id_, 512 * MIB)
        self.engine.grow_file(id_, "volume", 512 * MIB, base.ALLOCATION_FULL)
        self.write(id_, 0, 512 * MIB)

    def test_shares_from_before_get_a_limit_later(self):
        old = self.pool.engine()
        id_ = suite.new_id()
        old.create_share(id_, None)
        old.ensure_file(id_, suite.volume())
        self.assertTrue(old.has_limit(id_))
        self.assertFalse(self.engine.has_limit(id_))
        self.engine.set_limit(id_, suite.SIZE)
        self.assertTrue(self.engine.has_limit(id_))
        self.assertRaises(
            base.NotFound, self.engine.set_limit, suite.new_id(), MIB
        )


class TestPoolWithoutQuotas(functional.PoolCase):
    def test_it_is_down_until_they_are_on(self):
        engine = btrfs.BtrfsEngine(str(self.pool.directory), hard_limit=True)
        self.assertRegex(engine.check()[0], "option quota is simple")
