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

"""The complete service on a real btrfs: full pools, and hostile clients."""

import os
import pathlib
import shutil

from acme_appliance import problems
from acme_appliance.db.session import Database
from acme_appliance.engines import base as engines
from acme_appliance.exporters.memory.exporter import MemoryExporter
from acme_appliance.service import Portal
from acme_appliance.service import Service
from acme_appliance.service import ServiceSettings
from tests.functional.test_btrfs_engine import PoolCase
from tests.unit.appliance import fixtures

MIB = fixtures.MIB
BLOCK = b"b" * 4096


class RealCase(PoolCase, fixtures.ServiceCalls):
    """A driver's calls on the class's pool and a new database."""

    def setUp(self):
        super().setUp()
        path = self.pool.folder / f"{self.id()}.db"
        self.database = Database(f"sqlite:///{path}")
        self.addCleanup(path.unlink)
        self.addCleanup(self.database.close)
        self.database.upgrade()
        self.exporter = MemoryExporter(str(self.pool.directory))
        self.service = self.new_service()
        self.service.start()
        self.addCleanup(lambda: self.service.stop())

    def new_service(self):
        return Service(
            self.database,
            {"gold": self.engine},
            self.exporter,
            ServiceSettings(
                system_id=fixtures.SYSTEM_ID,
                system_name="test",
                portals=(Portal("192.0.2.10"),),
            ),
        )

    def path(self, share_id, name="volume"):
        return pathlib.Path(
            self.engine.directory(fixtures.share(share_id)), name
        )

    def write(self, share_id, size_bytes):
        """Write and sync incompressible data."""
        with open(self.path(share_id), "r+b") as file:
            file.write(os.urandom(size_bytes))
            os.fsync(file.fileno())

    def check_problem(self, code, request):
        with self.assertRaises(problems.Problem) as caught:
            request()
        self.assertEqual(code, caught.exception.code)

    def check_nothing_else(self, shares, snapshots=()):
        self.assertEqual(set(shares), self.engine.ids(engines.Kind.SHARE))
        self.assertEqual(
            set(snapshots), self.engine.ids(engines.Kind.SNAPSHOT)
        )
        self.assertEqual([], self.listed()["open_jobs"])
        found = self.service.reconciliation.run(False)
        self.assertEqual({}, {k: v for k, v in found.items() if v})


class TestLifeOfAVolume(RealCase):
    def test_from_create_to_delete(self):
        one = self.put_share(size_bytes=64 * MIB).body
        self.assertEqual(0, one["used_bytes"])
        self.write(one["id"], 4 * MIB)
        before = self.path(one["id"]).read_bytes()
        kept = self.put_snapshot(one["id"]).body["id"]
        self.write(one["id"], 4 * MIB)
        clone = self.clone(
            "snapshot",
            kept,
            size_bytes=128 * MIB,
            file={"name": "clone", "mode": "0600", "uid": 1000},
        ).body
        path = self.path(clone["id"], "clone")
        self.assertEqual(128 * MIB, path.stat().st_size)
        self.assertEqual(1000, path.stat().st_uid)
        self.assertEqual(before, path.read_bytes()[: 64 * MIB])
        self.assertEqual(4 * MIB, clone["used_bytes"])
        grown = self.patch_share(one["id"], size_bytes=96 * MIB).body
        self.assertEqual(96 * MIB, grown["size_bytes"])
        self.assertEqual(96 * MIB, self.path(one["id"]).stat().st_size)
        self.delete_share(one["id"], "cascade")
        self.assertEqual(before, path.read_bytes()[: 64 * MIB])
        self.check_nothing_else([clone["id"]])
        self.delete_share(clone["id"])
        self.check_nothing_else([])

    def test_stats_are_the_file_systems(self):
        pool = self.service.pools.get("gold")
        found = shutil.disk_usage(self.pool.directory)
        self.assertEqual(found.total, pool["total_bytes"])
        self.assertAlmostEqual(found.free, pool["free_bytes"], delta=16 * MIB)
        self.assertEqual(self.engine.name, pool["engine"])


