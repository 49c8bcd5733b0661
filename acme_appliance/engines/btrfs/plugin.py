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

from acme_appliance.engines import base
from acme_appliance.engines import folderplugin
from acme_appliance.engines import plugin
from acme_appliance.engines.btrfs import engine
from acme_appliance.host import btrfsquota
from acme_appliance.host import filesystem


class BtrfsPlugin(folderplugin.FolderPlugin):
    help = "shares are btrfs subvolumes below path"
    engine = engine.BtrfsEngine
    filesystem = "btrfs"
    min_bytes = 128 << 20
    quota = "simple"
    options = (
        plugin.quota_option(
            quota,
            "btrfs simple quotas give every share a hard limit; Linux 6.7 or"
            " later",
            " The appliance enables simple quotas at its start; after that,"
            " older kernels cannot mount the file system.",
        ),
    )

    def has_quotas(self) -> bool:
        return btrfsquota.is_supported()

    def apply_options(self, pool: plugin.Pool) -> None:
        if not self.is_limited(pool.options):
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
