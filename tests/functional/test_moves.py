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

"""Moving shares between pools of real file systems."""

import hashlib
import os

import ddt

from acme_appliance.db.session import Database
from acme_appliance.engines import base as engines
from acme_appliance.exporters.memory.exporter import MemoryExporter
from acme_appliance.service import Portal
from acme_appliance.service import Service
from acme_appliance.service import ServiceSettings
from tests.functional.test_btrfs_engine import PoolCase
from tests.functional.test_service_on_btrfs import RealCase
from tests.harness import machine
from tests.unit.appliance import fixtures

MIB = fixtures.MIB


def digest(data):
    return hashlib.sha256(data).hexdigest()


class MoveCase(RealCase):
    size_bytes = 2 << 30
    other_class = machine.Pool

    def setUp(self):
        machine.require_filesystem("xfs")
        PoolCase.setUp(self)
        self.other = self.other_class(512 * MIB)
        self.addCleanup(self.other.close)
        self.engines = {"gold": self.engine, "silver": self.other.engine()}
        path = self.pool.folder / f"{self.id()}.db"
        self.database = Database(f"sqlite:///{path}")
        self.addCleanup(path.unlink)
        self.addCleanup(self.database.close)
        self.database.upgrade()
        self.service = Service(
            self.database,
            self.engines,
            MemoryExporter("/"),
            ServiceSettings(
                system_id=fixtures.SYSTEM_ID,
                system_name="test",
                portals=(Portal("192.0.2.10"),),
            ),
        )
        self.service.start()
        self.addCleanup(self.service.stop)

    def file_in(self, pool, share_id):
        directory = self.engines[pool].directory(fixtures.share(share_id))
        return os.path.join(directory, "volume")


@ddt.ddt
class TestMove(MoveCase):
    """From btrfs to btrfs."""

    def test_content_holes_and_owner_there_and_back(self):
        file = {"uid": 1001, "gid": 1002, "mode": "0600"}
        id_ = self.put_share(size_bytes=256 * MIB, file=file).body["id"]
        pieces = {
            offset: os.urandom(MIB + 5)
            for offset in (0, 7, 100 * MIB, 255 * MIB - 5)
        }
        with open(self.file_in("gold", id_), "r+b") as volume:
            for offset, data in pieces.items():
                volume.seek(offset)
                volume.write(data)
        with open(self.file_in("gold", id_), "rb") as volume:
            expected = digest(volume.read())
        for pool, left in (("silver", "gold"), ("gold", "silver")):
            self.patch_share(id_, pool=pool)
            self.assertFalse(self.engines[left].ids(engines.Kind.SHARE))
            path = self.file_in(pool, id_)
            with open(path, "rb") as volume:
                self.assertEqual(expected, digest(volume.read()))
            found = os.stat(path)
            self.assertEqual(
                (1001, 1002, 0o100600, 256 * MIB),
                (found.st_uid, found.st_gid, found.st_mode, found.st_size),
            )
            self.assertLess(found.st_blocks * 512, 8 * MIB)
        self.check_nothing_else([id_])

    def test_thick(self):
        id_ = self.put_share(
            size_bytes=64 * MIB, file={"allocation": "full"}
        ).body["id"]
        done = self.patch_share(id_, pool="silver")
        self.assertGreaterEqual(done.body["used_bytes"], 64 * MIB)

    @ddt.data("sparse", "full")
    def test_full_pool_leaves_nothing(self, allocation):
        self.fill("silver")
        id_ = self.put_share(
            size_bytes=400 * MIB, file={"allocation": allocation}
        ).body["id"]
        with open(self.file_in("gold", id_), "r+b") as volume:
            for _ in range(380):
                volume.write(os.urandom(MIB))
            os.fsync(volume.fileno())
        self.check_problem(
            "pool.no_space", lambda: self.patch_share(id_, pool="silver")
        )
        self.check_nothing_else([id_])

    def test_pool_that_becomes_full_meanwhile(self):
        id_ = self.put_share(size_bytes=400 * MIB).body["id"]
        with open(self.file_in("gold", id_), "r+b") as volume:
            for _ in range(300):
                volume.write(os.urandom(MIB))
        self.service.context.on_step = lambda job_id, step: (
            step == "copy:before" and self.fill("silver")
        )
        self.check_problem(
            "pool.no_space", lambda: self.patch_share(id_, pool="silver")
        )
        self.check_nothing_else([id_])
        self.assertFalse(self.engines["silver"].ids(engines.Kind.SHARE))
        self.assertFalse(
            self.engines["silver"].metadata.ids(engines.Kind.SHARE)
        )

    def fill(self, pool):
        path = os.path.join(self.engines[pool].root, "filler")
        with open(path, "wb") as filler:
            for _ in range(200):
                filler.write(os.urandom(MIB))
            os.fsync(filler.fileno())


class TestMoveToXfs(TestMove):
    """From btrfs to the reflink engine, and back."""

    other_class = machine.XfsPool
