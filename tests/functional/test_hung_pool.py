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
"""A pool whose disk really hangs: a frozen btrfs, or a suspended disk."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time
import unittest
from unittest import mock
import uuid

from acme_appliance import moments
from acme_appliance import problems
from acme_appliance import references
from acme_appliance.db.session import Database
from acme_appliance.engines.btrfs import engine as btrfs
from acme_appliance.engines.memory.engine import MemoryEngine
from acme_appliance.exporters.memory.exporter import MemoryExporter
from acme_appliance.host import filesystem
from acme_appliance.service import Portal
from acme_appliance.service import Service
from acme_appliance.service import ServiceSettings
from tests.harness import machine
from tests.unit.appliance import fixtures

LIMIT_SECONDS = 2
#: For what must not wait for the disk; a hang is no time at all.
BOUND_SECONDS = 60


def run(*command):
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


class HungPoolSuite(fixtures.ServiceCalls):
    """Behavior while the pool ``gold`` hangs. ``directory`` is a btrfs;
    ``hang`` and ``answer`` suspend and resume its disk."""

    def setUp(self):
        super().setUp()
        machine.require_btrfs()
        self.folder = pathlib.Path(f"/tmp/hung-{uuid.uuid4()}")
        self.folder.mkdir()
        self.addCleanup(shutil.rmtree, self.folder)
        self.directory = self.folder / "pool"
        self.directory.mkdir()
        self.make_pool()
        btrfs.prepare(str(self.directory))
        database = Database(f"sqlite:///{self.folder}/service.db")
        self.addCleanup(database.close)
        database.upgrade()
        self.service = Service(
            database,
            {
                "gold": btrfs.BtrfsEngine(str(self.directory)),
                "silver": MemoryEngine(),
            },
            MemoryExporter("/"),
            ServiceSettings(
                system_id=fixtures.SYSTEM_ID,
                system_name="test",
                portals=(Portal("192.0.2.10"),),
                answer_seconds=LIMIT_SECONDS,
            ),
        )
        self.service.start()
        self.addCleanup(self.service.stop)

    def make_image(self):
        image = self.folder / "pool.img"
        filesystem.create_image(str(image), 256 << 20)
        return str(image)

    @contextlib.contextmanager
    def hanging(self):
        # The engine asks the disk once a second.
        time.sleep(1.1)
        self.hang()
        try:
            yield
        finally:
            self.answer()

    def states(self):
        stats = self.service.system.stats()
        return {pool["name"]: pool["state"] for pool in stats["pools"]}

    def check_unavailable(self, request):
        with self.assertRaises(problems.Problem) as caught:
            request()
        self.assertEqual("engine.unavailable", caught.exception.code)

    def test_only_this_pool_is_gone_and_it_comes_back(self):
        gold = self.put_share(pool="gold").body["id"]
        silver = self.put_share(pool="silver").body["id"]
        self.assertEqual({"gold": "up", "silver": "up"}, self.states())
        before = self.service.pools.get("gold")
        with self.hanging():
            began = time.monotonic()
            self.assertEqual(
                {"gold": "unavailable", "silver": "up"}, self.states()
            )
            after = self.service.pools.get("gold")
            self.assertEqual(before["total_bytes"], after["total_bytes"])
            self.assertIsNotNone(after["observed_at"])
            self.assertEqual(
                ["pool gold: it does not answer"],
                self.service.system.readiness(),
            )
            page = self.service.shares.page(fixtures.ADMIN, {}, 10, None)
            self.assertEqual(
                {gold: None, silver: 0},
                {body["id"]: body["used_bytes"] for body in page.items},
            )
            for _ in range(20):
                self.check_unavailable(lambda: self.put_share(pool="gold"))
                self.check_unavailable(lambda: self.put_access(gold))
            self.put_snapshot(self.put_share(pool="silver").body["id"])
            self.assertLess(time.monotonic() - began, BOUND_SECONDS)
        end = time.monotonic() + BOUND_SECONDS
        while self.states()["gold"] != "up":
            self.assertLess(time.monotonic(), end)
            time.sleep(0.1)
        self.assertEqual([], self.service.system.readiness())
        self.assertEqual(
            0, self.service.shares.get(fixtures.ADMIN, gold)["used_bytes"]
        )
        self.put_snapshot(gold)

    def test_one_transaction_is_bounded(self):
        self.check_moment("stage_at_once")

    def test_held_replies_are_bounded(self):
        engine = self.service.context.pools["gold"]
        with mock.patch.object(
            engine, "stage_at_once", autospec=True, return_value=None
        ):
            self.check_moment("stage")

    def check_moment(self, step):
        """The disk hangs just before the snapshots."""
        engine = self.service.context.pools["gold"]
        exporter = self.service.context.exports.exporter
        members = [
            (self.put_share(pool="gold").body["id"], str(uuid.uuid4()))
            for _ in range(2)
        ]
        limits = moments.Limits(
            engine=1.0, cut=1.5, margin=0.5, write_back=5.0, publish=5.0
        )
        original = getattr(engine, step)

        def hang(*arguments):
            self.hang()
            hung.append(True)
            return original(*arguments)

        def take():
            return moments.take(engine, exporter, members, limits=limits)

        hung = []
        try:
            with mock.patch.object(engine, step, hang):
                self.assertRaises(moments.Busy, take)
            self.assertFalse(exporter.is_shut)
            # Nothing more waits for this disk.
            self.assertRaises(moments.Busy, take)
            self.assertEqual([True], hung)
        finally:
            self.answer()
        self.wait_until_empty(self.directory / "moments")
        self.assertEqual(set(), engine.ids(references.Kind.SNAPSHOT))
        # The earlier call may still be ending.
        end = time.monotonic() + BOUND_SECONDS
        while not engine.ids(references.Kind.SNAPSHOT):
            self.assertLess(time.monotonic(), end)
            with contextlib.suppress(moments.Busy):
                take()
        self.assertEqual(
            {made for _, made in members},
            engine.ids(references.Kind.SNAPSHOT),
        )

    def wait_until_empty(self, folder):
        end = time.monotonic() + BOUND_SECONDS
        while any(folder.glob("*")):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.1)


class TestFrozen(HungPoolSuite, unittest.TestCase):
    """Reads are answered, changes are not: like a backup of the disk."""

    def make_pool(self):
        image = self.make_image()
        filesystem.make_btrfs(image, "acme-test")
        filesystem.mount(image, str(self.directory), "btrfs", loop=True)
        self.addCleanup(filesystem.unmount, str(self.directory))

    def hang(self):
        run("fsfreeze", "--freeze", str(self.directory))

    def answer(self):
        run("fsfreeze", "--unfreeze", str(self.directory))


class TestDiskThatHangs(HungPoolSuite, unittest.TestCase):
    """The kernel answers from memory, but not from the disk."""

    def make_pool(self):
        if shutil.which("dmsetup") is None:
            self.skipTest("dmsetup is not installed")
        subprocess.run(["modprobe", "-q", "dm-mod"], check=False)
        if not os.path.exists("/dev/mapper/control"):
            self.skipTest("this kernel has no device mapper")
        loop = run("losetup", "--find", "--show", self.make_image())
        self.addCleanup(run, "losetup", "--detach", loop)
        self.name = f"acme-{uuid.uuid4()}"
        sectors = run("blockdev", "--getsz", loop)
        self.dmsetup(
            "create", self.name, "--table", f"0 {sectors} linear {loop} 0"
        )
        self.addCleanup(self.dmsetup, "remove", self.name)
        self.dmsetup("mknodes", self.name)
        device = f"/dev/mapper/{self.name}"
        filesystem.make_btrfs(device, "acme-test")
        filesystem.mount(device, str(self.directory), "btrfs")
        self.addCleanup(filesystem.unmount, str(self.directory))

    @staticmethod
    def dmsetup(*arguments):
        """A sandbox has no udev to create or confirm its nodes."""
        run("dmsetup", "--noudevsync", "--noudevrules", *arguments)

    def hang(self):
        self.dmsetup("suspend", "--nolockfs", "--noflush", self.name)

    def answer(self):
        self.dmsetup("resume", self.name)
