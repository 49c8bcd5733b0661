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

"""The content of the sdist and the wheel, and whether they work when
installed.

All builds and installations are real: pip, a separate environment, and Cinder.
This takes minutes, so the environments are created once.
"""

import json
import os
from pathlib import Path
import subprocess
import sys
import tarfile
import tempfile
import unittest
import zipfile

from tests.harness import inprocess

TOP = Path(__file__).resolve().parents[2]
LOAD_DRIVER = TOP / "tests" / "harness" / "load_driver.py"
CINDER_CONF = """\
[DEFAULT]
enabled_backends = acme-1
[acme-1]
volume_driver = acme_cinder.driver.acmeNfsDriver
volume_backend_name = acme-1
acme_api_addresses = {box.url}
acme_api_token = {box.token}
acme_api_ca_file = {box.ca_file}
nfs_mount_point_base = {mounts}
"""
APPLIANCE_CONF = """\
[DEFAULT]
state_path = {folder}/state
enabled_pools = gold
[nfs]
portals = 127.0.0.1
exporter = memory
[pool:gold]
engine = memory
path = {folder}/gold
"""
PACKAGES = ("acme_client", "acme_cinder", "acme_appliance")


def run(*command: object, cwd: Path = TOP) -> str:
    """The command's standard output; after a failure, all output."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode:
        raise AssertionError(
            f"{command} exited with {done.returncode}:\n"
            f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
    return done.stdout


def tracked_files(*below: str) -> set[str]:
    return set(run("git", "ls-files", *below).split())


class Built:
    """One sdist and one wheel, built from the tree as by a user."""

    def __init__(self, folder: Path) -> None:
        run(sys.executable, "-m", "build", "--outdir", folder, TOP)
        (self.wheel,) = folder.glob("*.whl")
        (self.sdist,) = folder.glob("*.tar.gz")


class Distributions(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.built = Built(cls.folder / "dist")

    def test_the_wheel_holds_the_packages_and_nothing_else(self) -> None:
        with zipfile.ZipFile(self.built.wheel) as wheel:
            names = set(wheel.namelist())
        code = {n for n in names if n.split("/")[0] in PACKAGES}
        self.assertEqual(tracked_files(*PACKAGES), code)
        for name in names - code:
            self.assertRegex(
                name, r"^acme_cinder-[^/]+\.(dist-info|data/data/share)/"
            )

    def test_the_wheel_of_an_archive_without_git_is_whole(self) -> None:
        """pbr gets the names of data files from git."""
        tree = self.folder / "archive"
        tree.mkdir()
        run("git", "archive", "-o", self.folder / "a.tar", "HEAD")
        run("tar", "-xf", self.folder / "a.tar", "-C", tree)
        built = self.folder / "of-archive"
        run(
            *("env", "PBR_VERSION=1.0.0", sys.executable, "-m", "build"),
            *("--wheel", "--outdir", built, tree),
        )
        (wheel,) = built.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        self.assertLessEqual(tracked_files(*PACKAGES), names)

    def test_the_wheel_brings_the_files_for_the_host(self) -> None:
        with zipfile.ZipFile(self.built.wheel) as wheel:
            shared = {
                name.partition(".data/data/share/acme-cinder/")[2]
                for name in wheel.namelist()
            }
        expected = {name.removeprefix("etc/") for name in tracked_files("etc")}
        self.assertEqual(expected, shared - {""})

    def test_the_sdist_holds_what_git_does(self) -> None:
        with tarfile.open(self.built.sdist) as sdist:
            names = {
                name.partition("/")[2]
                for name in sdist.getnames()
                if not sdist.getmember(name).isdir()
            }
        # pbr leaves out what only git reads.
        self.assertEqual({".gitignore"}, tracked_files() - names)
        made = {
            name
            for name in names - tracked_files()
            if ".egg-info/" not in name
        }
        self.assertLessEqual(
            made,
            {"AUTHORS", "ChangeLog", "PKG-INFO", "RELEASENOTES.rst"},
        )


class Installed(unittest.TestCase):
    """The wheel in an environment with only Cinder."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.built = Built(cls.folder / "dist")
        cls.bin = cls.folder / "venv" / "bin"
        run(sys.executable, "-m", "venv", cls.bin.parent)
        cls.pip("cinder==29.0.0", cls.built.wheel)

    @classmethod
    def pip(cls, *what: object) -> None:
        run(
            cls.bin / "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "-c",
            TOP / "constraints.txt",
            *what,
        )

    def create_a_volume(self) -> str:
        with inprocess.RunningAppliance() as box:
            file = self.folder / "cinder.conf"
            file.write_text(
                CINDER_CONF.format(box=box, mounts=self.folder / "mnt")
            )
            run(
                self.bin / "python",
                LOAD_DRIVER,
                file,
                self.folder,
                cwd=self.folder,
            )
            found = json.loads((self.folder / "found.json").read_text())
        return str(found["acme-1"]["created"])

    def serve(self) -> None:
        """Start the appliance with its required options."""
        file = self.folder / "acme-appliance.conf"
        file.write_text(APPLIANCE_CONF.format(folder=self.folder))
        run(self.bin / "acme-appliance", "--config-file", file, "serve")

    def installed(self) -> set[str]:
        lines = run(self.bin / "pip", "list", "--format=freeze")
        return {line.partition("==")[0].lower() for line in lines.split()}

    def test_the_driver_alone_and_then_the_appliance_too(self) -> None:
        with self.subTest("without the extra"):
            self.assertEqual(set(), {"aiohttp", "falcon"} & self.installed())
            self.assertRegex(self.create_a_volume(), r"^192\.0\.2\.10:/")
            with self.assertRaisesRegex(AssertionError, r"\[appliance\]"):
                self.serve()
        with self.subTest("with the extra"):
            self.pip(f"{self.built.wheel}[appliance]")
            self.assertLessEqual({"aiohttp", "falcon"}, self.installed())
            self.assertRegex(self.create_a_volume(), r"^192\.0\.2\.10:/")
            helped = run(self.bin / "acme-appliance", "--help")
            for command in ("init", "serve", "token", "status", "reconcile"):
                self.assertIn(command, helped)
