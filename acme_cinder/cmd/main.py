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

"""The operator's command on Cinder's hosts: ``acme-cinder``."""

import argparse
from collections.abc import Sequence
import logging
import sys

from acme_cinder.cmd import reap

_COMMANDS = (reap,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return the exit code.

    0: success. 1: something failed; the messages say what. 2: the command
    line or the configuration is invalid.
    """
    parser = argparse.ArgumentParser(
        prog="acme-cinder", description=(__doc__ or "").partition(":")[0] + "."
    )
    parser.add_argument(
        "--debug", action="store_true", help="log what happens in between"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    given = parser.parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        format="%(levelname)s: %(message)s",
        level=logging.DEBUG if given.debug else logging.INFO,
    )
    code: int = given.run(given)
    return code


if __name__ == "__main__":
    sys.exit(main())
