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

"""Check the table of features."""

import importlib
import inspect
from pathlib import Path
import types
import unittest

import yaml

from acme_cinder import driver

TABLE = (
    Path(__file__).resolve().parents[2] / "doc/source/reference/features.yaml"
)
KEYS = {"feature", "support", "calls", "tests"}


def has_test(name: str) -> bool:
    """Whether MODULE.CLASS.METHOD exists; ddt extends a method's name."""
    module, class_name, method = name.rsplit(".", 2)
    try:
        found = getattr(importlib.import_module(module), class_name, None)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            return False
        raise
    return method.startswith("test_") and any(
        each == method or each.startswith(f"{method}_1") for each in dir(found)
    )


def own_calls() -> set[str]:
    """Cinder's calls that the driver implements."""
    kinds = (types.FunctionType, classmethod, staticmethod)
    return {
        name
        for cls in inspect.getmro(driver.acmeNfsDriver)
        if cls.__module__.startswith("acme_cinder.")
        for name, value in vars(cls).items()
        if isinstance(value, kinds) and not name.startswith("_")
    } - {"assemble"}


class FeaturesTest(unittest.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.features = yaml.safe_load(TABLE.read_text())

    def test_what_it_consists_of(self) -> None:
        names = [each["feature"] for each in self.features]
        self.assertEqual(len(names), len(set(names)))
        for each in self.features:
            with self.subTest(each["feature"]):
                self.assertEqual(set(), each.keys() - KEYS)
                self.assertRegex(each["support"], "^(no$|yes(,|$))")
                self.assertTrue(each["calls"])

    def test_what_is_supported_is_tested(self) -> None:
        for each in self.features:
            with self.subTest(each["feature"]):
                named = each.get("tests", [])
                self.assertEqual(each["support"] != "no", bool(named))
                missing = [name for name in named if not has_test(name)]
                self.assertEqual([], missing)

    def test_calls(self) -> None:
        """Calls of a "no" can exist in Cinder, but not in the driver."""
        own = own_calls() | {"get_volume_stats"}
        for each in self.features:
            with self.subTest(each["feature"]):
                calls = set(each["calls"])
                if each["support"] == "no":
                    self.assertEqual(set(), calls & own)
                else:
                    self.assertEqual(set(), calls - own)

    def test_every_call_of_the_driver_is_in_it(self) -> None:
        named = {call for each in self.features for call in each["calls"]}
        self.assertEqual(set(), own_calls() - named)

    def test_a_wrong_name_is_found(self) -> None:
        for name in (
            "tests.unit.test_features.FeaturesTest.test_no_such",
            "tests.unit.test_features.NoTest.test_calls",
            "tests.unit.test_no_such.FeaturesTest.test_calls",
            "tests.unit.test_features.FeaturesTest.setUp",
        ):
            self.assertFalse(has_test(name), name)
        self.assertTrue(has_test(self.id()))
