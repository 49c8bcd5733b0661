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

"""Exports and disks that hang in the middle of a request.

The request answers all the same, its share stays held until the work is
really done, and everything else goes on.
"""

import dataclasses
import threading
import time

import ddt

from acme_appliance import problems
from acme_appliance import references
from acme_appliance import types
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

GOLD, SILVER = "gold", "silver"
MIB = fixtures.MIB
#: How long a request is willing to wait, and how long the hang lasts where
#: nothing ends it: then a test fails.
PATIENCE = 0.2
LONG = 60.0


class HangCase(case.ServiceCase):
    settings = {"pools": (GOLD, SILVER), "workers": 4, "answer_seconds": 1.0}

    def setUp(self):
        super().setUp()
        self.go, self.reached = threading.Event(), threading.Event()
        self.addCleanup(self.go.set)
        self.service = self.fixture.service
        self.share_id = self.make_share()
        self.other_id = self.make_share()
        self.silver_id = self.make_share(pool=SILVER)

    def hang(self, thing, name):
        """The method hangs for the share (or the snapshot of it)."""
        method = getattr(thing, name)

        def hanging(subject, *arguments):
            reference = getattr(subject, "reference", subject)
            if self.share_id == getattr(reference, "id", reference):
                self.reached.set()
                self.assertTrue(self.go.wait(LONG), "nobody ended it")
            return method(subject, *arguments)

        setattr(thing, name, hanging)

    def patch(self, wait_seconds=PATIENCE, **patch):
        return self.service.shares.patch(
            fixtures.CALLER, self.share_id, patch, wait_seconds=wait_seconds
        )

    def grant(self, wait_seconds=PATIENCE):
        return self.service.access.put(
            fixtures.CALLER,
            self.share_id,
            "cmp-1",
            {"clients": ["192.0.2.51"], "level": "rw"},
            wait_seconds=wait_seconds,
        )

    def check_held(self):
        self.assertTrue(self.reached.wait(LONG))
        for request in (self.grant, lambda: self.patch(name="later")):
            problem = self.check_problem("share.busy", request)
            self.assertTrue(problem.row.retryable)

    def check_others_go_on(self):
        for id_ in (self.other_id, self.silver_id):
            self.fixture.put_access(id_)
            self.fixture.put_access(id_)
            self.fixture.patch_share(id_, name="y", size_bytes=2 * MIB)
        self.make_share(pool=SILVER)


@ddt.ddt
class TestHangs(HangCase):
    @ddt.data("exporter", "engine")
    def test_grant_that_is_repeated(self, which):
        self.fixture.put_access(self.share_id)
        before = self.share(self.share_id)["generation"]
        if which == "exporter":
            self.fixture.exporter.withdraw(references.share(self.share_id))
            self.hang(self.fixture.exporter, "apply")
        else:
            self.hang(self.fixture.engine, "grow_file")
        problem = self.check_problem("share.busy", self.grant)
        self.assertTrue(problem.row.retryable)
        self.check_held()
        self.check_others_go_on()
        self.go.set()
        done = self.grant(fixtures.WAIT)
        self.assertFalse(done.created)
        self.assertEqual(before, self.share(self.share_id)["generation"])
        self.assertIn(
            references.share(self.share_id), self.fixture.exporter.exported()
        )

    def test_grant_that_is_repeated_and_fails(self):
        self.fixture.put_access(self.share_id)
        self.fixture.exporter.apply = self.fail_for_once
        self.check_problem("engine.unavailable", self.grant)
        self.grant(fixtures.WAIT)

    def fail_for_once(self, *arguments):
        del self.fixture.exporter.apply
        raise OSError(5, "EIO")

    def test_labels(self):
        self.hang(self.fixture.engine.metadata, "write")
        self.check_problem("share.busy", lambda: self.patch(labels={"a": "1"}))
        self.check_held()
        self.check_others_go_on()
        self.go.set()
        self.patch(fixtures.WAIT, labels={"a": "1"})
        self.assertEqual({"a": "1"}, self.share(self.share_id)["labels"])
        self.assertEqual([], self.fixture.restart().old_metadata)

    def test_labels_of_a_snapshot(self):
        id_ = self.make_snapshot(self.share_id)
        self.share_id, kept = id_, self.share_id
        self.hang(self.fixture.engine.metadata, "write")

        def request(wait_seconds=PATIENCE):
            return self.service.snapshots.patch(
                fixtures.CALLER,
                id_,
                {"labels": {"a": "1"}},
                wait_seconds=wait_seconds,
            )

        self.check_problem("share.busy", request)
        self.share_id = kept
        self.check_held()
        self.check_others_go_on()
        self.go.set()
        self.assertEqual({"a": "1"}, request(fixtures.WAIT).body["labels"])
        self.assertEqual([], self.fixture.restart().old_metadata)

    @ddt.data("create", "clone")
    def test_look_before_a_create(self, how):
        more = {}
        if how == "clone":
            more = {"source": {"type": "share", "id": self.share_id}}
        self.share_id = fixtures.new_id()
        self.hang(self.fixture.engine, "exists")

        def request():
            return self.fixture.put_share(self.share_id, **more)

        self.check_problem("engine.unavailable", request)
        self.make_share(pool=SILVER)
        self.go.set()
        end = time.monotonic() + LONG
        while self.service.system.readiness():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        self.assertTrue(request().created)

    def test_jobs_behind_it_are_queued(self):
        self.fixture.service.stop()
        self.fixture.settings = dataclasses.replace(
            self.fixture.settings, workers=1
        )
        self.fixture.restart()
        self.service = self.fixture.service
        self.fixture.put_access(self.share_id)
        self.hang(self.fixture.exporter, "apply")
        self.check_problem("share.busy", self.grant)
        accepted = self.service.shares.put(
            fixtures.CALLER,
            fixtures.new_id(),
            {"name": "x", "size_bytes": MIB},
            wait_seconds=0,
        )
        self.assertEqual("queued", accepted.job["state"])
        self.go.set()
        job = self.service.jobs.get(
            fixtures.CALLER, accepted.job["id"], fixtures.WAIT
        )
        self.assertEqual("succeeded", job["state"])


class TestSharesWithoutFiles(HangCase):
    settings = {**HangCase.settings, "volume_file": False}

    def test_grow_that_hangs(self):
        self.hang(self.fixture.engine, "set_limit")
        accepted = self.patch(size_bytes=2 * MIB)
        self.assertIsInstance(accepted, types.Accepted)
        self.check_held()
        self.check_others_go_on()
        self.go.set()
        job = self.service.jobs.get(
            fixtures.CALLER, accepted.job["id"], fixtures.WAIT
        )
        self.assertEqual("succeeded", job["state"])
        body = self.share(self.share_id)
        self.assertEqual(
            (2 * MIB, "available", None),
            (body["size_bytes"], body["state"], body["file"]),
        )
        self.assertEqual([], self.fixture.restart().old_metadata)

    def test_grow_that_fails_is_undone(self):
        engine, before = self.fixture.engine, self.fixture.state()

        def fail(share_id, size_bytes):
            del engine.set_limit
            raise OSError(5, "EIO")

        engine.set_limit = fail
        with self.assertRaises(problems.Problem):
            self.patch(fixtures.WAIT, size_bytes=2 * MIB)
        self.assertEqual(before, self.fixture.state())
        self.patch(fixtures.WAIT, size_bytes=2 * MIB)
