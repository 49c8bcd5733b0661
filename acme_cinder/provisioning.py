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

"""The requirements of volume types on a pool."""

from __future__ import annotations

from typing import Any
from typing import Final

from cinder import exception

from acme_cinder import features
from acme_cinder import specs
import acme_client

#: For volumes whose type differs from the default.
_NEEDED: Final = {
    specs.THIN: features.VOLUME_FILE,
    specs.THICK: features.THICK,
}


class Provisioning:
    """Thin or thick, and limits.

    :param sparse: the default for types without this extra spec.
    """

    def __init__(self, pools: features.PoolFeatures, *, sparse: bool) -> None:
        self._pools = pools
        self._sparse = sparse

    def of(self, wanted: str | None) -> str:
        """``thin`` or ``thick``; the default if the type has none, or an
        invalid value from a release that did not check it."""
        if wanted in (specs.THIN, specs.THICK):
            return wanted
        return specs.THIN if self._sparse else specs.THICK

    def is_full(self, wanted: specs.Specs) -> bool:
        """Whether a volume's file is fully allocated."""
        return self.of(wanted.provisioning) == specs.THICK

    def choice(self) -> dict[str, Any]:
        """The valid values of types, and the default."""
        usual = self.of(None)
        other = specs.THICK if usual == specs.THIN else specs.THIN
        possible = self._pools.is_anywhere(_NEEDED[other])
        return {
            "enum": [usual, other] if possible else [usual],
            "default": usual,
        }

    def check(self, wanted: specs.Specs, pool: str | None) -> None:
        """Refuse what a pool does not support.

        :raises InvalidVolumeType: lists what it supports.
        """
        usual = self.of(None)
        asked = self.of(wanted.provisioning)
        if asked != usual and not self._pools.has(pool, _NEEDED[asked]):
            raise exception.InvalidVolumeType(
                reason=f"{specs.PROVISIONING}={asked} needs a pool with the "
                f"feature {_NEEDED[asked]}, which {pool or 'this one'} does "
                f"not have; allowed there: {usual}"
            )
        if wanted.qos:
            self._check_qos(wanted.qos, pool)

    def _check_qos(self, qos: acme_client.Qos, pool: str | None) -> None:
        for key, feature in specs.needed_features(qos):
            if not self._pools.has(pool, feature):
                raise exception.InvalidVolumeType(
                    reason=f"the QoS spec {key} needs a pool with the "
                    f"feature {feature}, which {pool or 'this one'} does not "
                    f"have. {specs.INSTEAD}"
                )
