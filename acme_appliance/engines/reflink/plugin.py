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

from oslo_config import cfg

from acme_appliance.engines import disk
from acme_appliance.engines import plugin
from acme_appliance.engines.reflink import engine
from acme_appliance.host import filesystem
from acme_appliance.host import projectquota

QUOTA_NONE: Final = "none"
QUOTA_PROJECT: Final = "project"

#: Maximum length on XFS.
_LABEL_BYTES: Final = 12


class ReflinkPlugin(disk.DiskPlugin):
    help = "shares are directories below path, on XFS or btrfs"
    options = (
        cfg.StrOpt(
            "quota",
            default=QUOTA_NONE,
            choices=[
                (
                    QUOTA_NONE,
                    "only the size of its volume file limits a share",
                ),
                (
                    QUOTA_PROJECT,
                    "project quotas give every share a hard limit; needs an"
                    " XFS only for the pool",
                ),
            ],
            help="How to prevent a client from filling the pool by extending"
            " its volume file. The appliance mounts a pool that has a device"
            " with prjquota; other mounts need this option.",
        ),
    )
    filesystem = "xfs"
    min_bytes = 300 << 20

    def open(self, pool: plugin.Pool) -> engine.ReflinkEngine:
        return engine.ReflinkEngine(
            pool.path, hard_limit=pool.options["quota"] == QUOTA_PROJECT
        )

    def new_pool_options(self, plan: plugin.Plan) -> str:
        if plan.source is None or not projectquota.is_supported():
            return ""
        return (
            "# Every share has a hard limit, see acme-appliance.conf.sample.\n"
            f"quota = {QUOTA_PROJECT}\n"
        )

    def apply_options(self, pool: plugin.Pool) -> None:
        # XFS enables quotas only by a mount option.
        return

    def mount_options(self, options: Mapping[str, Any] | None) -> str:
        if options is None:
            limited = projectquota.is_supported()
        else:
            limited = options["quota"] == QUOTA_PROJECT
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

    def warnings(self, path: str) -> list[str]:
        return engine.ReflinkEngine(path).warnings()
