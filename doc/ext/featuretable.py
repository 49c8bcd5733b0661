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

"""The directive ``feature-table``: a table from a file of features.

``tests/unit/test_features.py`` checks the file.
"""

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
import yaml

_HEAD = """\
.. list-table::
   :header-rows: 1
   :widths: 28 22 20 30
   :class: features

   * - Feature
     - Support
     - Cinder's calls
     - Verified by
"""


class FeatureTable(SphinxDirective):
    """``.. feature-table:: FILE``, relative to the document."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        relative, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        with open(path) as file:
            features = yaml.safe_load(file)
        rows = (line for each in features for line in _row(each))
        return self.parse_text_to_nodes(_HEAD + "\n".join(rows) + "\n")


def _row(feature: dict[str, Any]) -> Iterator[str]:
    yield f"   * - {feature['feature']}"
    yield f"     - {feature['support']}"
    yield from _cell(feature["calls"])
    yield from _cell(
        test.removeprefix("tests.") for test in feature.get("tests", ())
    )


def _cell(names: Any) -> Iterator[str]:
    """One name per line, without hyphenation."""
    literals = [f"``{name}``" for name in names]
    if not literals:
        yield "     -"
    for number, literal in enumerate(literals):
        yield f"     {'-' if number == 0 else ' '} | {literal}"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("feature-table", FeatureTable)
    return {"parallel_read_safe": True}
