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

"""The kernel exporter's plugin: its options."""

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
            help="Directory for the appliance's export files, acme-ID.exports."
            " The appliance does not change other files.",
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
                    "root becomes nobody, other users keep their ids",
                ),
                (
                    exporter.SQUASH_NONE,
                    "users keep their ids, and root can remove or replace the"
                    " volume file",
                ),
            ],
            help="How to map the users of granted hosts. Access is granted to"
            " hosts, not to users, so keep the default if unsure.",
        ),
    )

    def open(
        self, root: str, options: Mapping[str, Any]
    ) -> exporter.KernelExporter:
        return exporter.KernelExporter(root=root, **options)
