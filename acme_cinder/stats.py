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

"""Statistics for Cinder's scheduler.

The scheduler reads capability flags only in pools, so each pool has all of
them. Only the appliance's announced features are reported.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import copy
from typing import Any

from cinder.common import constants
from oslo_utils import units

from acme_cinder import features
from acme_cinder import scheduling
from acme_cinder import specs
import acme_client

_UP = "up"
_DOWN = "down"
#: The capacity of pools that are down. Cinder's CapacityFilter ignores
#: backend_state and, for thin volumes, the free space: only pools without
#: capacity get no new volumes (scheduler/filters/capacity_filter.py).
_NO_ROOM = {"total_capacity_gb": 0, "free_capacity_gb": 0}


def backend(
    common: Mapping[str, Any],
    pools: Iterable[Mapping[str, Any]],
    *,
    sparse: bool,
) -> dict[str, Any]:
    """The complete report.

    :param common: ``volume_backend_name``, ``vendor_name`` and so on.
    """
    reported = [dict(pool) for pool in pools]
    up = any(pool["backend_state"] == _UP for pool in reported)
    return {
        **common,
        "storage_protocol": constants.NFS,
        "backend_state": _UP if up else _DOWN,
        "replication_enabled": False,
        # Cinder itself reads these two here, not in the pools: when it copies
        # to a volume (volume/manager.py, _copy_volume_data) and clones an
        # image's volume (flows/manager/create_volume.py).
        "sparse_copy_volume": sparse,
        "clone_across_pools": False,
        "pools": reported,
    }


def pool(
    found: acme_client.Pool, *, sparse: bool, common: Mapping[str, Any]
) -> dict[str, Any]:
    """The report of one pool.

    :param common: values from the configuration for all pools.
    """
    up = found.state == "up"
    return _with_functions(
        {
            **common,
            "pool_name": found.name,
            "storage_protocol": constants.NFS,
            "backend_state": _UP if up else _DOWN,
            **(_room(found) if up else _NO_ROOM),
            "provisioned_capacity_gb": _gib(found.provisioned_bytes),
            "total_volumes": found.share_count,
            "thin_provisioning_support": sparse,
            "thick_provisioning_support": not sparse
            or features.THICK in found.features,
            # Without that feature the driver grows the file through a mount.
            "online_extend_support": features.GROW_ONLINE in found.features
            or features.VOLUME_FILE not in found.features,
            "multiattach": True,
            "sparse_copy_volume": sparse,
            "clone_across_pools": False,
            "consistent_group_snapshot_enabled": features.CONSISTENT_GROUPS
            <= found.features,
            "QoS_support": not found.features.isdisjoint(specs.QOS_FEATURES),
            "replication_enabled": False,
        },
        common,
    )


def _room(found: acme_client.Pool) -> dict[str, float]:
    return {
        "total_capacity_gb": _gib(found.total_bytes),
        "free_capacity_gb": _gib(found.free_bytes),
    }


def _with_functions(
    report: dict[str, Any], common: Mapping[str, Any]
) -> dict[str, Any]:
    """The configured functions, or the default ones."""
    report["filter_function"] = common[
        "filter_function"
    ] or scheduling.filter_function(report)
    report["goodness_function"] = common[
        "goodness_function"
    ] or scheduling.goodness_function(report)
    return report


def down(
    last: Mapping[str, Any],
    common: Mapping[str, Any],
    pool_names: Iterable[str],
    pool_common: Mapping[str, Any],
    *,
    sparse: bool,
) -> dict[str, Any]:
    """The report while the appliance does not answer.

    The last known pools without free space, so that new volumes go
    elsewhere.
    """
    pools = copy.deepcopy(last.get("pools") or [])
    if not pools:
        pools = [
            {
                **pool_common,
                "pool_name": name,
                "storage_protocol": constants.NFS,
                "provisioned_capacity_gb": 0,
            }
            for name in pool_names
        ]
    for report in pools:
        report.update(backend_state=_DOWN, **_NO_ROOM)
        _with_functions(report, pool_common)
    return backend(common, pools, sparse=sparse)


def _gib(size_bytes: int) -> float:
    return round(size_bytes / units.Gi, 2)
