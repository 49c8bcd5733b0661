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

"""kill -9 at every step of every change, on real storage and exports."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import unittest

import ddt

from acme_appliance.db.session import Database
from acme_appliance.engines import base as engines
from acme_appliance.exporters.kernel import exporter as kernel
from acme_appliance.host import exportfs
from tests.harness import machine
from tests.unit.appliance import scenarios

TREE = pathlib.Path(__file__).parents[2]


#: A change of the database alone.
WITHOUT_STEPS = {"rename share", "create group"}
#: Engines with a disk have no limits.
LIMITED = {"create limited", "limit"}
#: Those which tell the NFS server something.
WITH_NFS = {
    "delete",
    "grant",
    "grant more",
    "revert",
    "revoke",
    "grant of a snapshot",
    "revoke of a snapshot",
}
ON_DISK = sorted(
    scenarios.SCENARIOS.keys() - WITHOUT_STEPS - LIMITED - WITH_NFS
)


#: Those which need another pool, of another file system.
BETWEEN_POOLS = {"move"}


class KillCase(unittest.TestCase):
    pool_class = machine.Pool
    second_class = machine.XfsPool
    nfs = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.require()
        cls.root = exportfs.configured_root() if cls.nfs else "/"
        cls.pool = cls.pool_class(
            256 << 20, parent=cls.root if cls.nfs else None
        )
        cls.addClassCleanup(cls.pool.close)
        cls.engine = cls.pool.engine()
        cls.second = None
        cls.database = cls.pool.folder / "appliance.db"
        cls.empty_database = cls.pool.folder / "empty.db"
        database = Database(f"sqlite:///{cls.empty_database}")
        database.upgrade()
        database.close()
        cls.launcher = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.harness.launcher"),
                str(cls.database),
            ],
            cwd=TREE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        cls.addClassCleanup(cls.end_launcher)
        cls.launcher.stdout.readline()

    @classmethod
    def require(cls):
        machine.require_btrfs()

    @classmethod
    def end_launcher(cls):
        cls.launcher.stdin.close()
        cls.launcher.wait(60)
        cls.launcher.stdout.close()

    @classmethod
    def make_second(cls):
        if cls.second is None:
            machine.require_btrfs()
            machine.require_filesystem("xfs")
            pool = cls.second_class(256 << 20)
            cls.addClassCleanup(pool.close)
            cls.second = pool.engine()

    def setUp(self):
        super().setUp()
        self.reset()
        self.addCleanup(self.reset)

    def reset(self):
        """Remove everything, as after init."""
        if self.nfs:
            kernel.KernelExporter(self.root).reconcile(
                [], apply=True, remove=True
            )
        for engine in filter(None, (self.engine, self.second)):
            for id_ in engine.ids(engines.Kind.SHARE):
                engine.delete_share(id_)
            for id_ in engine.ids(engines.Kind.SNAPSHOT):
                engine.delete_snapshot(id_)
        for left in self.pool.folder.glob("appliance.db*"):
            left.unlink()
        shutil.copyfile(self.empty_database, self.database)

    def run_process(self, name, *phases, crash_at=None):
        request = {
            "pool": str(self.pool.directory),
            "engine": self.engine.name,
            "second": self.second and (self.second.name, self.second.root),
            "root": str(self.root),
            "nfs": self.nfs,
            "scenario": name,
            "phases": phases,
            "crash_at": crash_at,
        }
        print(json.dumps(request), file=self.launcher.stdin, flush=True)
        answer = json.loads(self.launcher.stdout.readline())
        self.assertNotIn("error", answer, answer.get("error"))
        return answer

    def check_scenario(self, name):
        """Without a kill first, then killed at each step."""
        if name in BETWEEN_POOLS:
            self.make_second()
        uncut = self.run_process(name, "prepare", "request")
        self.assertIsNone(uncut["signal"])
        self.assertEqual({}, uncut["state"]["found"])
        self.assertGreater(len(uncut["steps"]), 6)
        for index, step in enumerate(uncut["steps"]):
            with self.subTest(step):
                self.reset()
                dead = self.run_process(
                    name, "prepare", "request", crash_at=index
                )
                self.assertEqual(signal.SIGKILL, dead["signal"])
                again = self.run_process(name, "request")
                self.assertIsNone(again["signal"])
                self.assertEqual(uncut["state"], again["state"])


@ddt.ddt
class TestKills(KillCase):
    @ddt.data(*ON_DISK)
    def test_killed_restarted_and_sent_again(self, name):
        self.check_scenario(name)


@ddt.ddt
class TestKillsOnXfs(TestKills):
    """With the reflink engine."""

    pool_class = machine.XfsPool
    second_class = machine.Pool

    @classmethod
    def require(cls):
        machine.require_filesystem("xfs")


@ddt.ddt
class TestKillsWithNfs(KillCase):
    nfs = True

    @classmethod
    def require(cls):
        machine.require_nfsd()

    @ddt.data(*sorted(WITH_NFS))
    def test_killed_restarted_and_sent_again(self, name):
        self.check_scenario(name)
