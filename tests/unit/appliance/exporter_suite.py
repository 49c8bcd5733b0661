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

"""What every exporter must do, whatever serves the shares.

A test class derives from :class:`ExporterSuite` and from ``TestCase``, and
says how to make an exporter, and again after a restart.
"""

import dataclasses
import uuid

from acme_appliance import references
from acme_appliance.exporters import base

RW, RO = "rw", "ro"
ONE, TWO, NET = "192.0.2.51", "192.0.2.52", "198.51.100.0/24"
SIX, SIX_NET = "2001:db8::51", "2001:db8:1::/48"


class ExporterSuite:
    """The tests. ``self.exporter`` serves nothing yet."""

    exporter: base.Exporter

    def restarted(self):
        """Another exporter for the same server, as after a restart."""
        raise NotImplementedError

    def changes(self):
        """How often the server was told something so far."""
        raise NotImplementedError

    def tamper(self, share, clients):
        """Export a share behind the exporter's back."""
        raise NotImplementedError

    def make_share(self):
        return self.directory(references.share(str(uuid.uuid4())))

    def make_snapshot(self, share):
        """With the id of a share."""
        return self.directory(references.snapshot(share.reference.id))

    def directory(self, reference):
        """What exporters must know of it."""
        folder = f"{self.exporter.root}/{reference.kind}s"
        return base.ExportedDirectory(
            reference, f"{folder}/{reference.id}", 64061, 64062
        )

    # -- one share

    def test_nothing_is_exported_by_itself(self):
        self.assertEqual({}, self.exporter.exported())

    def test_path_is_below_the_root(self):
        share = self.make_share()
        self.assertEqual(
            f"/shares/{share.reference.id}",
            self.exporter.path(share.directory),
        )
        for outside in (self.exporter.root, "/elsewhere/x"):
            self.assertRaises(ValueError, self.exporter.path, outside)

    def test_apply_exports_to_these_and_nobody_else(self):
        share = self.make_share()
        for clients in (
            {ONE: RW},
            {ONE: RW, TWO: RO, NET: RO},
            {ONE: RO, NET: RW},
            {SIX: RW, SIX_NET: RO, TWO: RW},
            {TWO: RO},
        ):
            with self.subTest(clients):
                self.exporter.apply(share, clients)
                self.assertEqual(
                    {share.reference: clients}, self.exporter.exported()
                )

    def test_no_clients_is_no_export(self):
        share = self.make_share()
        self.exporter.apply(share, {})
        self.assertEqual({}, self.exporter.exported())
        self.exporter.apply(share, {ONE: RW})
        self.exporter.apply(share, {})
        self.assertEqual({}, self.exporter.exported())

    def test_apply_again_costs_nothing(self):
        share = self.make_share()
        clients = {ONE: RW, TWO: RO}
        self.exporter.apply(share, clients)
        before = self.changes()
        self.exporter.apply(share, clients)
        self.restarted().apply(share, clients)
        self.assertEqual(before, self.changes())

    def test_shares_are_apart(self):
        one, two = self.make_share(), self.make_share()
        self.exporter.apply(one, {ONE: RW})
        self.exporter.apply(two, {ONE: RO, TWO: RW})
        self.exporter.withdraw(one.reference)
        self.assertEqual(
            {two.reference: {ONE: RO, TWO: RW}}, self.exporter.exported()
        )

    def test_withdraw_of_what_is_not_exported(self):
        share = self.make_share()
        self.exporter.withdraw(share.reference)
        self.exporter.apply(share, {ONE: RW})
        for _ in range(2):
            self.exporter.withdraw(share.reference)
            self.assertEqual({}, self.exporter.exported())

    def test_apply_repairs(self):
        share = self.make_share()
        self.exporter.apply(share, {ONE: RW, TWO: RO})
        self.tamper(share, {NET: RW, TWO: RO})
        self.exporter.apply(share, {ONE: RW, TWO: RO})
        self.assertEqual(
            {share.reference: {ONE: RW, TWO: RO}}, self.exporter.exported()
        )

    def test_restart_finds_what_was_exported(self):
        share = self.make_share()
        self.exporter.apply(share, {ONE: RW, SIX: RO})
        self.assertEqual(
            {share.reference: {ONE: RW, SIX: RO}}, self.restarted().exported()
        )

    # -- snapshots

    def test_share_and_snapshot_of_one_id_are_apart(self):
        """Each is exported, found after a restart, and withdrawn alone."""
        share = self.make_share()
        snapshot = self.make_snapshot(share)
        self.assertEqual(share.reference.id, snapshot.reference.id)
        self.assertNotEqual(
            *(self.exporter.path(each.directory) for each in (share, snapshot))
        )
        self.exporter.apply(share, {ONE: RW})
        self.exporter.apply(snapshot, {TWO: RO, NET: RO})
        both = {
            share.reference: {ONE: RW},
            snapshot.reference: {TWO: RO, NET: RO},
        }
        self.assertEqual(both, self.restarted().exported())
        self.exporter.apply(share, {})
        del both[share.reference]
        self.assertEqual(both, self.exporter.exported())
        self.exporter.apply(share, {ONE: RW})
        self.exporter.withdraw(snapshot.reference)
        self.assertEqual(
            {share.reference: {ONE: RW}}, self.restarted().exported()
        )

    def test_reconcile_of_share_and_snapshot_of_one_id(self):
        share = self.make_share()
        snapshot = self.make_snapshot(share)
        wanted = [(share, {ONE: RW}), (snapshot, {TWO: RO})]
        found = self.exporter.reconcile(wanted, apply=True)
        self.assertEqual(
            {share.reference: {ONE: RW}, snapshot.reference: {TWO: RO}},
            {each.reference: dict(each.wanted) for each in found},
        )
        self.assertEqual([], self.restarted().reconcile(wanted, apply=False))
        found = self.exporter.reconcile(wanted[:1], apply=True)
        self.assertEqual(
            {snapshot.reference: {TWO: RO}},
            {each.reference: dict(each.unexplained) for each in found},
        )
        self.exporter.reconcile(wanted[:1], apply=True, remove=True)
        self.assertEqual(
            {share.reference: {ONE: RW}}, self.exporter.exported()
        )

    def test_rules_of_a_snapshot_are_kept_with_its_export(self):
        rules = {"bak-1": base.Rule((ONE, TWO), RO)}
        snapshot = dataclasses.replace(
            self.make_snapshot(self.make_share()), rules=rules
        )
        self.exporter.apply(snapshot, base.clients_of(rules))
        self.assertEqual({snapshot.reference: rules}, self.restarted().rules())

    # -- all of them

    def test_reconcile_of_what_agrees(self):
        share = self.make_share()
        self.exporter.apply(share, {ONE: RW})
        before = self.changes()
        for apply in (False, True):
            self.assertEqual(
                [],
                self.exporter.reconcile([(share, {ONE: RW})], apply=apply),
            )
        self.assertEqual(before, self.changes())

    def test_reconcile_tells_and_then_repairs(self):
        shares = [self.make_share() for _ in range(4)]
        missing, surplus, wrong, silent = shares
        self.exporter.apply(surplus, {ONE: RW})
        self.exporter.apply(wrong, {ONE: RO, TWO: RO})
        wanted = [(missing, {ONE: RW}), (wrong, {ONE: RW}), (silent, {})]
        expected = {
            missing.reference: ({ONE: RW}, {}),
            surplus.reference: ({}, {ONE: RW}),
            wrong.reference: ({ONE: RW}, {ONE: RO, TWO: RO}),
        }
        before = self.exporter.exported()
        for apply in (False, True):
            found = self.exporter.reconcile(
                iter(wanted), apply=apply, remove=apply
            )
            self.assertEqual(
                expected,
                {each.reference: (each.wanted, each.found) for each in found},
            )
            if not apply:
                self.assertEqual(before, self.exporter.exported())
        self.assertEqual(
            {missing.reference: {ONE: RW}, wrong.reference: {ONE: RW}},
            self.exporter.exported(),
        )
        self.assertEqual([], self.exporter.reconcile(wanted, apply=True))

    def test_reconcile_leaves_alone_what_it_is_told_to(self):
        """Their disk may hang; what is found beyond them still stays."""
        one, other = self.make_share(), self.make_share()
        self.exporter.apply(one, {TWO: RW})
        wanted = [(one, {ONE: RW}), (other, {ONE: RW})]
        found = self.exporter.reconcile(
            wanted, apply=True, leave={one.reference}
        )
        self.assertEqual(
            {one.reference, other.reference}, {d.reference for d in found}
        )
        self.assertEqual(
            {one.reference: {TWO: RW}, other.reference: {ONE: RW}},
            self.exporter.exported(),
        )
        self.exporter.reconcile(wanted, apply=True)
        self.assertEqual(
            {one.reference: {ONE: RW, TWO: RW}, other.reference: {ONE: RW}},
            self.exporter.exported(),
        )

    def test_reconcile_of_many(self):
        wanted = [(self.make_share(), {ONE: RW, NET: RO}) for _ in range(30)]
        stale = self.make_share()
        self.exporter.apply(stale, {TWO: RW})
        found = self.exporter.reconcile(wanted, apply=True, remove=True)
        self.assertEqual(31, len(found))
        self.assertEqual(
            {share.reference: clients for share, clients in wanted},
            self.exporter.exported(),
        )
        self.assertEqual([], self.restarted().reconcile(wanted, apply=False))

    def test_repair_only_adds(self):
        """What is exported beyond what is wanted may be a guest's disk."""
        known, unknown, stronger = (self.make_share() for _ in range(3))
        self.exporter.apply(known, {TWO: RO, NET: RW})
        self.exporter.apply(unknown, {ONE: RW})
        self.exporter.apply(stronger, {ONE: RW})
        wanted = [(known, {ONE: RW, TWO: RW}), (stronger, {ONE: RO})]
        expected = {
            known.reference: {NET: RW},
            unknown.reference: {ONE: RW},
            stronger.reference: {ONE: RW},
        }
        for _ in range(2):
            found = self.exporter.reconcile(wanted, apply=True)
            self.assertEqual(
                expected,
                {each.reference: dict(each.unexplained) for each in found},
            )
            self.assertEqual(
                {
                    known.reference: {ONE: RW, TWO: RW, NET: RW},
                    unknown.reference: {ONE: RW},
                    stronger.reference: {ONE: RW},
                },
                self.restarted().exported(),
            )
        self.assertEqual([False] * 3, [each.is_lacking for each in found])

    # -- the rules behind the exports

    def test_rules_are_kept_with_the_exports(self):
        share = self.make_share()
        rules = {
            "cmp-1": base.Rule((ONE, SIX), RW),
            "cmp-2": base.Rule((NET, ONE), RO),
        }
        share = dataclasses.replace(share, rules=rules)
        self.exporter.apply(share, base.clients_of(rules))
        self.assertEqual({share.reference: rules}, self.restarted().rules())
        del rules["cmp-2"]
        self.exporter.reconcile(
            [(share, base.clients_of(rules))], apply=True, remove=True
        )
        self.assertEqual({share.reference: rules}, self.restarted().rules())
        self.exporter.withdraw(share.reference)
        self.assertEqual({}, self.restarted().rules())

    def test_clients_without_a_rule_have_a_holder(self):
        share = self.make_share()
        rules = {"cmp-1": base.Rule((ONE,), RW)}
        share = dataclasses.replace(share, rules=rules)
        self.exporter.apply(share, {ONE: RW, SIX: RO, NET: RW})
        expected = {
            **rules,
            f"recovered:{SIX}": base.Rule((SIX,), RO),
            "recovered:198.51.100.0-24": base.Rule((NET,), RW),
        }
        self.assertEqual({share.reference: expected}, self.restarted().rules())
