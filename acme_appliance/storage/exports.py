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

"""What is exported, asked of an NFS server that may hang."""

from collections.abc import Iterable

from acme_appliance.exporters import base as exporters
from acme_appliance.references import Reference
from acme_appliance.storage import watch


class Exports:
    """The exporter, and the exports that no access rule explains."""

    def __init__(
        self, exporter: exporters.Exporter, answer_seconds: float
    ) -> None:
        self.exporter = exporter
        self.watch = watch.Watch("the NFS server", answer_seconds)
        #: Clients that have access although no access rule explains it.
        #: Only an operator takes them away.
        self.unexplained: dict[Reference, exporters.Clients] = {}

    def check(self) -> list[str]:
        """Why shares cannot be served; empty: they can."""
        try:
            return self.watch.ask(self.exporter.check)
        except watch.NotAnswering as error:
            return [str(error)]

    def clients(
        self, directory: exporters.ExportedDirectory
    ) -> exporters.Clients:
        """The clients of a directory's rules, and those that no rule explains
        but that may be in use."""
        kept = self.unexplained.get(directory.reference, {})
        return exporters.merge_clients(
            [
                *(
                    (rule.clients, rule.level)
                    for rule in directory.rules.values()
                ),
                *(((client,), level) for client, level in kept.items()),
            ]
        )

    def explain(self, reference: Reference, clients: Iterable[str]) -> None:
        """A rule explains these clients from now on: once it is revoked,
        they have to go."""
        kept = self.unexplained.pop(reference, {})
        left = {c: level for c, level in kept.items() if c not in {*clients}}
        if left:
            self.unexplained[reference] = left

    def withdraw_unexplained(self, reference: Reference) -> None:
        """Before what has no access rule is deleted. The server is asked
        only where there is something to withdraw."""
        if reference in self.unexplained:
            self.exporter.withdraw(reference)

    def still_unexplained(self) -> dict[Reference, exporters.Clients]:
        """What of :attr:`unexplained` is exported now."""
        if not self.unexplained:
            return {}
        try:
            found = self.watch.ask(self.exporter.exported)
        except watch.NotAnswering:
            # Nobody knows; they are not forgotten for that.
            return dict(self.unexplained)
        return {
            reference: clients
            for reference, clients in [*self.unexplained.items()]
            if clients.items() & found.get(reference, {}).items()
        }

    def stop(self) -> None:
        self.watch.stop()
