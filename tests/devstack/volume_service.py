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

"""Start a real cinder-volume with a cinder.conf, and report the results.

    python volume_service.py CINDER_CONF REPORT BACKEND...

For each back end: cinder.service.Service, started in this process as by
cinder-volume's main(); then a volume through the manager: created, extended,
snapshotted, cloned, and everything deleted. REPORT is a JSON file, keyed by
back end.
"""

from cinder import monkey_patch

monkey_patch.patch()

import importlib  # noqa: E402
import json  # noqa: E402
import shlex  # noqa: E402
import sys  # noqa: E402

from cinder import context  # noqa: E402
from cinder import objects  # noqa: E402
from cinder import service  # noqa: E402
from cinder import utils  # noqa: E402
import os_brick  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_log import log as logging  # noqa: E402
from oslo_privsep import priv_context  # noqa: E402

# Registers the options that no single module has.
importlib.import_module("cinder.common.config")

CONF = cfg.CONF
PROJECT = "5d3b8f0e5e7d4b0b8c7b9c8d6f1a2e30"
USER = "9a1c0d2b7f6e4a5d8c3b2a1908f7e6d5"


def configure(path):
    """Like cinder-volume's main() before it starts its services."""
    objects.register_all()
    CONF.register_opt(cfg.StrOpt("cluster"))
    CONF(["--config-file", path], project="cinder")
    logging.setup(CONF, "cinder")
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    os_brick.setup(CONF)


def start(backend):
    """The running service of a back end."""
    server = service.Service.create(
        host=f"{CONF.host}@{backend}",
        service_name=backend,
        binary="cinder-volume",
        coordination=True,
    )
    server.start()
    if not server.manager.is_working():
        raise SystemExit(f"{backend}: the driver did not start")
    return server


def new_volume(ctxt, host, size_gib, **values):
    """A volume's row, as created by cinder-api and the scheduler."""
    volume = objects.Volume(
        context=ctxt,
        size=size_gib,
        host=host,
        status="creating",
        attach_status="detached",
        availability_zone="nova",
        project_id=PROJECT,
        user_id=USER,
        volume_type_id=default_type(ctxt).id,
        use_quota=False,
        **values,
    )
    volume.create()
    return volume


def default_type(ctxt):
    return objects.VolumeType.get_by_name_or_id(ctxt, "__DEFAULT__")


def exercise(ctxt, server, pool):
    """Run the calls without a mount; return the volumes."""
    manager = server.manager
    host = f"{server.host}#{pool}"
    volume = new_volume(ctxt, host, 1)
    manager.create_volume(ctxt, volume)
    volume.refresh()
    created = {"status": volume.status, "location": volume.provider_location}
    manager.driver.extend_volume(volume, 2)
    volume.size = 2
    volume.save()
    snapshot = objects.Snapshot(
        context=ctxt,
        volume_id=volume.id,
        volume_size=2,
        status="creating",
        project_id=PROJECT,
        user_id=USER,
        volume_type_id=volume.volume_type_id,
        use_quota=False,
    )
    snapshot.create()
    manager.create_snapshot(ctxt, snapshot)
    snapshot.refresh()
    clone = new_volume(ctxt, host, 3, snapshot_id=snapshot.id)
    manager.create_volume(ctxt, clone)
    clone.refresh()
    created |= {"snapshot": snapshot.status, "clone": clone.status}
    for one in (clone, volume):
        if one is volume:
            manager.delete_snapshot(ctxt, snapshot)
        one.status = "deleting"
        one.save()
        manager.delete_volume(ctxt, one)
    created["left"] = [v.id for v in objects.VolumeList.get_all(ctxt)]
    return created


def main(path, report_path, *backends):
    configure(path)
    ctxt = context.get_admin_context()
    report = {}
    for backend in backends:
        server = start(backend)
        stats = server.manager.driver.get_volume_stats(refresh=True)
        report[backend] = {
            "stats": stats,
            "volumes": {
                pool["pool_name"]: exercise(ctxt, server, pool["pool_name"])
                for pool in stats["pools"]
            },
        }
        server.stop()
    with open(report_path, "w") as file:
        json.dump(report, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
