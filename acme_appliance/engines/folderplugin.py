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

"""Base class of plugins for engines whose shares are directories."""

import abc
from collections.abc import Mapping
from typing import Any
from typing import ClassVar

from acme_appliance.engines import disk
from acme_appliance.engines import folder
from acme_appliance.engines import plugin


class FolderPlugin(disk.DiskPlugin):
    """Its options include :func:`plugin.quota_option`."""

    engine: ClassVar[type[folder.FolderEngine]]
    #: The value of the option ``quota`` that gives shares a hard limit.
    quota: ClassVar[str]

    @abc.abstractmethod
    def has_quotas(self) -> bool:
        """Whether the kernel supports these quotas."""

    def is_limited(self, options: Mapping[str, Any]) -> bool:
        return bool(options["quota"] == self.quota)

    def open(self, pool: plugin.Pool) -> folder.FolderEngine:
        limited = self.is_limited(pool.options)
        return self.engine(pool.path, hard_limit=limited)

    def new_pool_options(self, plan: plugin.Plan) -> str:
        # A directory's file system has other users.
        if plan.source is None or not self.has_quotas():
            return ""
        return (
            "# Every share has a hard limit, see acme-appliance.conf.sample.\n"
            f"quota = {self.quota}\n"
        )

    def warnings(self, path: str) -> list[str]:
        return self.engine(path).warnings()
