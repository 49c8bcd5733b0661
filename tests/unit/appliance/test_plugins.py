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

"""Engines and exporters that other packages bring.

Each test installs such a package, as pip would, into a folder that a process
of the appliance has on its path.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import unittest
import unittest.mock

from acme_appliance import composition
from acme_appliance import conf as options
from acme_appliance import plugins
from acme_appliance.cmd import serve
from acme_appliance.engines import plugin as engine_plugin
from acme_appliance.exporters.kernel import exporter as kernel

CONFIGURATION = """\
[DEFAULT]
state_path = {directory}/state
enabled_pools = gold
[nfs]
portals = 192.0.2.10
exporter = {exporter}
[pool:gold]
{engine}
path = /srv/gold
device = /dev/gold
{further}
"""

OLD_CONFIGURATION = """\
[DEFAULT]
state_path = {directory}/state
enabled_pools = gold, silver, memory
[nfs]
portals = 192.0.2.10
exporter = kernel
exports_dir = /etc/other.d
root = /srv/pools
squash = none
[pool:gold]
engine = btrfs
path = /srv/pools/gold/
device = /dev/vdb
quota = simple
[pool:silver]
path = /srv/pools/silver
[pool:memory]
engine = memory
device = /dev/vdc
quota = simple
"""

#: An engine with an option of its own, which it tells as a warning.
ENGINE = """\
from oslo_config import cfg

from acme_appliance.engines import plugin
from acme_appliance.engines.memory import engine


class Engine(engine.MemoryEngine):
    colour = None

    def warnings(self):
        return [f"the colour is {self.colour}"]


class Plugin(plugin.Plugin):
    help = "shares on a zpool"
    options = (cfg.StrOpt("colour", default="red", choices=["red", "blue"]),)

    def open(self, pool):
        found = Engine(root=pool.path)
        found.colour = pool.options["colour"]
        return found

    def mount(self, pool):
        return True

    def make_pool(self, plan):
        return []

    def new_pool_options(self, plan):
        return ""

    def apply_options(self, pool):
        pass