class TestFullPool(RealCase):
    size_bytes = 160 * MIB

    def free(self):
        return self.service.pools.get("gold")["free_bytes"]

    def test_full_volume_that_does_not_fit(self):
        for _ in range(3):
            self.check_problem(
                "pool.no_space",
                lambda: self.put_share(
                    size_bytes=self.free() * 2, file={"allocation": "full"}
                ),
            )
            self.check_nothing_else([])
        # What failed took nothing with it.
        self.put_share(
            size_bytes=self.free() // 2, file={"allocation": "full"}
        )

    def test_full_volume_that_cannot_grow(self):
        body = self.put_share(
            size_bytes=8 * MIB, file={"allocation": "full"}
        ).body
        before = self.free()
        self.check_problem(
            "pool.no_space",
            lambda: self.patch_share(body["id"], size_bytes=before * 3),
        )
        after = self.service.shares.get(fixtures.CALLER, body["id"])
        self.assertEqual(
            ("available", 8 * MIB, 8 * MIB),
            (after["state"], after["size_bytes"], after["used_bytes"]),
        )
        self.assertEqual(8 * MIB, self.path(body["id"]).stat().st_size)
        self.assertGreater(self.free(), before - 16 * MIB)
        self.patch_share(body["id"], size_bytes=16 * MIB)

    def test_clone_that_is_to_be_full_and_does_not_fit(self):
        source = self.put_share(size_bytes=4 * MIB).body["id"]
        self.check_problem(
            "pool.no_space",
            lambda: self.clone(
                "share",
                source,
                size_bytes=self.free() * 2,
                file={"allocation": "full", "name": "clone"},
            ),
        )
        self.check_nothing_else([source])

    def test_pool_filled_by_clients(self):
        """Failures have a code and leave nothing; deletes always work, and
        free space."""
        id_ = self.put_share(size_bytes=1 << 30).body["id"]
        with (
            self.assertRaisesRegex(OSError, "No space"),
            open(self.path(id_), "r+b", buffering=0) as file,
        ):
            while True:
                file.write(os.urandom(4 * MIB))
                os.fsync(file.fileno())
        self.assertLess(self.free(), 16 * MIB)
        shares, snapshots = {id_}, set()
        for _ in range(200):
            share_id, snapshot_id = fixtures.new_id(), fixtures.new_id()
            try:
                self.put_share(share_id)
                shares.add(share_id)
                self.put_snapshot(id_, snapshot_id)
                snapshots.add(snapshot_id)
            except problems.Problem as problem:
                self.assertEqual("pool.no_space", problem.code)
        self.check_nothing_else(shares, snapshots)
        self.delete_share(id_, "cascade")
        for share_id in shares - {id_}:
            self.delete_share(share_id)
        self.check_nothing_else([])
        self.put_share()


class TestHostileClients(RealCase):
    """A client controls its share, and nothing else."""

    def setUp(self):
        super().setUp()
        self.outside = self.pool.folder / "outside"
        self.outside.write_bytes(BLOCK)
        self.share_id = self.put_share(size_bytes=MIB).body["id"]

    def plant(self, name, target):
        path = self.path(self.share_id, name)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def check_degraded(self, request):
        before = self.outside.stat()
        self.check_problem("share.degraded", request)
        after = self.outside.stat()
        self.assertEqual(
            (before.st_size, before.st_mode, before.st_uid),
            (after.st_size, after.st_mode, after.st_uid),
        )

    def test_volume_file_replaced_by_a_link(self):
        self.plant("volume", self.outside)
        for patch in ({"size_bytes": 2 * MIB}, {"file": {"name": "new"}}):
            self.check_degraded(
                lambda patch=patch: self.patch_share(self.share_id, **patch)
            )
        body = self.service.shares.get(fixtures.CALLER, self.share_id)
        self.assertEqual("degraded", body["state"])
        self.assertIsNone(body["used_bytes"])
        self.check_degraded(
            lambda: self.clone(
                "share", self.share_id, file={"name": "c", "uid": 1001}
            )
        )

    def test_link_where_a_file_is_to_be_renamed_to(self):
        self.plant("new", self.outside)
        self.check_degraded(
            lambda: self.patch_share(self.share_id, file={"name": "new"})
        )
        self.assertTrue(self.path(self.share_id, "volume").exists())

    def test_link_where_a_clones_file_is_to_be(self):
        self.plant("clone", self.outside)
        self.check_degraded(
            lambda: self.clone(
                "share", self.share_id, file={"name": "clone", "uid": 1001}
            )
        )
        self.check_nothing_else([self.share_id])
        self.clone("share", self.share_id, file={"name": "other"})

    def test_removed_volume_file_and_back(self):
        path = self.path(self.share_id)
        path.unlink()
        self.check_degraded(
            lambda: self.patch_share(self.share_id, size_bytes=2 * MIB)
        )
        self.put_snapshot(self.share_id)
        path.write_bytes(BLOCK)
        body = self.patch_share(self.share_id, size_bytes=2 * MIB).body
        self.assertEqual("available", body["state"])
        self.assertEqual(2 * MIB, path.stat().st_size)

    def test_share_full_of_anything_can_be_deleted(self):
        folder = self.path(self.share_id, "deep")
        for _ in range(64):
            folder.mkdir()
            os.mkfifo(folder / "pipe")
            (folder / "link").symlink_to("/")
            folder = folder / "d"
        self.delete_share(self.share_id)
        self.check_nothing_else([])
        self.assertTrue(self.outside.exists())

    def test_file_made_shorter_by_a_client(self):
        """As after a restored backup; a clone has its full size."""
        os.truncate(self.path(self.share_id), 4096)
        clone = self.clone("share", self.share_id).body["id"]
        self.assertEqual(MIB, self.path(clone).stat().st_size)
        self.patch_share(self.share_id, size_bytes=2 * MIB)
        self.assertEqual(2 * MIB, self.path(self.share_id).stat().st_size)
