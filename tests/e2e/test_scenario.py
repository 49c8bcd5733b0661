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

"""The demonstration's scenario and tour, with and without volume files by the
appliance."""

from tests.e2e import base
from tests.harness import scenario


class ScenarioTestCase(base.E2ETestCase):
    """The steps of tools/demo.sh.

    Each step ends in time: it waits at most scenario.WAIT_SECONDS.
    """

    more_pools = ("silver",)

    def test_every_step_holds_and_nothing_is_left(self) -> None:
        self.check_steps(self.new_scenario())

    def test_tour(self) -> None:
        """The steps of tools/demo.sh --tour."""
        self.check_steps(self.machine.tour(self.view))

    def check_steps(self, shown: scenario.Scenario) -> None:
        for step in shown.steps():
            with self.subTest(step.title):
                step.act()
        self.assert_nothing_left()


class MinimalVendorTestCase(ScenarioTestCase):
    """An appliance that does not manage files: the driver creates them."""

    appliance_options = "[features]\nvolume_file = False\n"
