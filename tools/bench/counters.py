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

"""Count requests, processes and mounts of an operation.

Unlike seconds, these are the same on every machine: the HTTP requests and the
processes of this process, in which the drivers run, and the commands of the
appliance, from its debug log.
"""

from collections.abc import Callable
import dataclasses
import os
import pathlib
import subprocess
from typing import Any

import requests

_MOUNT_COMMANDS = ("mount", "mount.nfs", "mount.nfs4")


@dataclasses.dataclass
class Counts:
    http_requests: int = 0
    processes: int = 0
    mounts: int = 0

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(
            self.http_requests - other.http_requests,
            self.processes - other.processes,
            self.mounts - other.mounts,
        )


class Counters:
    """Counts from :meth:`install` on.

    :param appliance_log: has a line with ``command_mark`` for each command
        that the appliance starts
    """

    def __init__(self, appliance_log: pathlib.Path, command_mark: str) -> None:
        self._counts = Counts()
        self._log = appliance_log
        self._mark = command_mark

    def install(self) -> None:
        """Count in the two functions that everything uses."""
        self._wrap(subprocess.Popen, "__init__", self._on_process)
        self._wrap(requests.adapters.HTTPAdapter, "send", self._on_request)

    @staticmethod
    def _wrap(owner: Any, name: str, before: Callable[..., None]) -> None:
        original = getattr(owner, name)

        def counted(instance: Any, *args: Any, **kwargs: Any) -> Any:
            before(*args)
            return original(instance, *args, **kwargs)

        setattr(owner, name, counted)

    def _on_process(self, command: Any, *_: Any) -> None:
        self._counts.processes += 1
        words = command.split() if isinstance(command, str) else command
        if words[0] == "timeout":
            # timeout --signal=KILL SECONDS COMMAND...: two processes.
            self._counts.processes += 1
            words = words[3:]
        if os.path.basename(str(words[0])) in _MOUNT_COMMANDS:
            self._counts.mounts += 1

    def _on_request(self, *_: Any) -> None:
        self._counts.http_requests += 1

    def _appliance_commands(self) -> int:
        with self._log.open(errors="replace") as lines:
            return sum(self._mark in line for line in lines)

    def now(self) -> Counts:
        counts = dataclasses.replace(self._counts)
        counts.processes += self._appliance_commands()
        return counts
