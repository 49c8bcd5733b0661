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
"""Passes: nobody is forgotten, nobody waits for later callers."""

from concurrent import futures
import threading
import time
import unittest

from acme_appliance.exporters.kernel import passes

WAIT = 60


class TestPasses(unittest.TestCase):
    def setUp(self):
        self.batches = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.errors = {}
        self.passes = passes.Passes(self.work)
        self.pool = futures.ThreadPoolExecutor(64)
        self.addCleanup(self.pool.shutdown)

    def work(self, items):
        self.batches.append(list(items))
        self.begun.release()
        self.assertTrue(self.go.acquire(timeout=WAIT))
        return [self.errors.get(item) for item in items]

    def start(self, *items):
        return [self.pool.submit(self.passes.serve, item) for item in items]

    def wait_for_waiting(self, count):
        end = time.monotonic() + WAIT
        while len(self.passes._waiting) != count:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.001)

    def test_all_who_wait_are_served_by_the_next_pass(self):
        first = self.start(0)
        self.assertTrue(self.begun.acquire(timeout=WAIT))
        others = self.start(*range(1, 33))
        self.wait_for_waiting(32)
        self.go.release(2)
        for call in first + others:
            call.result(WAIT)
        self.assertEqual([0], self.batches[0])
        self.assertEqual(set(range(1, 33)), set(self.batches[1]))
        self.assertEqual(2, len(self.batches))

    def test_call_is_not_served_by_a_pass_that_began_before(self):
        (first,) = self.start("first")
        self.assertTrue(self.begun.acquire(timeout=WAIT))
        (second,) = self.start("second")
        self.wait_for_waiting(1)
        self.go.release()
        first.result(WAIT)
        self.assertTrue(self.begun.acquire(timeout=WAIT))
        self.assertFalse(second.done())
        self.go.release()
        second.result(WAIT)

    def test_each_gets_its_own_error(self):
        self.errors["bad"] = ValueError("bad")
        first = self.start("first")
        self.assertTrue(self.begun.acquire(timeout=WAIT))
        good, bad = self.start("good", "bad")
        self.wait_for_waiting(2)
        self.go.release(2)
        first[0].result(WAIT)
        self.assertIsNone(good.result(WAIT))
        with self.assertRaisesRegex(ValueError, "bad"):
            bad.result(WAIT)

    def test_failed_pass_is_everybodys_and_the_next_works(self):
        self.go.release(3)
        with self.assertRaises(TypeError):
            passes.Passes(lambda items: len(3)).serve("x")
        self.passes.serve("one")
        self.passes.serve("two")
        self.assertEqual([["one"], ["two"]], self.batches)
