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

"""Loads the driver as Cinder does and creates a volume: prints where it is.

Arguments: address of the appliance, token, CA file (or ""), scratch folder.
Runs in an environment that has Cinder and the wheel, not this tree.
"""

from pathlib import Path
import sys
import uuid

from cinder import context
from cinder import objects
from cinder.common import config  # noqa: F401 (registers options)
from cinder.volume import configuration
from cinder.volume import manager  # noqa: F401 (registers options)
from oslo_config import cfg
from oslo_utils import importutils

CONFIGURATION = """\
[acme-1]
volume_driver = acme_cinder.driver.acmeNfsDriver
volume_backend_name = acme-1
acme_api_addresses = {address}
acme_api_token = {token}
acme_api_ca_file = {ca_file}
nfs_mount_point_base = {folder}/mnt
"""


def load_driver(folder: Path) -> object:
    options = configuration.Configuration(
        manager.volume_backend_opts, config_group="acme-1"
    )
    driver = importutils.import_object(
        options.volume_driver, configuration=options, host="host@acme-1"
    )
    driver.do_setup(context.get_admin_context())
    driver.check_for_setup_error()
    return driver


def main(address: str, token: str, ca_file: str, folder: str) -> None:
    file = Path(folder, "cinder.conf")
    file.write_text(
        CONFIGURATION.format(
            address=address, token=token, ca_file=ca_file, folder=folder
        )
    )
    cfg.CONF(["--config-file", str(file)], project="cinder")
    cfg.CONF.set_override("state_path", folder)
    cfg.CONF.set_override("lock_path", folder, "oslo_concurrency")
    objects.register_all()
    driver = load_driver(Path(folder))
    (pool,) = driver.get_volume_stats(refresh=True)["pools"]
    volume = objects.Volume(
        context.get_admin_context(),
        id=str(uuid.uuid4()),
        size=1,
        host=f"host@acme-1#{pool['pool_name']}",
    )
    update = driver.create_volume(volume)
    print(update["provider_location"])


if __name__ == "__main__":
    main(*sys.argv[1:])
