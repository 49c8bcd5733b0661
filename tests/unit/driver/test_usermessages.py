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

"""What a user reads in ``cinder message-list`` after a failure."""

import errno
import unittest.mock

from cinder import exception
from cinder.image import image_utils
from cinder.message import api as message_api
from cinder.message import message_field
import ddt
from oslo_concurrency import processutils

from acme_cinder import usermessages
from tests.harness import transports
from tests.unit.driver import base
from tests.unit.driver import cinderdb
from tests.unit.driver import imageflow

Action = message_field.Action
Detail = message_field.Detail

IMAGE = imageflow.Glance(b"", "raw")


class MessagesCase(base.DriverTestCase):
    def told(self, volume):
        """Action and detail of the messages about a volume."""
        return [
            (message["action_id"], message["detail_id"])
            for message in message_api.API().get_all(self.context)
            if message["resource_uuid"] == volume.id
        ]

    def assert_told(self, volume, *expected):
        wanted = [(action[0], detail[0]) for action, detail in expected]
        self.assertEqual(wanted, self.told(volume))


@ddt.ddt
class DownloadTest(MessagesCase):
    def download(self, volume, error):
        with (
            unittest.mock.patch.object(
                image_utils, "fetch_to_raw", side_effect=error
            ),
            self.assertRaises(exception.CinderException),
        ):
            self.driver.copy_image_to_volume(
                self.context, volume, IMAGE, "an-image"
            )

    @ddt.data(
        (
            processutils.ProcessExecutionError(
                stderr="qemu-img: error: No space left on device"
            ),
            Detail.NOT_ENOUGH_SPACE_FOR_IMAGE,
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            Detail.NOT_ENOUGH_SPACE_FOR_IMAGE,
        ),
        (
            exception.ImageUnacceptable(image_id="x", reason="backing file"),
            Detail.IMAGE_FORMAT_UNACCEPTABLE,
        ),
        (
            processutils.ProcessExecutionError(stderr="Input/output error"),
            Detail.DRIVER_FAILED_CREATE,
        ),
    )
    @ddt.unpack
    def test_failure(self, error, detail):
        volume = self.create()
        self.download(volume, error)
        self.assert_told(volume, (Action.COPY_IMAGE_TO_VOLUME, detail))

    def test_once_for_a_request(self):
        volume = self.create()
        for _ in range(3):
            self.download(volume, OSError(errno.ENOSPC, "full"))
        self.assertEqual(1, len(self.told(volume)))

    def test_what_cinder_tells_itself(self):
        volume = self.create()
        self.download(
            volume, exception.ImageTooBig(image_id="x", reason="it is")
        )
        self.assert_told(volume)

    def test_success(self):
        volume = self.create()
        with unittest.mock.patch.object(image_utils, "fetch_to_raw"):
            self.driver.copy_image_to_volume(
                self.context, volume, IMAGE, "an-image"
            )
        self.assert_told(volume)


class AttachTest(MessagesCase):
    def test_a_revoked_token(self):
        volume = self.create()
        self.appliance.tokens.revoke(self.appliance.token_name)
        with self.assertRaises(exception.CinderException):
            self.driver.initialize_connection(volume, base.connector("cmp-1"))
        self.assert_told(
            volume, (Action.ATTACH_VOLUME, Detail.DRIVER_NOT_INITIALIZED)
        )

    def test_a_share_that_is_gone(self):
        volume = self.create()
        self.driver._api.delete_share(volume.name_id)
        with self.assertRaises(exception.CinderException):
            self.driver.initialize_connection(volume, base.connector("cmp-1"))
        self.assert_told(volume, (Action.ATTACH_VOLUME, Detail.ATTACH_ERROR))


class CloneTest(MessagesCase):
    def test_a_full_pool(self):
        source = self.create()
        self.driver = self.new_driver(
            [transports.problem(507, "pool.no_space")],
            matches=lambda request: request.method == "PUT",
        )
        volume = cinderdb.volume(source_volid=source.id)
        with self.assertRaises(exception.CinderException):
            self.driver.create_cloned_volume(volume, source)
        self.assert_told(
            volume,
            (
                Action.CREATE_VOLUME_FROM_BACKEND,
                Detail.NOT_ENOUGH_SPACE_FOR_IMAGE,
            ),
        )

    def test_the_database_is_away(self):
        """The error of the call itself goes through."""
        volume = self.create()
        with (
            unittest.mock.patch.object(
                message_api.API,
                "get_all",
                side_effect=exception.CinderException("database"),
            ),
            self.assertRaises(exception.VolumeBackendAPIException),
            usermessages.on_failure(
                Action.ATTACH_VOLUME, Detail.ATTACH_ERROR, volume
            ),
        ):
            raise exception.VolumeBackendAPIException(data="the real one")
