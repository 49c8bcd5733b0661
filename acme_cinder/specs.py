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

"""The extra specs ``acme:...`` and the QoS specs of a volume type.

Cinder accepts any key and value in a type. So the driver rejects invalid ones
when a volume is created or retyped.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import re
from typing import Any
from typing import Final
from typing import NamedTuple

from cinder import context as cinder_context
from cinder import exception
from cinder.volume import volume_types

import acme_client


class _Limit(NamedTuple):
    """The meaning of a QoS spec for the appliance."""

    member: str
    feature: str


VENDOR: Final = "acme"
QOS_FEATURES: Final = ("share.qos_bandwidth", "share.qos_iops")
INSTEAD: Final = (
    "With consumer=front-end the hypervisor keeps to it, on any pool"
)
_FRONT_END: Final = "front-end"
#: Cinder's and Nova's names for the front end.
_LIMITS: Final[Mapping[str, _Limit]] = {
    "read_bytes_sec": _Limit("max_read_bytes_per_second", QOS_FEATURES[0]),
    "write_bytes_sec": _Limit("max_write_bytes_per_second", QOS_FEATURES[0]),
    "total_iops_sec": _Limit("max_iops", QOS_FEATURES[1]),
}
PROVISIONING: Final = f"{VENDOR}:provisioning"
THIN: Final = "thin"
THICK: Final = "thick"
_ALLOWED: Final[Mapping[str, tuple[str, ...]]] = {PROVISIONING: (THIN, THICK)}


@dataclasses.dataclass(frozen=True)
class Specs:
    """The specs of one type; None: the back end's default."""

    provisioning: str | None = None
    qos: acme_client.Qos | None = None


def of_type(type_id: str | None) -> Specs:
    """:raises InvalidVolumeType: a key or a value is invalid."""
    if type_id is None:
        return Specs()
    context: Any = cinder_context.get_admin_context()
    found = volume_types.get_volume_type(context, type_id)
    ours = _ours(found["extra_specs"])
    for key, value in ours.items():
        _check(found["name"], key, value)
    given = volume_types.get_volume_type_qos_specs(type_id)["qos_specs"]
    return Specs(
        provisioning=ours.get(PROVISIONING),
        qos=_qos(found["name"], given) if given else None,
    )


def provisioning_of(volume: Any) -> str | None:
    """What the volume's type asks for, unchecked; None: nothing."""
    known = volume.obj_attr_is_set("volume_type_id")
    if not known or volume.volume_type_id is None:
        return None
    found = volume_types.get_volume_type_extra_specs(volume.volume_type_id)
    value: str | None = found.get(PROVISIONING)
    return value


def _qos(type_name: str, given: Mapping[str, Any]) -> acme_client.Qos | None:
    """Limits for the back end to enforce; None: no limits."""
    if given["consumer"] == _FRONT_END or not given["specs"]:
        return None
    limits = {}
    for key, value in given["specs"].items():
        if key not in _LIMITS:
            raise exception.InvalidVolumeType(
                reason=f"{type_name} has the QoS spec {key}, which this back "
                f"end does not know; allowed: {', '.join(_LIMITS)}. "
                f"{INSTEAD}"
            )
        if not re.fullmatch("[1-9][0-9]{0,17}", str(value)):
            raise exception.InvalidVolumeType(
                reason=f"{type_name} has the QoS spec {key}={value}; allowed: "
                f"a whole number from 1. {INSTEAD}"
            )
        limits[_LIMITS[key].member] = int(value)
    return acme_client.Qos(**limits)


def needed_features(qos: acme_client.Qos) -> Iterator[tuple[str, str]]:
    """The features of a pool that QoS specs require."""
    for key, limit in _LIMITS.items():
        if getattr(qos, limit.member) is not None:
            yield key, limit.feature


def of_volume(volume: Any) -> Specs:
    """Like :func:`of_type`; a copy for an image has no type."""
    known = volume.obj_attr_is_set("volume_type_id")
    return of_type(volume.volume_type_id if known else None)


def _ours(extra_specs: Mapping[str, str]) -> dict[str, str]:
    """The specs of this driver, with any spelling of its name."""
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
