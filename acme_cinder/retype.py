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

"""Change a volume's type in place, as far as possible.

Cinder's manager asks the driver only if the types differ, if neither is
encrypted, and only for the same back end (volume/manager.py, ``retype``). Most
differences between types do not concern the storage, but the scheduler or the
hypervisor. Cinder changes its own records, such as ``multiattach``, and the
types of snapshots.
"""

from __future__ import annotations

from typing import Any

from cinder import exception
from cinder import objects
from cinder.volume import volume_utils
from oslo_log import log as logging

from acme_cinder import identity
from acme_cinder import shares
from acme_cinder import specs
import acme_client

LOG = logging.getLogger(__name__)


def in_place(
    volume_shares: shares.Shares,
    volume: objects.Volume,
    new_type: objects.VolumeType,
    diff: dict[str, Any],
    host: str,
) -> bool:
    """Change the type without moving data; False: impossible.

    :param diff: of both types, from Cinder's ``volume_types_diff``.
    :param host: the destination that the scheduler chose.
    :raises InvalidVolumeType: the new type is not supported.
    """
    reason = _hindrance(volume_shares, volume, new_type, diff, host)
    if reason is not None:
        LOG.info(
            "%(volume)s cannot get the type %(type)s where it is: %(reason)s",
            {"volume": volume.name, "type": new_type.name, "reason": reason},
        )
        return False
    _limit(volume_shares, volume, new_type)
    LOG.info(
        "%(volume)s, share %(share)s, is now a %(type)s",
        {
            "volume": volume.name,
            "share": identity.share_id(volume),
            "type": new_type.name,
        },
    )
    return True


def _hindrance(
    volume_shares: shares.Shares,
    volume: objects.Volume,
    new_type: objects.VolumeType,
    diff: dict[str, Any],
    host: str,
) -> str | None:
    """Why data must be moved; None: it need not."""
    if _differs(diff.get("encryption")):
        return "the encryption differs"
    pool = shares.pool_of(volume)
    new_pool = volume_utils.extract_host(host, level="pool")
    if new_pool != pool:
        return f"its place is to be pool {new_pool}, and not {pool}"
    wanted = specs.of_type(new_type.id)
    allowed = volume_shares.provisioning
    allowed.check(wanted, pool)
    old, new = (diff.get("extra_specs") or {}).get(
        specs.PROVISIONING, (None, None)
    )
    if allowed.of(old) != allowed.of(new):
        return f"{specs.PROVISIONING} differs"
    return None


def _limit(
    volume_shares: shares.Shares,
    volume: objects.Volume,
    new_type: objects.VolumeType,
) -> None:
    """Restore the old limits if the new ones fail."""
    old = _present_limits(volume)
    new = specs.of_type(new_type.id).qos or acme_client.Qos()
    if old == new:
        return
    try:
        volume_shares.limit(volume, new)
    except acme_client.ApiError as error:
        if error.may_have_been_applied:
            _put_back(volume_shares, volume, old)
        raise


def _present_limits(volume: objects.Volume) -> acme_client.Qos:
    try:
        return specs.of_volume(volume).qos or acme_client.Qos()
    except exception.InvalidVolumeType:
        # From a release that did not check it: without effect.
        return acme_client.Qos()


def _put_back(
    volume_shares: shares.Shares, volume: objects.Volume, old: acme_client.Qos
) -> None:
    try:
        volume_shares.limit(volume, old)
    except acme_client.ApiError:
        LOG.exception(
            "%(volume)s, share %(share)s, may have the QoS limits of a type "
            "that it does not have",
            {"volume": volume.name, "share": identity.share_id(volume)},
        )


def _differs(values: dict[str, tuple[Any, Any]] | None) -> bool:
    return any(old != new for old, new in (values or {}).values())
