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

"""2,000 clients that only hold connections, and one with a token."""

import resource

from tests.unit.appliance import test_server
from tools.bench import hostile


class ManyClientsTest(test_server.ServerCase):
    COUNT = 2000

    def setUp(self) -> None:
        super().setUp()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
        self.server.start_and_wait()
        self.headers = self.server.secret()

    def test_from_one_address(self) -> None:
        """All clients with a token are answered."""
        for kind in hostile.KINDS:
            with self.subTest(kind=kind):
                clients = hostile.Clients(self.server.port, kind, self.COUNT)
                self.addCleanup(clients.close)
                clients.fill()
                for _ in range(5):
                    clients.go_on()
                    reply = self.server.get("/v1/shares", headers=self.headers)
                    self.assertEqual(200, reply.status_code)
                clients.close()
