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

"""Tables for people, JSON for scripts."""

from collections.abc import Mapping
from collections.abc import Sequence
import json
import shutil
import sys
from typing import Any
from typing import Final

import prettytable

_LEAST_WIDTH: Final = 60
_LEAST_COLUMN: Final = 20
TICK: Final = "\N{CHECK MARK}"
CROSS: Final = "\N{BALLOT X}"
ARROW: Final = "\N{RIGHTWARDS ARROW}"
#: For terminals that are not Unicode's.
_PLAIN: Final = {TICK: "+", CROSS: "X", ARROW: ">"}


def width() -> int:
    """Of the terminal, or of COLUMNS; 80 where there is none."""
    return max(shutil.get_terminal_size((80, 24)).columns, _LEAST_WIDTH)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    columns_wide: int | None = None,
) -> str:
    """A table that fits the terminal: the last column is wrapped to what the
    others leave.

    :param columns_wide: instead of the terminal's width.
    """
    made = prettytable.PrettyTable(list(columns))
    made.align = "l"
    for row in rows:
        made.add_row(list(row))
    # A column has two blanks and a line, and there is one more line.
    taken = (
        3 * len(columns)
        + 1
        + sum(
            max(
                len(line)
                for row in (columns, *rows)
                for line in _lines(row[n])
            )
            for n in range(len(columns) - 1)
        )
    )
    left = (columns_wide or width()) - taken
    made.max_width[columns[-1]] = max(left, _LEAST_COLUMN)
    return str(made.get_string())


def _lines(text: str) -> list[str]:
    return text.split("\n")


def show(text: str) -> None:
    """Print; what the terminal cannot show is replaced."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        for sign, plain in _PLAIN.items():
            text = text.replace(sign, plain)
        text = text.encode(encoding, "replace").decode(encoding)
    print(text, flush=True)


def show_json(value: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> None:
    show(json.dumps(value, indent=2, default=str))
