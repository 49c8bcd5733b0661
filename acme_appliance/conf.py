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

"""The options of acme-appliance.conf.

Nothing here is global: :func:`load` returns a new configuration, so tests
and several appliances in one process do not share one.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import datetime
import functools
import ipaddress
import os
import pathlib
import socket
from typing import Any
from typing import Final

from oslo_config import cfg
from oslo_config import types
from oslo_utils import strutils

from acme_appliance import plugins
from acme_appliance import wrongvalues
from acme_appliance.engines import plugin as engine_plugin
from acme_appliance.engines.plugin import Pool
from acme_appliance.exporters import plugin as exporter_plugin

DEFAULT_FILE: Final = "/etc/acme-appliance/acme-appliance.conf"
PROG: Final = "acme-appliance"
DATABASE_NAME: Final = "appliance.db"

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
_NAMESPACE: Final = "namespace:"


def _plugin_opt(name: str, group: str, default: str, text: str) -> cfg.Opt:
    option = cfg.Opt(name, type=plugins.Name(group), help=text)
    # Set without validation: an unusable default must fail only where it is
    # used.
    cfg.set_defaults([option], **{name: default})
    return option


@functools.cache
def _groups() -> dict[str, Sequence[cfg.Opt]]:
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
def _pool_opts() -> list[cfg.Opt]:
    engine = _plugin_opt(
        "engine",
        plugins.ENGINES,
        engine_plugin.DEFAULT,
        "Engine that stores the pool's shares. Each engine adds its own"
        " options.",
    )
    return [engine, *POOL_OPTS]


class ConfigurationError(Exception):
    """An option is missing or wrong; the text names it and the solution."""


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """For oslo-config-generator, with one example group for namespaces and
    one for the pools of each engine."""
    listed: list[tuple[str, Sequence[cfg.Opt]]] = [*_groups().items()]
    listed += [
        ("nfs", plugin.options) for plugin in plugins.exporters().values()
    ]
    listed.append(("pool:gold", _pool_opts()))
    for name, plugin in plugins.engines().items():
        pool = "gold" if name == engine_plugin.DEFAULT else name
        listed.append((f"pool:{pool}", plugin.options))
    listed.append((f"{_NAMESPACE}cinder-a", NAMESPACE_OPTS))
    return listed


def register(conf: cfg.ConfigOpts) -> None:
    for group, options in _groups().items():
        conf.register_opts(
            options, group=None if group == "DEFAULT" else group
        )


def load(
    arguments: Sequence[str],
    cli_options: Iterable[cfg.Opt] = (),
    *,
    conf: cfg.ConfigOpts | None = None,
    description: str | None = None,
    epilog: str | None = None,
    default_files: Sequence[str] | None = None,
) -> cfg.ConfigOpts:
    """Parse a command line and the configuration files it names.

    :param conf: may have more options registered; default: a new one.
    :param default_files: the files to read if the command line names none.
    :raises ConfigurationError: a file cannot be read or parsed, or an
        option has an invalid value.
    """
    conf = conf or cfg.ConfigOpts()
    if default_files is None:
        default_files = [DEFAULT_FILE] if os.path.exists(DEFAULT_FILE) else []
    try:
        register(conf)
        conf.register_cli_opts(list(cli_options))
        conf(
            list(arguments),
            project=PROG,
            prog=PROG,
            description=description,
            epilog=epilog,
            default_config_files=list(default_files),
            default_config_dirs=[],
        )
        wrong = wrongvalues.find(conf, _groups())
        wrong += wrongvalues.find(conf, _register_named(conf))
    except (cfg.Error, ValueError, plugins.PluginError) as error:
        raise ConfigurationError(str(error)) from error
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    return conf


def _register_named(conf: cfg.ConfigOpts) -> dict[str, Sequence[cfg.Opt]]:
    """The configured groups of pools and namespaces, and the options of the
    selected engines and exporter."""
    found: dict[str, Sequence[cfg.Opt]] = {
        group: NAMESPACE_OPTS for group in _namespace_groups(conf)
    }
    # Skip the pools if the list itself is invalid; load() reports it.
    with contextlib.suppress(cfg.Error, ValueError):
        found.update({f"pool:{n}": _pool_opts() for n in conf.enabled_pools})
    for group, options in found.items():
        conf.register_opts(options, group=group)
    for group, plugin in _chosen(conf, found):
        conf.register_opts(plugin.options, group=group)
        found[group] = [*found.get(group, ()), *plugin.options]
    return found


def _chosen(
    conf: cfg.ConfigOpts, groups: Iterable[str]
) -> list[tuple[str, engine_plugin.Plugin | exporter_plugin.Plugin]]:
    """The plugins of the groups ``nfs`` and ``pool:NAME``, except those
    whose name is wrong."""
    found: list[tuple[str, engine_plugin.Plugin | exporter_plugin.Plugin]] = []
    with contextlib.suppress(cfg.Error, ValueError):
        found.append(("nfs", plugins.exporters()[conf.nfs.exporter]))
    for group in groups:
        if not group.startswith(_NAMESPACE):
            with contextlib.suppress(cfg.Error, ValueError):
                found.append((group, plugins.engines()[conf[group].engine]))
    return found


def _namespace_groups(conf: cfg.ConfigOpts) -> list[str]:
    return [
        section
        for section in conf.list_all_sections()
        if section.startswith(_NAMESPACE)
    ]


def check(conf: cfg.ConfigOpts) -> None:
    """Validate combinations of options.

    :raises ConfigurationError: with all problems, one per line.
    """
    wrong = []
    if not conf.enabled_pools:
        wrong.append(
            "[DEFAULT] enabled_pools is empty: name a pool, or let"
            " acme-appliance init create one"
        )
    for name in conf.enabled_pools:
        group = conf[f"pool:{name}"]
        plugin = plugins.engines()[group.engine]
        if plugin.on_disk and not os.path.isabs(group.path or ""):
            wrong.append(
                f"[pool:{name}] path must be the absolute directory of the"
                f" pool; it is {group.path!r}"
            )
    wrong += _check_addresses(conf)
    wrong += _check_ids(conf)
    wrong += _check_namespaces(conf)
    if bool(conf.tls.certificate_file) != bool(conf.tls.key_file):
        wrong.append(
            "[tls] certificate_file and key_file belong together: set both"
            " or neither"
        )
    if wrong:
        raise ConfigurationError("\n".join(wrong))


def _check_addresses(conf: cfg.ConfigOpts) -> list[str]:
    wrong = []
    if not conf.nfs.portals:
        wrong.append(
            "[nfs] portals is empty: set the addresses of this machine that"
            " clients mount shares from, for example portals = 192.0.2.10"
        )
    for address in conf.listen_addresses:
        try:
            loopback = ipaddress.ip_address(address).is_loopback
        except ValueError:
            wrong.append(
                f"[DEFAULT] listen_addresses: {address!r} is not an IP address"
            )
            continue
        if not conf.tls.enabled and not loopback:
            wrong.append(
                f"[tls] enabled is false, but [DEFAULT] listen_addresses has"
                f" {address}: tokens would cross the network unencrypted."
                " Listen on 127.0.0.1, or enable TLS"
            )
    return wrong


def _check_ids(conf: cfg.ConfigOpts) -> list[str]:
    return [
        f"[nfs] {name}: {text!r} is not a number or a range FIRST-LAST"
        f" between 1 and {MAX_ID}"
        for name in ("allowed_uids", "allowed_gids")
        for text in conf.nfs[name]
        if not _is_id_range(_id_range(text))
    ]


def _is_id_range(found: range) -> bool:
    return len(found) > 0 and found[0] >= 1 and found[-1] <= MAX_ID


def _id_range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def allowed_ids(conf: cfg.ConfigOpts, name: str) -> tuple[range, ...]:
    """:param name: ``allowed_uids`` or ``allowed_gids``."""
    return tuple(_id_range(text) for text in conf.nfs[name])


def _check_namespaces(conf: cfg.ConfigOpts) -> list[str]:
    wrong = []
    for group in _namespace_groups(conf):
        if group == _NAMESPACE:
            wrong.append(f"[{group}] names no namespace")
        try:
            _bytes(conf[group].max_bytes)
        except ValueError:
            wrong.append(
                f"[{group}] max_bytes: {conf[group].max_bytes!r} is not a"
                " size with a unit, for example 500GiB or 10TiB"
            )
    return wrong


def _bytes(text: str | None) -> int | None:
    """:raises ValueError: ``text`` is not a size."""
    if text is None:
        return None
    size = int(strutils.string_to_bytes(text, return_int=True))
    if size < 0:
        raise ValueError(text)
    return size


def namespace_quotas(conf: cfg.ConfigOpts) -> dict[str, dict[str, int | None]]:
    """Quotas by namespace, sizes in bytes."""
    return {
        group.removeprefix(_NAMESPACE): {
            "max_bytes": _bytes(conf[group].max_bytes),
            "max_shares": conf[group].max_shares,
            "max_snapshots": conf[group].max_snapshots,
        }
        for group in _namespace_groups(conf)
    }


def pools(conf: cfg.ConfigOpts) -> list[Pool]:
    return [_pool(name, conf[f"pool:{name}"]) for name in conf.enabled_pools]


def _pool(name: str, group: cfg.ConfigOpts.GroupAttr) -> Pool:
    plugin = plugins.engines()[group.engine]
    path = (group.path or "").rstrip("/")
    if not plugin.on_disk:
        path = path or f"/{group.engine}/{name}"
    return Pool(
        name=name,
        engine=group.engine,
        path=path,
        device=group.device if plugin.on_disk else None,
        options=_values(group, plugin.options),
    )


def pools_on_devices(conf: cfg.ConfigOpts) -> list[Pool]:
    """The pools that the appliance mounts."""
    return [pool for pool in pools(conf) if pool.device]


def exporter_options(conf: cfg.ConfigOpts) -> dict[str, Any]:
    """The values of the exporter's own options."""
    return _values(conf.nfs, plugins.exporters()[conf.nfs.exporter].options)


