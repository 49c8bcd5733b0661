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

"""The definitions of the options of acme-appliance.conf."""

from collections.abc import Sequence
import functools
import socket
from typing import Final

from oslo_config import cfg
from oslo_config import types

from acme_appliance import plugins
from acme_appliance.engines import plugin as engine_plugin
from acme_appliance.exporters import plugin as exporter_plugin

POOL_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
#: A number, or a range ``FIRST-LAST``.
ID_RANGE: Final = r"^[0-9]{1,10}(-[0-9]{1,10})?$"
#: The largest uid: 2**32 - 1 means "unchanged" in chown(2).
MAX_ID: Final = 4294967294


DEFAULT_OPTS: Final = [
    cfg.StrOpt(
        "state_path",
        default="/var/lib/acme-appliance",
        help="Directory of the database, the certificate and the locks. Each"
        " appliance needs its own.",
    ),
    cfg.ListOpt(
        "listen_addresses",
        default=["0.0.0.0"],  # noqa: S104 - tokens and TLS guard it
        help="Addresses on which the REST API listens, IPv6 ones without"
        " brackets. 0.0.0.0 means all IPv4 addresses, :: all IPv4 and IPv6"
        " addresses.",
    ),
    cfg.PortOpt(
        "port",
        default=8443,
        min=1,
        help="TCP port of the REST API.",
    ),
    cfg.StrOpt(
        "system_name",
        default=socket.gethostname(),
        sample_default="<host name>",
        help="The name that the appliance reports to clients.",
    ),
    cfg.ListOpt(
        "enabled_pools",
        default=[],
        item_type=types.String(regex=POOL_NAME),
        help="The pools, each configured in its own group [pool:NAME]. The"
        " first is the default for new shares. acme-appliance init adds a"
        " pool.",
    ),
    cfg.IntOpt(
        "threads",
        default=320,
        min=8,
        max=1024,
        help="Threads that serve requests with a valid token. Changes use at"
        " most five eighths of them and long polls a quarter; the others"
        " stay free for reads.",
    ),
    cfg.IntOpt(
        "max_connections",
        default=4096,
        min=64,
        max=65536,
        help="Maximum number of open connections to the API. Above it, a new"
        " connection replaces the oldest that has not shown a valid token."
        " Each takes 60 to 200 KiB.",
    ),
    cfg.IntOpt(
        "max_connections_without_token",
        default=256,
        min=8,
        max=65536,
        help="Maximum number of open connections per address (IPv6: per /64)"
        " that have not shown a valid token. Above it, a new connection"
        " replaces the oldest of these, so that a client behind the same"
        " address still gets through.",
    ),
    cfg.IntOpt(
        "workers",
        default=32,
        min=1,
        max=256,
        help="Concurrent changes per pool. Further ones are queued.",
    ),
    cfg.IntOpt(
        "graceful_shutdown_seconds",
        default=30,
        min=1,
        max=600,
        help="How long a stopping server waits for requests to finish. The"
        " next start resumes unfinished changes.",
    ),
    cfg.IntOpt(
        "job_retention_days",
        default=30,
        min=1,
        help="How long to keep ended jobs.",
    ),
    cfg.IntOpt(
        "event_retention_days",
        default=400,
        min=1,
        help="How long to keep events.",
    ),
]

TLS_OPTS: Final = [
    cfg.BoolOpt(
        "enabled",
        default=True,
        help="Serve HTTPS. Without it the API must listen on loopback only,"
        " for a proxy on the same machine.",
    ),
    cfg.StrOpt(
        "certificate_file",
        help="PEM certificate, followed by its chain. Default: a self-signed"
        " certificate that the appliance creates, STATE_PATH/tls/server.crt,"
        " which is also the CA file for clients.",
    ),
    cfg.StrOpt(
        "key_file",
        help="PEM private key of certificate_file, without a passphrase.",
    ),
    cfg.ListOpt(
        "names",
        default=[],
        help="Additional host names and addresses for the certificate that"
        " the appliance creates. It always contains the host name, listen"
        " addresses, portals and loopback.",
    ),
]

DATABASE_OPTS: Final = [
    cfg.StrOpt(
        "url",
        secret=True,
        help="SQLAlchemy URL, for example"
        " postgresql+psycopg://acme:SECRET@db/acme. Default: SQLite,"
        " STATE_PATH/appliance.db.",
    ),
]

