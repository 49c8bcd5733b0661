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

"""A crash at every step of every change, and what a restart makes of it."""

import unittest

import ddt
import sqlalchemy as sa

from acme_appliance import problems
from acme_appliance import references
from acme_appliance.engines import base as engines
from acme_appliance.exporters import base as exporters
from tests.unit.appliance import fixtures
from tests.unit.appliance import scenarios

NAMES = tuple(scenarios.SCENARIOS)
#: A change of the database alone is one transaction, and has no steps.
STEPLESS = ("rename share", "create group")


def fail(error):
    def method(*arguments, **keywords):
        raise error

    return method


class CrashCase(unittest.TestCase):
    """Each check runs its scenario as often as it has steps."""

    scenarios = scenarios.SCENARIOS

    def uncut(self, name):
        """The steps of an uncut run, and how it ends."""
        prepare, request = self.scenarios[name]
        fixture = fixtures.ServiceFixture(self, pools=scenarios.POOLS)
        prepare(fixture)
        fixture.steps.names.clear()
        request(fixture)
        return fixture.steps.names, fixture.state()

    def crashed_fixtures(self, name, count, prepare_fault=None, every=1):
        """A fixture for each step, crashed there, not restarted."""
        prepare, request = self.scenarios[name]
        saved = fixtures.saved_after(prepare, scenarios.POOLS)
        for index in range(0, count, every):
            fixture = fixtures.ServiceFixture(self, saved=saved)
            if prepare_fault is not None:
                prepare_fault(fixture)
            fixture.steps.names.clear()
            fixture.steps.crash_at = index
            with self.assertRaises(fixtures.Crash):
                request(fixture)
            yield fixture, fixture.steps.names[-1]
            fixture.close()

    def check_same(self, fixture, expected):
        self.assertEqual(expected, fixture.state())
        report = fixture.service.reconciliation.run(False)
        self.assertEqual(
            {}, {k: v for k, v in report.items() if v}, "nothing leaks"
        )
        self.assertEqual([], fixture.service.system.readiness())

    def check_killed(self, name, every=1):
        steps, expected = self.uncut(name)
        _, request = self.scenarios[name]
        for fixture, step in self.crashed_fixtures(
            name, len(steps), every=every
        ):
            with self.subTest(step):
                fixture.restart()
                request(fixture)
                self.check_same(fixture, expected)
                request(fixture)
                self.check_same(fixture, expected)

    def check_power_cut(self, name):
        """All that was not synced is lost, what was replied is not."""
        steps, expected = self.uncut(name)
        _, request = self.scenarios[name]
        for fixture, step in self.crashed_fixtures(name, len(steps)):
            with self.subTest(step):
                fixture.lose_unsynced()
                fixture.restart()
                if step == "result:after":
                    # The reply may have been sent: nothing is repaired.
                    self.assertEqual([], fixture.steps.names)
                request(fixture)
                self.check_same(fixture, expected)


@ddt.ddt
class TestCrashes(CrashCase):
    @ddt.data(*NAMES)
    def test_steps_are_where_they_should_be(self, name):
        steps, _ = self.uncut(name)
        if name in STEPLESS:
            self.assertEqual([], steps)
            return
        self.assertEqual(["intent:before", "intent:after"], steps[:2])
        self.assertEqual(
            [
                "settle:before",
                "settle:after",
                "result:before",
                "result:after",
            ],
            steps[-4:],
        )
        self.assertGreater(len(steps), 6)

    @ddt.data(*NAMES)
    def test_killed_restarted_and_sent_again(self, name):
        self.check_killed(name)

    @ddt.data(*NAMES)
    def test_power_cut(self, name):
        self.check_power_cut(name)

    @ddt.data(*NAMES)
    def test_restart_alone_leaves_all_or_nothing(self, name):
        """Where the client never comes back."""
        steps, expected = self.uncut(name)
        prepare, _ = self.scenarios[name]
        fixture = fixtures.ServiceFixture(self, pools=scenarios.POOLS)
        prepare(fixture)
        before = fixture.state()
        for fixture, step in self.crashed_fixtures(name, len(steps)):
            with self.subTest(step):
                fixture.restart()
                begun = step != "intent:before"
                wanted = expected if begun else before
                self.check_same(fixture, wanted)

    @ddt.data(*NAMES)
    def test_crashes_while_recovering(self, name):
        """The restart dies at its first step, the next at its second..."""
        steps, expected = self.uncut(name)
        _, request = self.scenarios[name]
        for fixture, step in self.crashed_fixtures(name, len(steps)):
            with self.subTest(step):
                for index in range(100):
                    try:
                        fixture.restart(steps=fixtures.Steps(index))
                    except fixtures.Crash:
                        fixture.lose_unsynced()
                    else:
                        break
                fixture.steps.crash_at = None
                request(fixture)
                self.check_same(fixture, expected)

    @ddt.data(
        ("create", "ensure_file", engines.NoSpace("full"), "pool.no_space"),
        ("clone", "adopt", engines.NoSpace("full"), "pool.no_space"),
        ("clone", "adopt", engines.FileChanged("?"), "share.degraded"),
        (
            "create from snapshot",
            "clone_share",
            engines.Unavailable("gone"),
            "engine.unavailable",
        ),
        (
            "extend and rename",
            "grow_file",
            engines.NoSpace("full"),
            "pool.no_space",
        ),
        ("extend and rename", "grow_file", ValueError("?"), "internal"),
        (
            "snapshot",
            "create_snapshot",
            engines.NoSpace("full"),
            "pool.no_space",
        ),
        (
            "move",
            "open_file",
            engines.Unavailable("gone"),
            "engine.unavailable",
        ),
    )
    @ddt.unpack
    def test_crashes_while_undoing(self, name, method, error, code):
        """A step fails, and the process dies at each step of the undoing;
        what was begun to be undone is not done by the restart."""
        prepare, request = self.scenarios[name]

        def break_engine(fixture):
            def sync_and_fail(*arguments):
                # Another share's change has everything synced just then.
                fixture.engine.sync()
                raise error

            setattr(fixture.engine, method, sync_and_fail)

        fixture = fixtures.ServiceFixture(self, pools=scenarios.POOLS)
        prepare(fixture)
        before = fixture.state()
        break_engine(fixture)
        fixture.steps.names.clear()
        with self.assertRaises(problems.Problem) as caught:
            request(fixture)
        self.assertEqual(code, caught.exception.code)
        steps = list(fixture.steps.names)
        self.assertEqual("undone:after", steps[-1])
        delattr(fixture.engine, method)
        if code == "share.degraded" and name != "clone":
            before["shares"][0]["state"] = "degraded"
        self.check_same(fixture, before)
        _, expected = self.uncut(name)
        for fixture, step in self.crashed_fixtures(
            name, len(steps), break_engine
        ):
            with self.subTest(step):
                delattr(fixture.engine, method)
                fixture.lose_unsynced()
                fixture.restart()
                if step.startswith("undo"):
                    self.check_same(fixture, before)
                request(fixture)
                self.check_same(fixture, expected)


