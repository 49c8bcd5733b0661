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

"""What the subcommands have in common: exit codes, errors, output."""

import enum


class Exit(enum.IntEnum):
    """What the command ends with; a table is in admin/appliance.rst."""

    OK = 0
    #: Something did not work; the message says what and what to do.
    FAILED = 1
    #: The command line is wrong.
    USAGE = 2
    #: The configuration is wrong or missing.
    CONFIGURATION = 3
    #: ``reconcile`` found differences that are still there.
    DIFFERENCES = 4
    #: The database is not that of the pools: see ``recover``.
    WRONG_DATABASE = 5


class CommandError(Exception):
    """It cannot be done; the text names the thing and the way out."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def human_bytes(size: int) -> str:
    """Three digits and a binary unit: ``1.50 TiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024 or unit == "PiB":
            break
        value /= 1024
    if unit == "B":
        return f"{size} B"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def parse_size(text: str) -> int:
    """Bytes of ``20G``, ``512M``, ``1.5TiB`` or a plain number.

    Units are binary. :raises ValueError: it is none of these.
    """
    digits = text.strip().rstrip("BbIi")
    factor = 1
    if digits and digits[-1].upper() in "KMGTP":
        factor = 1024 ** ("KMGTP".index(digits[-1].upper()) + 1)
        digits = digits[:-1]
    size = float(digits) * factor
    if not 0 < size < 1 << 60:
        raise ValueError(f"{text} is not a size")
    return int(size)
