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

"""The proof of the common moment: writes that depend on each other, on four
volumes, while sets of snapshots are made; see tests.harness.tokenring.

With writers on the machine itself for the engine's own way, and with NFS
clients in network namespaces of their own for the replies that are held back.
Each proof must fail where snapshots are just made one after the other.
"""

import contextlib
import os
import pathlib
import random
import subprocess
import tempfile

from acme_appliance import moments
from acme_appliance import references
from acme_appliance.engines import base as engines
from acme_appliance.exporters.memory import exporter as memory
from tests.functional import test_btrfs_engine
from tests.functional import test_kernel_exporter
from tests.harness import machine
from tests.harness import tokenring
from tests.unit.appliance import engine_suite as suite

SETS = 100
#: Where the way is the same as in another test.
FEW_SETS = 20
VOLUMES = 4
#: A machine that is busy otherwise may take its time.
LIMITS = moments.Limits(tries=10)


class ProofCase:
    """Makes sets and checks them. ``self.engine``, ``self.exporter``."""

    def make_volumes(self):
        self.volumes = [suite.new_id() for _ in range(VOLUMES)]
        for share_id in self.volumes:
            self.engine.create_share(share_id, None)
            self.engine.ensure_file(
                share_id, suite.volume(size_bytes=tokenring.FILE_BYTES)
            )
        self.engine.sync()

    def path(self, reference):
        return os.path.join(self.engine.directory(reference), "volume")

    def make_set(self, exporter):
        """The last numbers acknowledged before, the moment, and the paths of
        the snapshots' files in the order of the volumes."""
        before = self.ring.acknowledged()
        made = {share_id: suite.new_id() for share_id in self.volumes}
        members = random.sample([*made.items()], VOLUMES)
        moment = moments.take(self.engine, exporter, members, limits=LIMITS)
        files = [
            self.path(references.snapshot(made[share_id]))
            for share_id in self.volumes
        ]
        return before, moment, made.values(), files

    def check_set(self, exporter):
        """The method, and how many writes are missing."""
        before, moment, made, files = self.make_set(exporter)
        missing = 0
        for chain in range(len(tokenring.CHAINS)):
            last, count = tokenring.lost(chain, files)
            missing += count
            # Also if no later write shows it.
            missing += max(0, before[chain] - last)
        for snapshot_id in made:
            self.engine.delete_snapshot(snapshot_id)
        return moment.method, missing

    def check_proof(self, exporter, methods, sets=SETS):
        begun = self.ring.acknowledged()
        for number in range(sets):
            method, missing = self.check_set(exporter)
            self.assertEqual(0, missing, f"set {number}, {method}")
            self.assertIn(method, methods)
        for chain, last in enumerate(self.ring.acknowledged()):
            # They have not stood still.
            self.assertGreater(last, begun[chain] + sets)

    def check_transactions(self, exporter):
        """:param exporter: that cannot cut."""
        try:
            self.check_set(exporter)
        except moments.Unattainable:
            self.skipTest("this kernel does not make them in one transaction")
        self.check_proof(exporter, [moments.METHOD_ENGINE])

    def check_fails_unfenced(self):
        """Nothing is held back: soon writes are missing."""
        unfenced = memory.MemoryExporter()
        for _ in range(SETS):
            _, missing = self.check_set(unfenced)
            if missing:
                return
        self.fail("the proof proves nothing: it also passes unfenced")


def one_after_the_other(engine, members):
    staged = engines.NamedSnapshots(engine, members)
    staged.create()
    return staged


class TestOneTransaction(ProofCase, test_btrfs_engine.PoolCase):
    """Writers on the machine itself, which nothing could hold back."""

    def setUp(self):
        super().setUp()
        self.make_volumes()
        self.exporter = memory.MemoryExporter()
        # There is no other way.
        self.exporter.cannot_cut = "the writers are on this machine"
        files = [self.path(references.share(each)) for each in self.volumes]
        self.ring = self.enterContext(
            tokenring.Ring(
                self.enterContext(tempfile.TemporaryDirectory()),
                [{"setup": [], "files": files}] * 3,
            )
        )

    def test_every_set_is_a_prefix(self):
        self.check_transactions(self.exporter)

    def test_the_proof_fails_otherwise(self):
        self.engine.stage_at_once = lambda members, seconds: None
        self.engine.stage = lambda members, seconds: one_after_the_other(
            self.engine, members
        )
        self.check_fails_unfenced()


class Prepared:
    """An exporter whose cut is prepared once for all: in a user-mode kernel
    the programs that install and remove the rule take seconds."""

    def __init__(self, cut):
        self._cut = cut

    def cut(self):
        return contextlib.nullcontext(self._cut)


