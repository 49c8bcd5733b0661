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

Nothing here is global: :func:`load` makes a configuration of its own, so
that tests and several appliances in one process do not share any.
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
#: A number, or two with a hyphen between them.
ID_RANGE: Final = r"^[0-9]{1,10}(-[0-9]{1,10})?$"
#: The largest uid: 2**32 - 1 stands for none in chown(2).
MAX_ID: Final = 4294967294


DEFAULT_OPTS: Final = [
    cfg.StrOpt(
        "state_path",
        default="/var/lib/acme-appliance",
        help="Directory of the database, the certificate and the locks. One"
        " appliance runs from one such directory.",
    ),
    cfg.ListOpt(
        "listen_addresses",
        default=["0.0.0.0"],  # noqa: S104 - tokens and TLS guard it
        help="Addresses on which the REST API listens; IPv6 ones without"
        " brackets. 0.0.0.0 is all of IPv4, :: all of both.",
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
        help="The appliance's name, as clients are told it.",
    ),
    cfg.ListOpt(
        "enabled_pools",
        default=[],
        item_type=types.String(regex=POOL_NAME),
        help="The pools, each configured in its own group [pool:NAME]; the"
        " first is where shares go that name none. acme-appliance init adds"
        " one.",
    ),
    cfg.IntOpt(
        "threads",
        default=320,
        min=8,
        max=1024,
        help="Threads that serve requests with a valid token. At most five"
        " eighths of them are with changes and a quarter with long polls at"
        " a time; the others stay free for reads.",
    ),
    cfg.IntOpt(
        "max_connections",
        default=4096,
        min=64,
        max=65536,
        help="Connections to the API that are open at a time. Past that a"
        " new one takes the place of the oldest that has not shown a valid"
        " token. Each takes 60 to 200 KiB.",
    ),
    cfg.IntOpt(
        "max_connections_without_token",
        default=256,
        min=8,
        max=65536,
        help="How many of them one address (IPv6: one /64) may have that"
        " have not shown a valid token. Past that a new one takes the place"
        " of the oldest of these, so that a client behind the same address"
        " still gets through.",
    ),
    cfg.IntOpt(
        "workers",
        default=32,
        min=1,
        max=256,
        help="Changes of one pool that are worked on at the same time. Further"
        " ones are queued.",
    ),
    cfg.IntOpt(
        "graceful_shutdown_seconds",
        default=30,
        min=1,
        max=600,
        help="How long a stopping server lets requests finish. What is not"
        " finished by then is taken up at the next start.",
    ),
    cfg.IntOpt(
        "job_retention_days",
        default=30,
        min=1,
        help="How long ended jobs can be read.",
    ),
    cfg.IntOpt(
        "event_retention_days",
        default=400,
        min=1,
        help="How long the change log goes back.",
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
        help="PEM certificate, followed by its chain. Default: one that the"
        " appliance makes and signs by itself, STATE_PATH/tls/server.crt,"
        " which is also the CA file to give to clients.",
    ),
    cfg.StrOpt(
        "key_file",
        help="PEM private key of certificate_file, without a passphrase.",
    ),
    cfg.ListOpt(
        "names",
        default=[],
        help="Further host names and addresses by which clients call, for"
        " the certificate that the appliance makes. It always has the host"
        " name, listen addresses, portals and loopback.",
    ),
]

DATABASE_OPTS: Final = [
    cfg.StrOpt(
        "url",
        secret=True,
        help="SQLAlchemy URL. Default: SQLite, STATE_PATH/appliance.db. For"
        " example postgresql+psycopg://acme:SECRET@db/acme.",
    ),
]

NFS_OPTS: Final = [
    cfg.ListOpt(
        "portals",
        default=[],
        item_type=types.IPAddress(),
        help="Addresses of this machine by which clients mount, the"
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
        help="NFS versions that clients are told, the preferred one first.",
    ),
    cfg.IntOpt(
        "owner_uid",
        default=64061,
        min=1,
        max=MAX_ID,
        help="Owner of a volume file where a create names none; 64061 is"
        " cinder's on Debian and Ubuntu.",
    ),
    cfg.IntOpt(
        "owner_gid",
        default=64061,
        min=1,
        max=MAX_ID,
        help="Group of a volume file where a create names none.",
    ),
    cfg.ListOpt(
        "allowed_uids",
        default=["1000-65533"],
        item_type=types.String(regex=ID_RANGE),
        help="Numeric users that a create may name as the owner of a volume"
        " file, besides owner_uid: numbers and ranges. Users of granted"
        " hosts act as the owner, so system accounts are not among them by"
        " default; cinder is 165 on Red Hat and its relatives. Root cannot"
        " be listed.",
    ),
    cfg.ListOpt(
        "allowed_gids",
        default=["1000-65533"],
        item_type=types.String(regex=ID_RANGE),
        help="As allowed_uids, for the group, besides owner_gid.",
    ),
]

FEATURE_OPTS: Final = [
    cfg.BoolOpt(
        "volume_file",
        default=True,
        help="Make and grow the volume file of a share here (feature"
        " share.volume_file). Without it shares are empty directories, as"
        " on an appliance that knows nothing of files.",
    ),
]