ONE = scenarios.of_groups(1)
MANY = scenarios.of_groups(20)


@ddt.ddt
class TestGroupSizes(CrashCase):
    """Groups of one share and of many; those of two are above."""

    scenarios = ONE | MANY

    @ddt.data(*ONE)
    def test_killed_restarted_and_sent_again(self, name):
        self.check_killed(name)

    @ddt.data(*MANY)
    def test_many(self, name):
        """Most steps are those of one share, again and again."""
        self.check_killed(name, every=7)

    @ddt.data(*ONE)
    def test_power_cut(self, name):
        self.check_power_cut(name)


class TestFailures(unittest.TestCase):
    """What is left where even the way back fails."""

    def setUp(self):
        self.fixture = fixtures.ServiceFixture(self)

    def check_problem(self, code, request):
        with self.assertRaises(problems.Problem) as caught:
            request()
        self.assertEqual(code, caught.exception.code)

    def test_grant_that_can_neither_be_done_nor_undone(self):
        """Nobody may forget it: the next change settles it first."""
        exporter = self.fixture.exporter
        id_ = self.fixture.put_share().body["id"]
        self.fixture.put_access(id_, "cmp-1")
        exporter.apply = fail(exporters.ExporterError("no server"))
        self.check_problem(
            "engine.unavailable", lambda: self.fixture.put_access(id_, "cmp-2")
        )
        self.assertEqual(1, len(self.fixture.state()["open_jobs"]))
        self.check_problem(
            "engine.unavailable", lambda: self.fixture.put_access(id_, "cmp-3")
        )
        del exporter.apply
        self.fixture.put_access(id_, "cmp-3", ("192.0.2.53",))
        self.assertEqual([], self.fixture.state()["open_jobs"])
        self.assertEqual(
            {
                references.share(id_): {
                    "192.0.2.51": "rw",
                    "192.0.2.53": "rw",
                }
            },
            exporter.exported(),
        )
        body = self.fixture.service.shares.get(fixtures.CALLER, id_)
        self.assertEqual({"cmp-1", "cmp-3"}, set(body["access"]))

    def test_pool_that_is_not_there_at_start(self):
        """Its journal entries wait; nothing of it is touched."""
        fixture = self.fixture
        id_ = fixtures.new_id()
        fixture.steps.crash_at = 2
        self.assertRaises(fixtures.Crash, fixture.put_share, id_)
        fixture.engine.reasons = ["not mounted"]
        report = fixture.restart()
        self.assertIn("not mounted", report.unusable_pools["gold"])
        self.assertEqual(1, len(report.open_jobs))
        self.assertEqual(
            ["pool gold: not mounted"], fixture.service.system.readiness()
        )
        self.check_problem(
            "engine.unavailable", lambda: fixture.put_share(id_)
        )
        pool = fixture.service.pools.get("gold")
        self.assertEqual(("down", 0), (pool["state"], pool["free_bytes"]))
        fixture.engine.reasons = []
        self.assertFalse(fixture.put_share(id_).created)
        self.assertEqual([], fixture.service.system.readiness())

    def test_result_that_cannot_be_written(self):
        """The work is done, the answer lost: the next look finishes it."""
        fixture = self.fixture

        def break_once():
            fixture.steps.hooks.clear()
            raise OSError(5, "the database's disk")

        fixture.steps.hooks["result:before"] = break_once
        id_ = fixtures.new_id()
        self.check_problem(
            "engine.unavailable", lambda: fixture.put_share(id_)
        )
        body = fixture.service.shares.get(fixtures.CALLER, id_)
        self.assertEqual("creating", body["state"])
        # A clone looks at its source, a delete at the share itself.
        clone = fixture.clone("share", id_)
        self.assertTrue(clone.created)
        self.assertEqual(
            "available",
            fixture.service.shares.get(fixtures.CALLER, id_)["state"],
        )

    def test_unknown_subvolumes_are_told_and_neither_used_nor_deleted(self):
        fixture = self.fixture
        stray, kept = fixtures.new_id(), fixtures.new_id()
        fixture.engine.create_share(stray, engines.Owner(0, 0))
        fixture.engine.create_snapshot(stray, kept)
        report = fixture.restart()
        self.assertEqual([f"gold/{stray}"], report.unknown_shares)
        self.assertEqual([f"gold/{kept}"], report.unknown_snapshots)
        self.check_problem(
            "share.exists_mismatch", lambda: fixture.put_share(stray)
        )
        share_id = fixture.put_share().body["id"]
        self.check_problem(
            "snapshot.exists_mismatch",
            lambda: fixture.put_snapshot(share_id, kept),
        )
        fixture.service.reconciliation.run(True)
        self.assertTrue(fixture.engine.exists(fixtures.share(stray)))
        self.assertTrue(fixture.engine.exists(fixtures.snapshot(kept)))

    def test_missing_subvolume_and_damaged_file(self):
        fixture = self.fixture
        lost = fixture.put_share().body["id"]
        damaged = fixture.put_share().body["id"]
        kept = fixture.put_snapshot(damaged).body["id"]
        entries = fixture.engine.entries(fixtures.share(damaged))
        file = entries.pop("volume")
        fixture.engine.delete_share(lost)
        fixture.engine.delete_snapshot(kept)
        report = fixture.restart()
        self.assertEqual([f"gold/{lost}"], report.missing_shares)
        self.assertEqual([f"gold/{damaged}"], report.damaged_shares)
        self.assertEqual([f"gold/{kept}"], report.missing_snapshots)
        for id_, state in ((lost, "error"), (damaged, "degraded")):
            body = fixture.service.shares.get(fixtures.CALLER, id_)
            self.assertEqual(state, body["state"])
        body = fixture.service.snapshots.get(fixtures.CALLER, kept)
        self.assertEqual("error", body["state"])
        fixture.engine.entries(fixtures.share(damaged))["volume"] = file
        fixture.service.reconciliation.run(True)
        body = fixture.service.shares.get(fixtures.CALLER, damaged)
        self.assertEqual("available", body["state"])
        fixture.delete_share(lost)

    def test_start_asks_the_database_for_all_shares_at_once(self):
        """Nobody is served until it is through with 20,000 of them."""
        fixture = self.fixture
        counts = []
        for _ in range(2):
            counts.append(0)

            def count(connection, cursor, statement, *given):
                # What runs by time asks for other things, when it likes.
                if "FROM shares" in statement or "FROM snap" in statement:
                    counts[-1] += 1

            fixture.put_share(fixture.put_share().body["id"])
            sa.event.listen(
                fixture.database.engine, "before_cursor_execute", count
            )
            fixture.restart()
            sa.event.remove(
                fixture.database.engine, "before_cursor_execute", count
            )
        self.assertTrue(counts[0])
        self.assertEqual(counts[0], counts[1])

    def test_missing_exports_are_repaired(self):
        fixture = self.fixture
        id_ = fixture.put_share().body["id"]
        fixture.put_access(id_)
        for repair in (
            lambda: fixture.restart().export_differences,
            lambda: fixture.service.reconciliation.run(True)[
                "export_differences"
            ],
        ):
            fixture.exporter.withdraw(references.share(id_))
            found = fixture.service.reconciliation.run(False)[
                "export_differences"
            ]
            self.assertEqual([id_], [d["share_id"] for d in found])
            self.assertEqual(found, repair())
            self.assertEqual(
                {references.share(id_): {"192.0.2.51": "rw"}},
                fixture.exporter.exported(),
            )
        # And by a client that asks for the same rule again.
        fixture.exporter.withdraw(references.share(id_))
        self.assertFalse(fixture.put_access(id_).created)
        self.assertIn(references.share(id_), fixture.exporter.exported())

    def test_changes_before_the_start_are_refused(self):
        fixture = fixtures.ServiceFixture(self, start=False)
        self.assertEqual(
            ["recovery is not finished"], fixture.service.system.readiness()
        )
        self.check_problem("system.starting", fixture.put_share)
        self.assertEqual(
            "starting", fixture.service.system.describe()["health"]
        )
        fixture.service.start()
        fixture.put_share()
        fixture.service.stop()
        self.check_problem("system.starting", fixture.put_share)
