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

"""One generation, one representation: what a client's 304 relies on."""

import unittest
from unittest import mock

import ddt
import sqlalchemy as sa

from acme_appliance import problems
from acme_appliance.changes import generations
from acme_appliance.db import models
from tests.unit.appliance import case
from tests.unit.appliance import fixtures
from tests.unit.appliance import scenarios

NAMES = tuple(scenarios.SCENARIOS)


class Watch(fixtures.Steps):
    """A client that looks at everything at every step of a change."""

    def __init__(self, fixture, fail_at=None):
        super().__init__()
        self.fixture = fixture
        self.fail_at = fail_at
        self.seen = {}

    def __call__(self, job_id, name):
        super().__call__(job_id, name)
        self.look()
        if len(self.names) - 1 == self.fail_at:
            raise OSError(5, "once")

    def look(self):
        service = self.fixture.service
        found = [
            body
            for noun in (
                service.shares,
                service.snapshots,
                service.groups,
                service.group_snapshots,
            )
            for body in noun.page(fixtures.ADMIN, {}, 1000, None).items
        ]
        for body in found:
            self.compare(body)

    def compare(self, body):
        # Measured, and by nobody's change.
        body = {**body, "used_bytes": None}
        key = body["id"], body["generation"]
        known = self.seen.setdefault(key, body)
        if known != body:
            raise AssertionError(f"{body} was {known}")


@ddt.ddt
class TestGenerations(unittest.TestCase):
    def watched(self, name, fail_at=None):
        """The change, which may fail once, and then the same again."""
        prepare, request = scenarios.SCENARIOS[name]
        saved = fixtures.saved_after(prepare, scenarios.POOLS)
        fixture = fixtures.ServiceFixture(self, saved=saved, start=False)
        watch = Watch(fixture, fail_at)
        fixture.restart(steps=watch)
        watch.look()
        for _ in range(2):
            try:
                request(fixture)
            except problems.Problem as problem:
                self.assertEqual("engine.unavailable", problem.code)
            watch.look()
        fixture.restart()
        watch.look()
        fixture.close()
        return watch.names

    @ddt.data(*NAMES)
    def test_change(self, name):
        self.watched(name)

    @ddt.data(*NAMES)
    def test_change_that_fails(self, name):
        for index in range(len(self.watched(name))):
            with self.subTest(step=index):
                self.watched(name, index)


class TestMoreChanges(case.ServiceCase):
    def setUp(self):
        super().setUp()
        self.share_id = self.make_share()
        self.snapshot_id = self.make_snapshot(self.share_id)
        self.watch = Watch(self.fixture)
        self.watch.look()

    def entries(self):
        return self.fixture.engine.entries(fixtures.share(self.share_id))

    def test_file_that_a_client_took_away(self):
        self.entries().pop("volume")
        self.check_problem(
            "share.degraded",
            lambda: self.fixture.patch_share(
                self.share_id, size_bytes=2 << 20
            ),
        )
        self.assertEqual("degraded", self.share(self.share_id)["state"])
        self.watch.look()

    def test_what_a_start_finds_is_an_event(self):
        file = self.entries().pop("volume")
        self.fixture.restart()
        self.watch.look()
        self.entries()["volume"] = file
        self.fixture.restart()
        self.watch.look()
        self.fixture.restart()
        events = self.fixture.service.events.read(fixtures.CALLER, 2, 0, 10)
        self.assertEqual(
            [
                ("share.degraded", self.share_id, "acme-appliance", None),
                ("share.available", self.share_id, "acme-appliance", None),
            ],
            [
                (each["type"], each["share_id"], each["actor"], each["job_id"])
                for each in events["events"]
            ],
        )

    def generations(self):
        service = self.fixture.service
        return [
            body["generation"]
            for body in (
                service.shares.get(fixtures.CALLER, self.share_id),
                service.snapshots.get(fixtures.CALLER, self.snapshot_id),
            )
        ]

    def test_no_id_gets_a_generation_twice(self):
        """The clock stands still here, and a restart lies between."""
        first = self.generations()
        for restart in (False, True, False):
            for number in range(30):
                self.fixture.patch_share(self.share_id, name=f"n{number}")
            before = self.generations()
            self.fixture.delete_share(self.share_id, "cascade")
            if restart:
                self.fixture.restart()
            self.fixture.put_share(self.share_id)
            self.fixture.put_snapshot(self.share_id, self.snapshot_id)
            after = self.generations()
            for old, new in zip(before, after, strict=True):
                self.assertGreater(new, old)
        self.assertLess(max(after), 1 << 53, "exact in JSON")
        self.check_problem(
            "precondition.failed",
            lambda: self.fixture.patch_share(
                self.share_id, name="x", if_match=first[0]
            ),
        )
        self.check_problem(
            "precondition.failed",
            lambda: self.fixture.service.snapshots.delete(
                fixtures.CALLER,
                self.snapshot_id,
                wait_seconds=fixtures.WAIT,
                if_match=first[1],
            ),
        )

    def test_lost_database(self):
        """What it gave is not given again: the time has gone on."""
        before = self.generations()
        with self.fixture.database.write() as session:
            session.execute(sa.delete(models.Counter))
        self.fixture.restart()
        self.fixture.delete_share(self.share_id, "cascade")
        self.fixture.put_share(self.share_id)
        self.assertGreater(self.share(self.share_id)["generation"], before[0])

    def test_many_more_than_are_reserved_at_a_time(self):
        for name, number in (("BLOCK", 8), ("LEAST", 4)):
            self.enterContext(mock.patch.object(generations, name, number))
        self.fixture.restart()
        given = [self.generations()[0]]
        for restart in (False, True):
            for number in range(20):
                name = f"{restart} {number}"
                self.fixture.patch_share(self.share_id, name=name)
                given.append(self.generations()[0])
            if restart:
                self.fixture.restart()
        self.assertEqual(sorted(set(given)), given)
