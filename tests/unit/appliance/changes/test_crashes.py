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
from tests.unit.appliance import scenarios
from tests.unit.appliance import world as worlds

NAMES = tuple(scenarios.SCENARIOS)
#: A change of the database alone is one transaction, and has no steps.
STEPLESS = ("rename share",)


def fail(error):
    def method(*arguments, **keywords):
        raise error

    return method


@ddt.ddt
class TestCrashes(unittest.TestCase):
    """Each test runs its scenario as often as it has steps."""

    def uncut(self, name):
        """The steps of an uncut run, and how it ends."""
        prepare, request = scenarios.SCENARIOS[name]
        world = worlds.World(self)
        prepare(world)
        world.steps.names.clear()
        request(world)
        return world.steps.names, world.state()

    def crashed_worlds(self, name, count, prepare_fault=None):
        """A world for each step, crashed there, not restarted."""
        prepare, request = scenarios.SCENARIOS[name]
        prepared = worlds.World(self)
        prepare(prepared)
        saved = prepared.save()
        prepared.close()
        for index in range(count):
            world = worlds.World(self, saved=saved)
            if prepare_fault is not None:
                prepare_fault(world)
            world.steps.names.clear()
            world.steps.crash_at = index
            with self.assertRaises(worlds.Crash):
                request(world)
            yield world, world.steps.names[-1]
            world.close()

    def check_same(self, world, expected):
        self.assertEqual(expected, world.state())
        report = world.service.reconciliation.run(False)
        self.assertEqual(
            {}, {k: v for k, v in report.items() if v}, "nothing leaks"
        )
        self.assertEqual([], world.service.system.readiness())

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
        steps, expected = self.uncut(name)
        _, request = scenarios.SCENARIOS[name]
        for world, step in self.crashed_worlds(name, len(steps)):
            with self.subTest(step):
                world.restart()
                request(world)
                self.check_same(world, expected)
                request(world)
                self.check_same(world, expected)

    @ddt.data(*NAMES)
    def test_power_cut(self, name):
        """All that was not synced is lost, what was replied is not."""
        steps, expected = self.uncut(name)
        _, request = scenarios.SCENARIOS[name]
        for world, step in self.crashed_worlds(name, len(steps)):
            with self.subTest(step):
                world.engine.lose_unsynced()
                world.restart()
                if step == "result:after":
                    # The reply may have been sent: nothing is repaired.
                    self.assertEqual([], world.steps.names)
                request(world)
                self.check_same(world, expected)

    @ddt.data(*NAMES)
    def test_restart_alone_leaves_all_or_nothing(self, name):
        """Where the client never comes back."""
        steps, expected = self.uncut(name)
        prepare, _ = scenarios.SCENARIOS[name]
        world = worlds.World(self)
        prepare(world)
        before = world.state()
        for world, step in self.crashed_worlds(name, len(steps)):
            with self.subTest(step):
                world.restart()
                begun = step != "intent:before"
                wanted = expected if begun else before
                self.check_same(world, wanted)

    @ddt.data(*NAMES)
    def test_crashes_while_recovering(self, name):
        """The restart dies at its first step, the next at its second..."""
        steps, expected = self.uncut(name)
        _, request = scenarios.SCENARIOS[name]
        for world, step in self.crashed_worlds(name, len(steps)):
            with self.subTest(step):
                for index in range(100):
                    try:
                        world.restart(steps=worlds.Steps(index))
                    except worlds.Crash:
                        world.engine.lose_unsynced()
                    else:
                        break
                world.steps.crash_at = None
                request(world)
                self.check_same(world, expected)

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
    )
    @ddt.unpack
    def test_crashes_while_undoing(self, name, method, error, code):
        """A step fails, and the process dies at each step of the undoing;
        what was begun to be undone is not done by the restart."""
        prepare, request = scenarios.SCENARIOS[name]

        def break_engine(world):
            def sync_and_fail(*arguments):
                # Another share's change has everything synced just then.
                world.engine.sync()
                raise error

            setattr(world.engine, method, sync_and_fail)

        world = worlds.World(self)
        prepare(world)
        before = world.state()
        break_engine(world)
        world.steps.names.clear()
        with self.assertRaises(problems.Problem) as caught:
            request(world)
        self.assertEqual(code, caught.exception.code)
        steps = list(world.steps.names)
        self.assertEqual("undone:after", steps[-1])
        delattr(world.engine, method)
        if code == "share.degraded" and name != "clone":
            before["shares"][0]["state"] = "degraded"
        self.check_same(world, before)
        _, expected = self.uncut(name)
        for world, step in self.crashed_worlds(name, len(steps), break_engine):
            with self.subTest(step):
                delattr(world.engine, method)
                world.engine.lose_unsynced()
                world.restart()
                if step.startswith("undo"):
                    self.check_same(world, before)
                request(world)
                self.check_same(world, expected)


