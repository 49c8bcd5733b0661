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

"""The appliance in systemd, installed as in doc/source/admin."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib
import re
import shutil
import sys
import tempfile
from typing import ClassVar
import unittest
import uuid

import requests

import acme_client
from tests.harness import machine
from tests.harness import systemd

TOP = pathlib.Path(__file__).parents[2]
ETC = TOP / "etc" / "acme-appliance"
CONFIGURATION = pathlib.Path("/etc/acme-appliance")
STATE = pathlib.Path("/var/lib/acme-appliance")
LINK = pathlib.Path("/usr/local/bin/acme-appliance")
SERVICE = "acme-appliance.service"
POOLS = "acme-appliance-pools.service"
HERE = "127.0.0.1"
SIZE_BYTES = 64 << 20


def install() -> None:
    """The commands in doc/source/admin/appliance.rst."""
    for unit in (ETC / "systemd").iterdir():
        shutil.copy(unit, systemd.UNITS)
    # The pool is not where the unit expects it, as init says; and this tree
    # may be in /tmp, of which the service has its own.
    override = systemd.UNITS / f"{SERVICE}.d" / "override.conf"
    override.parent.mkdir()
    root = os.environ["SANDBOX_EXPORT_ROOT"]
    override.write_text(
        f"[Service]\nReadWritePaths={root}\n"
        f"BindReadOnlyPaths={TOP} {sys.prefix}\n"
    )
    for folder in ("sysusers.d", "tmpfiles.d"):
        pathlib.Path("/etc", folder).mkdir(exist_ok=True)
        shutil.copy(
            ETC / folder / "acme-appliance.conf", pathlib.Path("/etc", folder)
        )
    systemd.run("systemd-sysusers", "acme-appliance.conf")
    systemd.run("systemd-tmpfiles", "--create", "acme-appliance.conf")
    LINK.symlink_to(pathlib.Path(sys.prefix) / "bin" / LINK.name)
    # Not in /opt, where everybody finds a program.
    for place in (TOP, sys.prefix, sys.base_prefix):
        for folder in (pathlib.Path(place), *pathlib.Path(place).parents):
            folder.chmod(folder.stat().st_mode | 0o111)


def uninstall() -> None:
    LINK.unlink()
    for folder in (CONFIGURATION, STATE):
        shutil.rmtree(folder)


class SystemdCase(unittest.TestCase):
    """One systemd and one appliance for all tests."""

    engine: ClassVar[str]
    system: ClassVar[systemd.Systemd]
    api: ClassVar[acme_client.Client]
    folder: ClassVar[pathlib.Path]
    pool: ClassVar[pathlib.Path]

    @classmethod
    def setUpClass(cls) -> None:
        if os.environ.get("SANDBOX_KIND") != "guest":
            raise unittest.SkipTest(
                "changes the machine's users and units: run by"
                " 'tools/sandbox.sh --sandbox run -- ...'"
            )
        super().setUpClass()
        cls.folder = pathlib.Path(
            tempfile.mkdtemp(dir=os.environ["SANDBOX_SCRATCH"])
        )
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.system = systemd.Systemd(cls.folder / "systemd.log")
        cls.addClassCleanup(cls.system.stop)
        cls.system.start()
        cls.addClassCleanup(uninstall)
        install()
        cls.pool = pathlib.Path(os.environ["SANDBOX_EXPORT_ROOT"]) / "gold"
        cls.addClassCleanup(cls.unmount_pool)
        cls.set_up_appliance()

    @classmethod
    def set_up_appliance(cls) -> None:
        root = os.environ["SANDBOX_EXPORT_ROOT"]
        systemd.run(
            *("acme-appliance", "init", "--engine", cls.engine),
            *("--portal", HERE, "--listen", HERE),
            *("--image", str(cls.folder / "gold.img"), "--size", "1G"),
            *("--path", str(cls.pool), "--nfs-root", root),
        )
        # As after a boot: nothing is mounted yet.
        systemd.run("umount", str(cls.pool))
        token = cls.folder / "token"
        systemd.run(
            *("acme-appliance", "token", "create", "test"),
            *("--scope", "driver:test", "--output", str(token)),
        )
        cls.system.start_unit(SERVICE)
        cls.api = acme_client.Client(
            [f"https://{HERE}:8443"],
            acme_client.BearerToken(token.read_text().strip()),
            verify=str(STATE / "tls" / "server.crt"),
        )
        cls.addClassCleanup(cls.api.close)
        cls.wait_ready()

    @classmethod
    def unmount_pool(cls) -> None:
        cls.system.run("systemctl", "stop", SERVICE, POOLS, check=False)
        if os.path.ismount(cls.pool):
            with machine.nfs_server_paused():
                systemd.run("umount", str(cls.pool))

    @classmethod
    def why_not_ready(cls) -> str:
        try:
            reply = requests.get(
                f"https://{HERE}:8443/readyz",
                verify=str(STATE / "tls" / "server.crt"),
                timeout=5,
            )
        except (requests.RequestException, OSError) as error:
            return str(error)
        return reply.text

    @classmethod
    def wait_ready(cls) -> None:
        cls.system.wait_for(
            "the appliance is ready",
            lambda: '"ready":true' in cls.why_not_ready(),
        )

    def check_a_volume(self) -> None:
        share = self.new_share()
        with self.mounted(share) as volume:
            volume.write_bytes(b"before")
            snapshot = self.api.create_snapshot(
                str(uuid.uuid4()), share_id=share.id
            )
            os.truncate(volume, SIZE_BYTES)
            self.api.update_share(share.id, size_bytes=2 * SIZE_BYTES)
        copy = self.api.create_share(
            str(uuid.uuid4()),
            name="a copy",
            source=acme_client.Source(type="snapshot", id=snapshot.id),
            file=acme_client.VolumeFileSpec(name="volume"),
        )
        self.addCleanup(self.api.delete_share, copy.id)
        self.assertEqual(
            b"before",
            (self.pool / "shares" / copy.id / "volume").read_bytes()[:6],
        )
        self.assertIn("agree", systemd.run("acme-appliance", "reconcile"))

    def new_share(self) -> acme_client.Share:
        share = self.api.create_share(
            str(uuid.uuid4()),
            name="a volume",
            size_bytes=SIZE_BYTES,
            file=acme_client.VolumeFileSpec(name="volume", allocation="full"),
        )
        self.addCleanup(self.api.delete_share, share.id, cascade=True)
        return share

    @contextlib.contextmanager
    def mounted(self, share: acme_client.Share) -> Iterator[pathlib.Path]:
        """The volume file, through NFS."""
        self.api.grant_access(share.id, "test", [HERE], "rw")
        self.addCleanup(self.api.revoke_access, share.id, "test")
        place = self.folder / "mnt"
        place.mkdir()
        location = self.api.get_share(share.id).export_locations[0]
        systemd.run(
            *("mount", "-t", "nfs", "-o", "vers=4.2,soft,timeo=100"),
            *(f"{HERE}:{location.path}", str(place)),
        )
        try:
            yield place / "volume"
        finally:
            systemd.run("umount", str(place))
            place.rmdir()

    def main_pid(self) -> str:
        return self.system.value(SERVICE, "MainPID")

    def main_process(self) -> pathlib.Path:
        return self.system.process(self.main_pid())


class SystemdTestCase(SystemdCase):
    engine = "btrfs"

    def test_it_runs_as_its_own_user_with_the_rights_of_the_unit(self) -> None:
        status = (self.main_process() / "status").read_text()
        found = dict(re.findall(r"^(\w+):\t(.*)$", status, re.MULTILINE))
        uid = str(STATE.stat().st_uid)
        self.assertNotEqual("0", uid)
        self.assertEqual([uid] * 4, found["Uid"].split())
        self.assertEqual(("1", "2"), (found["NoNewPrivs"], found["Seccomp"]))
        for kind in ("CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(found["CapBnd"], found[kind])
        self.assertEqual(7, int(found["CapBnd"], 16).bit_count())

    def test_pools_are_mounted_before_they_are_served(self) -> None:
        before = self.system.value(POOLS, "Before").split()
        self.assertIn("nfs-server.service", before)
        self.assertIn(SERVICE, before)

    def test_it_has_neither_devices_nor_a_system_to_write_to(self) -> None:
        root = self.main_process() / "root"
        self.assertFalse((root / "dev" / "loop-control").exists())
        mounts = {}
        for line in (self.main_process() / "mounts").read_text().splitlines():
            _, place, _, options = line.split()[:4]
            mounts[place] = options.split(",")[0]
        self.assertEqual("ro", mounts["/"])
        self.assertEqual("ro", mounts["/etc"])
        self.assertEqual("ro", mounts["/usr"])
        self.assertEqual("rw", mounts[str(STATE)])
        self.assertEqual("rw", mounts["/etc/exports.d"])
        self.assertEqual("rw", mounts[str(self.pool)])

    def test_all_of_its_state_is_its_own(self) -> None:
        owner = STATE.stat()
        for path in (STATE, *STATE.rglob("*")):
            found = path.stat()
            self.assertEqual(
                (owner.st_uid, owner.st_gid), (found.st_uid, found.st_gid)
            )
        for path in CONFIGURATION.iterdir():
            self.assertEqual(0, path.stat().st_uid)
            self.assertEqual(owner.st_gid, path.stat().st_gid)
            self.assertEqual(0o640, path.stat().st_mode & 0o777)

    def test_a_volume_from_its_making_to_its_end(self) -> None:
        self.check_a_volume()

    def test_killed_it_comes_back_and_mounts_go_on(self) -> None:
        share = self.new_share()
        with self.mounted(share) as volume:
            before = self.main_pid()
            self.system.run("kill", "-KILL", before)
            self.system.wait_for(
                "another process serves",
                lambda: (
                    self.system.value(SERVICE, "NRestarts") != "0"
                    and self.system.value(SERVICE, "ActiveState") == "active"
                ),
            )
            volume.write_bytes(b"meanwhile")
            self.wait_ready()
            self.assertNotEqual(before, self.main_pid())
            self.assertEqual("available", self.api.get_share(share.id).state)

    def test_a_pool_that_was_missing_at_the_start(self) -> None:
        image = self.folder / "gold.img"
        away = self.folder / "away.img"
        self.unmount_pool()
        image.rename(away)
        try:
            self.system.start_unit(SERVICE)
            self.assertEqual("failed", self.system.value(POOLS, "ActiveState"))
            self.system.wait_for(
                "it says which pool",
                lambda: "is the pool mounted?" in self.why_not_ready(),
            )
        finally:
            away.rename(image)
        served = self.main_pid()
        self.system.start_unit(POOLS)
        self.wait_ready()
        self.assertEqual(served, self.main_pid())
        self.new_share()


class ReflinkTestCase(SystemdCase):
    """The unit's capabilities also suffice for XFS and its quotas."""

    engine = "reflink"

    def test_a_volume_from_its_making_to_its_end(self) -> None:
        self.check_a_volume()

    def test_a_share_has_a_hard_limit(self) -> None:
        (pool,) = self.api.get_stats().pools
        self.assertIn("share.hard_limit", pool.features)
        share = self.new_share()
        with self.mounted(share) as volume, volume.open("r+b") as file:
            with self.assertRaises(OSError) as caught:
                for _ in range(256):
                    file.write(os.urandom(4 << 20))
                    os.fsync(file.fileno())
        self.assertIn(caught.exception.errno, (errno.ENOSPC, errno.EDQUOT))
        written = self.pool / "shares" / share.id / "volume"
        self.assertLess(written.stat().st_size, 10 * SIZE_BYTES)
