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

"""Commands with a time limit, as the service's user or as root.

os-brick's privileged daemon runs them as root, the same one that its
connectors mount with.
"""

from collections.abc import Callable
import os
import signal
from typing import Any

from os_brick import exception as brick_exception
from os_brick.privileged import rootwrap as brick_rootwrap
from oslo_concurrency import processutils

import acme_client

Execute = Callable[..., tuple[str, str]]
#: The minimal limit of a command, even if less time is left: lazy unmounts
#: must be possible, and ``timeout`` treats 0 as no limit.
_LEAST_SECONDS = 2.0
#: os-brick's own time limit is longer than the command's by this.
_BACKSTOP_SECONDS = 5.0


def execute(*command: str, timeout: float, **options: Any) -> tuple[str, str]:
    """os-brick's ``execute``, with a limit that includes child processes.

    mount(8) and umount(8) start a helper and wait for it. os-brick kills
    only the first process and then waits for the helper, which has the
    pipes; ``timeout`` kills the whole process group.

    :raises ProcessExecutionError: it failed, or timed out
        (:class:`os_brick.exception.ExecutionTimeout`).
    """
    try:
        out, err = brick_rootwrap.execute(
            *("timeout", "--signal=KILL", str(timeout), *command),
            **options,
            timeout=timeout + _BACKSTOP_SECONDS,
            signal=int(signal.SIGKILL),
            # Otherwise, as os-brick's client calls it, that is no error.
            raise_timeout=True,
        )
    except brick_exception.ExecutionTimeout:
        raise
    except processutils.ProcessExecutionError as error:
        if error.exit_code not in (-signal.SIGKILL, 128 + signal.SIGKILL):
            raise
        raise brick_exception.ExecutionTimeout(
            stdout="",
            stderr=f"killed after {timeout} s",
            cmd=" ".join(command),
        ) from error
    return out, err


class Commands:
    """Runs commands with a time limit, as the service's user or as root.

    A command can be killed even while it waits for a dead NFS server, but a
    system call of the service itself would block a whole eventlet process.
    os-brick's executor works with eventlet and native threads.

    :raises ProcessExecutionError: it failed, or timed out
        (:class:`os_brick.exception.ExecutionTimeout`).
    """

    def __init__(
        self,
        root_helper: str,
        timeout_seconds: float,
        execute: Execute = execute,
    ) -> None:
        self.root_helper = root_helper
        self.timeout_seconds = timeout_seconds
        self._execute = execute

    def run(
        self,
        *command: str,
        root: bool = False,
        timeout_seconds: float | None = None,
    ) -> str:
        """Return the output."""
        out, _ = self._execute(
            *command,
            run_as_root=root,
            root_helper=self.root_helper,
            timeout=_limited(timeout_seconds or self.timeout_seconds),
        )
        return out if isinstance(out, str) else out.decode()

    def for_brick(self, *command: str, **options: Any) -> tuple[str, str]:
        """The executor of os-brick's mount client."""
        if command[0] == "mkdir":
            # Avoid a process for the mkdir of every mount.
            os.makedirs(command[-1], exist_ok=True)
            return "", ""
        options.setdefault("timeout", _limited(self.timeout_seconds))
        return self._execute(*command, **options)


def _limited(seconds: float) -> float:
    return max(acme_client.at_most(seconds), min(seconds, _LEAST_SECONDS))