class TestFailures(unittest.TestCase):
    """What is left where even the way back fails."""

    def setUp(self):
        self.world = worlds.World(self)

    def check_problem(self, code, request):
        with self.assertRaises(problems.Problem) as caught:
            request()
        self.assertEqual(code, caught.exception.code)

    def test_grant_that_can_neither_be_done_nor_undone(self):
        """Nobody may forget it: the next change settles it first."""
        exporter = self.world.exporter
        id_ = self.world.put_share().body["id"]
        self.world.put_access(id_, "cmp-1")
        exporter.apply = fail(exporters.ExporterError("no server"))
        self.check_problem(
            "engine.unavailable", lambda: self.world.put_access(id_, "cmp-2")
        )
        self.assertEqual(1, len(self.world.state()["open_jobs"]))
        self.check_problem(
            "engine.unavailable", lambda: self.world.put_access(id_, "cmp-3")
        )
        del exporter.apply
        self.world.put_access(id_, "cmp-3", ("192.0.2.53",))
        self.assertEqual([], self.world.state()["open_jobs"])
        self.assertEqual(
            {
                references.share(id_): {
                    "192.0.2.51": "rw",
                    "192.0.2.53": "rw",
                }
            },
            exporter.exported(),
        )
        body = self.world.service.shares.get(worlds.CALLER, id_)
        self.assertEqual({"cmp-1", "cmp-3"}, set(body["access"]))

    def test_pool_that_is_not_there_at_start(self):
        """Its journal entries wait; nothing of it is touched."""
        world = self.world
        id_ = worlds.new_id()
        world.steps.crash_at = 2
        self.assertRaises(worlds.Crash, world.put_share, id_)
        world.engine.reasons = ["not mounted"]
        report = world.restart()
        self.assertIn("not mounted", report.unusable_pools["gold"])
        self.assertEqual(1, len(report.open_jobs))
        self.assertEqual(
            ["pool gold: not mounted"], world.service.system.readiness()
        )
        self.check_problem("engine.unavailable", lambda: world.put_share(id_))
        pool = world.service.pools.get("gold")
        self.assertEqual(("down", 0), (pool["state"], pool["free_bytes"]))
        world.engine.reasons = []
        self.assertFalse(world.put_share(id_).created)
        self.assertEqual([], world.service.system.readiness())

    def test_result_that_cannot_be_written(self):
        """The work is done, the answer lost: the next look finishes it."""
        world = self.world

        def break_once():
            world.steps.hooks.clear()
            raise OSError(5, "the database's disk")

        world.steps.hooks["result:before"] = break_once
        id_ = worlds.new_id()
        self.check_problem("engine.unavailable", lambda: world.put_share(id_))
        body = world.service.shares.get(worlds.CALLER, id_)
        self.assertEqual("creating", body["state"])
        # A clone looks at its source, a delete at the share itself.
        clone = world.clone("share", id_)
        self.assertTrue(clone.created)
        self.assertEqual(
            "available",
            world.service.shares.get(worlds.CALLER, id_)["state"],
        )

    def test_unknown_subvolumes_are_told_and_neither_used_nor_deleted(self):
        world = self.world
        stray, kept = worlds.new_id(), worlds.new_id()
        world.engine.create_share(stray, engines.Owner(0, 0))
        world.engine.create_snapshot(stray, kept)
        report = world.restart()
        self.assertEqual([f"gold/{stray}"], report.unknown_shares)
        self.assertEqual([f"gold/{kept}"], report.unknown_snapshots)
        self.check_problem(
            "share.exists_mismatch", lambda: world.put_share(stray)
        )
        share_id = world.put_share().body["id"]
        self.check_problem(
            "snapshot.exists_mismatch",
            lambda: world.put_snapshot(share_id, kept),
        )
        world.service.reconciliation.run(True)
        self.assertTrue(world.engine.exists(worlds.share(stray)))
        self.assertTrue(world.engine.exists(worlds.snapshot(kept)))

    def test_missing_subvolume_and_damaged_file(self):
        world = self.world
        lost = world.put_share().body["id"]
        damaged = world.put_share().body["id"]
        kept = world.put_snapshot(damaged).body["id"]
        entries = world.engine.entries(worlds.share(damaged))
        file = entries.pop("volume")
        world.engine.delete_share(lost)
        world.engine.delete_snapshot(kept)
        report = world.restart()
        self.assertEqual([f"gold/{lost}"], report.missing_shares)
        self.assertEqual([f"gold/{damaged}"], report.damaged_shares)
        self.assertEqual([f"gold/{kept}"], report.missing_snapshots)
        for id_, state in ((lost, "error"), (damaged, "degraded")):
            body = world.service.shares.get(worlds.CALLER, id_)
            self.assertEqual(state, body["state"])
        body = world.service.snapshots.get(worlds.CALLER, kept)
        self.assertEqual("error", body["state"])
        world.engine.entries(worlds.share(damaged))["volume"] = file
        world.service.reconciliation.run(True)
        body = world.service.shares.get(worlds.CALLER, damaged)
        self.assertEqual("available", body["state"])
        world.delete_share(lost)

    def test_start_asks_the_database_for_all_shares_at_once(self):
        """Nobody is served until it is through with 20,000 of them."""
        world = self.world
        counts = []
        for _ in range(2):
            counts.append(0)

            def count(connection, cursor, statement, *given):
                # What runs by time asks for other things, when it likes.
                if "FROM shares" in statement or "FROM snap" in statement:
                    counts[-1] += 1

            world.put_share(world.put_share().body["id"])
            sa.event.listen(
                world.database.engine, "before_cursor_execute", count
            )
            world.restart()
            sa.event.remove(
                world.database.engine, "before_cursor_execute", count
            )
        self.assertTrue(counts[0])
        self.assertEqual(counts[0], counts[1])

    def test_missing_exports_are_repaired(self):
        world = self.world
        id_ = world.put_share().body["id"]
        world.put_access(id_)
        for repair in (
            lambda: world.restart().export_differences,
            lambda: world.service.reconciliation.run(True)[
                "export_differences"
            ],
        ):
            world.exporter.withdraw(references.share(id_))
            found = world.service.reconciliation.run(False)[
                "export_differences"
            ]
            self.assertEqual([id_], [d["share_id"] for d in found])
            self.assertEqual(found, repair())
            self.assertEqual(
                {references.share(id_): {"192.0.2.51": "rw"}},
                world.exporter.exported(),
            )
        # And by a client that asks for the same rule again.
        world.exporter.withdraw(references.share(id_))
        self.assertFalse(world.put_access(id_).created)
        self.assertIn(references.share(id_), world.exporter.exported())

    def test_changes_before_the_start_are_refused(self):
        world = worlds.World(self, start=False)
        self.assertEqual(
            ["recovery is not finished"], world.service.system.readiness()
        )
        self.check_problem("system.starting", world.put_share)
        self.assertEqual("starting", world.service.system.describe()["health"])
        world.service.start()
        world.put_share()
        world.service.stop()
        self.check_problem("system.starting", world.put_share)
