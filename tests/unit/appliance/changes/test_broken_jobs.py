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

"""Journal rows that cannot be read: each alone is set aside."""

import datetime
import uuid

import ddt
import sqlalchemy as sa

from acme_appliance.changes import jobrows
from acme_appliance.db import models
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

MIB = fixtures.MIB

#: SQL of values that cannot be read.
BROKEN = {
    "last_problem": "'{'",
    "last_problem of another kind": "'[1]'",
    "last_problem of a later release": '\'{"code": "no.such", "detail": ""}\'',
    "problem": "'{'",
    "arguments": "'{'",
    "created_at": "'the day after'",
    "attempted_at": "'0000-99-99'",
    "attempts": "'many'",
    "state": "'paused'",
}


def value(name):
    return name.partition(" ")[0], BROKEN[name]


@ddt.ddt
class TestBrokenRows(case.ServiceCase):
    def setUp(self):
        super().setUp()
        self.share_id, self.other_id = self.make_share(), self.make_share()
        self.fixture.steps.hooks["grow file:before"] = self.die
        for id_ in (self.share_id, self.other_id):
            with self.assertRaises(fixtures.Crash):
                self.fixture.patch_share(id_, size_bytes=2 * MIB)
        self.job_id = self.share(self.share_id)["job_id"]

    def die(self):
        raise fixtures.Crash

    def spoil(self, name):
        column, sql = value(name)
        with self.fixture.database.write() as session:
            session.execute(
                sa.update(models.Job)
                .where(models.Job.id == self.job_id)
                .values({column: sa.literal_column(sql)})
            )

    def jobs(self, **filters):
        return {
            job["id"]: job
            for job in self.fixture.service.jobs.page(
                fixtures.CALLER, filters, 100, None
            ).items
        }

    @ddt.data(*BROKEN)
    def test_is_set_aside_and_all_others_go_on(self, name):
        self.spoil(name)
        report = self.fixture.restart()
        self.assertEqual([self.job_id], list(report.unreadable_jobs))
        self.assertIn(self.job_id, report.unreadable_jobs[self.job_id])
        self.assertEqual([], report.open_jobs)
        self.assertEqual(2 * MIB, self.share(self.other_id)["size_bytes"])
        self.assertEqual("extending", self.share(self.share_id)["state"])
        self.fixture.patch_share(self.other_id, size_bytes=3 * MIB)
        self.make_share()

    @ddt.data(*BROKEN)
    def test_is_reported(self, name):
        self.spoil(name)
        self.fixture.restart()
        (job,) = self.fixture.service.system.status()["open_jobs"]
        self.assertEqual(self.job_id, job["id"])
        self.assertEqual("job.unreadable", job["last_problem"]["code"])
        listed = self.jobs(state="running")
        self.assertEqual([self.job_id], list(listed))
        alone = self.fixture.service.jobs.get(fixtures.CALLER, self.job_id)
        self.assertEqual(alone, listed[self.job_id])
        self.assertEqual("running", alone["state"])
        self.assertEqual("job.unreadable", alone["last_problem"]["code"])
        self.assertIn(f"--close-job {self.job_id}", str(alone))
        self.assertEqual(4, len(self.jobs()))

    @ddt.data(*BROKEN)
    def test_timer_goes_on(self, name):
        self.spoil(name)
        self.fixture.steps.hooks.clear()
        self.fixture.service.recovery.open_jobs.resume_due()
        # Waits for its turn.
        self.fixture.patch_share(self.other_id, name="x")
        self.assertEqual(2 * MIB, self.share(self.other_id)["size_bytes"])

    @ddt.data(*BROKEN)
    def test_operator_closes_it(self, name):
        self.spoil(name)
        self.fixture.restart(start=False)
        report = self.fixture.service.reconciliation.run(True, [self.job_id])
        self.assertEqual({}, report["unreadable_jobs"])
        self.assertEqual([], report["open_jobs"])
        self.assertEqual("failed", self.jobs()[self.job_id]["state"])
        self.assertEqual(4, len(self.jobs()))
        self.fixture.restart()
        body = self.share(self.share_id)
        self.assertEqual(("available", None), (body["state"], body["job_id"]))
        self.fixture.patch_share(self.share_id, size_bytes=4 * MIB)

    def test_time_of_its_creation_is_that_of_its_id(self):
        self.spoil("created_at")
        created = self.jobs()[self.job_id]["created_at"]
        milliseconds = uuid.UUID(self.job_id).int >> 80
        self.assertEqual(
            datetime.datetime.fromtimestamp(
                milliseconds / 1000, tz=datetime.UTC
            ),
            datetime.datetime.fromisoformat(created),
        )

    @ddt.data("state", "arguments", "created_at")
    def test_its_share_is_held(self, name):
        """What it has done is not known."""
        self.spoil(name)
        for request in (
            lambda: self.fixture.patch_share(self.share_id, name="x"),
            lambda: self.fixture.put_access(self.share_id),
            lambda: self.fixture.delete_share(self.share_id),
        ):
            self.check_problem("job.unreadable", request)
        self.assertEqual(self.job_id, self.share(self.share_id)["job_id"])

    def test_pages_go_past_it(self):
        self.spoil("created_at")
        ids, marker = [], None
        while True:
            page = self.fixture.service.jobs.page(
                fixtures.CALLER, {}, 2, marker
            )
            ids += [job["id"] for job in page.items]
            marker = page.next_marker
            if marker is None:
                break
        self.assertEqual(4, len(ids))
        self.assertIn(self.job_id, ids)

    def test_open_jobs_are_found_by_an_index(self):
        """There are very many that have ended."""
        statement = sa.select(models.Job.id).where(jobrows.IS_OPEN)
        with self.fixture.database.read() as session:
            plan = session.execute(
                sa.text(
                    "EXPLAIN QUERY PLAN "
                    + str(
                        statement.compile(
                            session.get_bind(),
                            compile_kwargs={"literal_binds": True},
                        )
                    )
                )
            ).all()
        self.assertNotIn("SCAN", str(plan))
