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

"""The reflink engine's plugin: its options, and how to create its pools."""

from collections.abc import Mapping
import hashlib
from typing import Any
from typing import Final

from acme_appliance.engines import folderplugin
from acme_appliance.engines import plugin
from acme_appliance.engines.reflink import engine
from acme_appliance.host import filesystem
from acme_appliance.host import projectquota

#: Maximum length on XFS.
_LABEL_BYTES: Final = 12


class ReflinkPlugin(folderplugin.FolderPlugin):
    help = "shares are directories below path, on XFS or btrfs"
    engine = engine.ReflinkEngine
    filesystem = "xfs"
    min_bytes = 300 << 20
    quota = "project"
    options = (
        plugin.quota_option(
            quota,
            "project quotas give every share a hard limit; needs an XFS only"
            " for the pool",
            " The appliance mounts a pool that has a device with prjquota;"
            " other mounts need this option.",
        ),
    )

    def has_quotas(self) -> bool:
        return projectquota.is_supported()

    def apply_options(self, pool: plugin.Pool) -> None:
        # XFS enables quotas only by a mount option.
        return

    def mount_options(self, options: Mapping[str, Any] | None) -> str:
        if options is None:
            limited = self.has_quotas()
        else:
            limited = self.is_limited(options)
        return "prjquota" if limited else ""

    def label(self, plan: plugin.Plan) -> str:
        label = super().label(plan)
        if len(label) <= _LABEL_BYTES:
            return label
        digest = hashlib.sha256(plan.name.encode()).hexdigest()
        return f"acme-{digest}"[:_LABEL_BYTES]

    def make_filesystem(
        self, source: str, label: str, *, discard: bool
    ) -> None:
        filesystem.make_xfs(source, label, discard=discard)

    def why_unusable(self, path: str) -> str | None:
        return engine.why_unusable(path)

    def prepare(self, path: str) -> None:
        engine.prepare(path)
