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

"""Load and check acme-appliance.conf; the options are in ``opts``.

Nothing here is global: :func:`load` returns a new configuration, so tests
and several appliances in one process do not share one.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import datetime
import ipaddress
import os
import pathlib
from typing import Any
from typing import Final

from oslo_config import cfg
from oslo_utils import strutils

from acme_appliance import opts
from acme_appliance import plugins
from acme_appliance import wrongvalues
from acme_appliance.engines import plugin as engine_plugin
from acme_appliance.engines.plugin import Pool
from acme_appliance.exporters import plugin as exporter_plugin

DEFAULT_FILE: Final = "/etc/acme-appliance/acme-appliance.conf"
PROG: Final = "acme-appliance"
DATABASE_NAME: Final = "appliance.db"


class ConfigurationError(Exception):
    """An option is missing or wrong; the text names it and the solution."""


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """For oslo-config-generator, with one example group for namespaces and
    one for the pools of each engine."""
    listed: list[tuple[str, Sequence[cfg.Opt]]] = [*opts.groups().items()]
    listed += [
        ("nfs", plugin.options) for plugin in plugins.exporters().values()
    ]
    listed.append(("pool:gold", opts.pool_opts()))
    for name, plugin in plugins.engines().items():
        pool = "gold" if name == engine_plugin.DEFAULT else name
        listed.append((f"pool:{pool}", plugin.options))
    listed.append((f"{opts.NAMESPACE}cinder-a", opts.NAMESPACE_OPTS))
    return listed


def register(conf: cfg.ConfigOpts) -> None:
    for group, options in opts.groups().items():
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
        wrong = wrongvalues.find(conf, opts.groups())
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
        group: opts.NAMESPACE_OPTS for group in _namespace_groups(conf)
    }
    # Skip the pools if the list itself is invalid; load() reports it.
    with contextlib.suppress(cfg.Error, ValueError):
        found.update(
            {f"pool:{n}": opts.pool_opts() for n in conf.enabled_pools}
        )
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
        if not group.startswith(opts.NAMESPACE):
            with contextlib.suppress(cfg.Error, ValueError):
                found.append((group, plugins.engines()[conf[group].engine]))
    return found


def _namespace_groups(conf: cfg.ConfigOpts) -> list[str]:
    return [
        section
        for section in conf.list_all_sections()
        if section.startswith(opts.NAMESPACE)
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
        f" between 1 and {opts.MAX_ID}"
        for name in ("allowed_uids", "allowed_gids")
        for text in conf.nfs[name]
        if not _is_id_range(_id_range(text))
    ]


def _is_id_range(found: range) -> bool:
    return len(found) > 0 and found[0] >= 1 and found[-1] <= opts.MAX_ID


def _id_range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def allowed_ids(conf: cfg.ConfigOpts, name: str) -> tuple[range, ...]:
    """:param name: ``allowed_uids`` or ``allowed_gids``."""
    return tuple(_id_range(text) for text in conf.nfs[name])


def _check_namespaces(conf: cfg.ConfigOpts) -> list[str]:
    wrong = []
    for group in _namespace_groups(conf):
        if group == opts.NAMESPACE:
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
        group.removeprefix(opts.NAMESPACE): {
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
    group: cfg.ConfigOpts.GroupAttr, options: Sequence[cfg.Opt]
) -> dict[str, Any]:
    return {each.dest: group[each.dest] for each in options}


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
