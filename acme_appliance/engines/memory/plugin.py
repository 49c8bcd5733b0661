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

"""The memory engine's plugin. There is nothing to create or mount."""

from acme_appliance.engines import plugin
from acme_appliance.engines.memory import engine


class MemoryPlugin(plugin.Plugin):
    help = "shares are lost when the appliance stops; for trials only"
    options = (plugin.quota_option("simple", "every share has a hard limit"),)
    on_disk = False

    def open(self, pool: plugin.Pool) -> engine.MemoryEngine:
        return engine.MemoryEngine(
            root=pool.path,
            hard_limit=pool.options["quota"] == "simple",
            durable=False,
        )

    def make_pool(self, plan: plugin.Plan) -> list[str]:
        raise plugin.PoolError(
            "a pool in memory exists only in a running appliance"
        )

    def new_pool_options(self, plan: plugin.Plan) -> str:
        return ""

    def mount(self, pool: plugin.Pool) -> bool:
        return False

    def apply_options(self, pool: plugin.Pool) -> None:
        return
