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

"""The options of the exporter that uses the kernel's NFS server."""

from collections.abc import Mapping
from typing import Any

from oslo_config import cfg

from acme_appliance.exporters import plugin
from acme_appliance.exporters.kernel import exporter


class KernelPlugin(plugin.Plugin):
    help = "the kernel's NFS server, through exportfs"
    options = (
        cfg.StrOpt(
            "exports_dir",
            default="/etc/exports.d",
            help="Directory for the export table's files, acme-ID.exports."
            " The appliance leaves other files there alone.",
        ),
        cfg.StrOpt(
            "squash",
            default=exporter.SQUASH_ALL,
            choices=[
                (
                    exporter.SQUASH_ALL,
                    "every user of a granted host acts as the file's owner",
                ),
                (
                    exporter.SQUASH_ROOT,
                    "root becomes nobody, others stay who they are",
                ),
                (
                    exporter.SQUASH_NONE,
                    "users stay who they are, and root can remove or replace"
                    " the volume file",
                ),
            ],
            help="What a granted host's users may do. Hosts are granted"
            " access, not users, so all is the one without surprises.",
        ),
    )

    def open(
        self, root: str, options: Mapping[str, Any]
    ) -> exporter.KernelExporter:
        return exporter.KernelExporter(root=root, **options)
