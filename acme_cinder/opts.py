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

"""The driver's own options, and the options of Cinder that it uses.

The latter are Cinder's own definitions, so they have the same meaning and
help text as for its NFS driver.
"""

from collections.abc import Sequence
from typing import Final

from cinder.volume import configuration
from cinder.volume import driver
from cinder.volume.drivers import nfs
from cinder.volume.drivers import remotefs
from cinder.volume.drivers.san import san
from oslo_config import cfg

ACME_OPTS: Final = [
    cfg.ListOpt(
        "acme_api_addresses",
        default=[],
        sample_default="https://192.0.2.10:8443",
        help="Management addresses of the appliance, as https://HOST:PORT. "
        "If one does not answer, the driver tries the next one.",
    ),
    cfg.StrOpt(
        "acme_api_token",
        default="",
        secret=True,
        help="Bearer token for the appliance's REST API. If it is not set, "
        "the driver logs in with nas_user and nas_password.",
    ),
    cfg.StrOpt(
        "nas_user",
        default="",
        help="User name for the appliance's REST API. Used with nas_password "
        "if acme_api_token is not set.",
    ),
    cfg.StrOpt(
        "acme_api_ca_file",
        default="",
        sample_default="/etc/cinder/acme-ca.crt",
        help="File or directory with the certificate authorities that "
        "verify the appliance's certificate. Default: driver_ssl_cert_path, "
        "or else those that the system trusts (OpenSSL's own, /etc/ssl or "
        "/etc/pki).",
    ),
    cfg.BoolOpt(
        "acme_api_verify",
        default=True,
        help="Verify the appliance's certificate. Without verification, "
        "anyone between Cinder and the appliance can read the credential. If "
        "this option is not set, driver_ssl_cert_verify applies if set.",
    ),
    cfg.IntOpt(
        "acme_api_connect_timeout_seconds",
        default=5,
        min=1,
        max=300,
        help="Time limit for connecting to one address of the appliance.",
    ),
    cfg.IntOpt(
        "acme_api_read_timeout_seconds",
        default=60,
        min=1,
        max=3600,
        help="Time limit for the appliance's answer to one request.",
    ),
    cfg.IntOpt(
        "acme_api_deadline_seconds",
        default=300,
        min=1,
        max=86400,
        help="Time limit for one API call, including all retries, failovers "
        "and waits.",
    ),
    cfg.ListOpt(
        "acme_pools",
        default=[],
        sample_default="gold,silver",
        help="Pools of the appliance to use. Default: all.",
    ),
    cfg.StrOpt(
        "acme_nfs_portal",
        default="",
        sample_default="198.51.100.10",
        help="NFS address of the appliance to mount from, if it has several. "
        "Default: the one that the appliance prefers.",
    ),
    cfg.ListOpt(
        "acme_client_networks",
        default=[],
        sample_default="192.0.2.0/24=198.51.100.0/24,cmp-7=203.0.113.7",
        help="Storage addresses of hosts that reach the appliance from "
        "another address than the one Cinder knows. NETWORK=NETWORK, both of "
        "the same size, keeps the host part of the address. HOST=ADDRESS is "
        "for one host, by name or address; HOST=ADDRESS|ADDRESS gives it "
        "several. The first match applies; names take precedence over "
        "networks. Hosts that have run a service of this back end need no "
        "entry: each records its own address for the others.",
    ),
    cfg.ListOpt(
        "acme_fixed_clients",
        default=[],
        sample_default="198.51.100.250",
        help="Addresses or networks that may mount a volume's share "
        "whenever any host may, for example a NAT gateway.",
    ),
    cfg.IntOpt(
        "acme_file_uid",
        min=1,
        max=4294967294,
        help="Numeric owner of volume files; the appliance must allow it "
        "(allowed_uids there). Default: the user that the service runs as; "
        "for root, the appliance's default.",
    ),
    cfg.IntOpt(
        "acme_file_gid",
        min=1,
        max=4294967294,
        help="Numeric group of volume files; the appliance must allow it "
        "(allowed_gids there). Default: the group that the service runs as; "
        "for root, the appliance's default.",
    ),
    cfg.IntOpt(
        "acme_mount_timeout_seconds",
        default=60,
        min=5,
        max=3600,
        help="Time limit for each mount, unmount, and file access on a mount.",
    ),
    cfg.IntOpt(
        "acme_reap_interval_seconds",
        default=300,
        min=30,
        max=86400,
        help="How often to unmount what a crash or a failed detach has left, "
        "and to compare access rules with Cinder's attachments.",
    ),
]

_FROM_NFS: Final = (
    "nfs_sparsed_volumes",
    "nfs_mount_point_base",
    "nfs_mount_options",
    "nfs_mount_attempts",
)
_FROM_REMOTEFS: Final = (
    "nas_password",
    "nas_mount_options",
    "nas_secure_file_operations",
    "nas_secure_file_permissions",
)


#: Of every driver; registered by Cinder.
_FROM_DRIVER: Final = ("driver_ssl_cert_path", "driver_ssl_cert_verify")


def _named(opts: Sequence[cfg.Opt], names: Sequence[str]) -> list[cfg.Opt]:
    by_name = {opt.name: opt for opt in opts}
    return [by_name[name] for name in names]


CINDER_OPTS: Final = [
    *_named(nfs.nfs_opts, _FROM_NFS),
    *_named(remotefs.nas_opts, _FROM_REMOTEFS),
    *_named(driver.volume_opts, _FROM_DRIVER),
]

#: The options that the driver reads beyond those of every driver.
DRIVER_OPTS: Final = [*ACME_OPTS, *CINDER_OPTS]

#: Options of other drivers that have no effect here, and why; see
#: :func:`acme_cinder.settings.warn_of_unused`.
WITHOUT_EFFECT: Final = {
    "driver_client_cert": "the appliance takes tokens, not certificates",
    "driver_client_cert_key": "the appliance takes tokens, not certificates",
    "driver_use_ssl": "acme_api_addresses says whether TLS is used",
    "nas_host": "set acme_api_addresses, and acme_nfs_portal where needed",
    "nas_login": "set acme_api_token, or nas_user and nas_password",
    "nas_private_key": "the appliance is managed over its REST API",
    "nas_share_path": "the appliance creates a share for every volume",
    "nas_ssh_port": "the appliance is managed over its REST API",
    "nfs_qcow2_volumes": "volume files are raw, with snapshots and clones",
    "nfs_shares_config": "the appliance creates a share for every volume",
    "nfs_snapshot_support": "snapshots are always supported",
    "san_api_port": "acme_api_addresses has the port",
    "san_ip": "set acme_api_addresses",
    "san_login": "set acme_api_token, or nas_user and nas_password",
    "san_password": "set acme_api_token, or nas_user and nas_password",
    "san_thin_provision": "set nfs_sparsed_volumes",
}

#: Registered to detect their use; not offered as options.
UNUSED_OPTS: Final = [
    opt
    for opt in (*nfs.nfs_opts, *remotefs.nas_opts, *san.san_opts)
    if opt not in CINDER_OPTS
]

cfg.CONF.register_opts(ACME_OPTS, group=configuration.SHARED_CONF_GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """For oslo-config-generator; the options go into a back end's group."""
    return [(configuration.SHARED_CONF_GROUP, DRIVER_OPTS)]
