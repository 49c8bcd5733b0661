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

"""The database is lost, or restored from a day ago, while guests write."""

from concurrent import futures
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import unittest

import requests

from acme_appliance import problems
from acme_appliance.db.session import Database
from acme_appliance.engines import base as engines
from acme_appliance.engines.btrfs import engine as btrfs
from acme_appliance.host import commands
from acme_appliance.service import Portal
from acme_appliance.service import Service
from acme_appliance.service import ServiceSettings
from tests.functional import test_kernel_exporter
from tests.harness import machine
from tests.unit.appliance import fixtures
from tests.unit.appliance import test_server

MIB = fixtures.MIB
LOOPBACK = "127.0.0.1"
SHARES, ATTACHED, WRITING = 200, 20, 4


class Guest:
    """Writes over NFS, with a sync after each write, until it is stopped."""

    def __init__(self, mount_point):
        self.path = mount_point / "volume"
        self.count = 0
        self.error = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            with open(self.path, "r+b", buffering=0) as file:
                while not self._stop.is_set():
                    file.seek(0)
                    file.write(b"%08d" % self.count)
                    os.fsync(file.fileno())
                    self.count += 1
        except OSError as error:
            self.error = error

    def stop(self):
        self._stop.set()
        self._thread.join(120)


class LossCase(test_kernel_exporter.NfsCase, fixtures.ServiceCalls):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.file = self.folder / "appliance.db"
        self.service = None
        self.addCleanup(self.stop)
        self.begin()

    def begin(self, *, start=True):
        self.stop()
        self.database = Database(f"sqlite:///{self.file}")
        self.database.upgrade()
        self.service = Service(
            self.database,
            {"gold": self.engine},
            self.exporter,
            ServiceSettings(
                system_id=fixtures.SYSTEM_ID,
                system_name="test",
                portals=(Portal(LOOPBACK),),
            ),
        )
        if start:
            self.service.start()
            self.service.wait_until_compared(fixtures.WAIT)

    def stop(self):
        if self.service is not None:
            self.service.stop()
            self.database.close()
            self.service = None

    def remove_database(self):
        self.stop()
        for file in self.folder.glob("appliance.db*"):
            file.unlink()

    def empty(self):
        super().empty()
        for kind in engines.Kind:
            for id_ in self.engine.ids(engines.Kind.SNAPSHOT):
                self.engine.delete_snapshot(id_)
            for id_ in self.engine.metadata.ids(kind):
                self.engine.metadata.delete(engines.Reference(kind, id_))

    def listed(self):
        """Without values that the guests change."""
        found = super().listed()
        for body in found["shares"]:
            del body["used_bytes"]
        return found

    def populate(self):
        """Many shares, a snapshot and its clone, and access rules."""
        ids = [fixtures.new_id() for _ in range(SHARES)]
        with futures.ThreadPoolExecutor(16) as pool:
            list(
                pool.map(
                    lambda id_: self.put_share(id_, labels={"volume": id_}),
                    ids,
                )
            )
            list(
                pool.map(
                    lambda id_: self.put_access(id_, "cmp-1", (LOOPBACK,)),
                    ids[:ATTACHED],
                )
            )
        kept = self.put_snapshot(ids[0], labels={"a": "b"}).body["id"]
        self.clone("snapshot", kept)
        return ids

    @contextlib.contextmanager
    def guests(self, ids):
        with contextlib.ExitStack() as stack:
            guests = []
            for id_ in ids:
                guests.append(Guest(self.mount(id_, stack)))
            for guest in guests:
                stack.callback(guest.stop)
            yield guests

    def mount(self, id_, stack):
        mount_point = self.folder / id_
        mount_point.mkdir()
        path = self.exporter.path(self.engine.directory(fixtures.share(id_)))
        options = "vers=4.2,soft,timeo=100,retrans=2,retry=0"
        commands.run(
            [
                *("mount", "-t", "nfs", "-o", options),
                f"{LOOPBACK}:{path}",
                str(mount_point),
            ]
        )
        stack.callback(commands.run, ["umount", "-l", str(mount_point)])
        return mount_point

    def check_writing(self, guests):
        """All guests write, without errors."""
        counts = [guest.count for guest in guests]
        for guest, before in zip(guests, counts, strict=True):
            test_server.wait_for(
                f"a write to {guest.path}",
                lambda guest=guest, before=before: (
                    guest.error or guest.count > before
                ),
            )
        self.assertEqual([None] * len(guests), [g.error for g in guests])

    def check_refused(self, text):
        exported = self.exporter.exported()
        self.begin(start=False)
        with self.assertRaises(problems.Problem) as caught:
            self.service.start()
        self.assertRegex(caught.exception.detail, text)
        self.assertEqual(exported, self.exporter.exported())

    def check_recovered(self, expected, guests):
        report = self.service.reconciliation.restore(
            apply=True, adopt_into=None
        )
        self.begin()
        self.check_writing(guests)
        self.assertEqual(expected, self.listed())
        found = self.service.reconciliation.run(False)
        self.assertEqual({}, {k: v for k, v in found.items() if v})
        return report