LIMIT_OPTS: Final = [
    cfg.IntOpt("max_shares", default=20000, min=1, help="Shares in all."),
    cfg.IntOpt(
        "max_snapshots_per_share",
        default=1000,
        min=1,
        help="Snapshots of one share.",
    ),
    cfg.IntOpt(
        "max_access_rules_per_share",
        default=256,
        min=1,
        help="Access rules of one share.",
    ),
    cfg.IntOpt(
        "max_share_bytes",
        default=1 << 50,
        min=1,
        max=1 << 50,
        help="Size of one share.",
    ),
]

AUTH_OPTS: Final = [
    cfg.IntOpt(
        "session_seconds",
        default=3600,
        min=60,
        max=86400,
        help="How long a token from POST /v1/tokens lasts at most.",
    ),
    cfg.IntOpt(
        "max_failed_logins",
        default=20,
        min=1,
        max=1000,
        help="Failed log-ins of one address (IPv6: one /64) that are"
        " answered within failed_login_window_seconds; then it is 429.",
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
        help="The pool's directory, on a file system that the engine can use."
        " Required, unless the engine is not on a disk.",
    ),
    cfg.StrOpt(
        "device",
        help="Block device or image file that serve mounts at path, if"
        " nothing is mounted there. Leave it out where /etc/fstab or a"
        " systemd mount unit does that, with the options"
        " nodev,nosuid,noexec.",
    ),
]

NAMESPACE_OPTS: Final = [
    cfg.StrOpt(
        "max_bytes",
        help="Sizes of all shares of the namespace together, with a unit:"
        " 500GiB, 10TiB. Snapshots do not count. Default: no limit.",
    ),
    cfg.IntOpt(
        "max_shares",
        min=0,
        help="Shares of the namespace. Default: no limit but max_shares of"
        " [limits].",
    ),
    cfg.IntOpt(
        "max_snapshots",
        min=0,
        help="Snapshots of all shares of the namespace together. Default: no"
        " limit but max_snapshots_per_share of [limits].",
    ),
]
#: A group [namespace:NAME] is the quota of a namespace.
_NAMESPACE: Final = "namespace:"


def _plugin_opt(name: str, group: str, default: str, text: str) -> cfg.Opt:
    option = cfg.Opt(name, type=plugins.Name(group), help=text)
    # Not checked here: it may be one that cannot be used, which matters
    # where it is.
    cfg.set_defaults([option], **{name: default})
    return option


@functools.cache
def _groups() -> dict[str, Sequence[cfg.Opt]]:
    """The groups that every configuration has, and their options.

    Which engines and exporters there are is found out by the first call,
    not by an import of this module: it loads them.
    """
    exporter = _plugin_opt(
        "exporter",
        plugins.EXPORTERS,
        exporter_plugin.DEFAULT,
        "What serves the shares. Each exporter has further options of"
        " its own.",
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
        "What keeps the pool's shares. Each engine has further options"
        " of its own.",
    )
    return [engine, *POOL_OPTS]


class ConfigurationError(Exception):
    """An option is missing or wrong; the text names it and the way out."""


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """For oslo-config-generator; one group of a namespace stands for all of
    them, and one group of a pool for all that have its engine."""
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

    :param conf: with more options registered; default: a new one.
    :param default_files: where to look when it names none.
    :raises ConfigurationError: a file cannot be read or parsed, or an
        option has a value that it cannot have.
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
    """The groups of pools and namespaces, by what the configuration has,
    and the options of the engines and the exporter that it chooses."""
    found: dict[str, Sequence[cfg.Opt]] = {
        group: NAMESPACE_OPTS for group in _namespace_groups(conf)
    }
    # Where the list itself is wrong, nobody knows its pools.
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
    """The plugins of the groups ``nfs`` and ``pool:NAME``; without those
    whose name is wrong, which have no options."""
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
    """What no single option's type can say.

    :raises ConfigurationError: with everything that is wrong, a line each.
    """
    wrong = []
    if not conf.enabled_pools:
        wrong.append(
            "[DEFAULT] enabled_pools is empty: name a pool, or let"
            " acme-appliance init make one"
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
            "[nfs] portals is empty: give the addresses of this machine by"
            " which clients mount shares, for example portals = 192.0.2.10"
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
                f" {address}: tokens would cross the network readable."
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
                " size with a unit: 500GiB and 10TiB are"
            )
    return wrong


def _bytes(text: str | None) -> int | None:
    """:raises ValueError: it is no size."""
    if text is None:
        return None
    size = int(strutils.string_to_bytes(text, return_int=True))
    if size < 0:
        raise ValueError(text)
    return size


def namespace_quotas(conf: cfg.ConfigOpts) -> dict[str, dict[str, int | None]]:
    """Namespaces that have a quota: name to the options, sizes in bytes."""
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
    """Those that the appliance mounts."""
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
    """``HOST:PORT`` of each listener, as a URL has it."""
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
