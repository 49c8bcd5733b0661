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

"""Cinder's own copies, which a change of the encryption would make it do
with an encryptor that destroys files."""

import os
import subprocess
import uuid

from cinder import exception
from cinder.db import api as db
from cinder.volume import volume_types
import ddt
from os_brick.encryptors import luks

from tests.unit.driver import base
from tests.unit.driver import cinderdb


def volume_type(key_size: int | None) -> str:
    """The id of a new volume type; None: one without encryption."""
    context = cinderdb.context()
    made = volume_types.create(context, f"type-{uuid.uuid4()}")
    if key_size is not None:
        db.volume_type_encryption_create(
            context,
            made["id"],
            {
                "provider": "luks",
                "cipher": "aes-xts-plain64",
                "key_size": key_size,
                "control_location": "front-end",
            },
        )
    type_id: str = made["id"]
    return type_id


@ddt.ddt
class EncryptionChangeTest(base.DriverTestCase):
    def volumes(self, source_key, target_key):
        source = self.create(volume_type_id=volume_type(source_key))
        target = self.create(
            volume_type_id=volume_type(target_key),
            migration_status=f"target:{source.id}",
        )
        return source, target

    @ddt.data((256, 512), (256, None), (None, 256))
    @ddt.unpack
    def test_as_the_source(self, source_key, target_key):
        source, target = self.volumes(source_key, target_key)
        with self.assertRaisesRegex(
            exception.VolumeMigrationFailed, "attach both to a server"
        ):
            self.driver.before_volume_copy(
                self.context, source, target, remote="dest"
            )

    @ddt.data((256, 512), (256, None), (None, 256))
    @ddt.unpack
    def test_as_the_target(self, source_key, target_key):
        """The source's driver is another one, and lets Cinder begin."""
        _, target = self.volumes(source_key, target_key)
        with self.assertRaises(exception.VolumeMigrationFailed):
            self.driver.initialize_connection(target, base.own_connector())
        self.assertEqual({}, self.exported(target))

    @ddt.data(None, 256)
    def test_without_a_change(self, key):
        """No encryptor: what is encrypted is copied as it is."""
        source, target = self.volumes(key, key)
        self.driver.before_volume_copy(
            self.context, source, target, remote="dest"
        )
        self.driver.initialize_connection(target, base.own_connector())
        self.assertNotEqual({}, self.exported(target))

    def test_what_would_happen(self):
        """Should this fail one day, the refusal can go."""
        path = f"{self.directory}/volume"
        with open(path, "w") as file:
            file.write("data")

        def execute(*command, **kwargs):
            if command[0] == "ln":
                subprocess.run(command, check=True)
            return "", ""

        encryptor = luks.LuksEncryptor(
            root_helper="",
            connection_info={
                "driver_volume_type": "nfs",
                "data": {"device_path": path},
            },
            keymgr=None,
            execute=execute,
        )
        encryptor._get_encryption_key_as_passphrase = lambda context: "key"
        encryptor.attach_volume(None)
        self.assertTrue(os.path.islink(path))
