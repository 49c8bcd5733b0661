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

"""Attach a new volume to this host, and leave it attached.

    python attach_volume.py CINDER_CONF REPORT BACKEND

Like volume_service.py. Mounts the driver's export and writes a pattern. REPORT
has the mount point.
"""

# First: it patches, where Cinder does.
import volume_service  # isort: skip

import json
import os
import socket
import subprocess
import sys

from cinder import context
from oslo_config import cfg

PATTERN = b"acme" * 1024


def main(conf_path, report_path, backend):
    volume_service.configure(conf_path)
    ctxt = context.get_admin_context()
    server = volume_service.start(backend)
    driver = server.manager.driver
    (pool,) = driver.get_volume_stats(refresh=True)["pools"]
    volume = volume_service.new_volume(
        ctxt, f"{server.host}#{pool['pool_name']}", 1
    )
    server.manager.create_volume(ctxt, volume)
    volume.refresh()
    connection = driver.initialize_connection(
        volume, {"host": socket.gethostname(), "ip": cfg.CONF.my_ip}
    )
    data = connection["data"]
    path = driver.local_path(volume)
    os.makedirs(os.path.dirname(path))
    # Not by os-brick: its root helper is one of the things stood in for.
    subprocess.run(
        ["mount", "-t", "nfs", *data["options"].split(), data["export"]]
        + [os.path.dirname(path)],
        check=True,
    )
    with open(path, "r+b") as file:
        file.write(PATTERN)
    with open(report_path, "w") as file:
        json.dump(
            {
                "id": volume.id,
                "name": volume.name,
                "path": path,
                "location": volume.provider_location,
            },
            file,
        )
    server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
