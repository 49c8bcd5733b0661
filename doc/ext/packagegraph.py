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

"""The directive ``package-graph``: the imports between a package's folders.

Drawn from source at build time, without arrows that others imply.
"""

import ast
from collections.abc import Iterator
import pathlib
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext import graphviz
from sphinx.util.docutils import SphinxDirective

_ROOT = pathlib.Path(__file__).parents[2]
_STYLE = (
    'rankdir=TB; bgcolor=transparent; node [shape=box, style="rounded,filled",'
    ' fillcolor="#f4f7fb", color="#36618e", fontname="sans-serif"];'
    ' edge [color="#444444"];'
)

Graph = dict[str, set[str]]


class PackageGraph(SphinxDirective):
    """``.. package-graph:: PACKAGE``: only its folders, not its modules."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        package = self.arguments[0]
        graph = _reduced(_imports(package))
        lines = [f'"{name}";' for name in sorted(graph)]
        lines += [
            f'"{name}" -> "{other}";'
            for name, others in sorted(graph.items())
            for other in sorted(others)
        ]
        node = graphviz.graphviz()
        node["code"] = f"digraph {{ {_STYLE} {' '.join(lines)} }}"
        node["options"] = {}
        node["alt"] = f"Which folders of {package} import which"
        return [node]


def _imports(package: str) -> Graph:
    """Folder to the folders that any of its modules imports."""
    top = _ROOT / package
    graph: Graph = {
        folder.name: set()
        for folder in top.iterdir()
        if (folder / "__init__.py").is_file()
    }
    for name, others in graph.items():
        for module in (top / name).rglob("*.py"):
            for imported in _imported(module.read_text()):
                parts = imported.split(".")
                if parts[0] == package and parts[1] in graph:
                    others.add(parts[1])
        others.discard(name)
    return graph


def _imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"{alias.name}." for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _reduced(graph: Graph) -> Graph:
    """The transitive reduction of an acyclic graph."""

    def reachable(name: str) -> set[str]:
        return graph[name].union(*(reachable(each) for each in graph[name]))

    return {
        name: others.difference(*(reachable(each) for each in others))
        for name, others in graph.items()
    }


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("package-graph", PackageGraph)
    return {"parallel_read_safe": True}