#: Address of the server and of the client, prefix length, and mount options.
CLIENTS = (
    ("192.0.2.1", "192.0.2.2", 24, "vers=4.2,proto=tcp"),
    ("2001:db8::1", "2001:db8::2", 64, "vers=4.2,proto=tcp6"),
    ("127.0.0.1", "127.0.0.1", 8, "vers=3,proto=tcp,nolock"),
)


class NfsProofCase(ProofCase, test_kernel_exporter.NfsCase):
    """Clients with IPv4, with IPv6, and on the machine itself."""

    def setUp(self):
        super().setUp()
        self.make_volumes()
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        clients = {client: "rw" for _, client, _, _ in CLIENTS}
        for share_id in self.volumes:
            self.exporter.apply(
                self.directory(references.share(share_id)), clients
            )
        self.ring = self.enterContext(
            tokenring.Ring(
                self.folder,
                [self.task(number) for number in range(len(CLIENTS))],
                self.connect,
            )
        )

    def task(self, number):
        server, client, length, options = CLIENTS[number]
        local = server == client
        source = f"[{server}]" if ":" in server else server
        setup = [] if local else network(client, length)
        files = []
        for share_id in self.volumes:
            place = pathlib.Path(self.folder, f"{number}-{share_id}")
            place.mkdir()
            path = self.exporter.path(
                self.engine.directory(references.share(share_id))
            )
            setup.append(
                [
                    *("mount", "-t", "nfs", "-o", options),
                    *(f"{source}:{path}", str(place)),
                ]
            )
            files.append(str(place / "volume"))
        return {"setup": setup, "files": files, "local": local}

    def connect(self, number, pid):
        """Connect a client's network namespace to this one."""
        server, client, length, _ = CLIENTS[number]
        if server == client:
            return
        name = f"acme{number}"
        address = ["addr", "add", f"{server}/{length}", *no_dad(server)]
        for argv in (
            [
                *("link", "add", name, "type", "veth"),
                *("peer", "name", "eth0", "netns", str(pid)),
            ],
            [*address, "dev", name],
            ["link", "set", name, "up"],
        ):
            subprocess.run(["ip", *argv], check=True)
        self.addCleanup(
            subprocess.run, ["ip", "link", "del", name], capture_output=True
        )

    @contextlib.contextmanager
    def prepared(self):
        with self.exporter.cut() as cut:
            yield Prepared(cut)


def no_dad(address):
    return ["nodad"] if ":" in address else []


def network(client, length):
    """Commands for the client's side. Clients of one kernel must differ in
    their identifiers, or they throw each other out."""
    identifier = "/sys/fs/nfs/net/nfs_client/identifier"
    return [
        ["ip", "link", "set", "lo", "up"],
        [
            *("ip", "addr", "add", f"{client}/{length}", "dev", "eth0"),
            *no_dad(client),
        ],
        ["ip", "link", "set", "eth0", "up"],
        ["mount", "-t", "sysfs", "sysfs", "/sys"],
        ["sh", "-c", f"echo {suite.new_id()} >{identifier}"],
    ]


class TestCut(NfsProofCase):
    def test_every_set_is_a_prefix(self):
        self.engine.stage_at_once = lambda members, seconds: None
        with self.prepared() as exporter:
            self.check_proof(exporter, [moments.METHOD_CUT])

    def test_everything_acknowledged_before_the_end_is_in(self):
        """Not only what was acknowledged before the beginning."""
        self.engine.stage_at_once = lambda members, seconds: None
        stage = self.engine.stage
        at_the_end = []

        def staged(members, seconds):
            done = stage(members, seconds)
            at_the_end.append(self.ring.acknowledged())
            return done

        self.engine.stage = staged
        for _ in range(3):
            _, moment, _, files = self.make_set(self.exporter)
            self.assertLess(0, moment.pause_seconds)
            for chain in range(len(tokenring.CHAINS)):
                last, missing = tokenring.lost(chain, files)
                self.assertEqual(0, missing)
                self.assertGreaterEqual(last, at_the_end[-1][chain])

    def test_the_way_that_the_kernel_has(self):
        """One transaction if it succeeds, else the cut."""
        with self.prepared() as exporter:
            self.check_proof(
                exporter, [moments.METHOD_ENGINE, moments.METHOD_CUT], FEW_SETS
            )

    def test_one_transaction_needs_no_cut(self):
        exporter = memory.MemoryExporter()
        exporter.cannot_cut = "it must not be needed"
        self.check_transactions(exporter)

    def test_the_proof_fails_unfenced(self):
        self.engine.stage_at_once = lambda members, seconds: None
        self.check_fails_unfenced()


class TestCutOfFiles(NfsProofCase):
    """Of a pool on XFS, whose files are cloned one after the other."""

    pool_class = machine.XfsPool

    def test_every_set_is_a_prefix(self):
        with self.prepared() as exporter:
            self.check_proof(exporter, [moments.METHOD_CUT], FEW_SETS)

    def test_the_proof_fails_unfenced(self):
        self.check_fails_unfenced()
