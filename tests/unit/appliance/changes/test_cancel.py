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

"""Cancelling a job, in the moment in which its turn comes."""

import threading
from unittest import mock

from tests.unit.appliance import fixtures
from tests.unit.appliance.service import test_jobs_and_events


class TestCancelWhileAWorkerComesFree(test_jobs_and_events.SlowCase):
    """Either the worker has the job or the one who cancels it has."""

    settings = {"workers": 1}

    def setUp(self):
        super().setUp()
        self.fixture.steps.hooks.clear()
        self.share_id = self.make_share()
        self.before = self.fixture.state()
        self.fixture.steps.hooks["create share:before"] = self.stop
        self.blocking = self.create().job
        self.assertTrue(self.reached.wait(test_jobs_and_events.SOON))
        self.queued = self.fixture.service.shares.delete(
            fixtures.CALLER, self.share_id, wait_seconds=0
        ).job
        self.canceller = threading.current_thread()

    def pass_the_worker(self):
        """The only worker ends its job, and looks at the next."""
        self.go.set()
        workers = self.fixture.service.journal._workers
        workers.submit("gold", lambda: None).result(test_jobs_and_events.SOON)

    def before_the_canceller_writes(self, act):
        write = self.fixture.database.write

        def write_later():
            if threading.current_thread() is self.canceller:
                act()
            return write()

        self.enterContext(
            mock.patch.object(self.fixture.database, "write", write_later)
        )

    def cancel(self):
        return self.fixture.service.jobs.cancel(
            fixtures.CALLER, self.queued["id"]
        )

    def test_what_is_being_cancelled_is_not_begun(self):
        self.before_the_canceller_writes(self.pass_the_worker)
        self.assertEqual("cancelled", self.cancel()["state"])
        self.assertTrue(
            self.fixture.engine.exists(fixtures.share(self.share_id))
        )
        self.fixture.delete_share(self.blocking["share_id"])
        self.assertEqual(self.before, self.fixture.state())

    def test_what_cannot_be_cancelled_is_done(self):
        def fail():
            self.pass_the_worker()
            raise OSError(28, "the database's disk")

        self.before_the_canceller_writes(fail)
        self.check_problem("engine.unavailable", self.cancel)
        self.assertEqual("succeeded", self.job(self.queued["id"])["state"])
        self.assertFalse(
            self.fixture.engine.exists(fixtures.share(self.share_id))
        )
