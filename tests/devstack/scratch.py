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

"""A scratch tree for devstack's phases."""

import configparser
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).parent
PROJECT = HERE.parent.parent
SAMPLES = PROJECT / "devstack" / "samples"
DEVSTACK_DIR = os.environ.get("DEVSTACK_DIR")
#: No run takes a minute, in a sandbox not ten; a hanging one is to fail.
TIMEOUT_SECONDS = 900

#: What pip would have put into the environment's bin.
COMMANDS = {
    "acme-appliance": "from acme_appliance.cmd.main import main; main()",
    "cinder-manage": "from cinder.cmd.manage import main; main()",
}


def why_not():
    """Why the plugin cannot be tested here; None if it can."""
    if not DEVSTACK_DIR:
        return "DEVSTACK_DIR does not name a checkout of openstack/devstack"
    if not (pathlib.Path(DEVSTACK_DIR) / "stackrc").is_file():
        raise RuntimeError(f"DEVSTACK_DIR={DEVSTACK_DIR}: no devstack there")
    if os.geteuid() != 0:
        return "the plugin makes pools with loop devices: root only"
    return None


def skip_loudly(reason):
    """Skip, and also print the reason."""
    print(f"NOT TESTED: the devstack plugin: {reason}", file=sys.stderr)
    raise unittest.SkipTest(reason)


def _assignments(settings):
    return "".join(f"{key}='{value}'\n" for key, value in settings.items())


class Scratch:
    """A copy of devstack with the plugin, and all files that it creates."""

    def __init__(self, place=None):
        self.path = pathlib.Path(
            tempfile.mkdtemp(prefix="acme-devstack-", dir=place)
        )
        # Not all in it runs as root.
        self.path.chmod(0o755)
        self.devstack = self.path / "devstack"
        shutil.copytree(
            DEVSTACK_DIR,
            self.devstack,
            symlinks=True,
            ignore=shutil.ignore_patterns(".git", "doc", "local*"),
        )
        for folder in ("bin", "stack/logs", "systemd", "etc/cinder"):
            (self.path / folder).mkdir(parents=True)
        (self.path / "stack" / "acme-cinder").symlink_to(PROJECT)
        (self.path / "cinder" / "etc").mkdir(parents=True)
        (self.path / "cinder" / "etc" / "cinder").symlink_to(
            pathlib.Path(sys.prefix) / "etc" / "cinder"
        )
        (self.path / "types").touch()
        self.calls_file = self.path / "calls"
        self.calls_file.touch()
        for name, code in COMMANDS.items():
            self._command(name, code)

    def _command(self, name, code):
        command = self.path / "bin" / name
        command.write_text(
            f"#!{sys.executable}\n"
            f"import sys\nsys.path.insert(0, {str(PROJECT)!r})\n{code}\n"
        )
        command.chmod(0o755)

    def configure(self, sample, **settings):
        """Create local.conf from a sample, with more settings."""
        # DEST counts when enable_plugin is read, so these go before it.
        machine = {
            "DEST": self.path / "stack",
            "DATA_DIR": self.path / "data",
            "SERVICE_DIR": self.path / "status",
            "TEMPEST_CONFIG_DIR": self.path / "etc" / "tempest",
            "ACME_CONF_DIR": self.path / "etc" / "acme-appliance",
            "HOST_IP": "127.0.0.1",
            "SERVICE_HOST": "127.0.0.1",
            "STACK_USER": "root",
            "OFFLINE": "True",
            "GLOBAL_VENV": "False",
            "DEVSTACK_PARALLEL": "False",
            "NEUTRON_CREATE_INITIAL_NETWORKS": "False",
            "ENABLED_SERVICES": "key,mysql,rabbit,c-api,c-sch,c-vol,tempest",
        }
        header = "[[local|localrc]]\n"
        text = (SAMPLES / f"{sample}.conf").read_text()
        text = text.replace(header, header + _assignments(machine))
        text += _assignments(settings)
        (self.devstack / "local.conf").write_text(text)

    def run(self, mode, last=""):
        """Run stack, unstack or clean; return the output.

        :raises AssertionError: with the output, if it failed.
        """
        done = subprocess.run(
            ["bash", str(HERE / "devstack.sh"), str(self.path), mode, last],
            env={
                "HOME": str(self.path),
                "LANG": "C.UTF-8",
                "PATH": "/usr/local/sbin:/usr/local/bin:"
                "/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM": "dumb",
                "USER": "root",
                # In a sandbox of its own, its export files may be changed.
                "SANDBOX_KIND": os.environ.get("SANDBOX_KIND", ""),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        if done.returncode:
            raise AssertionError(
                f"{mode} {last} ended with {done.returncode}\n{done.stdout}"
                f"\n{self.unit_log()}"
            )
        return done.stdout

    def unit_log(self):
        """The output of the appliance's process."""
        log = self.path / "systemd" / "devstack@acme-appliance.log"
        return log.read_text() if log.exists() else ""

    def ini(self, name):
        """A parsed file below etc."""
        parser = configparser.RawConfigParser(strict=False)
        parser.read(self.path / "etc" / name)
        return parser

    @property
    def cinder_conf(self):
        return self.path / "etc" / "cinder" / "cinder.conf"

    def calls(self):
        """The replaced commands, one per line."""
        return self.calls_file.read_text().splitlines()

    def leftovers(self):
        """Remaining mounts, loop devices and processes."""
        needle = str(self.path)
        mounts = pathlib.Path("/proc/mounts").read_text().splitlines()
        loops = subprocess.run(
            ["losetup", "--list", "--noheadings", "--output", "BACK-FILE"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        processes = []
        for line in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                processes.append(line.read_bytes().decode(errors="replace"))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return [x for x in mounts + loops + processes if needle in x]

    def remove(self):
        shutil.rmtree(self.path)
