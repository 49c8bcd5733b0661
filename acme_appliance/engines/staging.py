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

"""Names of what an engine on a file system is staging, see
:class:`acme_appliance.engines.base.Staged`."""

from collections.abc import Iterable
import threading
from typing import Final
import uuid

#: What begins like this has no id yet. It is no UUID, so nothing else of a
#: pool has such a name.
_PREFIX: Final = "moment-"


class Tokens:
    """One token for each call; other tokens are of killed processes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: set[str] = set()

    def begin(self) -> str:
        token = f"{_PREFIX}{uuid.uuid4()}"
        with self._lock:
            self._active.add(token)
        return token

    def end(self, token: str) -> None:
        with self._lock:
            self._active.discard(token)

    def abandoned(self, names: Iterable[str]) -> list[str]:
        """The names that belong to no active token."""
        with self._lock:
            return [
                name
                for name in names
                if name.startswith(_PREFIX)
                and name[: len(_PREFIX) + 36] not in self._active
            ]


def name(token: str, snapshot_id: str) -> str:
    """The temporary name of a snapshot."""
    return f"{token}-{snapshot_id}"
