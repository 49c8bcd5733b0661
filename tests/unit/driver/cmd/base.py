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

"""The command as an operator starts it, with a configuration of its own."""

import contextlib
import functools
import logging
import multiprocessing
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import unittest

from oslo_config import cfg

from acme_cinder.cmd import main
from tests.harness import inprocess
from tests.unit.driver import cinderdb

ROOT = pathlib.Path(__file__).parents[4]
EXAMPLES = ROOT / "doc/source/admin/examples"
_CONF = """
[DEFAULT]
enabled_backends = acme, lvm
state_path = {folder}
[oslo_concurrency]
lock_path = {folder}
[database]
connection = sqlite:///{folder}/cinder.db
[coordination]
backend_url = file://{folder}
[lvm]
volume_driver = cinder.volume.drivers.lvm.LVMVolumeDriver
[acme]
volume_driver = acme_cinder.driver.acmeNfsDriver
acme_api_addresses = {url}
acme_api_token = {token}
nfs_mount_point_base = {folder}/mnt
"""


class CommandCase(unittest.TestCase):
    def setUp(self):
        super().setUp()
        made = tempfile.TemporaryDirectory(prefix="acme-command-")
        self.addCleanup(made.cleanup)
        self.folder = os.path.realpath(made.name)

    def configure(
        self,
        url="https://192.0.2.10:8443",
        token="x" * 43,  # noqa: S107
        more="",
    ):
        """Write cinder.conf; ``more`` goes into the back end's section."""
        path = f"{self.folder}/cinder.conf"
        text = textwrap.dedent(_CONF).format(
            folder=self.folder, url=url, token=token
        )
        pathlib.Path(path).write_text(text + more)
        return path

    def run_command(self, *words):
        """In a new process with a terminal of 79 columns.

        It is forked from one that has imported Cinder, which takes longer
        than the command.
        """
        child = _processes().Process(target=_child, args=(words, self.folder))
        child.start()
        child.join(300)
        self.assertIsNotNone(child.exitcode, "the command hangs")
        return subprocess.CompletedProcess(
            words,
            child.exitcode,
            pathlib.Path(f"{self.folder}/stdout").read_text(),
            pathlib.Path(f"{self.folder}/stderr").read_text(),
        )


@functools.cache
def _processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["acme_cinder.driver", "acme_cinder.checks.backend", __name__]
    )
    return context


def _child(words, folder):
    for name in ("stdout", "stderr"):
        file = os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY)
        stream = getattr(sys, name)
        os.dup2(file, stream.fileno())
        stream.reconfigure(encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = open(0)
    os.environ["COLUMNS"] = "79"
    logging.getLogger().handlers.clear()
    sys.argv = ["acme-cinder", *words]
    sys.exit(main.main(words))


class ApplianceCase(CommandCase):
    """With an appliance, and Cinder's database as this process has it."""

    def setUp(self):
        super().setUp()
        self.appliance = inprocess.RunningAppliance(
            portals=["127.0.0.1"]
        ).start()
        self.addCleanup(self.appliance.stop)
        cinderdb.start()
        self.addCleanup(cinderdb.empty)

    def run_with_cinder(self, command, *options, more="", **given):
        """Run a subcommand; the back end is that of ``cinderdb.HOST``."""
        path = self.configure(
            **{
                "url": self.appliance.url,
                "token": self.appliance.token,
                **given,
            },
            more=f"acme_api_ca_file = {self.appliance.ca_file}\n"
            "backend_host = ctl-1\n" + more,
        )
        self.copy_database()
        return self.run_command(command, "--config-file", path, *options)

    def copy_database(self):
        path = cfg.CONF.database.connection.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(path)) as source:
            copy = sqlite3.connect(f"{self.folder}/cinder.db")
            with contextlib.closing(copy):
                source.backup(copy)


def assert_example(case, name, text):
    """The documentation shows exactly this; with ACME_WRITE_EXAMPLES set, it
    does from now on."""
    path = EXAMPLES / name
    text = text.rstrip("\n") + "\n"
    if os.environ.get("ACME_WRITE_EXAMPLES"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    case.assertEqual(path.read_text(), text)
