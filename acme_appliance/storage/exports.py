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
from acme_appliance.storage import watch


class Exports:
    """The exporter, and the exports that no access rule explains."""

    def __init__(
        self, exporter: exporters.Exporter, answer_seconds: float
    ) -> None:
        self.exporter = exporter
        self.watch = watch.Watch("the NFS server", answer_seconds)
        #: Share to clients that are exported although no access rule
        #: explains it. Only an operator takes them away.
        self.unexplained: dict[str, exporters.Clients] = {}

    def check(self) -> list[str]:
        """Why shares cannot be served; empty: they can."""
        try:
            return self.watch.ask(self.exporter.check)
        except watch.NotAnswering as error:
            return [str(error)]

    def clients(
        self, share_id: str, rules: exporters.Rules
    ) -> exporters.Clients:
        """The clients of a share's rules, and those that no rule explains
        but that may be in use."""
        kept = self.unexplained.get(share_id, {})
        return exporters.merge_clients(
            [
                *((rule.clients, rule.level) for rule in rules.values()),
                *(((client,), level) for client, level in kept.items()),
            ]
        )

    def explain(self, share_id: str, clients: Iterable[str]) -> None:
        """A rule explains these clients from now on: once it is revoked,
        they have to go."""
        kept = self.unexplained.pop(share_id, {})
        left = {c: level for c, level in kept.items() if c not in {*clients}}
        if left:
            self.unexplained[share_id] = left

    def still_unexplained(self) -> dict[str, exporters.Clients]:
        """What of :attr:`unexplained` is exported now."""
        if not self.unexplained:
            return {}
        try:
            found = self.watch.ask(self.exporter.exported)
        except watch.NotAnswering:
            # Nobody knows; they are not forgotten for that.
            return dict(self.unexplained)
        return {
            share_id: clients
            for share_id, clients in sorted([*self.unexplained.items()])
            if clients.items() & found.get(share_id, {}).items()
        }

    def stop(self) -> None:
        self.watch.stop()
