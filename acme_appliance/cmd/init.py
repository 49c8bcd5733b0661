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

"""``acme-appliance init``."""

import argparse
import dataclasses
import ipaddress
import os
import pathlib
import re
import socket
import textwrap
from typing import Any
from typing import Final

from oslo_config import cfg

from acme_appliance import conf as options
from acme_appliance import opts
from acme_appliance import plugins
from acme_appliance.cmd import nfsconf
from acme_appliance.cmd.common import CommandError
from acme_appliance.cmd.common import Exit
from acme_appliance.cmd.common import parse_size
from acme_appliance.engines import plugin as engine_plugin
from acme_appliance.engines.plugin import Plan
from acme_appliance.engines.plugin import Pool
from acme_appliance.engines.plugin import PoolError

_STATE_PATH: Final = "/var/lib/acme-appliance"
#: Directories for pools and state that the unit's ReadWritePaths= allows.
_UNIT_WRITES: Final = (_STATE_PATH, "/srv")

_DESCRIPTION: Final = (
    "Create a pool for shares and write a working configuration. The pool is"
    " on a block device, which is formatted, in an image file, which is"
    " created, or in a directory on a file system that the engine supports."
    " Nothing that holds data is formatted without --force. The command can"
    " be run again: it keeps what is already done."
)
_EXAMPLES: Final = """\
examples:
  acme-appliance init --device /dev/vdb --portal 192.0.2.10
  acme-appliance init --image /var/lib/acme-appliance/gold.img --size 20G
  acme-appliance init --directory /srv/gold --pool gold
  acme-appliance init --device /dev/vdc --engine reflink
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "init",
        help="create a pool and write the configuration",
        description=textwrap.fill(_DESCRIPTION, 78),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--device", metavar="DEV", help="block device to format"
    )
    where.add_argument(
        "--image", metavar="FILE", help="image file, created with --size"
    )
    where.add_argument(
        "--directory",
        metavar="DIR",
        help="directory on a file system that the engine supports",
    )
    parser.add_argument(
        "--engine",
        choices=[n for n, each in plugins.engines().items() if each.on_disk],
        default=engine_plugin.DEFAULT,
        help="engine that stores the pool's shares (default: %(default)s)",
    )
    parser.add_argument(
        "--size", metavar="SIZE", help="size of a new image: 500M, 20G, 1T"
    )
    parser.add_argument(
        "--pool",
        default="gold",
        metavar="NAME",
        help="the pool's name (default: gold)",
    )
    parser.add_argument(
        "--path",
        metavar="DIR",
        help="mount point of a device or image (default:"
        " STATE_PATH/pools/NAME)",
    )
    parser.add_argument(
        "--portal",
        action="append",
        metavar="IP",
        help="address of this machine that clients mount from; can be"
        " repeated, the preferred one first (default: the address of the"
        " default route)",
    )
    parser.add_argument(
        "--listen",
        action="append",
        metavar="IP",
        help="address of the REST API (default: all)",
    )
    parser.add_argument(
        "--port",
        # Must not have the name of a configuration option.
        dest="api_port",
        type=int,
        default=8443,
        metavar="N",
        help="port of the REST API (default: 8443)",
    )
    parser.add_argument(
        "--state-path",
        dest="state_directory",
        default=_STATE_PATH,
        metavar="DIR",
        help="directory for database and certificate (default:"
        f" {_STATE_PATH})",
    )
    parser.add_argument(
        "--output",
        default=options.DEFAULT_FILE,
        metavar="FILE",
        help=f"configuration to write (default: {options.DEFAULT_FILE})",
    )
    parser.add_argument(
        "--nfs-root",
        metavar="DIR",
        help="directory that NFS clients see as / (default: the pool); with"
        " /, init does not change /etc/nfs.conf.d",
    )
    parser.add_argument(
        "--nfs-conf",
        default=nfsconf.DEFAULT_FILE,
        metavar="FILE",
        help="configuration of the NFS server to write (default:"
        f" {nfsconf.DEFAULT_FILE})",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="format a device or image even if it holds data, which is lost",
    )


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """The validated command line, with defaults."""

    plan: Plan
    engine: str
    portals: list[str]
    listen: list[str]
    port: int
    state_path: str
    output: pathlib.Path
    nfs_root: str
    nfs_conf: pathlib.Path

    @property
    def pool(self) -> str:
        return self.plan.name

    @property
    def path(self) -> str:
        return self.plan.path


def run(conf: cfg.ConfigOpts) -> int:
    wanted = _check(conf.command)
    if os.geteuid() != 0:
        raise CommandError("init formats and mounts: run it as root")
    merged = _configuration(wanted)
    nfsconf.check(wanted.nfs_conf, wanted.nfs_root)
    try:
        done = plugins.engines()[wanted.engine].make_pool(wanted.plan)
        done += _write(wanted, merged)
    except PoolError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(
            f"{error.filename or wanted.output}: {error.strerror}"
        ) from error
    for line in done:
        print(f"- {line}")
    print(_next_steps(wanted))
    return Exit.OK


def _check(command: Any) -> _Wanted:
    if not re.fullmatch(opts.POOL_NAME, command.pool):
        raise CommandError(
            f"--pool {command.pool!r}: letters, digits and ._- only, at most"
            " 63, the first a letter or digit",
            Exit.USAGE,
        )
    state_path = os.path.abspath(command.state_directory)
    path = command.directory or command.path
    path = os.path.abspath(path or f"{state_path}/pools/{command.pool}")
    size = None
    if command.size is not None:
        if command.image is None:
            raise CommandError("--size needs --image", Exit.USAGE)
        try:
            size = parse_size(command.size)
        except ValueError as error:
            raise CommandError(
                f"--size {command.size} is not a size, such as 500M or 20G",
                Exit.USAGE,
            ) from error
    if not 1 <= command.api_port <= 65535:
        raise CommandError("--port must be from 1 to 65535", Exit.USAGE)
    output = pathlib.Path(os.path.abspath(command.output))
    return _Wanted(
        plan=Plan(
            name=command.pool,
            path=path,
            device=command.device,
            image=command.image and os.path.abspath(command.image),
            image_bytes=size,
            force=command.force,
        ),
        engine=command.engine,
        portals=_addresses("--portal", command.portal) or _own_portal(),
        listen=_addresses("--listen", command.listen) or ["0.0.0.0"],  # noqa: S104
        port=command.api_port,
        state_path=state_path,
        output=output,
        nfs_root=_nfs_root(command.nfs_root, output) or path,
        nfs_conf=pathlib.Path(os.path.abspath(command.nfs_conf)),
    )


def _nfs_root(given: str | None, output: pathlib.Path) -> str | None:
    """The directory that clients see as ``/``, kept if already configured.

    The path of every mounted share depends on it.

    :raises CommandError: the option would change it.
    """
    root = given and os.path.abspath(given)
    if not output.exists():
        return root
    found = _load(output)
    if not options.pools(found):
        return root
    present = options.export_root(found)
    if root not in (None, present):
        raise CommandError(
            f"--nfs-root {root}: clients already see {present} as /, see"
            f" {output}. A change would move every mounted share: omit the"
            " option",
            Exit.CONFIGURATION,
        )
    return present


def _load(output: pathlib.Path) -> cfg.ConfigOpts:
    """:raises CommandError: the file cannot be read."""
    try:
        return options.load(["--config-file", str(output)])
    except options.ConfigurationError as error:
        raise CommandError(
            f"{output} cannot be read: {error}. Fix or move it",
            Exit.CONFIGURATION,
        ) from error


def _addresses(option: str, given: list[str] | None) -> list[str]:
    for address in given or ():
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise CommandError(
                f"{option} {address} is not an IP address", Exit.USAGE
            ) from error
    return list(given or ())


def _own_portal() -> list[str]:
    from acme_appliance import tls

    for address in reversed(tls.own_addresses(socket.gethostname())):
        if not ipaddress.ip_address(address).is_loopback:
            return [address]
    raise CommandError(
        "found no address of this machine that clients could mount from:"
        " give one with --portal"
    )


def _configuration(wanted: _Wanted) -> str | None:
    """The configuration's new text; None: it needs no change.

    :raises CommandError: the existing configuration conflicts.
    """
    if not wanted.output.exists():
        return _text(wanted)
    found = _load(wanted.output)
    pools = {pool.name: pool for pool in options.pools(found)}
    if wanted.pool in pools:
        there = pools[wanted.pool]
        if (there.engine, there.path) == (wanted.engine, wanted.path):
            return None
        raise CommandError(
            f"{wanted.output} already has a pool {wanted.pool} in"
            f" {there.path}, of engine {there.engine}: choose another --pool,"
            " or the same --engine, --path and --directory",
            Exit.CONFIGURATION,
        )
    return _with_pool(wanted, pools)


def _with_pool(wanted: _Wanted, pools: dict[str, Pool]) -> str:
    root = wanted.nfs_root
    text = wanted.output.read_text()
    line = re.search(r"(?m)^enabled_pools\s*=.*$", text)
    explicit = re.search(r"(?m)^root\s*=", text)
    if line is None or (explicit is None and root != "/"):
        raise CommandError(
            f"{wanted.output} has the pools {', '.join(pools) or '(none)'},"
            " and another pool would change the mount paths of their shares."
            " While nothing is mounted, set [nfs] root to a directory above"
            " all pools, the same as rootdir in"
            f" {wanted.nfs_conf}, restart the NFS server, and repeat",
            Exit.CONFIGURATION,
        )
    if root in {pool.path for pool in pools.values()}:
        raise CommandError(
            f"{root}, which is [nfs] root in {wanted.output}, is itself a"
            " pool, and another pool must not be inside of it. While nothing"
            " is mounted, set [nfs] root to a directory above all pools, the"
            f" same as rootdir in {wanted.nfs_conf}, restart the NFS server,"
            " and repeat",
            Exit.CONFIGURATION,
        )
    if not f"{wanted.path}/".startswith(f"{root.rstrip('/')}/"):
        raise CommandError(
            f"{wanted.path} is not below {root}, which is [nfs] root in"
            f" {wanted.output}: choose a --path below it",
            Exit.CONFIGURATION,
        )
    names = ", ".join([*pools, wanted.pool])
    text = text.replace(line[0], f"enabled_pools = {names}")
    return text.rstrip("\n") + "\n\n" + _pool_text(wanted)


def _write(wanted: _Wanted, merged: str | None) -> list[str]:
    from acme_appliance.host import filesystem
    from acme_appliance.host import users

    done = []
    uid, gid = users.ids()
    os.makedirs(wanted.state_path, mode=0o750, exist_ok=True)
    os.chown(wanted.state_path, uid, gid)
    if merged is None:
        done.append(f"{wanted.output} is up to date")
    else:
        os.makedirs(wanted.output.parent, mode=0o755, exist_ok=True)
        filesystem.write_durably(wanted.output, merged, 0o640, gid)
        done.append(f"wrote {wanted.output}")
    if nfsconf.ensure_exports_directory():
        done.append(f"created {nfsconf.EXPORTS_DIR}")
    if nfsconf.write(wanted.nfs_conf, wanted.nfs_root):
        done.append(f"wrote {wanted.nfs_conf}")
    return done


def _text(wanted: _Wanted) -> str:
    return f"""\
