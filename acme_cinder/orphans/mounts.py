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

"""Mounts on this host that nobody holds."""

from __future__ import annotations

from collections.abc import Iterator
import functools

from acme_cinder import reaper
from acme_cinder.orphans import orphan


def find(scene: orphan.Scene) -> Iterator[orphan.Orphan]:
    """The same ones that the driver's clean-up would unmount."""
    cleaner = reaper.Reaper(scene.api, scene.mounts, 0)
    for share_id, export in cleaner.unneeded():
        yield orphan.Orphan(
            "mount",
            share_id,
            export or scene.mounts.path(share_id),
            "no process uses it, and this host needs it no more"
            if export
            else "left by a service that died, no process uses it",
            remove=functools.partial(cleaner.remove, share_id, export),
        )
