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

"""Compare and repair database, pools and exports for an operator."""

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
        undo open jobs, correct exports and states to match the database, and
        withdraw exports without a rule. Unknown subvolumes are only listed.

        :param close_jobs: ids of open jobs to close first; the states of
            their shares then follow from the pool. ``job.not_found``.
        """
        try:
            report = self._recovery.reconcile(apply, close_jobs)
            return dataclasses.asdict(report)
        except identity.Mismatch as error:
            # The operator sees the report, so it is not logged.
            raise problems.Problem("engine.unavailable", str(error)) from error
        except Exception as error:
            raise failures.to_problem(error) from error

    def restore(self, *, apply: bool, adopt_into: str | None) -> types.Body:
        """Rebuild the database from the pools, or bring an older copy up to
        date; see :class:`restoration.Restoration`. Never while a service
        runs."""
        try:
            return dataclasses.asdict(
                restoration.Restoration(self.context).run(
                    apply=apply, adopt_into=adopt_into
                )
            )
        except Exception as error:
            raise failures.to_problem(error) from error

    def compare_exports(self) -> None:
        """Find exports without an access rule, in a process whose service is
        not started, for ``System.export_warnings``."""
        try:
            self._recovery.compare_exports()
        except Exception as error:
            raise failures.to_problem(error) from error
