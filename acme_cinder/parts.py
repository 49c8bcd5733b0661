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

"""The parts of the driver."""

from __future__ import annotations

import dataclasses
from typing import Any

from acme_cinder import attachments
from acme_cinder import copies
from acme_cinder import exportcheck
from acme_cinder import groups
from acme_cinder import groupsnapshots
from acme_cinder import images
from acme_cinder import manage
from acme_cinder import manageable
from acme_cinder import managesnapshots
from acme_cinder import mount
from acme_cinder import peers
from acme_cinder import reaper
from acme_cinder import recognition
from acme_cinder import report
from acme_cinder import settings as options
from acme_cinder import shares
from acme_cinder import snapshotexports
from acme_cinder import sweep
import acme_client


@dataclasses.dataclass(frozen=True)
class Parts:
    """One of each for a driver."""

    settings: options.DriverSettings
    shares: shares.Shares
    images: images.Images
    attachments: attachments.Attachments
    snapshot_exports: snapshotexports.SnapshotExports
    export_check: exportcheck.ExportCheck
    reaper: reaper.Reaper
    sweep: sweep.Sweep
    report: report.Report
    managed: manage.Managed
    managed_snapshots: managesnapshots.ManagedSnapshots
    manageable: manageable.Manageable
    groups: groups.Groups
    group_snapshots: groupsnapshots.GroupSnapshots


def assemble(
    settings: options.DriverSettings,
    api: acme_client.Client,
    mounts: mount.Mounts,
    known: recognition.Recognition,
    *,
    driver_data: Any,
    execute: Any,
    blocksize: str,
) -> Parts:
    """Create all parts.

    :param driver_data: Cinder's ``VolumeDriverUtils``.
    :param execute: the driver's, for qemu-img.
    :param blocksize: as ``volume_dd_blocksize``.
    """
    addresses = peers.PeerAddresses(driver_data)
    settings = settings.with_peers(addresses.of)
    volume_shares = shares.Shares(api, settings, mounts, known)
    image_copies = copies.Copies(volume_shares, mounts)
    volume_attachments = attachments.Attachments(
        settings, volume_shares, mounts
    )
    check = exportcheck.ExportCheck(api, volume_attachments, known)
    interval = settings.reap_interval_seconds
    clean_up = reaper.Reaper(api, mounts, interval)
    rules = sweep.Sweep(
        api, volume_attachments.access, volume_shares, image_copies, interval
    )
    return Parts(
        settings=settings,
        shares=volume_shares,
        images=images.Images(
            volume_shares,
            image_copies,
            execute=execute,
            as_root=not settings.secure_operations,
            blocksize=blocksize,
        ),
        attachments=volume_attachments,
        snapshot_exports=snapshotexports.SnapshotExports(
            settings, volume_shares, volume_attachments, mounts
        ),
        export_check=check,
        reaper=clean_up,
        sweep=rules,
        report=report.Report(
            api,
            settings,
            volume_shares.features,
            addresses,
            check,
            (clean_up.run_if_due, rules.run_if_due),
        ),
        managed=manage.Managed(volume_shares, settings),
        managed_snapshots=managesnapshots.ManagedSnapshots(api),
        manageable=manageable.Manageable(api, settings, known.where),
        groups=groups.Groups(volume_shares),
        group_snapshots=groupsnapshots.GroupSnapshots(volume_shares),
    )
