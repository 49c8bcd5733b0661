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

from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import threading
import time

from acme_appliance.exporters import base
from acme_appliance.references import Reference


class MemoryCut(base.Cut):
    """Holds back the replies of a server that has no clients.

    :param exporter: whose ``is_shut`` tells tests what is going on.
    """

    def __init__(self, exporter: "MemoryExporter") -> None:
        self._exporter = exporter

    @contextlib.contextmanager
    def shut(self, seconds: float) -> Iterator[None]:
        begin = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._exporter.is_shut = True
        try:
            yield
        finally:
            self._exporter.is_shut = False
            end = time.clock_gettime(time.CLOCK_BOOTTIME)
            self.pause_seconds = end - begin
        if self.pause_seconds >= seconds:
            raise base.CutLost("the time was up")


class MemoryExporter(base.Exporter):
    """:param root: the directory that clients see as ``/``."""

    def __init__(self, root: str = "/memory") -> None:
        self.root = root
        #: The result of ``check``; tests set it to make the server fail.
        self.reasons: list[str] = []
        #: Number of changes that a real server would get.
        self.change_count = 0
        #: Whether the replies are held back now.
        self.is_shut = False
        #: Why they cannot be; tests set it.
        self.cannot_cut: str | None = None
        self._lock = threading.Lock()
        self._table: dict[Reference, dict[str, str]] = {}
        self._rules: dict[Reference, base.Rules] = {}

    def check(self) -> list[str]:
        return list(self.reasons)

    def path(self, directory: str) -> str:
        return base.export_path(directory, self.root)

    def apply(
        self, directory: base.ExportedDirectory, clients: base.Clients
    ) -> None:
        self._set(directory.reference, clients, directory.rules)

    def withdraw(self, reference: Reference) -> None:
        self._set(reference, {}, {})

    def exported(self) -> dict[Reference, dict[str, str]]:
        with self._lock:
            return {each: dict(row) for each, row in self._table.items()}

    def rules(self) -> dict[Reference, base.Rules]:
        with self._lock:
            return {
                each: base.with_recovered(self._rules.get(each, {}), row)
                for each, row in self._table.items()
            }

    def reconcile(
        self,
        wanted: Iterable[tuple[base.ExportedDirectory, base.Clients]],
        *,
        apply: bool,
        remove: bool = False,
        leave: Container[Reference] = frozenset(),
    ) -> list[base.Difference]:
        target = {
            directory.reference: (directory, dict(row))
            for directory, row in wanted
            if row
        }
        found = self.exported()
        differences = [
            base.Difference(
                reference,
                target[reference][1] if reference in target else {},
                found.get(reference, {}),
            )
            for reference in sorted(target.keys() | found.keys())
        ]
        differences = [
            each for each in differences if each.wanted != each.found
        ]
        if apply:
            for each in differences:
                if each.reference in leave:
                    continue
                kept = {} if remove else each.unexplained
                rules = target[each.reference][0].rules if each.wanted else {}
                self._set(
                    each.reference, base.strongest(each.wanted, kept), rules
                )
        return differences

    @contextlib.contextmanager
    def cut(self) -> Iterator[base.Cut]:
        if self.cannot_cut is not None:
            raise base.CannotCut(self.cannot_cut)
        yield MemoryCut(self)

    def _set(
        self, reference: Reference, clients: base.Clients, rules: base.Rules
    ) -> None:
        if self.reasons:
            raise base.ExporterError(self.reasons[0])
        with self._lock:
            self._rules[reference] = dict(rules)
            if self._table.get(reference, {}) == dict(clients):
                return
            self.change_count += 1
            if clients:
                self._table[reference] = dict(clients)
            else:
                self._table.pop(reference, None)
