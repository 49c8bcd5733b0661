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

"""Replaces systemctl: units are processes with a pid file.

It reads the unit files that devstack writes to $SYSTEMD_DIR, and supports the
commands that devstack uses: enable, disable, is-enabled, is-active, start,
stop, restart, daemon-reload.
"""

import configparser
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

STOP_TIMEOUT_SECONDS = 60


class Unit:
    """A unit file, and the state that this keeps with it."""

    def __init__(self, name):
        self.file = pathlib.Path(os.environ["SYSTEMD_DIR"]) / name
        self.enabled = self.file.with_suffix(".enabled")
        self.pid_file = self.file.with_suffix(".pid")
        self.log = self.file.with_suffix(".log")

    def pid(self):
        """The running main process's id, or None."""
        try:
            pid = int(self.pid_file.read_text())
            state = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError:
            return None
        # A zombie is over: nobody here waits for it.
        return None if state.rpartition(")")[2].split()[0] == "Z" else pid

    def start(self):
        if self.pid():
            return
        parser = configparser.RawConfigParser(strict=False)
        parser.optionxform = str
        parser.read(self.file)
        service = parser["Service"]
        environment = dict(os.environ)
        for pair in shlex.split(service["Environment"]):
            key, _, value = pair.partition("=")
            environment[key] = value
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                shlex.split(service["ExecStart"]),
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid_file.write_text(str(process.pid))

    def stop(self):
        """End the main process, as KillMode=process does."""
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while self.pid():
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                raise SystemExit(f"{self.file.name} did not stop")
            time.sleep(0.05)
        self.pid_file.unlink()


def main(arguments):
    command, *names = [a for a in arguments if not a.startswith("-")]
    if command == "daemon-reload":
        return 0
    (unit,) = (Unit(name) for name in names)
    if command == "is-enabled":
        return 0 if unit.enabled.exists() else 1
    if command == "is-active":
        return 0 if unit.pid() else 3
    if command in ("enable", "start", "restart") and not unit.file.exists():
        sys.exit(f"no unit {unit.file}")
    if command == "enable":
        unit.enabled.touch()
    elif command == "disable":
        unit.enabled.unlink(missing_ok=True)
    elif command == "start":
        unit.start()
    elif command == "stop":
        unit.stop()
    elif command == "restart":
        unit.stop()
        unit.start()
    else:
        sys.exit(f"no such command here: {command}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
