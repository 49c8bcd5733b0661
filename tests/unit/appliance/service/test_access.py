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

"""Access rules: who may mount what."""

import ddt

from acme_appliance import references
from acme_appliance.service import Limits
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

ID = "11111111-1111-4111-8111-111111111111"
ONE, TWO, NET = "192.0.2.51", "192.0.2.52", "192.0.2.0/24"


@ddt.ddt
class TestAccess(case.ServiceCase):
    settings = {
        "limits": Limits(max_access_rules_per_share=3, max_clients_per_rule=2)
    }

    def setUp(self):
        super().setUp()
        self.fixture.put_share(ID)

    def exported(self):
        return self.fixture.exporter.exported().get(references.share(ID), {})

    def test_grant_tells_where_to_mount(self):
        done = self.fixture.put_access(ID, "cmp-1", (TWO, ONE))
        self.assertTrue(done.created)
        self.assertEqual(
            {
                "share_id": ID,
                "holder": "cmp-1",
                "clients": [ONE, TWO],
                "level": "rw",
                "export_locations": self.share(ID)["export_locations"],
                "access": {"cmp-1": {"clients": [ONE, TWO], "level": "rw"}},
            },
            done.body,
        )
        self.assertEqual(
            done.body,
            self.fixture.service.access.get(fixtures.CALLER, ID, "cmp-1"),
        )
        self.assertEqual({ONE: "rw", TWO: "rw"}, self.exported())
        self.assertEqual(
            {"cmp-1": {"clients": [ONE, TWO], "level": "rw"}},
            self.share(ID)["access"],
        )

    @ddt.data(
        ((ONE, TWO), (TWO, ONE)),
        ((ONE,), (ONE, f"{ONE}/32")),
        ((ONE,), (ONE, ONE)),
        (("2001:db8::1",), ("2001:DB8:0::1",)),
    )
    @ddt.unpack
    def test_same_again(self, first, second):
        self.fixture.put_access(ID, clients=first)
        generation = self.share(ID)["generation"]
        changes = self.fixture.exporter.change_count
        self.assertFalse(self.fixture.put_access(ID, clients=second).created)
        self.assertEqual(generation, self.share(ID)["generation"])
        self.assertEqual(changes, self.fixture.exporter.change_count)
        self.assertEqual(1, self.fixture.events().count("access.granted"))

    def test_a_file_that_was_cut_off_has_its_size_before_anybody_mounts(self):
        entry = self.fixture.engine.entries(fixtures.share(ID))["volume"]
        size = entry.size_bytes
        for clients, cut in (((ONE,), 0), ((ONE,), 4096), ((TWO,), 8192)):
            entry.size_bytes = cut
            self.fixture.put_access(ID, clients=clients)
            self.assertEqual(size, entry.size_bytes)
        entry.size_bytes = size + 4096
        self.fixture.put_access(ID, "other")
        self.assertEqual(size + 4096, entry.size_bytes)

    def test_replaced_rule(self):
        self.fixture.put_access(ID, "cmp-1", (ONE,), "rw")
        generation = self.share(ID)["generation"]
        done = self.fixture.put_access(ID, "cmp-1", (TWO,), "ro")
        self.assertFalse(done.created)
        self.assertEqual({TWO: "ro"}, self.exported())
        self.assertGreater(self.share(ID)["generation"], generation)

    def test_rules_of_others_are_left_alone(self):
        self.fixture.put_access(ID, "cmp-1", (ONE,))
        self.fixture.put_access(ID, "cmp-2", (TWO,), "ro")
        self.fixture.delete_access(ID, "cmp-1")
        self.assertEqual({TWO: "ro"}, self.exported())
        self.assertEqual({"cmp-2"}, set(self.share(ID)["access"]))

    def test_replies_have_all_rules(self):
        """Also those to what changes nothing."""
        one = {"clients": [ONE], "level": "rw"}
        two = {"clients": [TWO], "level": "ro"}
        self.fixture.put_access(ID, "cmp-1", (ONE,))
        for _ in range(2):
            done = self.fixture.put_access(ID, "cmp-2", (TWO,), "ro")
            self.assertEqual({"cmp-1": one, "cmp-2": two}, done.body["access"])
        done = self.fixture.put_access(ID, "cmp-2", (ONE,))
        self.assertEqual({"cmp-1": one, "cmp-2": one}, done.body["access"])
        for _ in range(2):
            done = self.fixture.delete_access(ID, "cmp-1")
            self.assertEqual({"cmp-2": one}, done.body["access"])
        self.assertEqual(
            self.share(ID)["access"],
            self.fixture.service.access.get(fixtures.CALLER, ID, "cmp-2")[
                "access"
            ],
        )

    def test_one_client_of_two_holders(self):
        """The stronger level counts, and stays until its holder goes."""
        self.fixture.put_access(ID, "reader", (ONE,), "ro")
        self.fixture.put_access(ID, "writer", (NET,), "rw")
        self.assertEqual({ONE: "rw", NET: "rw"}, self.exported())
        self.fixture.delete_access(ID, "writer")
        self.assertEqual({ONE: "ro"}, self.exported())

    def test_delete_twice(self):
        self.fixture.put_access(ID)
        for _ in range(2):
            self.assertEqual(
                {"share_id": ID, "access": {}},
                self.fixture.delete_access(ID).body,
            )
        self.assertEqual({}, self.exported())
        self.assertEqual(1, self.fixture.events().count("access.revoked"))
        self.check_problem(
            "access.not_found",
            lambda: self.fixture.service.access.get(
                fixtures.CALLER, ID, "cmp-1"
            ),
        )

    def test_share_that_is_not_there(self):
        absent = fixtures.new_id()
        self.assertIsNone(self.fixture.delete_access(absent).body)
        self.check_problem(
            "share.not_found", lambda: self.fixture.put_access(absent)
        )

    @ddt.data(
        (["*"], "/clients/0"),
        ([ONE, "0.0.0.0/0"], "/clients/1"),
        (["host.example.org"], "/clients/0"),
        (["192.0.2.1/24"], "/clients/0"),
        ([], "/clients"),
        ([ONE, TWO, "192.0.2.53"], "/clients"),
    )
    @ddt.unpack
    def test_bad_clients(self, clients, pointer):
        self.check_as_before(
            lambda: self.check_problem(
                "request.invalid",
                lambda: self.fixture.put_access(ID, clients=clients),
                pointer,
            )
        )

    def test_limit(self):
        for number in range(3):
            self.fixture.put_access(ID, f"cmp-{number}")
        self.check_problem(
            "limit.access_rules", lambda: self.fixture.put_access(ID, "cmp-3")
        )
        self.fixture.put_access(ID, "cmp-2", (TWO,))

    def test_if_match_is_the_shares_generation(self):
        def put(if_match, holder):
            self.fixture.service.access.put(
                fixtures.CALLER,
                ID,
                holder,
                {"clients": [ONE], "level": "rw"},
                wait_seconds=9,
                if_match=if_match,
            )

        old = self.share(ID)["generation"]
        put(old, "cmp-1")
        self.check_problem("precondition.failed", lambda: put(old, "cmp-2"))
        new = self.share(ID)["generation"]
        put(new, "cmp-2")
        self.check_problem(
            "precondition.failed",
            lambda: self.fixture.service.access.delete(
                fixtures.CALLER, ID, "cmp-1", wait_seconds=9, if_match=new
            ),
        )

    def test_failing_server(self):
        self.fixture.put_access(ID, "cmp-1", (ONE,))
        self.fixture.exporter.reasons = ["no server"]
        self.assertEqual(
            ["no server"], self.fixture.service.system.readiness()
        )
        self.check_problem(
            "engine.unavailable",
            lambda: self.fixture.put_access(ID, "cmp-2", (TWO,)),
        )
        self.fixture.exporter.reasons = []
        self.fixture.put_access(ID, "cmp-2", (TWO,))
        self.assertEqual({ONE: "rw", TWO: "rw"}, self.exported())