"""


class ThirdPartyTest(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name)
        self.path = self.directory / "site-packages"
        self.path.mkdir()

    def install(
        self, package: str, code: str, group: str, **entry_points: str
    ) -> None:
        """A package of one module, with its metadata."""
        (self.path / f"{package}.py").write_text(textwrap.dedent(code))
        metadata = self.path / f"{package}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        lines = [f"{name} = {value}" for name, value in entry_points.items()]
        (metadata / "entry_points.txt").write_text(
            "\n".join([f"[{group}]", *lines, ""])
        )

    def run_command(
        self,
        *arguments: str,
        engine: str | None = "btrfs",
        exporter: str = "memory",
        further: str = "",
    ) -> tuple[int, str, str]:
        file = self.directory / "a.conf"
        file.write_text(
            CONFIGURATION.format(
                directory=self.directory,
                engine=f"engine = {engine}" if engine else "",
                exporter=exporter,
                further=further,
            )
        )
        program = [sys.executable, "-m", "acme_appliance"]
        done = subprocess.run(
            [*program, "--config-file", str(file), *arguments],
            env={
                **os.environ,
                "PYTHONPATH": str(self.path),
                # stevedore keeps there what it found.
                "XDG_CACHE_HOME": str(self.directory / "cache"),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    def test_an_engine_with_an_option_of_its_own(self):
        self.install(
            "acme_zfs", ENGINE, plugins.ENGINES, zfs="acme_zfs:Plugin"
        )
        code, out, err = self.run_command(
            "mount", engine="zfs", further="colour = blue"
        )
        self.assertEqual((0, ""), (code, err))
        self.assertIn("pool gold: mounted /dev/gold at /srv/gold", out)
        self.assertIn("WARNING: pool gold: the colour is blue", out)
        code, out, err = self.run_command(
            "mount", engine="zfs", further="colour = green"
        )
        self.assertEqual(3, code)
        self.assertIn(
            "[pool:gold] colour = green: it must be one of red, blue", err
        )
        code, out, err = self.run_command("init", "--help")
        self.assertEqual((0, ""), (code, err))
        self.assertIn("--engine {btrfs,", out)
        self.assertIn("zfs}", out)

    def test_one_that_nobody_has_installed(self):
        for wrong, option in (
            ({"engine": "zfs"}, "[pool:gold] engine"),
            ({"exporter": "zfs"}, "[nfs] exporter"),
        ):
            code, _, err = self.run_command("mount", **wrong)
            self.assertEqual(3, code)
            self.assertIn(f"{option} = zfs: it must be one of ", err)
            self.assertIn("memory", err)

    def test_one_that_cannot_be_loaded(self):
        self.install(
            "acme_zfs", "import zfs\n", plugins.ENGINES, zfs="acme_zfs:Plugin"
        )
        code, _, err = self.run_command("mount", engine="zfs")
        self.assertEqual(3, code)
        self.assertIn(
            "[pool:gold] engine = zfs: acme_zfs:Plugin cannot be loaded:"
            " ModuleNotFoundError: No module named 'zfs'",
            err,
        )
        self.assertNotIn("Traceback", err)
        # Nobody else is bothered.
        code, _, err = self.run_command("mount", engine="memory")
        self.assertEqual((0, ""), (code, err))

    def test_one_that_is_something_else(self):
        self.install(
            "acme_zfs",
            "class Plugin: pass\n",
            plugins.EXPORTERS,
            zfs="acme_zfs:Plugin",
        )
        code, _, err = self.run_command("mount", exporter="zfs")
        self.assertEqual(3, code)
        self.assertIn(
            "[nfs] exporter = zfs: acme_zfs:Plugin is not a"
            " acme_appliance.exporters.plugin.Plugin",
            err,
        )

    def test_one_that_two_packages_bring(self):
        """Which of them it would be depends on the order of a path."""
        self.install(
            "acme_other", ENGINE, plugins.ENGINES, btrfs="acme_other:Plugin"
        )
        # By name, and as the default.
        for engine in ("btrfs", None):
            code, _, err = self.run_command("mount", engine=engine)
            self.assertEqual(3, code)
            self.assert_told_of_both(err)
        code, _, err = self.run_command("mount", engine="memory")
        self.assertEqual((0, ""), (code, err))

    def assert_told_of_both(self, err: str) -> None:
        for text in (
            "[pool:gold] engine = btrfs: several installed packages provide",
            "acme_other:Plugin",
            "acme_appliance.engines.btrfs.plugin:BtrfsPlugin",
        ):
            self.assertIn(text, err)

    def test_an_option_that_every_pool_has(self):
        self.install(
            "acme_zfs",
            ENGINE.replace('"colour", default="red"', '"path"'),
            plugins.ENGINES,
            zfs="acme_zfs:Plugin",
        )
        code, _, err = self.run_command("mount", engine="zfs")
        self.assertEqual(3, code)
        self.assertIn("duplicate option: path", err)


class InstalledTest(unittest.TestCase):
    def test_importing_the_options_loads_none(self):
        code = (
            "import sys, acme_appliance.conf; print([n for n in sys.modules"
            " if n.startswith('acme_appliance.e') and n.endswith('.engine')])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True
        )
        self.assertEqual(("[]\n", ""), (done.stdout, done.stderr))

    def test_an_installation_without_any(self):
        with (
            unittest.mock.patch.object(plugins, "ENGINES", "acme.nothing"),
            unittest.mock.patch.dict(
                plugins._CLASSES, {"acme.nothing": engine_plugin.Plugin}
            ),
            self.assertRaisesRegex(plugins.PluginError, "reinstall it"),
        ):
            plugins.engines()


class EarlierReleaseTest(unittest.TestCase):
    """A configuration from before engines and exporters were plugins."""

    def test_it_works_unchanged(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "a.conf"
            file.write_text(OLD_CONFIGURATION.format(directory=folder))
            conf = options.load(["--config-file", str(file)])
            options.check(conf)
        found = composition.build_engines(conf)
        gold, silver, memory = (
            found[name] for name in ("gold", "silver", "memory")
        )
        self.assertEqual(
            [("btrfs", True), ("btrfs", False), ("memory", True)],
            [
                (engine.name, engine.capabilities.hard_limit)
                for engine in (gold, silver, memory)
            ],
        )
        self.assertEqual("/srv/pools/gold", gold.root)
        self.assertEqual(
            ["/dev/vdb"],
            [pool.device for pool in options.pools_on_devices(conf)],
        )
        exporter = composition.build_exporter(conf)
        self.assertEqual("/srv/pools", exporter.root)
        self.assertEqual("/etc/other.d", str(exporter.exports_dir))
        self.assertEqual(kernel._SQUASH["none"], exporter._squash)


class ServeTest(unittest.TestCase):
    """What serve does to pools before it serves them."""

    def test_nothing_is_switched_on_where_a_pool_is_not_mounted(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "a.conf"
            text = CONFIGURATION.format(
                directory=folder,
                engine="engine = btrfs",
                exporter="memory",
                further="quota = simple",
            )
            text = text.replace("= gold\n", "= gold, silver\n", 1)
            text += "[pool:silver]\npath = /srv/silver\nquota = simple\n"
            file.write_text(text)
            conf = options.load(["--config-file", str(file)])
        applied = []
        btrfs = plugins.engines()["btrfs"]

        def mount(pool: engine_plugin.Pool) -> bool:
            if pool.device:
                raise engine_plugin.PoolError("/dev/gold does not exist")
            return False

        with (
            unittest.mock.patch.object(btrfs, "mount", mount),
            unittest.mock.patch.object(btrfs, "apply_options", applied.append),
            self.assertLogs(serve.LOG, "ERROR") as logs,
        ):
            serve._mount_pools(conf)
        self.assertEqual(["silver"], [pool.name for pool in applied])
        self.assertIn("gold is not ready: /dev/gold does not", logs.output[0])
