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

"""What an operator has repaired: database, pools and exports compared."""

from collections.abc import Sequence
import dataclasses

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.changes import failures
from acme_appliance.service.reconcile import recovery
from acme_appliance.service.reconcile import restoration
from acme_appliance.storage import identity


class Reconciliation:
    """The use cases of repair; see :mod:`acme_appliance.service`."""

    def __init__(self, found: recovery.Recovery) -> None:
        self._recovery = found
        self.context = found.context

    def run(self, apply: bool, close_jobs: Sequence[str] = ()) -> types.Body:
        """Compare database, pools and exports. With ``apply``, finish or
        undo open jobs, and make exports and states what the database says;
        that also withdraws exports that it does not explain. Unknown
        subvolumes are only listed.

        :param close_jobs: ids of open jobs that an operator gives up; what
            they touched is judged by what is in the pool. ``job.not_found``.
        """
        try:
            report = self._recovery.reconcile(apply, close_jobs)
            return dataclasses.asdict(report)
        except identity.Mismatch as error:
            # The operator is told, and needs no log to say it once more.
            raise problems.Problem("engine.unavailable", str(error)) from error
        except Exception as error:
            raise failures.to_problem(error) from error

    def restore(self, *, apply: bool, adopt_into: str | None) -> types.Body:
        """Rebuild the database from the pools, or bring an older copy up to
        date; see :class:`restoration.Restoration`. Never while a service is
        at work."""
        try:
            return dataclasses.asdict(
                restoration.Restoration(self.context).run(
                    apply=apply, adopt_into=adopt_into
                )
            )
        except Exception as error:
            raise failures.to_problem(error) from error

    def compare_exports(self) -> None:
        """Look for the exports that no access rule explains, in a process
        whose service is not started; ``System.export_warnings`` tells of
        them."""
        try:
            self._recovery.compare_exports()
        except Exception as error:
            raise failures.to_problem(error) from error
