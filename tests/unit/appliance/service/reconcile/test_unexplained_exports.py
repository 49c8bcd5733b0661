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

"""Exports that no access rule explains are kept until an operator acts."""

import threading
from unittest import mock

from acme_appliance import references
from acme_appliance.db import models
from acme_appliance.exporters import base as exporters
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

ONE, TWO = "192.0.2.51", "192.0.2.52"
STRANGER = "192.0.2.99"


class TestUnexplainedExports(case.ServiceCase):
    def setUp(self):
        super().setUp()
        self.share_id = self.make_share()
        self.fixture.put_access(self.share_id)

    def let_in(self, share_id, client=STRANGER):
        """Export a share behind the service's back."""
        share = exporters.ExportedDirectory(
            references.share(share_id), "/memory/x", 0, 0
        )
        clients = self.fixture.exporter.exported().get(share.reference, {})
        self.fixture.exporter.apply(share, {**clients, client: "rw"})

    def clients(self, share_id=None):
        exported = self.fixture.exporter.exported()
        reference = references.share(share_id or self.share_id)
        return set(exported.get(reference, {}))

    def test_a_start_keeps_and_reports_them(self):
        unknown = fixtures.new_id()
        self.let_in(unknown)
        self.let_in(self.share_id)
        for _ in range(2):
            report = self.fixture.restart()
            self.assertEqual(
                {unknown, self.share_id},
                {each["share_id"] for each in report.unexplained_exports},
            )
            self.assertEqual([], report.export_differences)
            self.assertEqual({STRANGER}, self.clients(unknown))
            self.assertEqual({ONE, STRANGER}, self.clients())
        self.assertRegex(" ".join(report.lines()), "2 unexplained exports")
        self.assertEqual([], self.fixture.service.system.readiness())
        self.assertRegex(
            self.fixture.service.system.export_warnings()[0], "concerned: 2"
        )

    def test_an_operator_withdraws_them(self):
        unknown = fixtures.new_id()
        self.let_in(unknown)
        self.let_in(self.share_id)
        self.fixture.restart()
        report = self.fixture.service.reconciliation.run(False)
        self.assertEqual(2, len(report["unexplained_exports"]))
        self.assertEqual({ONE, STRANGER}, self.clients())
        report = self.fixture.service.reconciliation.run(True)
        self.assertEqual(2, len(report["unexplained_exports"]))
        self.assertEqual(
            {references.share(self.share_id): {ONE: "rw"}}, self.exported()
        )
        self.assertEqual([], self.fixture.service.system.export_warnings())

    def exported(self):
        return self.fixture.exporter.exported()

    def test_an_empty_database_withdraws_nothing(self):
        with self.fixture.database.write() as session:
            for table in (models.AccessRule, models.ShareLabel, models.Share):
                session.query(table).delete()
        self.fixture.restart()
        self.assertEqual({ONE}, self.clients())

    def test_changes_of_rules_leave_them_alone(self):
        self.let_in(self.share_id)
        self.fixture.restart()
        self.fixture.put_access(self.share_id, "cmp-2", (TWO,))
        self.assertEqual({ONE, TWO, STRANGER}, self.clients())
        self.fixture.delete_access(self.share_id)
        self.fixture.delete_access(self.share_id, "cmp-2")
        self.assertEqual({STRANGER}, self.clients())
        self.fixture.restart()
        self.assertEqual({STRANGER}, self.clients())

    def test_a_rule_explains_them(self):
        self.let_in(self.share_id)
        self.fixture.restart()
        self.fixture.put_access(self.share_id, "cmp-9", (STRANGER,))
        self.assertEqual([], self.fixture.service.system.export_warnings())
        self.fixture.delete_access(self.share_id, "cmp-9")
        self.assertEqual({ONE}, self.clients())

    def test_a_deleted_share_has_none(self):
        self.fixture.delete_access(self.share_id)
        self.let_in(self.share_id)
        self.fixture.restart()
        self.fixture.delete_share(self.share_id)
        self.assertEqual({}, self.exported())
        self.assertEqual([], self.fixture.service.system.export_warnings())

    def test_what_somebody_withdrew_by_hand_is_no_problem_any_more(self):
        unknown = fixtures.new_id()
        self.let_in(unknown)
        self.fixture.restart()
        self.fixture.exporter.withdraw(references.share(unknown))
        self.assertEqual([], self.fixture.service.system.export_warnings())

    def crash(self, request, step):
        def die():
            self.fixture.steps.crashed = True
            raise fixtures.Crash(step)

        self.fixture.steps.hooks[step] = die
        with self.assertRaises(fixtures.Crash):
            request()

    def test_a_grant_that_was_cut_off_is_explained(self):
        """And keeps no stranger out when it is finished."""
        self.let_in(self.share_id)
        self.fixture.restart()
        self.crash(
            lambda: self.fixture.put_access(self.share_id, "cmp-2", (TWO,)),
            "export:after",
        )
        self.assertEqual({ONE, TWO, STRANGER}, self.clients())
        report = self.fixture.restart()
        self.assertEqual({ONE, TWO, STRANGER}, self.clients())
        self.assertEqual(
            [{"share_id": self.share_id, "clients": {STRANGER: "rw"}}],
            report.unexplained_exports,
        )

    def test_a_revoke_that_was_cut_off_is_finished(self):
        self.let_in(self.share_id)
        self.fixture.restart()
        self.crash(
            lambda: self.fixture.delete_access(self.share_id), "export:before"
        )
        self.assertEqual({ONE, STRANGER}, self.clients())
        self.fixture.restart()
        self.assertEqual({STRANGER}, self.clients())

    def test_a_revoke_that_outlasts_a_start(self):
        """Comparing the exports meanwhile lets nobody in again."""
        self.crash(
            lambda: self.fixture.delete_access(self.share_id), "export:before"
        )
        exporter, go_on = self.fixture.exporter, threading.Event()
        apply, reconcile = exporter.apply, exporter.reconcile

        def slow_apply(*given):
            self.assertTrue(go_on.wait(fixtures.WAIT))
            apply(*given)

        def late_reconcile(wanted, **options):
            # The revoke ends between the look at the rules and the change.
            wanted = list(wanted)
            if options["apply"]:
                go_on.set()
                self.fixture.service.recovery.runner.journal.stop()
            return reconcile(wanted, **options)

        self.fixture.restart(start=False)
        resume_all = self.fixture.service.recovery.open_jobs.resume_all
        with (
            mock.patch.object(exporter, "apply", slow_apply),
            mock.patch.object(exporter, "reconcile", late_reconcile),
            mock.patch.object(
                self.fixture.service.recovery.open_jobs,
                "resume_all",
                lambda **given: resume_all(0),
            ),
        ):
            report = self.fixture.service.start()
        self.assertEqual({}, self.share(self.share_id)["access"])
        self.assertEqual(set(), self.clients())
        self.assertEqual([], report.export_differences)

    def test_nobody_learns_of_them_before_the_start(self):
        """``status`` runs beside the server, and looks for itself."""
        self.let_in(self.share_id)
        self.fixture.restart(start=False)
        self.fixture.service.reconciliation.compare_exports()
        self.assertRegex(
            self.fixture.service.system.export_warnings()[0], "concerned: 1"
        )
        self.assertEqual({ONE, STRANGER}, self.clients())
