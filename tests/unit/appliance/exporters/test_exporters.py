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

"""The exporters: what clients are, and the common suite."""

from concurrent import futures
import os
import pathlib
import tempfile
import threading
import time
import unittest
from unittest import mock
import uuid

import ddt

from acme_appliance import references
from acme_appliance.exporters import base
from acme_appliance.exporters.kernel import exporter as kernel
from acme_appliance.exporters.kernel import exportfiles
from acme_appliance.exporters.kernel import tablechanges
from acme_appliance.exporters.memory import exporter as memory
from acme_appliance.host import commands
from acme_appliance.host import exportfs
from tests.unit.appliance import exporter_suite as suite

RW, RO = suite.RW, suite.RO
#: Of the id in the test; for good.
FSID_OF_SNAPSHOT = "9f1bc9f1-890d-57ab-e227-b8813f0af64a"


@ddt.ddt
class TestClients(unittest.TestCase):
    @ddt.data(
        ("192.0.2.51", "192.0.2.51"),
        ("192.0.2.51/32", "192.0.2.51"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:DB8:0:0::51", "2001:db8::51"),
        ("2001:db8::51/128", "2001:db8::51"),
        ("2001:db8::/32", "2001:db8::/32"),
    )
    @ddt.unpack
    def test_one_spelling(self, text, expected):
        self.assertEqual(expected, base.canonical_client(text))

    @ddt.data(
        "",
        "*",
        "host.example.org",
        "@netgroup",
        "192.0.2.51 ",
        "192.0.2.51(rw)",
        "192.0.2.1/24",
        "192.0.2.256",
        "192.0.2.010",
        "0.0.0.0",  # noqa: S104
        "0.0.0.0/0",
        "0.0.0.0/32",
        "10.0.0.0/7",
        "::",
        "::/0",
        "2001::/31",
        "::ffff:192.0.2.51",
        "fe80::1%eth0",
        "192.0.2.0/255.255.255.0/1",
    )
    def test_no_client(self, text):
        self.assertRaises(ValueError, base.canonical_client, text)

    @ddt.data(
        ([], {}),
        ([(["192.0.2.1"], RO)], {"192.0.2.1": RO}),
        (
            [(["192.0.2.1"], RO), (["192.0.2.1"], RW)],
            {"192.0.2.1": RW},
        ),
        (
            [(["192.0.2.1"], RW), (["192.0.2.1"], RO)],
            {"192.0.2.1": RW},
        ),
        (
            [(["192.0.2.1", "192.0.2.2"], RO), (["192.0.2.2"], RW)],
            {"192.0.2.1": RO, "192.0.2.2": RW},
        ),
        # A member of a network that may write may write.
        (
            [(["192.0.2.0/24"], RW), (["192.0.2.1"], RO)],
            {"192.0.2.0/24": RW, "192.0.2.1": RW},
        ),
        (
            [(["192.0.2.0/24"], RO), (["192.0.2.1"], RW)],
            {"192.0.2.0/24": RO, "192.0.2.1": RW},
        ),
        (
            [(["2001:db8::/32"], RW), (["2001:db8::1"], RO)],
            {"2001:db8::/32": RW, "2001:db8::1": RW},
        ),
        (
            [(["192.0.2.0/24"], RW), (["2001:db8::1"], RO)],
            {"192.0.2.0/24": RW, "2001:db8::1": RO},
        ),
    )
    @ddt.unpack
    def test_merged(self, rules, expected):
        self.assertEqual(expected, base.merge_clients(rules))

    def test_export_path(self):
        self.assertEqual("/a/b", base.export_path("/pool/a/b", "/pool"))
        self.assertEqual("/pool/a", base.export_path("/pool/a", "/"))
        for directory in ("/pool", "/", "/poolx/a", "/pool/../a"):
            self.assertRaises(ValueError, base.export_path, directory, "/pool")


class TestMemoryExporter(suite.ExporterSuite, unittest.TestCase):
    def setUp(self):
        self.exporter = memory.MemoryExporter()

    def restarted(self):
        return self.exporter

    def changes(self):
        return self.exporter.change_count

    def tamper(self, share, clients):
        self.exporter.apply(share, clients)

    def test_failing_server(self):
        self.exporter.reasons = ["the server is gone"]
        self.assertEqual(["the server is gone"], self.exporter.check())
        self.assertRaises(
            base.ExporterError,
            self.exporter.apply,
            self.make_share(),
            {suite.ONE: RW},
        )


class FakeTable(exportfs.ExportTable):
    """nfs-utils without a kernel: the same table, and processes are counted.

    As exportfs does, it makes the entry of a directory that is not there
    too, does the rest, and then says that it failed.
    """

    def __init__(self, folder):
        super().__init__(etab="/nonexistent", folder=folder)
        self.rows = {}
        self.calls = []
        #: Paths that are complained about.
        self.bad_paths = set()
        #: Whether exportfs complains about a file of somebody else.
        self.bad_file = False
        #: Called within each process.
        self.hook = lambda: None

    def entries(self, names=None):
        return [
            exportfs.Entry(path, client, frozenset(options))
            for (path, client), options in self.rows.items()
            if names is None or os.path.basename(path) in names
        ]

    def grant(self, exports, options):
        exports = list(exports)
        self._begin("grant", exports)
        for export in exports:
            self.rows[export] = options.split(",")
        self._end(exports)

    def grant_from_files(self, exports):
        exports = list(exports)
        self._begin("grant from files", exports)
        filed = self.filed()
        for export in exports:
            self.rows[export] = filed[export]
        self._end(exports, self.bad_file)

    def revoke(self, exports):
        exports = list(exports)
        self._begin("revoke", exports)
        for export in exports:
            del self.rows[export]

    def filed(self):
        """What the files say."""
        rows = {}
        for file in pathlib.Path(self.folder).glob("*.exports"):
            for line in file.read_text().splitlines():
                if line.startswith("#"):
                    continue
                path, *clients = line.split()
                for client in clients:
                    name, _, options = client.rstrip(")").partition("(")
                    rows[path.strip('"'), name] = options.split(",")
        return rows

    def _begin(self, kind, exports):
        self.calls.append((kind, exports))
        self.hook()

    def _end(self, exports, failed=False):
        if failed or self.bad_paths & {path for path, _ in exports}:
            raise commands.CommandError(["exportfs"], "no", 1)


class TestKernelExporter(suite.ExporterSuite, unittest.TestCase):
    """The common suite, with the table of nfs-utils replaced."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.table = FakeTable(folder.name)
        self.exporter = self.restarted()

    def restarted(self):
        return kernel.KernelExporter(
            "/pool", exports_dir=str(self.folder), table=self.table
        )

    def changes(self):
        return len(self.table.calls)

    def tamper(self, share, clients):
        path = f"/shares/{share.reference.id}"
        self.table.rows = {
            (path, client): [level, f"fsid={share.reference.id}"]
            for client, level in clients.items()
        }

    def test_file_and_table_say_the_same(self):
        share = self.make_share()
        self.exporter.apply(share, {suite.ONE: RW, suite.SIX: RO})
        common = (
            f"sync,subtree_check,fsid={share.reference.id},sec=sys,"
            "all_squash,anonuid=64061,anongid=64062"
        )
        file = self.folder / f"acme-{share.reference.id}.exports"
        self.assertEqual(
            f'"/shares/{share.reference.id}" {suite.ONE}(rw,{common})'
            f" {suite.SIX}(ro,{common})",
            file.read_text().splitlines()[-1],
        )
        self.assertEqual(0o644, file.stat().st_mode & 0o777)
        self.assertEqual([file], list(self.folder.iterdir()))
        self.assertEqual(self.table.filed(), self.table.rows)
        self.exporter.apply(share, {})
        self.assertEqual([], list(self.folder.iterdir()))

    def test_one_process_for_one_kind_of_change(self):
        share = self.make_share()
        for clients, processes in (
            ({suite.ONE: RW}, 1),
            ({suite.ONE: RW, suite.TWO: RW, suite.NET: RW}, 1),
            ({suite.ONE: RW, suite.TWO: RO, suite.NET: RO}, 1),
            ({suite.ONE: RW}, 1),
            ({suite.TWO: RO, suite.NET: RW}, 3),
            ({}, 1),
            ({}, 0),
        ):
            before = self.changes()
            self.exporter.apply(share, clients)
            self.assertEqual(processes, self.changes() - before, clients)

    def test_many_differences_are_few_processes(self):
        stale = [self.make_share() for _ in range(50)]
        wanted = [(self.make_share(), {suite.ONE: RW}) for _ in range(50)]
        for share in stale:
            self.exporter.apply(share, {suite.TWO: RO})
        self.table.calls.clear()
        self.exporter.reconcile(wanted, apply=True, remove=True)
        self.assertEqual(
            ["revoke", "grant from files"],
            [kind for kind, _ in self.table.calls],
        )

    def test_files_that_exportfs_does_not_read(self):
        """Options are then given on the command line."""
        self.table.folder = "/etc/exports.d"
        wanted = [(self.make_share(), {suite.ONE: RW}) for _ in range(5)]
        self.exporter.reconcile(wanted, apply=True)
        self.assertEqual(5, len(self.table.calls))
        self.assertEqual(
            {each.id for each in self.exporter.exported()}, self.table_ids()
        )

    def table_ids(self):
        return {os.path.basename(path) for path, _ in self.table.rows}

    def test_exports_of_others_are_left_alone(self):
        self.table.rows[("/srv/other", "*")] = ["rw", "fsid=0"]
        other = self.folder / "other.exports"
        other.write_text("/srv/other *(rw,fsid=0)\n")
        share = self.make_share()
        self.exporter.apply(share, {suite.ONE: RW})
        self.exporter.reconcile([], apply=True, remove=True)
        self.assertEqual({("/srv/other", "*")}, self.table.rows.keys())
        self.assertEqual([other], list(self.folder.iterdir()))

    def said_by_file(self, reference):
        file = self.folder / f"acme-{reference.id}.exports"
        return exportfiles.parse(file.read_text()).clients

    def test_what_only_a_file_says_stays_and_is_reported(self):
        """The next restart of the machine would export it."""
        known, unknown = self.make_share(), self.make_share()
        for share in (known, unknown):
            self.exporter.apply(share, {suite.ONE: RW})
        self.table.rows.clear()
        wanted = [(known, {suite.TWO: RW})]
        found = self.exporter.reconcile(wanted, apply=True)
        self.assertEqual(
            {
                known.reference: {suite.ONE: RW},
                unknown.reference: {suite.ONE: RW},
            },
            {each.reference: dict(each.unexplained) for each in found},
        )
        self.assertEqual(
            {
                known.reference: {suite.ONE, suite.TWO},
                unknown.reference: {suite.ONE},
            },
            {
                id_: set(self.said_by_file(id_))
                for id_ in (known.reference, unknown.reference)
            },
        )

    def test_fsid_of_a_snapshot(self):
        """It stays, for clients that have it mounted; no share has it."""
        id_ = "11111111-1111-4111-8111-111111111111"
        self.assertEqual(id_, tablechanges.fsid(references.share(id_)))
        self.assertEqual(
            FSID_OF_SNAPSHOT, tablechanges.fsid(references.snapshot(id_))
        )
        for _ in range(100):
            made = tablechanges.fsid(references.snapshot(str(uuid.uuid4())))
            self.assertIn(made[19], "ef", made)

    def test_a_snapshot_is_read_only_whatever_is_asked(self):
        snapshot = self.make_snapshot(self.make_share())
        self.exporter.apply(snapshot, {suite.ONE: RW})
        path = f"/snapshots/{snapshot.reference.id}"
        self.assertEqual({(path, suite.ONE)}, self.table.rows.keys())
        self.assertEqual("ro", self.table.rows[path, suite.ONE][0])
        self.assertEqual(
            [f"acme-snapshot-{snapshot.reference.id}.exports"],
            [file.name for file in self.folder.iterdir()],
        )
        self.assertEqual(self.table.filed(), self.table.rows)

    def test_files_of_the_first_release(self):
        share = self.make_share()
        id_ = share.reference.id
        file = self.folder / f"acme-{id_}.exports"
        file.write_text(
            "# By acme-appliance, which writes it anew.\n"
            f'"/shares/{id_}" {suite.ONE}(rw,fsid={id_})'
            f" {suite.SIX}(ro,fsid={id_})\n"
        )
        self.assertEqual(
            {
                share.reference: {
                    f"recovered:{suite.ONE}": base.Rule((suite.ONE,), RW),
                    f"recovered:{suite.SIX}": base.Rule((suite.SIX,), RO),
                }
            },
            self.exporter.rules(),
        )

    def test_rules_that_cannot_be_read(self):
        """The clients of the same file are still good."""
        share = self.make_share()
        self.exporter.apply(share, {suite.ONE: RW})
        file = self.folder / f"acme-{share.reference.id}.exports"
        for broken in ("[", "[]", '{"a": 1}', '{"a": {"level": "rw"}}'):
            lines = file.read_text().splitlines()
            lines[1] = f"# rules: {broken}"
            file.write_text("\n".join(lines))
            self.assertEqual(
                {f"recovered:{suite.ONE}"},
                set(self.exporter.rules()[share.reference]),
            )

    def test_stale_file_goes_with_reconcile(self):
        share = self.make_share()
        self.exporter.apply(share, {suite.ONE: RW})
        self.table.rows.clear()
        self.exporter.reconcile([], apply=True, remove=True)
        self.assertEqual([], list(self.folder.iterdir()))

    def test_changed_options_are_repaired(self):
        share = self.make_share()
        self.exporter.apply(share, {suite.ONE: RW})
        self.table.rows[f"/shares/{share.reference.id}", suite.ONE].remove(
            "all_squash"
        )
        found = self.exporter.reconcile([(share, {suite.ONE: RW})], apply=True)
        self.assertEqual([share.reference], [each.reference for each in found])
        self.assertIn(
            "all_squash",
            self.table.rows[f"/shares/{share.reference.id}", suite.ONE],
        )

    def test_squash(self):
        share = self.make_share()
        for squash, expected in (
            ("all", "all_squash,anonuid=64061,anongid=64062"),
            ("root", "root_squash"),
            ("none", "no_root_squash"),
        ):
            exporter = kernel.KernelExporter(
                "/pool",
                squash=squash,
                exports_dir=str(self.folder),
                table=self.table,
            )
            exporter.apply(share, {suite.ONE: RW})
            row = self.table.rows[f"/shares/{share.reference.id}", suite.ONE]
            self.assertTrue(",".join(row).endswith(expected))
        self.assertRaises(
            ValueError, kernel.KernelExporter, "/pool", squash="some"
        )

    def test_folder_that_is_not_there(self):
        exporter = kernel.KernelExporter(
            "/pool", exports_dir="/nonexistent", table=self.table
        )
        self.assertEqual(1, len(exporter.check()))
        self.assertRaises(
            base.ExporterError,
            exporter.apply,
            self.make_share(),
            {suite.ONE: RW},
        )


class TestBurst(unittest.TestCase):
    """Many changes at the same moment; the first holds up the others."""

    COUNT = 48

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name, "pool")
        exports = pathlib.Path(folder.name, "exports.d")
        exports.mkdir()
        self.table = FakeTable(str(exports))
        self.exporter = kernel.KernelExporter(
            str(self.root), exports_dir=str(exports), table=self.table
        )
        self.blocker = self.make_share()

    def make_share(self):
        id_ = str(uuid.uuid4())
        directory = self.root / id_
        directory.mkdir(parents=True)
        return base.ExportedDirectory(
            references.share(id_), str(directory), 64061, 64062
        )

    def grant_all(self, shares):
        """Grant all at once; the errors, by share."""
        begun, go = threading.Event(), threading.Event()

        def hook():
            begun.set()
            self.assertTrue(go.wait(60))

        def apply(share):
            try:
                self.exporter.apply(share, {suite.ONE: RW})
            except base.ExporterError as error:
                return error
            return None

        self.table.hook = hook
        with futures.ThreadPoolExecutor(len(shares) + 1) as pool:
            first = pool.submit(apply, self.blocker)
            self.assertTrue(begun.wait(60))
            calls = {
                share.reference: pool.submit(apply, share) for share in shares
            }
            self.wait_for_files(shares)
            go.set()
            self.assertIsNone(first.result(60))
            errors = {id_: call.result(60) for id_, call in calls.items()}
        self.table.hook = lambda: None
        return {id_: error for id_, error in errors.items() if error}

    def wait_for_files(self, shares):
        """All threads are at work, as far as can be seen from outside."""
        folder = pathlib.Path(self.table.folder)
        end = time.monotonic() + 60
        while len(list(folder.glob("acme-*.exports"))) <= len(shares):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.001)

    def test_all_are_granted_in_few_processes(self):
        shares = [self.make_share() for _ in range(self.COUNT)]
        self.assertEqual({}, self.grant_all(shares))
        self.assertEqual(
            {
                share.reference: {suite.ONE: RW}
                for share in [self.blocker, *shares]
            },
            self.exporter.exported(),
        )
        self.assertEqual(self.table.filed(), self.table.rows)
        # A thread may have been late between its file and its call.
        self.assertLess(len(self.table.calls), self.COUNT // 4)

    def test_one_that_fails_fails_alone(self):
        shares = [self.make_share() for _ in range(self.COUNT)]
        bad = shares[7]
        os.rmdir(bad.directory)
        self.table.bad_paths.add(self.exporter.path(bad.directory))
        self.assertEqual({bad.reference}, self.grant_all(shares).keys())
        for share in shares:
            if share is not bad:
                self.assertIn(share.reference, self.exporter.exported())

    def test_failure_of_somebody_elses_file(self):
        self.table.bad_file = True
        shares = [self.make_share() for _ in range(self.COUNT)]
        self.assertEqual({}, self.grant_all(shares))
        self.assertEqual(
            {share.reference for share in [self.blocker, *shares]},
            self.exporter.exported().keys(),
        )
        self.assertLess(len(self.table.calls), self.COUNT // 4)

    def test_command_that_does_not_end_is_not_tried_for_each(self):
        def hang(exports, options=None):
            self.table.calls.append("hang")
            raise commands.CommandError(["exportfs"], "killed after 60 s")

        self.table.grant = self.table.grant_from_files = hang
        wanted = [(self.make_share(), {suite.ONE: RW}) for _ in range(9)]
        self.exporter.reconcile(wanted, apply=True)
        self.assertEqual(["hang"], self.table.calls)
        with self.assertRaisesRegex(base.ExporterError, "killed"):
            self.exporter.apply(wanted[0][0], {suite.ONE: RW})

    def test_nobody_is_told_of_the_shares_of_others(self):
        def hang(exports, options=None):
            words = ["exportfs", *(path for path, _ in exports)]
            raise commands.CommandError(words, "killed after 60 s")

        shares = [self.make_share() for _ in range(self.COUNT)]
        self.table.grant = self.table.grant_from_files = hang
        targets = [
            self.exporter._target(share, {suite.ONE: RW}) for share in shares
        ]
        for error in self.exporter._changes.apply(targets):
            self.assertEqual("exportfs: killed after 60 s", str(error))

    def test_grant_and_revoke_of_the_same_moment(self):
        share, other = self.make_share(), self.make_share()
        self.exporter.apply(share, {suite.ONE: RW, suite.TWO: RW})
        self.exporter.apply(share, {suite.TWO: RO})
        self.exporter.withdraw(other.reference)
        self.assertEqual(
            {share.reference: {suite.TWO: RO}}, self.exporter.exported()
        )


class TestExportTable(unittest.TestCase):
    """Reading what exportfs writes."""

    LINES = (
        "/shares/a\t192.0.2.51(rw,sync,fsid=a,anonuid=65534)\n"
        "/with\\040blank\t2001:db8::/32(ro,sec=sys)\n"
        "not an entry\n"
    )

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.etab = pathlib.Path(folder.name, "etab")
        self.table = exportfs.ExportTable(str(self.etab))

    def test_absent_is_empty(self):
        self.assertEqual([], self.table.entries())

    def test_entries(self):
        self.etab.write_text(self.LINES)
        self.assertEqual(
            [
                exportfs.Entry(
                    "/shares/a",
                    "192.0.2.51",
                    frozenset({"rw", "sync", "fsid=a", "anonuid=65534"}),
                ),
                exportfs.Entry(
                    "/with blank",
                    "2001:db8::/32",
                    frozenset({"ro", "sec=sys"}),
                ),
            ],
            self.table.entries(),
        )
        self.assertEqual(1, len(self.table.entries(["a", "b"])))
        self.assertEqual([], self.table.entries(["shares"]))

    def test_new_table_is_noticed(self):
        self.etab.write_text(self.LINES)
        self.assertEqual(2, len(self.table.entries()))
        new = self.etab.with_name("new")
        new.write_text(self.LINES.replace("/a", "/b"))
        new.rename(self.etab)
        self.assertEqual("/shares/b", self.table.entries()[0].path)

    def test_argument(self):
        self.assertEqual(
            "192.0.2.0/24:/a", exportfs.argument("/a", "192.0.2.0/24")
        )
        self.assertEqual(
            "[2001:db8::1]:/a", exportfs.argument("/a", "2001:db8::1")
        )


class TestConfiguredRoot(unittest.TestCase):
    """A process only when nfs.conf has changed."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = pathlib.Path(folder.name, "nfs.conf")
        self.file.write_text("")
        self.answers = []
        for owner, name, value in (
            (exportfs, "CONFIGURATION", str(self.file)),
            (exportfs, "CONFIGURATION_FOLDER", pathlib.Path(folder.name)),
            (exportfs.commands, "run", lambda argv: self.answers.pop(0)),
        ):
            patch = mock.patch.object(owner, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def test_none(self):
        """nfsconf --get says so by its exit status."""

        def run(argv):
            raise commands.CommandError(argv, "no message", status)

        with mock.patch.object(exportfs.commands, "run", run):
            status = 1
            self.assertEqual("/", exportfs.configured_root())
            status = 2
            os.utime(self.file, (2, 2))
            with self.assertRaises(commands.CommandError):
                exportfs.configured_root()

    def test_read_again_when_changed(self):
        self.answers = ["/pool\n", "\n"]
        for _ in range(3):
            self.assertEqual("/pool", exportfs.configured_root())
        os.utime(self.file, (1, 1))
        self.assertEqual("/", exportfs.configured_root())
        self.assertEqual([], self.answers)