class TestLossUnderGuests(LossCase):
    def test_lost_database(self):
        ids = self.populate()
        expected = self.listed()
        with self.guests(ids[:WRITING]) as guests:
            self.check_writing(guests)
            self.remove_database()
            self.check_refused("acme-appliance recover")
            self.check_writing(guests)
            report = self.check_recovered(expected, guests)
        self.assertEqual(SHARES + 1, len(report["added_shares"]))
        self.assertEqual(ATTACHED, len(report["changed_rules"]))

    def test_database_of_a_day_ago(self):
        ids = self.populate()
        self.stop()
        copy = self.folder / "copy.db"
        shutil.copy(self.file, copy)
        self.begin()
        with self.guests(ids[:WRITING]) as guests:
            self.delete_access(ids[ATTACHED - 1], "cmp-1")
            self.put_access(ids[0], "cmp-2", ("192.0.2.9",), "ro")
            self.put_access(ids[-1], "cmp-3", (LOOPBACK,))
            self.delete_share(ids[-2])
            self.patch_share(ids[0], size_bytes=2 * MIB, name="grown")
            self.put_share()
            expected = self.listed()
            self.remove_database()
            shutil.copy(copy, self.file)
            self.check_refused("older copy")
            report = self.check_recovered(expected, guests)
        self.assertEqual([f"gold/{ids[-2]}"], report["removed_shares"])
        self.assertEqual([f"gold/{ids[0]}"], report["updated_shares"])
        self.assertEqual(1, len(report["added_shares"]))
        self.assertEqual(3, len(report["changed_rules"]))


class TestCommands(unittest.TestCase):
    """The operator's commands on a real btrfs, without NFS."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        machine.require_btrfs()
        cls.pool = machine.Pool(256 << 20)
        cls.addClassCleanup(cls.pool.close)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.server = test_server.Server(folder.name)
        text = self.server.file.read_text()
        self.server.file.write_text(
            text.replace(
                "engine = memory",
                f"engine = btrfs\npath = {self.pool.directory}",
            )
        )
        self.addCleanup(self.kill)

    def kill(self):
        for process in self.server.processes:
            process.kill()
            process.wait()

    def stop(self, process):
        process.terminate()
        process.wait(120)

    def token(self):
        found = self.server.run("token", "create", "t", "--scope", "driver:a")
        self.assertEqual(0, found.returncode, found.stderr)
        (token,) = [w for w in found.stdout.split() if w.startswith("acme_")]
        return token

    def request(self, method, path, token, body=None):
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method,
                f"https://localhost:{self.server.port}{path}",
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                verify=str(self.server.ca_file),
                timeout=60,
            )

    def check_metadata_is_on_disk(self, id_):
        """btrfs shows the data on the disk, not in memory."""
        found = subprocess.run(
            ["btrfs", "inspect-internal", "dump-tree", self.pool.image],
            capture_output=True,
            check=True,
        )
        # btrfs-progs 6.14 escapes spaces.
        shown = found.stdout.replace(b"\\ ", b" ")
        self.assertTrue(f'data {{"id": "{id_}"'.encode() in shown)

    def test_recover(self):
        process = self.server.start_and_wait()
        token, id_ = self.token(), fixtures.new_id()
        path, label = f"/v1/shares/{id_}", f"label-{id_}"
        body = {"name": "v", "size_bytes": MIB, "labels": {"x": label}}
        reply = self.request("PUT", path, token, body)
        self.assertEqual(201, reply.status_code, reply.text)
        self.check_metadata_is_on_disk(id_)
        system_id = (self.server.state / "system-id").read_text()
        found = self.server.run("recover")
        self.assertIn("systemctl stop acme-appliance", found.stderr)
        self.stop(process)
        shutil.rmtree(self.server.state)
        process = self.server.start()
        self.assertEqual(5, process.wait(120))
        self.assertIn("acme-appliance recover", self.server.log.read_text())
        found = self.server.run("recover")
        self.assertEqual(0, found.returncode, found.stderr)
        self.assertIn(f"gold/{id_}", found.stdout)
        self.assertIn("repeat with --apply", found.stdout)
        report = json.loads(self.server.run("recover", "--json").stdout)
        self.assertEqual([f"gold/{id_}"], report["added_shares"])
        found = self.server.run("recover", "--apply")
        self.assertEqual(0, found.returncode, found.stderr)
        self.assertIn("--scope driver:a", found.stdout)
        self.assertEqual(
            system_id, (self.server.state / "system-id").read_text()
        )
        self.server.start_and_wait()
        reply = self.request("GET", path, self.token())
        self.assertEqual({"x": label}, reply.json()["labels"])
        self.assertEqual("available", reply.json()["state"])
        mode = os.stat(self.pool.directory / "metadata").st_mode
        self.assertEqual(0o700, mode & 0o777)
        self.assertEqual([], btrfs.BtrfsEngine(self.pool.directory).check())
