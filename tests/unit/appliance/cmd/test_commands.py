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

"""The commands, in this process; nothing here needs root."""

import contextlib
import io
import os
import pathlib
import tempfile
import unittest
import unittest.mock

import ddt

from acme_appliance import conf as options
from acme_appliance import plugins
from acme_appliance.cmd import common
from acme_appliance.cmd import init
from acme_appliance.cmd import main
from acme_appliance.cmd import nfsconf
from acme_appliance.engines import plugin as engine_plugin
from acme_appliance.host import users

CONFIGURATION = """\
[DEFAULT]
state_path = {directory}/state
enabled_pools = gold
[nfs]
portals = 192.0.2.10
exporter = memory
[pool:gold]
engine = memory
"""


class Case(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name)
        self.file = self.directory / "a.conf"
        self.file.write_text(CONFIGURATION.format(directory=self.directory))

    def run_bare(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main.run(arguments)
            except SystemExit as end:
                code = int(end.code or 0)
        return code, out.getvalue(), err.getvalue()

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        return self.run_bare("--config-file", str(self.file), *arguments)

    def ok(self, *arguments: str) -> str:
        code, out, err = self.run_command(*arguments)
        self.assertEqual((0, ""), (code, err))
        return out

    def fails(self, wanted: int, text: str, *arguments: str) -> str:
        code, _, err = self.run_command(*arguments)
        self.assertEqual(wanted, code, err)
        self.assertIn(text, " ".join(err.split()))
        return err


@ddt.ddt
class HelpTest(Case):
    @ddt.data(
        (),
        ("init",),
        ("mount",),
        ("serve",),
        ("token",),
        ("token", "create"),
        ("token", "list"),
        ("token", "revoke"),
        ("status",),
        ("reconcile",),
    )
    def test_help(self, command):
        code, out, _ = self.run_bare(*command, "--help")
        self.assertEqual(0, code)
        self.assertIn("usage: acme-appliance", out)

    def test_no_command_and_no_such_command(self):
        self.fails(2, "required: command")
        self.fails(2, "invalid choice", "dance")

    def test_no_such_file(self):
        code, _, err = self.run_bare("--config-file", "/nowhere", "status")
        self.assertEqual(3, code)
        self.assertIn("/nowhere", err)

    def test_no_configuration_at_all(self):
        nowhere = str(self.directory / "nowhere.conf")
        with unittest.mock.patch.object(options, "DEFAULT_FILE", nowhere):
            for command in ("serve", "status", "reconcile"):
                code, _, err = self.run_bare(command)
                self.assertEqual(3, code)
                self.assertIn(f"there is no {nowhere}", err)

    def test_an_incomplete_configuration(self):
        self.file.write_text(f"[DEFAULT]\nstate_path = {self.directory}\n")
        for command in ("serve", "status", "reconcile"):
            self.fails(3, "enabled_pools is empty", command)


class TokenTest(Case):
    def test_from_create_to_revoke(self):
        secret = self.ok("token", "create", "c", "--scope", "driver:a").strip()
        self.assertTrue(secret.startswith("acme_"))
        listed = self.ok("token", "list")
        self.assertIn("driver:a", listed)
        self.assertIn("| c ", listed)
        self.assertNotIn(secret, listed)
        self.assertIn("revoked", self.ok("token", "revoke", "c"))
        self.assertIn("revoked", self.ok("token", "list"))
        self.fails(1, "no token x", "token", "revoke", "x")

    def test_into_a_file_of_its_owner(self):
        file = self.directory / "token"
        command = ("token", "create", "c", "--scope", "admin", "--output")
        self.assertNotIn("acme_", self.ok(*command, str(file)))
        self.assertRegex(file.read_text(), r"^acme_\S{43}\n$")
        self.assertEqual(0o600, file.stat().st_mode & 0o777)
        self.fails(1, "already exists", *command, str(file))
        self.fails(1, "cannot be written", *command, "/nowhere/token")

    def test_a_file_of_a_token_that_was_refused_is_gone(self):
        file = self.directory / "token"
        self.ok("token", "create", "c", "--scope", "driver:a")
        self.fails(
            1,
            "another scope",
            *("token", "create", "c", "--scope", "admin"),
            *("--output", str(file)),
        )
        self.assertFalse(file.exists())

    def test_what_is_wrong_is_said(self):
        create = ("token", "create")
        self.fails(2, "--scope", *create, "c")
        self.fails(1, "driver:NAMESPACE", *create, "c", "--scope", "x")
        self.fails(1, "not usable", *create, "a b", "--scope", "admin")
        self.fails(
            2, "--days", *create, "c", "--scope", "admin", "--days", "0"
        )

    def test_a_state_directory_that_cannot_be(self):
        self.file.write_text("[DEFAULT]\nstate_path = /proc/nothing\n")
        self.fails(1, "[DEFAULT] state_path", "token", "list")


@ddt.ddt
class SizeTest(unittest.TestCase):
    @ddt.data(
        ("1", 1),
        ("500M", 500 << 20),
        ("20G", 20 << 30),
        ("20GiB", 20 << 30),
        ("1.5t", 3 << 39),
        ("4096B", 4096),
    )
    @ddt.unpack
    def test_good(self, text, size):
        self.assertEqual(size, common.parse_size(text))

    @ddt.data("", "G", "x", "-1G", "0", "1E", "nan", "inf", "9999999P")
    def test_bad(self, text):
        with self.assertRaises(ValueError):
            common.parse_size(text)

    @ddt.data(
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (15 << 30, "15.0 GiB"),
        (1 << 40, "1.00 TiB"),
        (5000 << 50, "5000 PiB"),
    )
    @ddt.unpack
    def test_human(self, size, text):
        self.assertEqual(text, common.human_bytes(size))


class MountTest(Case):
    """Without the mount itself."""

    def setUp(self) -> None:
        super().setUp()
        text = CONFIGURATION.format(directory=self.directory)
        for name in ("gold", "silver"):
            text += f"[pool:{name}]\nengine = btrfs\n"
            text += f"path = {self.directory}/{name}\ndevice = /dev/{name}\n"
        text = text.replace("= gold\n", "= gold, silver\n")
        self.file.write_text(text.replace("[pool:gold]\nengine = memory", ""))

    def mount(self, **mounts: object) -> tuple[int, str, str]:
        with unittest.mock.patch.object(
            plugins.engines()["btrfs"],
            "mount",
            lambda pool: mounts[pool.name],
        ):
            return self.run_command("mount")

    def test_it_says_what_it_did(self):
        code, out, err = self.mount(gold=True, silver=False)
        self.assertEqual((0, ""), (code, err))
        self.assertIn("gold: mounted /dev/gold at", out)
        self.assertIn("silver: already mounted at", out)

    def test_one_that_fails_keeps_no_other_from_it(self):
        def mount(pool: engine_plugin.Pool) -> bool:
            if pool.name == "gold":
                raise engine_plugin.PoolError("/dev/gold does not exist")
            return True

        with unittest.mock.patch.object(
            plugins.engines()["btrfs"], "mount", mount
        ):
            code, out, err = self.run_command("mount")
        self.assertEqual(1, code)
        self.assertIn("pool gold: /dev/gold does not exist", err)
        self.assertIn("silver: mounted", out)

    def test_who_is_not_root_is_told_who_mounts(self):
        with unittest.mock.patch("os.geteuid", lambda: 1000):
            code, _, err = self.run_command("mount")
        self.assertEqual(1, code)
        self.assertIn("run acme-appliance mount as root", err)

    def test_a_configuration_that_is_not_complete(self):
        self.file.write_text("[DEFAULT]\n")
        code, _, err = self.run_command("mount")
        self.assertEqual(3, code)
        self.assertIn("enabled_pools", err)


class OwnerTest(Case):
    def test_a_new_database_is_the_directorys_owners(self):
        given = []
        file = self.directory / "a.db"
        with (
            unittest.mock.patch("os.geteuid", lambda: 0),
            unittest.mock.patch(
                "os.fchown", lambda *arguments: given.append(arguments[1:])
            ),
        ):
            users.create_for_owner(file)
            users.create_for_owner(file)
        owner = self.directory.stat()
        self.assertEqual([(owner.st_uid, owner.st_gid)], given)
        self.assertEqual(0o640, file.stat().st_mode & 0o777)


@ddt.ddt
class InitTest(Case):
    """Without the mkfs and mount, which need root and a disk."""

    def setUp(self) -> None:
        super().setUp()
        self.output = self.directory / "new.conf"
        self.nfs_conf = self.directory / "nfs.conf.d" / "a.conf"
        self.plans: list[engine_plugin.Plan] = []
        self.service_ids = (-1, -1)
        exports = self.directory / "exports"
        for target, value in (
            ("os.geteuid", lambda: 0),
            (
                "acme_appliance.engines.disk.DiskPlugin.make_pool",
                lambda plugin, plan: self.make_pool(plan),
            ),
            ("acme_appliance.host.users.ids", lambda: self.service_ids),
        ):
            patch = unittest.mock.patch(target, value)
            patch.start()
            self.addCleanup(patch.stop)
        for name, value in (
            ("EXPORTS_DIR", self.directory / "exports.d"),
            ("_EXPORTS", exports),
            ("_present_root", lambda: "/"),
        ):
            patch = unittest.mock.patch.object(nfsconf, name, value)
            patch.start()
            self.addCleanup(patch.stop)
        self.exports = exports

    def make_pool(self, plan: engine_plugin.Plan) -> list[str]:
        self.plans.append(plan)
        return ["made a pool"]

    def init(self, *arguments: str) -> tuple[int, str, str]:
        return self.run_bare(
            "init",
            *("--output", str(self.output)),
            *("--nfs-conf", str(self.nfs_conf)),
            *("--state-path", str(self.directory / "state")),
            *arguments,
        )

    def test_it_writes_a_configuration_that_works(self):
        image = ("--image", str(self.directory / "i"), "--size", "1G")
        portal = ("--portal", "192.0.2.10", "--portal", "2001:db8::10")
        code, out, err = self.init(*image, *portal, "--port", "9000")
        self.assertEqual((0, ""), (code, err))
        self.assertIn("token create cinder-a --scope driver:cinder-a", out)
        self.assertEqual(1 << 30, self.plans[0].image_bytes)
        conf = options.load(["--config-file", str(self.output)])
        options.check(conf)
        self.assertEqual(9000, conf.port)
        self.assertEqual(["192.0.2.10", "2001:db8::10"], conf.nfs.portals)
        pool = options.pools(conf)[0]
        self.assertEqual(str(self.directory / "state/pools/gold"), pool.path)
        self.assertEqual(str(self.directory / "i"), pool.device)
        self.assertEqual(pool.path, options.export_root(conf))
        self.assertIn(f"rootdir = {pool.path}\n", self.nfs_conf.read_text())
        self.assertEqual(0o640, self.output.stat().st_mode & 0o777)
        before = self.output.read_text()
        self.assertEqual(0, self.init(*image, *portal)[0])
        self.assertEqual(before, self.output.read_text())

    def test_what_it_makes_is_the_services(self):
        self.service_ids = (os.geteuid(), os.getegid())
        given = []
        with unittest.mock.patch(
            "os.chown", lambda *arguments: given.append(arguments)
        ):
            code, out, err = self.init("--directory", "/srv/gold")
        self.assertEqual((0, ""), (code, err))
        state = str(self.directory / "state")
        self.assertEqual([(state, *self.service_ids)], given)
        self.assertEqual(os.getegid(), self.output.stat().st_gid)

    def test_it_says_what_the_unit_must_let_the_service_write_to(self):
        _, out, _ = self.init("--directory", "/data/gold")
        for path in ("/data/gold", self.directory / "state"):
            self.assertIn(f"ReadWritePaths={path})", out)
        self.output.unlink()
        _, out, _ = self.init("--directory", "/srv/gold")
        self.assertNotIn("ReadWritePaths=/srv", out)

    def test_a_further_pool_below_the_same_root(self):
        root = ("--nfs-root", str(self.directory / "p"))
        gold = ("--directory", str(self.directory / "p/gold"))
        self.assertEqual(0, self.init(*gold, *root)[0])
        silver = ("--directory", str(self.directory / "p/silver"))
        code, _, err = self.init(*silver, "--pool", "silver", *root)
        self.assertEqual((0, ""), (code, err))
        conf = options.load(["--config-file", str(self.output)])
        options.check(conf)
        self.assertEqual(["gold", "silver"], conf.enabled_pools)
        self.assertEqual(root[1], options.export_root(conf))
        self.assertIn(f"rootdir = {root[1]}\n", self.nfs_conf.read_text())
        code, _, err = self.init("--directory", "/q", "--pool", "q", *root)
        self.assertEqual(3, code)
        self.assertIn("not below", err)
        code, _, err = self.init("--directory", "/q", *root)
        self.assertEqual(3, code)
        self.assertIn("choose another --pool", err)

    def test_a_pool_keeps_its_engine(self):
        gold = ("--directory", str(self.directory / "gold"))
        self.assertEqual(0, self.init(*gold)[0])
        text = self.output.read_text()
        self.output.write_text(text.replace("= btrfs", "= memory"))
        code, _, err = self.init(*gold)
        self.assertEqual(3, code)
        self.assertIn("of engine memory: choose another --pool", err)

    def test_another_engine(self):
        image = ("--image", str(self.directory / "gold"))
        with unittest.mock.patch(
            "acme_appliance.host.projectquota.is_supported", return_value=True
        ):
            code, _, err = self.init(*image, "--engine", "reflink")
        self.assertEqual((0, ""), (code, err))
        conf = options.load(["--config-file", str(self.output)])
        (pool,) = options.pools(conf)
        self.assertEqual("reflink", pool.engine)
        self.assertEqual({"quota": "project"}, pool.options)

    def test_an_engine_that_is_not_on_a_disk(self):
        code, _, err = self.init("--directory", "/x", "--engine", "memory")
        self.assertEqual(2, code)
        self.assertIn("--engine", err)

    def test_limits_are_explained_where_they_are_set(self):
        for supported, text in ((True, "hard limit"), (False, "")):
            with unittest.mock.patch(
                "acme_appliance.host.btrfsquota.is_supported",
                return_value=supported,
            ):
                self.output.unlink(missing_ok=True)
                image = str(self.directory / "gold")
                self.assertEqual(0, self.init("--image", image)[0])
            found = self.output.read_text()
            self.assertEqual(supported, "\nquota = simple\n" in found)
            self.assertIn(text, found)
            self.assertNotIn("\n\n\n", found)

    def test_a_further_pool_where_clients_see_the_first_as_root(self):
        gold = ("--directory", str(self.directory / "gold"))
        self.assertEqual(0, self.init(*gold)[0])
        code, _, err = self.init("--directory", "/q", "--pool", "q")
        self.assertEqual(3, code)
        self.assertIn("a directory above all pools", err)

    def test_what_clients_see_as_root_stays(self):
        """Every path that is mounted hangs on it."""
        root = self.directory / "p"
        gold = ("--directory", str(root / "gold"))
        silver = ("--directory", str(root / "silver"), "--pool", "silver")
        self.assertEqual(0, self.init(*gold, "--nfs-root", str(root))[0])
        for again in (gold, silver):
            code, _, err = self.init(*again)
            self.assertEqual((0, ""), (code, err))
            self.assertIn(f"rootdir = {root}\n", self.nfs_conf.read_text())
        code, _, err = self.init(*gold, "--nfs-root", str(root / "gold"))
        self.assertEqual(3, code)
        self.assertIn(f"clients already see {root} as /", err)
        self.assertIn(f"rootdir = {root}\n", self.nfs_conf.read_text())

    def test_other_exports_are_not_moved(self):
        self.exports.write_text("# none\n\n/home 192.0.2.0/24(rw)\n")
        gold = ("--directory", str(self.directory / "gold"))
        code, _, err = self.init(*gold)
        self.assertEqual(1, code)
        self.assertIn("--nfs-root /", err)
        self.assertEqual([], self.plans)
        code, _, err = self.init(*gold, "--nfs-root", "/")
        self.assertEqual((0, ""), (code, err))
        self.assertFalse(self.nfs_conf.exists())

    def test_a_root_that_is_set_elsewhere(self):
        with unittest.mock.patch.object(
            nfsconf, "_present_root", lambda: "/srv"
        ):
            code, _, err = self.init("--directory", "/x/gold")
        self.assertEqual(1, code)
        self.assertIn("--nfs-root /srv", err)

    @ddt.data(
        ("--pool", "a/b"),
        ("--portal", "nowhere"),
        ("--listen", "nowhere"),
        ("--port", "0"),
        ("--size", "1G"),
    )
    def test_wrong_arguments(self, arguments):
        code, _, err = self.init("--directory", "/x", *arguments)
        self.assertEqual(2, code, err)
        self.assertIn(arguments[0], err)
        self.assertEqual([], self.plans)

    def test_a_pool_that_cannot_be_leaves_no_configuration(self):
        error = engine_plugin.PoolError("/dev/vdb holds data")
        with unittest.mock.patch.object(
            plugins.engines()["btrfs"], "make_pool", side_effect=error
        ):
            code, _, err = self.init("--device", "/dev/vdb")
        self.assertEqual(1, code)
        self.assertIn("/dev/vdb holds data", err)
        self.assertFalse(self.output.exists())

    def test_only_root_may(self):
        with unittest.mock.patch("os.geteuid", lambda: 1000):
            code, _, err = self.init("--directory", "/x")
        self.assertEqual(1, code)
        self.assertIn("run it as root", err)

    def test_a_disk_is_named_as_it_will_be_after_the_next_boot(self):
        links = pathlib.Path("/dev/disk/by-id")
        expected = "/dev/null"
        if links.is_dir():
            for link in sorted(links.iterdir()):
                if os.path.realpath(link) == expected:
                    expected = str(link)
        self.assertEqual(expected, init._stable_name("/dev/null"))
        self.assertEqual("/srv/image", init._stable_name("/srv/image"))
