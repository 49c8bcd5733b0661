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

"""A private systemd for tests, without the machine's units.

It is PID 1 of a PID namespace in the sandbox, and shares everything else with
it, so that the NFS server sees its mounts, as on a real machine.
"""

from __future__ import annotations

from collections.abc import Callable
import os
import pathlib
import subprocess
import time

PROGRAM = "/lib/systemd/systemd"
#: Hidden by an empty folder while it runs.
UNITS = pathlib.Path("/etc/systemd/system")
_TARGET = "acme-test.target"
_OWN_UNITS = {
    _TARGET: """\
[Unit]
Requires=sysinit.target
After=sysinit.target
""",
    # Replaces the NFS server, which the sandbox runs.
    "nfs-server.service": """\
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=mount -t nfsd nfsd /proc/fs/nfsd
""",
}
# What is there already, or would be set up for the whole sandbox.
_MASKED = (
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "systemd-remount-fs.service",
    "systemd-sysctl.service",
    "systemd-tmpfiles-setup.service",
    "systemd-tmpfiles-setup-dev.service",
)
_LIMIT_SECONDS = 300


def run(*command: str, check: bool = True) -> str:
    """Return the command's output.

    :raises AssertionError: it failed
    """
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}")
    return done.stdout


class Systemd:
    """Runs from :meth:`start` to :meth:`stop`."""

    def __init__(self, log: pathlib.Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        run("mount", "--make-rshared", "/")
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(UNITS))
        for name, text in _OWN_UNITS.items():
            (UNITS / name).write_text(text)
        for name in _MASKED:
            (UNITS / name).symlink_to("/dev/null")
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--kill-child", "--cgroup"]
                + ["--mount-proc", "--propagation", "unchanged", "--"]
                + [PROGRAM, f"--unit={_TARGET}"]
                + ["--log-target=console", "--show-status=0"],
                env={"container": "acme-test", "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.wait_for("systemd is up", lambda: self._is_active(_TARGET))

    def stop(self) -> None:
        """End it and all its processes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=_LIMIT_SECONDS)
        run("umount", str(UNITS))
        run("mount", "--make-rprivate", "/")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside, because systemd answers only there.

        :raises AssertionError: it failed
        """
        target = f"--target={self._first_pid()}"
        return run(
            *("nsenter", target, "--pid", "--mount", "--", *command),
            check=check,
        )

    def start_unit(self, unit: str) -> None:
        """:raises AssertionError: it failed; with systemd's messages."""
        try:
            self.run("systemctl", "start", unit)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._status()}") from error

    def value(self, unit: str, name: str) -> str:
        """A property of a unit, from ``systemctl show``."""
        shown = self.run("systemctl", "show", f"--property={name}", unit)
        return shown.strip().partition("=")[2]

    def process(self, pid: str) -> pathlib.Path:
        """Information on a process, from /proc inside."""
        return pathlib.Path(f"/proc/{self._first_pid()}/root/proc/{pid}")

    def wait_for(self, what: str, is_so: Callable[[], bool]) -> None:
        """:raises AssertionError: timed out; with systemd's messages."""
        deadline = time.monotonic() + _LIMIT_SECONDS
        while not is_so():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: in vain\n{self._status()}")
            time.sleep(0.2)

    def _status(self) -> str:
        status = self.run("systemctl", "status", "acme*", check=False)
        return status + self.run("journalctl", "-n50", check=False)

    def _first_pid(self) -> str:
        """systemd's PID outside; empty: not started yet."""
        assert self._process is not None
        pid = self._process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
        return children.read_text().strip()

    def _is_active(self, unit: str) -> bool:
        if not self._first_pid():
            return False
        return self.run("systemctl", "is-active", unit, check=False) == (
            "active\n"
        )
