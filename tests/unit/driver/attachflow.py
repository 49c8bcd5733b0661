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

"""Attachments as Nova makes them: Cinder's API and its manager, without
their services and the messages between them."""

from __future__ import annotations

from typing import Any
import unittest.mock as unittest_mock
import uuid

from cinder import context as cinder_context
from cinder import objects
from cinder import rpc
from cinder import utils
from cinder.db import api as db
from cinder.volume import api

from tests.unit.driver import cinderdb
from tests.unit.driver import imageflow


class VolumeRpc:
    """What Cinder's API sends to cinder-volume, done at once."""

    def __init__(self, manager: imageflow.Manager) -> None:
        self._manager = manager

    def attachment_update(
        self, context: Any, volume: Any, connector: Any, attachment_id: str
    ) -> Any:
        return self._manager.attachment_update(
            context, volume, connector, attachment_id
        )

    def attachment_delete(
        self, context: Any, attachment_id: str, volume: Any
    ) -> None:
        self._manager.attachment_delete(context, attachment_id, volume)

    def terminate_connection(
        self, context: Any, volume: Any, connector: Any, force: bool
    ) -> None:
        self._manager.terminate_connection(
            context, volume.id, connector, force=force
        )

    def detach_volume(
        self, context: Any, volume: Any, attachment_id: str
    ) -> None:
        self._manager.detach_volume(
            context, volume.id, attachment_id, volume=volume
        )


class Api(api.API):
    """Cinder's, without what asks other services."""

    def __init__(self, manager: imageflow.Manager) -> None:
        self.db = db
        self.volume_rpcapi = VolumeRpc(manager)


class Nova:
    """Nova's calls of Cinder, with its service token.

    :param test: cleans up after it.
    """

    def __init__(self, test: Any, driver: Any) -> None:
        for patch in (
            unittest_mock.patch.object(rpc, "NOTIFIER"),
            unittest_mock.patch.object(
                utils, "notifications_enabled", lambda conf: False
            ),
        ):
            patch.start()
            test.addCleanup(patch.stop)
        self._api = Api(imageflow.Manager(driver, has_cache=False))

    @property
    def _context(self) -> cinder_context.RequestContext:
        made = cinderdb.context()
        made.service_roles = ["service"]
        return made

    def volume(self, volume: objects.Volume) -> objects.Volume:
        return objects.Volume.get_by_id(self._context, volume.id)

    def row(self, attachment_id: str) -> objects.VolumeAttachment:
        return objects.VolumeAttachment.get_by_id(self._context, attachment_id)

    def create(
        self,
        volume: objects.Volume,
        server: str,
        connector: dict[str, Any] | None = None,
        mode: str = "null",
    ) -> str:
        made = self._api.attachment_create(
            self._context,
            self.volume(volume),
            server,
            dict(connector) if connector else None,
            mode,
        )
        return str(made.id)

    def update(
        self, attachment_id: str, connector: dict[str, Any]
    ) -> dict[str, Any]:
        made = self._api.attachment_update(
            self._context, self.row(attachment_id), dict(connector)
        )
        info: dict[str, Any] = made.connection_info
        return info

    def complete(self, attachment_id: str) -> None:
        """As the handler of ``os-complete`` (api/v3/attachments.py)."""
        row = self.row(attachment_id)
        row.update({"attach_status": "attached"})
        row.save()
        volume = objects.Volume.get_by_id(self._context, row.volume_id)
        volume.update({"status": "in-use", "attach_status": "attached"})
        volume.save()

    def attach(
        self,
        volume: objects.Volume,
        server: str,
        connector: dict[str, Any],
        mode: str = "null",
    ) -> str:
        """As for a new disk of a server."""
        attachment_id = self.create(volume, server, mode=mode)
        self.update(attachment_id, connector)
        self.complete(attachment_id)
        return attachment_id

    def delete(self, attachment_id: str) -> None:
        self._api.attachment_delete(self._context, self.row(attachment_id))

    def force_detach(
        self,
        volume: objects.Volume,
        connector: dict[str, Any] | None,
        attachment_id: str,
    ) -> None:
        """As the handler of ``os-force_detach``; the client's command sends
        no connector (api/contrib/admin_actions.py)."""
        found = self.volume(volume)
        self._api.terminate_connection(self._context, found, connector)
        self._api.detach(self._context, found, attachment_id)


def server() -> str:
    return str(uuid.uuid4())
