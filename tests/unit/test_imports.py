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

"""The allowed imports of each layer: only from lower layers."""

import ast
from collections.abc import Iterator
import pathlib
import unittest

import acme_client

_ROOT = pathlib.Path(__file__).parents[2]

#: From the top to the bottom: a layer imports those to its right, and
#: itself. Engines and exporters are beside each other.
_APPLIANCE_LAYERS = (
    "cmd",
    "api",
    "service",
    "changes",
    "storage",
    "db",
    "engines",
    "host",
)
#: Those that engines and exporters are below of.
_ABOVE_ENGINES = _APPLIANCE_LAYERS[: _APPLIANCE_LAYERS.index("engines")]
_MAY_RUN_COMMANDS = ("acme_appliance.host",)
#: The packages of this tree.
_OWN = ("acme_client", "acme_cinder", "acme_appliance", "tests", "tools")


def modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    """Name and syntax tree of a module, or of every module of a package."""
    top = _ROOT / package.replace(".", "/")
    module = top.with_suffix(".py")
    found = [module] if module.is_file() else sorted(top.rglob("*.py"))
    for path in found:
        parts = path.relative_to(_ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(), str(path))


def imports(tree: ast.Module) -> Iterator[str]:
    """Full names of all imports in the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def names(tree: ast.Module) -> set[str]:
    """All names that a module defines or imports."""
    found = {alias.asname or alias.name for alias in _aliases(tree)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name):
            found.add(node.id)
    return found


def _aliases(tree: ast.Module) -> Iterator[ast.alias]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from node.names


def is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


class ImportsTest(unittest.TestCase):
    def refuse(self, package: str, *forbidden: str) -> None:
        """No module of ``package`` imports anything ``forbidden``."""
        found = list(modules(package))
        self.assertTrue(found, f"{package} is empty")
        wrong = [
            f"{name} imports {imported}"
            for name, tree in found
            for imported in imports(tree)
            for below in forbidden
            if is_below(imported, below)
        ]
        self.assertEqual([], wrong)

    def test_client_knows_nothing_of_its_users(self):
        self.refuse(
            "acme_client",
            "cinder",
            "os_brick",
            "manila",
            "oslo_config",
            "acme_appliance",
            "acme_cinder",
            "eventlet",
        )

    def test_tests_of_the_client_need_no_cinder(self):
        for package in ("tests.unit.client", "tests.harness.transports"):
            self.refuse(package, "cinder", "os_brick", "acme_cinder")

    def test_driver_knows_no_appliance_and_no_eventlet(self):
        self.refuse("acme_cinder", "acme_appliance", "eventlet")

    def test_driver_uses_only_the_public_names_of_the_client(self):
        wrong = [
            f"{name} imports {imported}"
            for name, tree in modules("acme_cinder")
            for imported in imports(tree)
            if imported.startswith("acme_client.")
            and imported.removeprefix("acme_client.")
            not in acme_client.__all__
        ]
        self.assertEqual([], wrong)

    def test_appliance_knows_no_cinder(self):
        self.refuse(
            "acme_appliance",
            "cinder",
            "os_brick",
            "acme_cinder",
            "acme_client",
        )

    def test_layers_of_the_appliance_go_down(self):
        packages = [f"acme_appliance.{name}" for name in _APPLIANCE_LAYERS]
        for place, package in enumerate(packages):
            if place:
                self.refuse(package, *packages[:place])
        self.refuse(
            "acme_appliance.exporters",
            *(f"acme_appliance.{name}" for name in _ABOVE_ENGINES),
        )
        self.refuse("acme_appliance.exporters", "acme_appliance.engines")
        self.refuse("acme_appliance.engines", "acme_appliance.exporters")
        self.refuse("acme_appliance.host", "acme_appliance.exporters")
        self.refuse(
            "acme_appliance.db",
            "acme_appliance.engines",
            "acme_appliance.exporters",
        )

    def test_nobody_knows_the_engines_and_exporters_that_there_are(self):
        """They are found by entry point; each knows only itself."""
        found = [
            f"acme_appliance.{group}.{folder.name}"
            for group in ("engines", "exporters")
            for folder in (_ROOT / "acme_appliance" / group).iterdir()
            if (folder / "plugin.py").is_file()
        ]
        self.assertIn("acme_appliance.engines.memory", found)
        wrong = [
            f"{name} imports {imported}"
            for name, tree in modules("acme_appliance")
            for imported in imports(tree)
            for plugin in found
            if is_below(imported, plugin) and not is_below(name, plugin)
        ]
        self.assertEqual([], wrong)

    def test_own_names_exist(self):
        """Also in tests that need NFS, which run seldom."""
        trees = {name: tree for own in _OWN for name, tree in modules(own)}
        known = {*trees, "tests", "tools"}
        for name, tree in trees.items():
            known |= {f"{name}.{each}" for each in names(tree)}
        wrong = [
            f"{name} imports {imported}"
            for name, tree in trees.items()
            for imported in imports(tree)
            if imported.split(".")[0] in _OWN and imported not in known
        ]
        self.assertEqual([], wrong)

    def test_only_the_host_layer_runs_commands(self):
        runners = {"subprocess", "pty", "fcntl.ioctl", "ctypes", "os.system"}
        for package in ("acme_appliance", "acme_client"):
            for name, tree in modules(package):
                if any(is_below(name, ok) for ok in _MAY_RUN_COMMANDS):
                    continue
                found = {
                    imported
                    for imported in imports(tree)
                    for runner in runners
                    if is_below(imported, runner)
                }
                self.assertEqual(set(), found, name)
