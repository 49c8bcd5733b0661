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

"""Rules for the tests themselves."""

import ast
import pathlib
import unittest

_TESTS = pathlib.Path(__file__).parents[1]
#: Methods of unittest.TestCase that a runner calls: an attribute in their
#: place ends the whole run.
_RESERVED = {"countTestCases", "debug", "id", "run", "shortDescription"}


class ReservedNamesTest(unittest.TestCase):
    def test_no_attribute_hides_a_method_that_runners_call(self):
        files = sorted(_TESTS.rglob("*.py"))
        self.assertTrue(files)
        wrong = [
            f"{path.relative_to(_TESTS)}:{node.lineno}: self.{node.attr}"
            for path in files
            for node in ast.walk(ast.parse(path.read_text(), str(path)))
            if isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
            and node.attr in _RESERVED
        ]
        self.assertEqual([], wrong)
