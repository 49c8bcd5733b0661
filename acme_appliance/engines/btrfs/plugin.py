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

"""The btrfs engine's plugin: its options, and how to create its pools."""

from typing import Final

from oslo_config import cfg

from acme_appliance.engines import base
from acme_appliance.engines import disk
from acme_appliance.engines import plugin
from acme_appliance.engines.btrfs import engine
from acme_appliance.host import btrfsquota
from acme_appliance.host import filesystem

QUOTA_NONE: Final = "none"
QUOTA_SIMPLE: Final = "simple"


class BtrfsPlugin(disk.DiskPlugin):
    help = "shares are btrfs subvolumes below path"
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
                    QUOTA_SIMPLE,
                    "btrfs simple quotas give every share a hard limit; Linux"
                    " 6.7 or later",
                ),
            ],
            help="How to prevent a client from filling the pool by extending"
            " its volume file. The appliance enables simple quotas at its"
            " start; after that, older kernels cannot mount the file system.",
        ),
    )
    filesystem = "btrfs"
    min_bytes = 128 << 20

    def open(self, pool: plugin.Pool) -> engine.BtrfsEngine:
        return engine.BtrfsEngine(pool.path, hard_limit=_is_limited(pool))

    def new_pool_options(self, plan: plugin.Plan) -> str:
        # A directory's file system has other users.
        if plan.source is None or not btrfsquota.is_supported():
            return ""
        return (
            "# Every share has a hard limit, see acme-appliance.conf.sample.\n"
            f"quota = {QUOTA_SIMPLE}\n"
        )

    def apply_options(self, pool: plugin.Pool) -> None:
        if not _is_limited(pool):
            return
        try:
            engine.enable_simple_quotas(pool.path)
        except base.EngineError as error:
            raise plugin.PoolError(
                f"{pool.path} has no quotas: {error}"
            ) from error

    def make_filesystem(
        self, source: str, label: str, *, discard: bool
    ) -> None:
        filesystem.make_btrfs(source, label, discard=discard)

    def why_unusable(self, path: str) -> str | None:
        if filesystem.is_btrfs(path):
            return None
        return f"{path} is not on btrfs"

    def prepare(self, path: str) -> None:
        engine.prepare(path)

    def warnings(self, path: str) -> list[str]:
        return engine.BtrfsEngine(path).warnings()


def _is_limited(pool: plugin.Pool) -> bool:
    return bool(pool.options["quota"] == QUOTA_SIMPLE)
