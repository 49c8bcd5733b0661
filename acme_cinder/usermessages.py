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

"""Messages for users in ``cinder message-list`` after failures.

Cinder has a fixed list of texts (cinder/message/message_field.py), because
users must not see internals. This selects the best one, for calls where
Cinder's manager writes no message or always the same.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import errno
from typing import Any
from typing import Final

from cinder import exception
from cinder import objects
from cinder.message import api as message_api
from cinder.message import message_field
from oslo_concurrency import processutils
from oslo_log import log as logging

import acme_client

LOG = logging.getLogger(__name__)

Action: Final[Any] = message_field.Action
Detail: Final[Any] = message_field.Detail
Field = tuple[str, str]

COPY_IMAGE: Final = (
    Action.COPY_IMAGE_TO_VOLUME,
    Detail.DRIVER_FAILED_CREATE,
)
ATTACH: Final = (Action.ATTACH_VOLUME, Detail.ATTACH_ERROR)
CLONE: Final = (
    Action.CREATE_VOLUME_FROM_BACKEND,
    Detail.DRIVER_FAILED_CREATE,
)
#: Cinder's choice if a volume cannot be retyped or migrated.
MIGRATE: Final = (
    Action.SCHEDULE_ALLOCATE_VOLUME,
    Detail.NO_BACKEND_AVAILABLE,
)

#: Cinder's manager writes messages for these (flows/manager/
#: create_volume.py, ``_create_from_image_cache_or_download``).
_TOLD_BY_CINDER: Final = (
    exception.ImageTooBig,
    exception.ImageSignatureVerificationException,
    exception.ImageConversionNotAllowed,
)
_NO_ACCESS_TO_APPLIANCE: Final = (
    acme_client.AuthenticationFailed,
    acme_client.Forbidden,
    acme_client.ProtocolError,
    acme_client.TransportError,
    acme_client.Unavailable,
)
#: qemu-img reports errors only as text of the C library.
_FULL: Final = ("No space left on device", "Disk quota exceeded")


@contextlib.contextmanager
def on_failure(
    action: Field,
    detail: Field,
    volume: objects.Volume,
    context: Any = None,
) -> Iterator[None]:
    """Write a message if the block fails.

    :param action: of ``message_field.Action``.
    :param detail: of ``message_field.Detail``, if the error has no better
        one.
    :param context: of the request; default: the volume's.
    """
    try:
        yield
    except exception.CinderException as error:
        if not isinstance(error, _TOLD_BY_CINDER):
            _tell(
                context or volume.obj_context,
                action,
                _detail_of(error) or detail,
                volume,
            )
        raise


def _tell(
    context: Any,
    action: Field,
    detail: Field,
    volume: objects.Volume,
) -> None:
    """Once per request, even if the scheduler retries."""
    message = {
        "request_id": context.request_id,
        "resource_uuid": volume.id,
        "action_id": action[0],
        "detail_id": detail[0],
    }
    messages = message_api.API()
    try:
        known = messages.get_all(context, filters=message)
    except Exception:  # As in API.create: the call's own error is to be seen.
        LOG.exception("Could not look for messages about %s", volume.name)
        return
    if not known:
        messages.create(
            context, action, resource_uuid=volume.id, detail=detail
        )


def _detail_of(error: BaseException) -> Field | None:
    """The most specific detail; None: nothing better than "failed"."""
    found: Field | None = None
    for cause in _causes(error):
        if _is_full(cause):
            found = Detail.NOT_ENOUGH_SPACE_FOR_IMAGE
        elif isinstance(cause, _NO_ACCESS_TO_APPLIANCE):
            found = Detail.DRIVER_NOT_INITIALIZED
        elif isinstance(cause, exception.ImageUnacceptable):
            found = Detail.IMAGE_FORMAT_UNACCEPTABLE
    return found


def _is_full(error: BaseException) -> bool:
    if isinstance(error, acme_client.NoSpace):
        return True
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, processutils.ProcessExecutionError) and any(
        words in str(error.stderr) for words in _FULL
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__
