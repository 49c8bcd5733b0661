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

"""Exit codes, errors and formatting for subcommands."""

import enum


class Exit(enum.IntEnum):
    """Exit codes; documented in admin/appliance.rst."""

    OK = 0
    #: The message says what failed and what to do.
    FAILED = 1
    #: The command line is wrong.
    USAGE = 2
    #: The configuration is wrong or missing.
    CONFIGURATION = 3
    #: ``reconcile`` or ``recover`` left differences.
    DIFFERENCES = 4
    #: The database does not match the pools: see ``recover``.
    WRONG_DATABASE = 5


class CommandError(Exception):
    """The command failed; the text says why and what to do."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def human_bytes(size: int) -> str:
    """Format with three digits and a binary unit: ``1.50 TiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024 or unit == "PiB":
            break
        value /= 1024
    if unit == "B":
        return f"{size} B"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def parse_size(text: str) -> int:
    """Parse ``20G``, ``512M``, ``1.5TiB`` or a number of bytes.

    Units are binary. :raises ValueError: ``text`` is not a size.
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
