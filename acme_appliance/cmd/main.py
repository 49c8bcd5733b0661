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

"""``acme-appliance``: parse the command line and run the subcommand."""

from collections.abc import Callable
from collections.abc import Sequence
import importlib
import logging
import os
import sys
from typing import Any
from typing import Final

from oslo_config import cfg

from acme_appliance import conf as options
from acme_appliance.cmd.common import CommandError
from acme_appliance.cmd.common import Exit

LOG = logging.getLogger(__name__)

#: In the order of --help. Each module imports its dependencies in ``run``,
#: because some are slow to import.
_SUBCOMMANDS: Final = (
    "init",
    "mount",
    "serve",
    "token",
    "status",
    "reconcile",
    "recover",
)

_DESCRIPTION: Final = (
    "An NFS share appliance: a REST API over btrfs or XFS and the kernel's"
    " NFS server. Global options, such as --config-file, come before the"
    " command."
)
_EPILOG: Final = (
    "Exit codes: 0 success, 1 failure, 2 wrong command line, 3 wrong"
    " configuration, 4 reconcile or recover left differences, 5 the database"
    " does not match the pools (see recover)."
    " First steps: acme-appliance init --help"
)


def _add_parsers(subparsers: Any) -> None:
    for name in _SUBCOMMANDS:
        module = importlib.import_module(f"acme_appliance.cmd.{name}")
        module.add_parser(subparsers)


def _command_option() -> cfg.SubCommandOpt:
    return cfg.SubCommandOpt(
        "command",
        title="commands",
        description="see COMMAND --help",
        handler=_add_parsers,
    )


def load(arguments: Sequence[str]) -> cfg.ConfigOpts:
    """Load the configuration and the command, with logging options.

    :raises CommandError: the configuration cannot be read.
    """
    from oslo_log import log

    conf = cfg.ConfigOpts()
    log.register_options(conf)
    log.set_defaults(
        default_log_levels=[*log.get_default_log_levels(), "alembic=WARN"]
    )
    try:
        return options.load(
            arguments,
            [_command_option()],
            conf=conf,
            description=_DESCRIPTION,
            epilog=_EPILOG,
        )
    except options.ConfigurationError as error:
        raise CommandError(str(error), Exit.CONFIGURATION) from error


def run(arguments: Sequence[str]) -> int:
    """Run a command; return the exit code."""
    try:
        conf = load(arguments)
        command: Callable[[cfg.ConfigOpts], int] = importlib.import_module(
            f"acme_appliance.cmd.{conf.command.name}"
        ).run
        return int(command(conf))
    except CommandError as error:
        print(f"acme-appliance: {error}", file=sys.stderr)
        return int(error.code)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("acme_appliance"):
            raise
        # An installation of only the driver has the command, but not the
        # appliance's dependencies.
        print(
            f"acme-appliance: the Python module {error.name} is missing:"
            " pip install 'acme-cinder[appliance]'",
            file=sys.stderr,
        )
        return int(Exit.CONFIGURATION)
    except BrokenPipeError:
        # The reader, for instance head, has closed the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.OK)
    except KeyboardInterrupt:
        return 130


def main() -> None:
    sys.exit(run(sys.argv[1:]))