def _values(
    group: cfg.ConfigOpts.GroupAttr, opts: Sequence[cfg.Opt]
) -> dict[str, Any]:
    return {each.dest: group[each.dest] for each in opts}


def state_path(conf: cfg.ConfigOpts) -> pathlib.Path:
    return pathlib.Path(conf.state_path)


def database_url(conf: cfg.ConfigOpts) -> str:
    return conf.database.url or (
        f"sqlite:///{conf.state_path}/{DATABASE_NAME}"
    )


def export_root(conf: cfg.ConfigOpts) -> str:
    """The directory that clients see as ``/``."""
    if conf.nfs.root:
        return str(conf.nfs.root).rstrip("/") or "/"
    paths = [pool.path for pool in pools(conf)]
    return paths[0] if len(paths) == 1 else os.path.commonpath(paths)


def listen_points(conf: cfg.ConfigOpts) -> list[str]:
    """``HOST:PORT`` of each listener, in URL form."""
    return [
        f"[{address}]:{conf.port}"
        if ":" in address
        else f"{address}:{conf.port}"
        for address in conf.listen_addresses
    ]


def api_members(conf: cfg.ConfigOpts) -> dict[str, Any]:
    """The members of ApiSettings that are configured."""
    return {
        "changes": conf.threads * 5 // 8,
        "long_polls": conf.threads // 4,
        "session_lifetime": datetime.timedelta(
            seconds=conf.auth.session_seconds
        ),
        "max_failed_logins": conf.auth.max_failed_logins,
        "failed_login_window_seconds": conf.auth.failed_login_window_seconds,
    }
