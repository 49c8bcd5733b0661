# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Processes with a log file, a check for readiness and a reliable end.

mirakuru has executors for this, which write to a pipe instead of a log, and
search the environments of all processes at every end (its ``base_env.py``).
The processes here stay in their group, and /proc is slow in the sandbox.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time


class NotReady(Exception):
    """A process ended or timed out before it was ready."""


def wait_until(
    check: Callable[[], bool],
    what: str,
    *,
    timeout_seconds: float,
    interval_seconds: float = 0.2,
) -> None:
    """Poll until check() is true.

    :raises NotReady: timed out; names what was expected
    """
    deadline = time.monotonic() + timeout_seconds
    while not check():
        if time.monotonic() > deadline:
            raise NotReady(f"{what}: not within {timeout_seconds:g} s")
        time.sleep(interval_seconds)


def listens(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A background process whose output is written to one file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: pathlib.Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        if self._process is None:
            raise NotReady(f"{self.name} was not started")
        return self._process.pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_ready(
        self, check: Callable[[], bool], *, timeout_seconds: float
    ) -> None:
        """Wait until check() is true.

        :raises NotReady: the process ended, or the wait timed out
        """

        def ready_or_over() -> bool:
            if not self.is_running():
                raise NotReady(f"{self.name} ended; see {self.log}")
            return check()

        wait_until(
            ready_or_over,
            f"{self.name} (see {self.log})",
            timeout_seconds=timeout_seconds,
        )

    def stop(self, timeout_seconds: float = 20) -> None:
        """Send SIGTERM, then SIGKILL; does nothing if it is not running."""
        if self._process is None:
            return
        if self.is_running():
            self._process.terminate()
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL to it and all its children, as a crash does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def tail(log: pathlib.Path, lines: int = 25) -> str:
    """The last lines of a log; empty if it does not exist."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
