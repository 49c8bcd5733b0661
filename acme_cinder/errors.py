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

"""Convert errors of the client, the operating system and os-brick to Cinder's.

Cinder depends on the class: VolumeIsBusy makes a volume available again,
SnapshotLimitReached makes the image cache evict volumes, NotFound classes stop
a reschedule, and some callers catch only CinderException. So every public
method of the driver that can fail uses :func:`operation`.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import subprocess
import time
from typing import Any

from cinder import exception
from os_brick import exception as brick_exception
from oslo_concurrency import processutils
from oslo_log import log as logging

from acme_cinder import identity
import acme_client

LOG = logging.getLogger(__name__)


class MountError(Exception):
    """A share could not be mounted, unmounted or used through a mount."""


class FileError(Exception):
    """The volume file is invalid."""


#: All errors of lower layers; a CinderException is not converted.
BELOW = (
    acme_client.ApiError,
    MountError,
    FileError,
    OSError,
    processutils.ProcessExecutionError,
    processutils.InvalidArgumentError,
    subprocess.SubprocessError,
    brick_exception.BrickException,
)

_BUSY = (acme_client.Busy, acme_client.HasSnapshots, acme_client.InUse)


@contextlib.contextmanager
def operation(
    action: str,
    *,
    volume: Any = None,
    snapshot: Any = None,
    source: Any = None,
) -> Iterator[None]:
    """Log a change with its duration; convert errors to Cinder's.

    :param action: what was done, for the log: ``Created``.
    :param source: the source of the new volume; if something does not exist,
        the error names the source.
    :raises CinderException: see :func:`translate`.
    """
    started = time.monotonic()
    with translated(volume=volume, snapshot=snapshot, source=source):
        yield
    LOG.info(
        "%(action)s %(what)s, share %(share)s, in %(seconds).3f s",
        {
            "action": action,
            "what": _name(snapshot if snapshot is not None else volume),
            "share": _share_id(volume, snapshot),
            "seconds": time.monotonic() - started,
        },
    )


@contextlib.contextmanager
def translated(
    *, volume: Any = None, snapshot: Any = None, source: Any = None
) -> Iterator[None]:
    """Like :func:`operation`, without a log message."""
    try:
        yield
    except BELOW as error:
        raise translate(
            error, volume=volume, snapshot=snapshot, source=source
        ) from error


@contextlib.contextmanager
def group_operation(
    action: str, group: Any, volumes: Iterable[Any]
) -> Iterator[None]:
    """Like :func:`operation`, for a group or a group snapshot.

    :param volumes: all that it concerns, for the error.
    :raises VolumeBackendAPIException: any error.
    """
    started = time.monotonic()
    what = f"{type(group).__name__} {group.id}"
    volumes = list(volumes)
    try:
        yield
    except BELOW as error:
        raise exception.VolumeBackendAPIException(
            data=f"{what}: {_text(error)}{_owners(volumes, _text(error))}"
        ) from error
    LOG.info(
        "%(action)s %(what)s, %(count)s volumes, in %(seconds).3f s",
        {
            "action": action,
            "what": what,
            "count": len(volumes),
            "seconds": time.monotonic() - started,
        },
    )


def _owners(volumes: Iterable[Any], text: str) -> str:
    """Says whose the shares in a text are."""
    owners = {identity.share_id(each): each.name for each in volumes}
    named = [
        f"{share_id} is the share of {name}"
        for share_id, name in owners.items()
        if share_id in text
    ]
    return f" ({'; '.join(named)})" if named else ""


def translate(
    error: BaseException,
    *,
    volume: Any = None,
    snapshot: Any = None,
    source: Any = None,
) -> exception.CinderException:
    """The Cinder exception for an error.

    Absent objects become VolumeNotFound and SnapshotNotFound, busy ones
    VolumeIsBusy and SnapshotIsBusy, too many snapshots SnapshotLimitReached,
    all others VolumeBackendAPIException.
    """
    if isinstance(error, acme_client.NotFound):
        return _not_found(error, source or snapshot or volume)
    if isinstance(error, _BUSY):
        return _busy(error, volume, snapshot)
    if _code(error) == "limit.snapshots":
        return exception.SnapshotLimitReached(message=str(error))
    if isinstance(error, acme_client.ShrinkRefused):
        return exception.InvalidVolume(reason=str(error))
    return exception.VolumeBackendAPIException(
        data=f"{_name(snapshot if snapshot is not None else volume)}: "
        f"{_text(error)}"
    )


def _not_found(
    error: acme_client.NotFound, thing: Any
) -> exception.CinderException:
    if error.code == "snapshot.not_found" and thing is not None:
        return exception.SnapshotNotFound(snapshot_id=thing.id)
    if error.code == "share.not_found" and thing is not None:
        return exception.VolumeNotFound(
            volume_id=getattr(thing, "volume_id", None) or thing.id
        )
    return exception.VolumeBackendAPIException(data=str(error))


def _busy(
    error: acme_client.ProblemError, volume: Any, snapshot: Any
) -> exception.CinderException:
    # For the object of the call, not the busy one: Cinder makes the snapshot
    # available again, even if its share was busy. With a different message,
    # because the default one always blames snapshots.
    if snapshot is not None:
        return exception.SnapshotIsBusy(
            message=f"{_name(snapshot)} is busy: {error}",
            snapshot_name=_name(snapshot),
        )
    return exception.VolumeIsBusy(
        message=f"{_name(volume)} is busy: {error}",
        volume_name=_name(volume),
    )


def _code(error: BaseException) -> str | None:
    return error.code if isinstance(error, acme_client.ProblemError) else None


def _text(error: BaseException) -> str:
    if isinstance(error, processutils.ProcessExecutionError):
        return (error.stderr or error.description or str(error)).strip()
    return str(error) or type(error).__name__


def _name(thing: Any) -> str:
    return "the back end" if thing is None else str(thing.name)


def _share_id(volume: Any, snapshot: Any) -> str:
    if volume is not None:
        return str(identity.share_id(volume))
    return "-" if snapshot is None else str(identity.share_id(snapshot.volume))
