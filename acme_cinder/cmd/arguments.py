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

"""The command line. Imports nothing of Cinder."""

import argparse
import importlib.metadata
from typing import Any
from typing import Final

_DISTRIBUTION: Final = "acme-cinder"

_EPILOG: Final = """\
exit codes:
  0  all is well
  1  there is something to do; the output says what
  2  the command cannot run: command line, configuration, database, appliance

All commands read cinder.conf and run on a host of Cinder, at any time, beside
its services. Started by root, they go on as the user cinder.
"""
_CHECK: Final = """\
Checks all that can go wrong when a back end is set up, from its options to a
share that is made, mounted, written, read and removed again. Shows every
finding, and what to do about it. What depends on something that failed is
marked as not checked. Run it on each host of cinder-volume.
"""
_ORPHANS: Final = """\
Compares the appliance with Cinder's database: shares, snapshots and access
rules that Cinder does not know, volumes and snapshots whose data is gone,
copies and mounts that a crash has left, temporary volumes of backups.

Only reads. With --clean it asks for each orphan that is proven to be one, and
looks everything up again before it removes it. Proven is: Cinder's own records
say that it was deleted, no record names it, nothing has access to it or works
on it, and nothing changed it for --min-age. Everything else is only shown:
shares of another Cinder or without the driver's labels stay.
"""
_BUNDLE: Final = """\
Writes one .tar.gz for those who help: versions, the options of the back ends,
the findings of the check (without its share), the appliance's state, and the
warnings and errors of cinder-volume's log, if that is a file. Passwords and
tokens are masked. Changes nothing else; only its owner can read the file.
"""
_VOLUMES: Final = """\
Shows the volumes of the back ends: name, id, size, status and pool; the share,
if its id is another one; the hosts that have access to it; and where Cinder
and the appliance differ: access without an attachment or the other way round,
a share that is gone or has another size. Only reads, from Cinder's database
and the appliance.
"""
_REAP: Final = """\
Unmounts what is mounted below nfs_mount_point_base, belongs to the appliance,
and has neither a user nor an access rule of this host. Other mounts are left
alone. May run at any time, beside any service.
"""


def version() -> str:
    """The version of the installed package."""
    return importlib.metadata.version(_DISTRIBUTION)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="acme-cinder",
        description="Looks after the back ends of Cinder that have this "
        "driver.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--version", action="version", version=f"%(prog)s {version()}"
    )
    made.add_argument(
        "--debug", action="store_true", help="log what happens in between"
    )
    made.add_argument(
        "--user",
        help="go on as this user, which only root can (default: cinder, if "
        "root starts the command and there is that user)",
    )
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "check", "find what is wrong with the set-up", _CHECK)
    orphans = _add(
        commands,
        "orphans",
        "find what Cinder and the appliance do not agree about",
        _ORPHANS,
    )
    orphans.add_argument(
        "--clean", action="store_true", help="ask for each, and remove it"
    )
    orphans.add_argument(
        "--yes", action="store_true", help="with --clean: do not ask"
    )
    orphans.add_argument(
        "--min-age",
        type=_minutes,
        default=60,
        metavar="MINUTES",
        help="leave alone what is younger (default: %(default)s)",
    )
    bundle = _add(
        commands,
        "support-bundle",
        "write an archive for those who help",
        _BUNDLE,
        has_format=False,
    )
    bundle.add_argument(
        "--output",
        metavar="FILE",
        help="a new file (default: acme-cinder-HOST-TIME.tar.gz, here)",
    )
    _add(commands, "volumes", "show volumes, shares and access", _VOLUMES)
    _add(
        commands,
        "reap",
        "unmount shares that this host needs no more",
        _REAP,
        has_format=False,
    )
    return made


def _minutes(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError("a number of minutes is expected")
    return value


def _add(
    commands: Any,
    name: str,
    summary: str,
    description: str,
    *,
    has_format: bool = True,
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--config-file",
        action="append",
        default=[],
        metavar="FILE",
        help="cinder.conf, or several files (default: Cinder's own search)",
    )
    made.add_argument(
        "--backend",
        action="append",
        default=[],
        metavar="SECTION",
        help="a back end's section (default: all of enabled_backends that "
        "have this driver)",
    )
    if has_format:
        made.add_argument(
            "-f",
            "--format",
            choices=("table", "json"),
            default="table",
            help="the form of the output (default: %(default)s)",
        )
    made.set_defaults(module=name.replace("-", "_"))
    return made
