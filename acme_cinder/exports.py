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

"""Choose the export location to mount a share from."""

from collections.abc import Sequence
import dataclasses

from acme_cinder import addresses
from acme_cinder import errors
import acme_client


@dataclasses.dataclass(frozen=True)
class Export:
    """``location`` is ``ADDRESS:/PATH``; IPv6 addresses are in brackets."""

    location: str
    address: str
    nfs_versions: tuple[str, ...] = ()


def choose(
    locations: Sequence[acme_client.ExportLocation],
    *,
    portal: str = "",
    present: str | None = None,
) -> Export:
    """Choose one of a share's export locations.

    :param portal: the configured address, if any.
    :param present: the volume's current location; kept if it is still valid,
        because the mount point derives from it.
    :raises MountError: there is no location, or none at that portal.
    """
    exports = [_export(location) for location in _preferred(locations)]
    if portal:
        exports = [
            export
            for export in exports
            if addresses.same_host(export.address, portal)
        ]
    if not exports:
        at = f" at acme_nfs_portal {portal}" if portal else ""
        raise errors.MountError(f"the appliance exports the share nowhere{at}")
    for export in exports:
        if present and _is_same(export.location, present):
            # In its own spelling: mount points derive from that.
            return dataclasses.replace(export, location=present)
    return exports[0]


def _is_same(one: str, other: str) -> bool:
    """Whether both locations have the same address and path."""
    return _path_of(one) == _path_of(other) and addresses.same_host(
        address_of(one), address_of(other)
    )


def _preferred(
    locations: Sequence[acme_client.ExportLocation],
) -> list[acme_client.ExportLocation]:
    return sorted(locations, key=lambda location: not location.preferred)


def _export(location: acme_client.ExportLocation) -> Export:
    host = location.address
    if ":" in host:
        host = f"[{host}]"
    return Export(
        f"{host}:{location.path}", location.address, location.nfs_versions
    )


def address_of(location: str) -> str:
    """The address in ``ADDRESS:/PATH``, without brackets."""
    return location.partition(":/")[0].strip("[]")


def _path_of(location: str) -> str:
    return location.partition(":/")[2]
