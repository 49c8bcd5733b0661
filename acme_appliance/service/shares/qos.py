# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.
"""Limits of a share's throughput, where its pool has them (QoS)."""

from collections.abc import Collection
from typing import Final

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.engines import base as engines

#: The members and the feature that a pool needs for each.
_FEATURES: Final = {
    "max_read_bytes_per_second": types.FEATURE_QOS_BANDWIDTH,
    "max_write_bytes_per_second": types.FEATURE_QOS_BANDWIDTH,
    "max_iops": types.FEATURE_QOS_IOPS,
}


def merged(
    old: types.Body | None, patch: types.Body | None
) -> types.Body | None:
    """The limits after a merge patch (RFC 7396), as the row has them: all
    members, or None if there is no limit."""
    limits = {**dict.fromkeys(_FEATURES), **(old or {}), **(patch or {})}
    if patch is None or not any(limits.values()):
        return None
    return limits


def check(
    qos: types.Body | None, pool: str, features: Collection[str]
) -> None:
    """Check that a pool can keep to these limits.

    :raises problems.Problem: ``request.unknown_field``, with the member.
    """
    for member, limit in (qos or {}).items():
        if limit is not None and _FEATURES[member] not in features:
            raise problems.Problem(
                "request.unknown_field",
                f"The pool {pool} does not have the feature"
                f" {_FEATURES[member]}.",
                pointer=f"/qos/{member}",
            )


def needed(qos: types.Body | None) -> set[str]:
    """The features that a pool needs to keep to these limits."""
    return {
        _FEATURES[member]
        for member, limit in (qos or {}).items()
        if limit is not None
    }


def for_engine(qos: types.Body | None) -> engines.Qos:
    return engines.Qos(**(qos or {}))
