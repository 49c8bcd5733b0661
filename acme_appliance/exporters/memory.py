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

"""Exports in memory: for unit tests, and to try the API without NFS."""

from collections.abc import Iterable
import threading

from acme_appliance.exporters import base


class MemoryExporter(base.Exporter):
    """``root`` is what clients see as ``/``."""

    def __init__(self, root: str = "/memory") -> None:
        self.root = root
        #: What ``check`` reports; tests make a server fail with it.
        self.reasons: list[str] = []
        #: How often a real server would have been told something.
        self.change_count = 0
        self._lock = threading.Lock()
        self._table: dict[str, dict[str, str]] = {}

    def check(self) -> list[str]:
        return list(self.reasons)

    def path(self, directory: str) -> str:
        return base.export_path(directory, self.root)

    def apply(self, share: base.ExportedShare, clients: base.Clients) -> None:
        self._set(share.id, clients)

    def withdraw(self, share_id: str) -> None:
        self._set(share_id, {})

    def exported(self) -> dict[str, dict[str, str]]:
        with self._lock:
            return {id_: dict(row) for id_, row in self._table.items()}

    def reconcile(
        self,
        wanted: Iterable[tuple[base.ExportedShare, base.Clients]],
        *,
        apply: bool,
    ) -> list[base.Difference]:
        target = {share.id: dict(row) for share, row in wanted if row}
        found = self.exported()
        differences = [
            base.Difference(id_, target.get(id_, {}), found.get(id_, {}))
            for id_ in sorted(target.keys() | found.keys())
            if target.get(id_) != found.get(id_)
        ]
        if apply:
            for difference in differences:
                self._set(difference.share_id, difference.wanted)
        return differences

    def _set(self, share_id: str, clients: base.Clients) -> None:
        if self.reasons:
            raise base.ExporterError(self.reasons[0])
        with self._lock:
            if self._table.get(share_id, {}) == dict(clients):
                return
            self.change_count += 1
            if clients:
                self._table[share_id] = dict(clients)
            else:
                self._table.pop(share_id, None)
