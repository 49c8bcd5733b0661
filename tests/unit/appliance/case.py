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

"""What tests of the service have in common."""

import unittest

from acme_appliance import problems
from tests.unit.appliance import fixtures


class ServiceCase(unittest.TestCase):
    settings = {}

    def setUp(self):
        super().setUp()
        self.fixture = fixtures.ServiceFixture(self, **self.settings)

    def check_problem(self, code, request, pointer=None):
        with self.assertRaises(problems.Problem) as caught:
            request()
        problem = caught.exception
        self.assertEqual(code, problem.code, problem.detail)
        if pointer is not None:
            self.assertEqual(
                [pointer], [error["pointer"] for error in problem.errors]
            )
        return problem

    def share(self, id_, caller=fixtures.ADMIN):
        return self.fixture.service.shares.get(caller, id_)

    def make_share(self, **body):
        return self.fixture.put_share(**body).body["id"]

    def make_snapshot(self, share_id, **body):
        return self.fixture.put_snapshot(share_id, **body).body["id"]

    def check_as_before(self, request):
        """The request fails, and changes nothing."""
        before = self.fixture.state()
        request()
        self.assertEqual(before, self.fixture.state())