# Configuration of the NFS share appliance, written by acme-appliance init.
# All options: acme-appliance.conf.sample.

[DEFAULT]
# Database, certificate and locks.
state_path = {wanted.state_path}

# The REST API. Clients need {wanted.state_path}/tls/server.crt
# as their CA file, and a token: acme-appliance token create --help
listen_addresses = {",".join(wanted.listen)}
port = {wanted.port}

# Each is configured in a group [pool:NAME]. The first is the default for new
# shares.
enabled_pools = {wanted.pool}

[nfs]
# Addresses of this machine that clients mount from, the preferred one first.
portals = {",".join(wanted.portals)}

# The directory that clients see as /, the same as rootdir in
# {wanted.nfs_conf}. Never change it while shares are mounted.
root = {wanted.nfs_root}

{_pool_text(wanted)}"""


def _pool_text(wanted: _Wanted) -> str:
    text = f"""\
[pool:{wanted.pool}]
engine = {wanted.engine}
path = {wanted.path}
"""
    source = wanted.plan.source
    if source:
        text += f"""
# acme-appliance mount mounts this at path if nothing is mounted there.
device = {_stable_name(source)}
"""
    own = plugins.engines()[wanted.engine].new_pool_options(wanted.plan)
    return f"{text}\n{own}" if own else text


def _stable_name(source: str) -> str:
    """A name that stays the same after a reboot, unlike /dev/vdb."""
    if not source.startswith("/dev/"):
        return source
    links = pathlib.Path("/dev/disk/by-id")
    if not links.is_dir():
        return source
    target = os.path.realpath(source)
    found = [
        str(link)
        for link in sorted(links.iterdir())
        if os.path.realpath(link) == target
    ]
    return found[0] if found else source


def _write_paths(wanted: _Wanted) -> list[str]:
    """Directories that the service writes but its unit does not allow."""
    return [
        path
        for path in dict.fromkeys((wanted.state_path, wanted.path))
        if not any(
            pathlib.Path(path).is_relative_to(known) for known in _UNIT_WRITES
        )
    ]


def _next_steps(wanted: _Wanted) -> str:
    edit = "".join(
        f"\n  systemctl edit acme-appliance       (add: [Service]"
        f" ReadWritePaths={path})"
        for path in _write_paths(wanted)
    )
    program = options.PROG
    if str(wanted.output) != options.DEFAULT_FILE:
        program += f" --config-file {wanted.output}"
    return f"""
Next:{edit}
  systemctl restart nfs-server
  systemctl enable --now acme-appliance     (or: {program} serve)
  {program} token create cinder-a --scope driver:cinder-a
  {program} status"""
