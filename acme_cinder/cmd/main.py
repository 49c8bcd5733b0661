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

"""The operator's command on Cinder's hosts: ``acme-cinder``.

Modules of Cinder take seconds to import: only the subcommand that is run
imports them.
"""

import argparse
from collections.abc import Sequence
import importlib
import logging
import sys

from acme_cinder.cmd import arguments
from acme_cinder.cmd import user

LOG = logging.getLogger(__name__)


def main(given: Sequence[str] | None = None) -> int:
    """Run a subcommand; return the exit code.

    0: all is well. 1: there is something to do, or something failed; the
    output says what. 2: the command line or the configuration is invalid,
    or the command cannot run.
    """
    options = arguments.parser().parse_args(given)
    logging.basicConfig(
        stream=sys.stderr,
        format="%(levelname)s: %(message)s",
        level=_level(options),
    )
    try:
        user.become(options.user)
        return run(options)
    except user.Unknown as error:
        LOG.critical("%s", error)
    except KeyboardInterrupt:
        LOG.critical("interrupted")
    return 2


def run(options: argparse.Namespace) -> int:
    """Run the parsed command in this process."""
    module = importlib.import_module(f"acme_cinder.cmd.{options.module}")
    code: int = module.run(options)
    return code


def _level(options: argparse.Namespace) -> int:
    if options.debug:
        return logging.DEBUG
    # The other commands' output says what the log would say again.
    return logging.INFO if options.module == "reap" else logging.CRITICAL


if __name__ == "__main__":
    sys.exit(main())
