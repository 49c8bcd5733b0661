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

"""Run commands, always with a time limit and never through a shell."""

from collections.abc import Sequence
import logging
import os
import subprocess
import time

LOG = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60.0
_KILL_SECONDS = 1.0

#: Maximum length of a command in messages.
_MAX_SHOWN = 500

#: Includes administration tools, which a service's own PATH may lack.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CommandError(Exception):
    """A command could not be run, failed, or took too long."""

    def __init__(
        self, argv: Sequence[str], reason: str, status: int | None = None
    ) -> None:
        super().__init__(f"{_shown(argv)}: {reason}")
        self.argv = tuple(argv)
        self.reason = reason
        #: The exit status; None: it did not start or was killed.
        self.status = status


def run(
    argv: Sequence[str], *, timeout_seconds: float = TIMEOUT_SECONDS
) -> str:
    """Run a command and return what it printed.

    :raises CommandError: also after ``timeout_seconds``, when it is killed.
    """
    begin = time.monotonic()
    # No preexec_fn, which would prevent vfork.
    try:
        process = subprocess.Popen(  # noqa: S603
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C", "PATH": PATH},
        )
    except OSError as error:
        raise CommandError(argv, error.strerror or str(error)) from error
    try:
        output, errors = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        _kill(process)
        reason = f"killed after {timeout_seconds:.0f} s"
        raise CommandError(argv, reason) from error
    except BaseException:
        _kill(process)
        raise
    LOG.debug(
        "%s: exit %d after %.3f s",
        _shown(argv),
        process.returncode,
        time.monotonic() - begin,
    )
    if process.returncode != 0:
        reason = (errors or output).strip() or "no message"
        raise CommandError(argv, reason, process.returncode)
    return output


def _shown(argv: Sequence[str]) -> str:
    text = " ".join(argv)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _kill(process: "subprocess.Popen[str]") -> None:
    """Kill, and wait briefly: a process that waits for a hanging disk ends
    only when the disk answers."""
    process.kill()
    try:
        process.communicate(timeout=_KILL_SECONDS)
    except subprocess.TimeoutExpired:
        LOG.error("Process %d does not end when killed", process.pid)
