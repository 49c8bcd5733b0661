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

"""Check what the contributor docs say about the source."""

import pathlib
import re
import unittest

_ROOT = pathlib.Path(__file__).parents[2]
_PATH = re.compile(
    r"``((?:acme_\w+|tests|tools|doc|etc|releasenotes)/[\w./-]+)``"
)


class PathsTest(unittest.TestCase):
    def test_paths_exist(self):
        pages = sorted((_ROOT / "doc/source/contributor").glob("*.rst"))
        named = {
            (page.name, path)
            for page in pages
            for path in _PATH.findall(page.read_text())
        }
        self.assertLess(20, len(named))
        missing = {
            (page, path) for page, path in named if not (_ROOT / path).exists()
        }
        self.assertEqual(set(), missing)
