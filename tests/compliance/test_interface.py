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

"""Cinder's checks of drivers, and the signature of every method.

Runs with the installed Cinder; tox has an environment for each supported one.
"""

from __future__ import annotations

import ast
import inspect
import pathlib
import textwrap
from typing import Any
import unittest

from cinder import interface
from cinder import objects

objects.register_all()

from cinder.interface import util  # noqa: E402
from cinder.interface import volume_driver  # noqa: E402
from cinder.interface import volume_group_driver  # noqa: E402
from cinder.interface import volume_manageable_driver  # noqa: E402
from cinder.interface import volume_snapshotmanagement_driver  # noqa: E402
from cinder.volume import driver as base_driver  # noqa: E402
from cinder.volume import manager  # noqa: E402

from acme_cinder import driver  # noqa: E402
from acme_cinder import mixins  # noqa: E402
from acme_cinder import opts  # noqa: E402

CLASS = driver.acmeNfsDriver

#: Names of the feature interfaces that later versions may implement; each
#: is either implemented as a whole or not claimed at all.
_OPTIONAL = {
    "ManageableVD": (
        "manage_existing",
        "manage_existing_get_size",
        "get_manageable_volumes",
        "unmanage",
    ),
    "ManageableSnapshotsVD": (
        "manage_existing_snapshot",
        "manage_existing_snapshot_get_size",
        "get_manageable_snapshots",
        "unmanage_snapshot",
    ),
}


def bases() -> list[type]:
    """Cinder's base classes of the driver, and those that define how the
    manager calls it."""
    found = [
        cls
        for cls in inspect.getmro(CLASS)
        if cls.__module__ == base_driver.__name__
    ]
    # Has the calls that BaseVD leaves out: snapshots, for instance.
    return [*found, base_driver.VolumeDriver]


def own_methods() -> dict[str, Any]:
    """Public methods that the driver defines, and not Cinder."""
    return {
        name: inspect.getattr_static(CLASS, name)
        for cls in inspect.getmro(CLASS)
        if cls.__module__.startswith("acme_cinder.")
        for name, value in vars(cls).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, staticmethod))
    }


def _plain(method: Any) -> inspect.Signature:
    function = getattr(method, "__func__", method)
    return inspect.signature(function)


def differences(ours: Any, theirs: Any) -> list[str]:
    """Why a caller of the base's method cannot call the driver's.

    The driver's method must have all arguments, in the same order and with the
    same names, and optional ones must be optional; additional arguments must
    be optional.
    """
    found = []
    mine = list(_plain(ours).parameters.values())
    for place, wanted in enumerate(_plain(theirs).parameters.values()):
        if wanted.kind is wanted.VAR_KEYWORD:
            if not any(one.kind is one.VAR_KEYWORD for one in mine):
                found.append(f"no **{wanted.name}")
            continue
        if place >= len(mine) or mine[place].name != wanted.name:
            found.append(f"{wanted.name} is not argument {place}")
            continue
        optional = wanted.default is not wanted.empty
        if optional and mine[place].default != wanted.default:
            found.append(f"{wanted.name} has another default")
    known = set(_plain(theirs).parameters)
    for one in mine:
        variable = one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        if one.name not in known and not variable and one.default is one.empty:
            found.append(f"{one.name} is required, and Cinder has none")
    return found


class InterfaceTest(unittest.TestCase):
    """Like cinder/tests/compliance for Cinder's own drivers."""

    def test_registered(self):
        self.assertIn(CLASS, interface._volume_register)

    def test_name(self):
        info = util.DriverInfo(CLASS)
        self.assertEqual("acme_cinder.driver.acmeNfsDriver", info.class_fqn)
        self.assertTrue(info.version)
        self.assertTrue(info.ci_wiki_name)
        self.assertTrue(info.desc)
        self.assertTrue(info.supported)
        names = [opt.name for opt in info.driver_options]
        self.assertEqual([opt.name for opt in opts.DRIVER_OPTS], names)

    def test_conforms_to_the_core_interface(self):
        self.assertTrue(issubclass(CLASS, volume_driver.VolumeDriverCore))

    def test_conforms_to_optional_interfaces(self):
        """Those that Cinder has beside the core."""
        for optional in (
            volume_manageable_driver.VolumeManagementDriver,
            volume_manageable_driver.VolumeListManageableDriver,
            volume_snapshotmanagement_driver.VolumeSnapshotManagementDriver,
            volume_group_driver.VolumeGroupDriver,
        ):
            with self.subTest(optional.__name__):
                self.assertTrue(issubclass(CLASS, optional))
                for name, theirs in vars(optional).items():
                    if not name.startswith("_"):
                        ours = inspect.getattr_static(CLASS, name)
                        self.assertEqual([], differences(ours, theirs), name)

    def test_has_every_method_of_the_core_interface(self):
        """issubclass checks only class methods."""
        wanted = [
            name
            for name, value in vars(volume_driver.VolumeDriverCore).items()
            if inspect.isfunction(value)
        ]
        self.assertGreater(len(wanted), 20)
        for name in wanted:
            self.assertTrue(hasattr(CLASS, name), name)

    def test_nothing_is_left_abstract(self):
        self.assertEqual(frozenset(), CLASS.__abstractmethods__)

    def test_mixins(self):
        for mixin, name in (
            (mixins.ExtendVD, "extend_volume"),
            (mixins.LocalVD, "local_path"),
            (mixins.TransferVD, "accept_transfer"),
        ):
            self.assertTrue(issubclass(CLASS, mixin))
            self.assertIn(name, mixin.__abstractmethods__)

    def test_claims_only_what_it_does(self):
        for name, methods in _OPTIONAL.items():
            optional = getattr(base_driver, name)
            done = [each for each in methods if each in own_methods()]
            if issubclass(CLASS, optional):
                self.assertEqual(list(methods), done)
            else:
                self.assertEqual([], done)
        self.assertFalse(CLASS.supports_replication_feature("v2.1"))


