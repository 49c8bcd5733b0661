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

"""Transfer of volumes to another project."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import Any

from cinder import objects
from cinder.db import api as db
from oslo_log import log as logging

from acme_cinder import errors
from acme_cinder import identity
from acme_cinder import labels
import acme_client

LOG = logging.getLogger(__name__)

#: Maximum fraction of the call for the changes, to leave time to undo them.
_SHARE_OF_CHANGES = 0.7


def accept(
    api: acme_client.Client, context: Any, volume: Any, project_id: str
) -> None:
    """Label a volume's share, and transferred snapshots, with the new project.

    Cinder changes its records after this call, and only if it succeeds: if it
    fails, all labels are restored.

    :param volume: a database row, which Cinder passes.
    """
    with contextlib.ExitStack() as undo:
        with acme_client.limited_to_share(_SHARE_OF_CHANGES):
            _relabel_all(undo, api, context.elevated(), volume, project_id)
        undo.pop_all()


def _relabel_all(
    undo: contextlib.ExitStack,
    api: acme_client.Client,
    context: Any,
    volume: Any,
    project_id: str,
) -> None:
    undo.callback(_relabel_share, api, volume, volume.project_id)
    api.update_share(
        identity.share_id(volume), labels=labels.of_project(project_id)
    )
    for snapshot in _transferred_snapshots(context, volume.id):
        undo.callback(_relabel_snapshot, api, snapshot, snapshot.project_id)
        api.update_snapshot(
            identity.snapshot_id(snapshot),
            labels=labels.of_project(project_id),
        )


def _transferred_snapshots(
    context: Any, volume_id: str
) -> list[objects.Snapshot]:
    """Only the transfer's record shows whether they are included."""
    records = db.transfer_get_all(context, filters={"volume_id": volume_id})
    if any(record["no_snapshots"] for record in records):
        return []
    return list(objects.SnapshotList.get_all_for_volume(context, volume_id))


def _relabel_share(
    api: acme_client.Client, volume: Any, project_id: str | None
) -> None:
    with _told(volume.name):
        api.update_share(
            identity.share_id(volume), labels=labels.of_project(project_id)
        )


def _relabel_snapshot(
    api: acme_client.Client, snapshot: Any, project_id: str | None
) -> None:
    with _told(snapshot.name):
        api.update_snapshot(
            identity.snapshot_id(snapshot),
            labels=labels.of_project(project_id),
        )


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Log this error; the call's own error is raised."""
    try:
        yield
    except errors.BELOW:
        LOG.exception("%s keeps a label of the wrong project", name)