NFS_OPTS: Final = [
    cfg.ListOpt(
        "portals",
        default=[],
        item_type=types.IPAddress(),
        help="Addresses of this machine that clients mount from, the"
        " preferred one first. Required.",
    ),
    cfg.StrOpt(
        "root",
        help="Directory that clients see as /, [exports] rootdir in"
        " /etc/nfs.conf. Default: the pool's directory, or with several"
        " pools the directory above all of them.",
    ),
    cfg.ListOpt(
        "versions",
        default=["4.2", "4.1"],
        item_type=types.String(choices=["3", "4.0", "4.1", "4.2"]),
        help="NFS versions to report to clients, the preferred one first.",
    ),
    cfg.IntOpt(
        "owner_uid",
        default=64061,
        min=1,
        max=MAX_ID,
        help="Default owner of volume files; 64061 is cinder on Debian and"
        " Ubuntu.",
    ),
    cfg.IntOpt(
        "owner_gid",
        default=64061,
        min=1,
        max=MAX_ID,
        help="Default group of volume files.",
    ),
    cfg.ListOpt(
        "allowed_uids",
        default=["1000-65533"],
        item_type=types.String(regex=ID_RANGE),
        help="Numeric users, besides owner_uid, that a create may set as the"
        " owner of a volume file: numbers and ranges. Users of hosts with"
        " access act as the owner, so the default excludes system accounts;"
        " cinder is 165 on Red Hat and its derivatives. Root cannot be"
        " listed.",
    ),
    cfg.ListOpt(
        "allowed_gids",
        default=["1000-65533"],
        item_type=types.String(regex=ID_RANGE),
        help="Like allowed_uids, for the group, besides owner_gid.",
    ),
]

FEATURE_OPTS: Final = [
    cfg.BoolOpt(
        "volume_file",
        default=True,
        help="Create and extend the volume file of a share (feature"
        " share.volume_file). If false, shares are empty directories, and"
        " the client creates the file.",
    ),
]

LIMIT_OPTS: Final = [
    cfg.IntOpt(
        "max_shares",
        default=20000,
        min=1,
        help="Maximum number of shares.",
    ),
    cfg.IntOpt(
        "max_snapshots_per_share",
        default=1000,
        min=1,
        help="Maximum number of snapshots per share.",
    ),
    cfg.IntOpt(
        "max_access_rules_per_share",
        default=256,
        min=1,
        help="Maximum number of access rules per share.",
    ),
    cfg.IntOpt(
        "max_share_bytes",
        default=1 << 50,
        min=1,
        max=1 << 50,
        help="Maximum size of a share.",
    ),
]

AUTH_OPTS: Final = [
    cfg.IntOpt(
        "session_seconds",
        default=3600,
        min=60,
        max=86400,
        help="Maximum lifetime of a token from POST /v1/tokens.",
    ),
    cfg.IntOpt(
        "max_failed_logins",
        default=20,
        min=1,
        max=1000,
        help="Failed log-ins allowed per address (IPv6: per /64) within"
        " failed_login_window_seconds. Further ones get 429.",
    ),
    cfg.IntOpt(
        "failed_login_window_seconds",
        default=60,
        min=1,
        max=3600,
        help="See max_failed_logins.",
    ),
]

POOL_OPTS: Final = [
    cfg.StrOpt(
        "path",
        help="The pool's directory, on a file system that the engine"
        " supports. Required for engines that use a disk.",
    ),
    cfg.StrOpt(
        "device",
        help="Block device or image file to mount at path, if nothing is"
        " mounted there. Omit it if /etc/fstab or a systemd mount unit"
        " mounts it, with the options nodev,nosuid,noexec.",
    ),
]

NAMESPACE_OPTS: Final = [
    cfg.StrOpt(
        "max_bytes",
        help="Maximum total size of the namespace's shares, with a unit:"
        " 500GiB, 10TiB. Snapshots do not count. Default: no limit.",
    ),
    cfg.IntOpt(
        "max_shares",
        min=0,
        help="Maximum number of shares in the namespace. Default: max_shares"
        " of [limits].",
    ),
    cfg.IntOpt(
        "max_snapshots",
        min=0,
        help="Maximum number of snapshots in the namespace. Default: only"
        " max_snapshots_per_share of [limits] applies.",
    ),
]
#: A group [namespace:NAME] is the quota of a namespace.
NAMESPACE: Final = "namespace:"


def _plugin_opt(name: str, group: str, default: str, text: str) -> cfg.Opt:
    option = cfg.Opt(name, type=plugins.Name(group), help=text)
    # Set without validation: an unusable default must fail only where it is
    # used.
    cfg.set_defaults([option], **{name: default})
    return option


@functools.cache
def groups() -> dict[str, Sequence[cfg.Opt]]:
    """The groups that every configuration has, and their options.

    The first call loads the engines and exporters; an import of this module
    does not.
    """
    exporter = _plugin_opt(
        "exporter",
        plugins.EXPORTERS,
        exporter_plugin.DEFAULT,
        "Exporter that serves the shares. Each exporter adds its own options.",
    )
    return {
        "DEFAULT": DEFAULT_OPTS,
        "tls": TLS_OPTS,
        "database": DATABASE_OPTS,
        "nfs": [exporter, *NFS_OPTS],
        "features": FEATURE_OPTS,
        "limits": LIMIT_OPTS,
        "auth": AUTH_OPTS,
    }


@functools.cache
def pool_opts() -> list[cfg.Opt]:
    engine = _plugin_opt(
        "engine",
        plugins.ENGINES,
        engine_plugin.DEFAULT,
        "Engine that stores the pool's shares. Each engine adds its own"
        " options.",
    )
    return [engine, *POOL_OPTS]
