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

"""Move volumes between the pools of one appliance.

Cinder asks the driver of a volume without attachments first, and copies the
data itself if that cannot do it (volume/manager.py, ``migrate_volume``). It
passes the capabilities of the destination. Their ``location_info`` names the
appliance, so only a pool of this appliance is accepted, and only of this back
end: another one may have a credential that does not see the share.
"""

from __future__ import annotations

from typing import Any
from typing import Final

from cinder import exception
from cinder import objects
from cinder.volume import volume_utils
from oslo_log import log as logging

from acme_cinder import exports
from acme_cinder import features
from acme_cinder import identity
from acme_cinder import settings as options
from acme_cinder import shares
import acme_client

LOG = logging.getLogger(__name__)

#: How often a move may be as far as it was a deadline of the client ago.
_PATIENCE: Final = 2
#: At most so many deadlines, however it goes on.
_MOST: Final = 2_000


def location_info(system_id: str) -> str:
    """The capability that names the appliance."""
    return f"acmeNfsDriver:{system_id}"


def move(
    volume_shares: shares.Shares,
    settings: options.DriverSettings,
    volume: objects.Volume,
    host: dict[str, Any],
) -> dict[str, Any] | None:
    """Move a volume to another pool.

    :param host: the destination: ``host`` and its ``capabilities``.
    :returns: the model update; None: Cinder must copy it, and nothing was
        changed.
    :raises VolumeMigrationFailed: it failed, was cancelled by an operator, or
        stood still and was cancelled.
    """
    reason = _hindrance(volume_shares, volume, host)
    if reason is None:
        pool = volume_utils.extract_host(host["host"], level="pool")
        try:
            share = volume_shares.when_unused(
                volume, lambda: _moved(volume_shares.api, volume, pool)
            )
        except acme_client.Unsupported as error:
            # Reconfigured since the last check, or of an earlier release.
            volume_shares.features.distrust()
            reason = str(error)
        else:
            export = exports.choose(
                share.export_locations, portal=settings.portal
            )
            return {"provider_location": export.location}
    LOG.info(
        "%(volume)s cannot be moved to %(host)s on the appliance: %(reason)s",
        {"volume": volume.name, "host": host["host"], "reason": reason},
    )
    return None


def _hindrance(
    volume_shares: shares.Shares,
    volume: objects.Volume,
    host: dict[str, Any],
) -> str | None:
    """Why the appliance cannot move it; None: it can."""
    backends = [
        volume_utils.extract_host(each, level="backend")
        for each in (volume.host, host["host"])
    ]
    clusters = [volume.cluster_name, host.get("cluster_name")]
    if backends[0] != backends[1] and not _is_same_cluster(*clusters):
        return "it is another back end"
    capabilities = host.get("capabilities") or {}
    told = capabilities.get("location_info")
    own = location_info(volume_shares.features.system_id())
    if told != own:
        return f"it is at {told}, and this appliance is {own}"
    for each in (shares.pool_of(volume), _pool_of(host)):
        if each is None:
            return "no pool is named"
        if not volume_shares.features.has(each, features.MOVE_POOL):
            return f"pool {each} does not have {features.MOVE_POOL}"
    return None


def _pool_of(host: dict[str, Any]) -> str | None:
    return volume_utils.extract_host(host["host"], level="pool") or None


def _is_same_cluster(one: str | None, other: str | None) -> bool:
    """Names of clusters have a back end and may have a pool, too."""
    if not one or not other:
        return False
    names = [
        volume_utils.extract_host(each, level="backend")
        for each in (one, other)
    ]
    return bool(names[0] == names[1])


def _moved(
    api: acme_client.Client, volume: objects.Volume, pool: str
) -> acme_client.Share:
    """Move the share, and wait as long as it makes progress."""
    share_id = identity.share_id(volume)
    before: object = None
    patience = _PATIENCE
    for _ in range(_MOST):
        try:
            return api.move_share(share_id, pool)
        except acme_client.JobUnfinished as error:
            job = api.get_job(error.job_id)
        _check_not_failed(volume, pool, job)
        now = (job.state, job.progress)
        # One that is queued waits for others, which have their own limits.
        if now == before and job.state != "queued":
            patience -= 1
        else:
            patience = _PATIENCE
        before = now
        if patience <= 0:
            break
        LOG.info(
            "Moving %(volume)s, share %(share)s, to pool %(pool)s: %(job)s",
            {
                "volume": volume.name,
                "share": share_id,
                "pool": pool,
                "job": job,
            },
        )
    return _given_up(api, volume, pool, job)


def _check_not_failed(
    volume: objects.Volume, pool: str, job: acme_client.Job
) -> None:
    """It may have ended just now: the same request would begin another one,
    for example after an operator has cancelled this one.

    :raises VolumeMigrationFailed: it has failed, or was cancelled.
    """
    if job.finished and job.state != "succeeded":
        why = (job.problem or {}).get("detail", "no reason is given")
        raise exception.VolumeMigrationFailed(
            reason=f"the move of {volume.name} to pool {pool}, job {job.id} of"
            f" the appliance, is {job.state}: {why}"
        )


def _given_up(
    api: acme_client.Client,
    volume: objects.Volume,
    pool: str,
    job: acme_client.Job,
) -> acme_client.Share:
    """Cancel a move that stands still; it may have ended just now."""
    try:
        api.cancel_job(job.id)
    except acme_client.Conflict:
        LOG.debug("Job %s can no longer be cancelled", job.id)
        return api.move_share(identity.share_id(volume), pool)
    raise exception.VolumeMigrationFailed(
        reason=f"the move of {volume.name} to pool {pool}, job {job.id} of the"
        " appliance, made no progress and was cancelled; the volume stays"
        " where it is"
    )
