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

"""What a volume type asks of the appliance: its extra specs ``acme:...``.

Cinder takes any key and any value for a type, so a wrong one is noticed here,
when a volume is made or retyped: it is refused, not passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any
from typing import Final

from cinder import context as cinder_context
from cinder import exception
from cinder.volume import volume_types

VENDOR: Final = "acme"
PROVISIONING: Final = f"{VENDOR}:provisioning"
THIN: Final = "thin"
THICK: Final = "thick"
_ALLOWED: Final[Mapping[str, tuple[str, ...]]] = {PROVISIONING: (THIN, THICK)}


@dataclasses.dataclass(frozen=True)
class Specs:
    """What one type asks for; None: what the back end has for all."""

    provisioning: str | None = None


def of_type(type_id: str | None) -> Specs:
    """:raises InvalidVolumeType: a key or a value is wrong."""
    if type_id is None:
        return Specs()
    context: Any = cinder_context.get_admin_context()
    found = volume_types.get_volume_type(context, type_id)
    ours = _ours(found["extra_specs"])
    for key, value in ours.items():
        _check(found["name"], key, value)
    return Specs(provisioning=ours.get(PROVISIONING))


def of_volume(volume: Any) -> Specs:
    """As :func:`of_type`; a copy for an image has no type."""
    known = volume.obj_attr_is_set("volume_type_id")
    return of_type(volume.volume_type_id if known else None)


def _ours(extra_specs: Mapping[str, str]) -> dict[str, str]:
    """Those of this driver, however its name is written."""
    return {
        key: value
        for key, value in extra_specs.items()
        if key.partition(":")[0].strip().lower() == VENDOR
    }


def _check(type_name: str, key: str, value: str) -> None:
    if key not in _ALLOWED:
        raise exception.InvalidVolumeType(
            reason=f"{type_name} has the extra spec {key}, which is none of "
            f"this driver's; allowed: {', '.join(_ALLOWED)}"
        )
    if value not in _ALLOWED[key]:
        raise exception.InvalidVolumeType(
            reason=f"{type_name} has the extra spec {key}={value}; allowed: "
            f"{', '.join(_ALLOWED[key])}"
        )