class SignatureTest(unittest.TestCase):
    def test_against_the_base_classes(self):
        compared = set()
        for name, method in own_methods().items():
            for cls in bases():
                theirs = inspect.getattr_static(cls, name, None)
                if theirs is not None:
                    compared.add(name)
                    self.assertEqual(
                        [],
                        differences(method, theirs),
                        f"{name}, compared with {cls.__name__}",
                    )
        for name in (
            "create_volume",
            "create_snapshot",
            "copy_image_to_volume",
            "copy_image_to_encrypted_volume",
            "initialize_connection",
            "terminate_connection",
            "update_migrated_volume",
            "local_path",
            "create_group_from_src",
            "delete_group_snapshot",
        ):
            self.assertIn(name, compared)

    def test_every_public_method_is_one_of_cinders(self):
        known = {name for cls in bases() for name in dir(cls)}
        self.assertEqual({"assemble"}, set(own_methods()) - known)

    def test_what_the_manager_passes(self):
        """Every call in the manager matches the driver's methods."""
        checked = 0
        source = inspect.getsource(manager)
        for call in _driver_calls(ast.parse(textwrap.dedent(source))):
            name = call.func.attr
            method = own_methods().get(name)
            if method is None or _is_starred(call):
                continue
            checked += 1
            try:
                _plain(method).bind(
                    None,
                    *[None for _ in call.args],
                    **{one.arg: None for one in call.keywords},
                )
            except TypeError as error:
                self.fail(f"manager.py, line {call.lineno}: {name}: {error}")
        self.assertGreater(checked, 20)

    def test_disable_sparse(self):
        """Without it Cinder 29 fails every create from an image."""
        for name in (
            "copy_image_to_volume",
            "copy_image_to_encrypted_volume",
        ):
            parameters = inspect.signature(getattr(CLASS, name)).parameters
            self.assertIs(False, parameters["disable_sparse"].default)


class WrongSignaturesTest(unittest.TestCase):
    """The comparison detects differences."""

    def wrong(self, ours, name):
        theirs = inspect.getattr_static(base_driver.BaseVD, name)
        return differences(ours, theirs)

    def test_an_argument_is_missing(self):
        def copy_image_to_volume(
            self, context, volume, image_service, image_id
        ):
            """As drivers had it before."""

        self.assertEqual(
            ["disable_sparse is not argument 5"],
            self.wrong(copy_image_to_volume, "copy_image_to_volume"),
        )

    def test_another_name(self):
        def create_cloned_volume(self, volume, source):
            """Cinder calls it by position, but may by name."""

        self.assertEqual(
            [
                "src_vref is not argument 2",
                "source is required, and Cinder has none",
            ],
            self.wrong(create_cloned_volume, "create_cloned_volume"),
        )

    def test_one_more(self):
        def create_volume(self, volume, pool):
            """Nobody gives a pool."""

        self.assertEqual(
            ["pool is required, and Cinder has none"],
            self.wrong(create_volume, "create_volume"),
        )

    def test_no_keywords(self):
        def terminate_connection(self, volume, connector):
            """The manager gives force=."""

        self.assertEqual(
            ["no **kwargs"],
            self.wrong(terminate_connection, "terminate_connection"),
        )

    def test_another_default(self):
        def get_volume_stats(self, refresh=True):
            """It would ask each time."""

        self.assertEqual(
            ["refresh has another default"],
            self.wrong(get_volume_stats, "get_volume_stats"),
        )


def _driver_calls(tree: ast.AST) -> list[Any]:
    """``self.driver.NAME(...)``, all of them."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Attribute)
        and node.func.value.attr == "driver"
    ]


def _is_starred(call: ast.Call) -> bool:
    return any(isinstance(one, ast.Starred) for one in call.args) or any(
        one.arg is None for one in call.keywords
    )


class SourceTest(unittest.TestCase):
    def test_no_eventlet(self):
        """The driver runs under native threads, too."""
        folder = pathlib.Path(inspect.getfile(driver)).parent
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [one.name for one in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                for name in names:
                    self.assertNotEqual("eventlet", name.split(".")[0], path)
