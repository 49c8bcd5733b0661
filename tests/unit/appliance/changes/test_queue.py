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

"""The fair queue, and the sync that is shared."""

import threading
import time
import unittest

from acme_appliance.changes import claims
from acme_appliance.changes import queue
from acme_appliance.storage import groupsync

EXCLUSIVE, SHARED = claims.Claim.EXCLUSIVE, claims.Claim.SHARED
#: More than enough for a thread to do what it will do at once.
SOON = 120.0


def length(fair_queue, key):
    """How many hold the key or wait for it."""
    return len(fair_queue._lines.get(key, ()))


def wait_until(condition):
    end = time.monotonic() + SOON
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not happen")
        time.sleep(0.001)


class TestFairQueue(unittest.TestCase):
    def setUp(self):
        self.queue = queue.FairQueue()
        self.order = []

    def hold(self, **claims):
        return self.queue.hold(claims, 0)

    def start(self, name, timeout_seconds=SOON, **claims):
        """Queue a thread, which notes its turn and waits for ``go``."""
        lengths = {key: length(self.queue, key) for key in claims}
        go = threading.Event()

        def work():
            ticket = self.queue.hold(claims, timeout_seconds)
            self.order.append(name)
            go.wait(SOON)
            self.queue.release(ticket)

        thread = threading.Thread(target=work)
        thread.start()
        self.addCleanup(thread.join, SOON)
        self.addCleanup(go.set)
        wait_until(
            lambda: all(length(self.queue, k) > n for k, n in lengths.items())
        )
        return go

    def test_served_in_order_of_arrival(self):
        first = self.hold(a=EXCLUSIVE)
        turns = [self.start(n, a=EXCLUSIVE) for n in range(10)]
        self.queue.release(first)
        for number, go in enumerate(turns):
            wait_until(lambda done=number: len(self.order) == done + 1)
            go.set()
        self.assertEqual(list(range(10)), self.order)

    def test_other_keys_do_not_wait(self):
        self.hold(a=EXCLUSIVE)
        self.hold(b=EXCLUSIVE)
        self.hold(c=EXCLUSIVE)
        self.assertRaises(queue.Busy, self.hold, a=EXCLUSIVE)

    def test_together(self):
        tickets = [self.hold(a=SHARED) for _ in range(3)]
        self.assertRaises(queue.Busy, self.hold, a=EXCLUSIVE)
        for ticket in tickets:
            self.queue.release(ticket)
        alone = self.hold(a=EXCLUSIVE)
        self.assertRaises(queue.Busy, self.hold, a=SHARED)
        self.queue.release(alone)
        self.hold(a=SHARED)

    def test_clones_without_end_do_not_starve_a_change(self):
        """Who comes together after one alone waits behind it."""
        first = self.hold(a=SHARED)
        self.start("alone", a=EXCLUSIVE)
        self.assertRaises(queue.Busy, self.hold, a=SHARED)
        self.queue.release(first)
        wait_until(lambda: self.order == ["alone"])

    def test_two_keys_at_once_cannot_deadlock(self):
        """Both orders, many times; a lock for each key would hang."""
        done = []

        def work(first, second):
            for _ in range(200):
                ticket = self.queue.hold(
                    {first: EXCLUSIVE, second: EXCLUSIVE}, SOON
                )
                self.queue.release(ticket)
            done.append(first)

        threads = [
            threading.Thread(target=work, args=keys)
            for keys in (("a", "b"), ("b", "a"), ("b", "c"), ("c", "a"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
        self.assertEqual(4, len(done))

    def test_turn_comes_only_with_all_keys(self):
        a, b = self.hold(a=EXCLUSIVE), self.hold(b=EXCLUSIVE)
        self.start("both", a=EXCLUSIVE, b=EXCLUSIVE)
        self.queue.release(a)
        self.assertEqual([], self.order)
        # It has its place in both lines already.
        self.assertRaises(queue.Busy, self.hold, a=EXCLUSIVE)
        self.queue.release(b)
        wait_until(lambda: self.order == ["both"])

    def test_time_out_leaves_the_line(self):
        first = self.hold(a=EXCLUSIVE)
        begin = time.monotonic()
        with self.assertRaises(queue.Busy):
            self.queue.hold({"a": EXCLUSIVE, "b": EXCLUSIVE}, 0.05)
        self.assertGreaterEqual(time.monotonic() - begin, 0.05)
        self.assertEqual(0, length(self.queue, "b"))
        self.queue.release(first)
        self.assertEqual(0, length(self.queue, "a"))
        self.hold(a=EXCLUSIVE)

    def test_time_out_lets_those_behind_pass(self):
        self.hold(a=SHARED)
        gone = threading.Thread(
            target=lambda: self.assertRaises(
                queue.Busy, self.queue.hold, {"a": EXCLUSIVE}, 0.2
            )
        )
        gone.start()
        wait_until(lambda: length(self.queue, "a") == 2)
        self.start("together", a=SHARED)
        gone.join(SOON)
        wait_until(lambda: self.order == ["together"])

    def test_released_by_another_thread(self):
        ticket = self.hold(a=EXCLUSIVE)
        thread = threading.Thread(target=self.queue.release, args=[ticket])
        thread.start()
        thread.join(SOON)
        self.hold(a=EXCLUSIVE)

    def test_nothing_is_kept_of_free_keys(self):
        for number in range(100):
            self.queue.release(self.hold(**{f"k{number}": EXCLUSIVE}))
        self.assertEqual({}, self.queue._lines)


class TestGroupSync(unittest.TestCase):
    def setUp(self):
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.count = 0
        self.fail = False
        self.sync = groupsync.GroupSync(self.slow_sync)
        self.results = []

    def slow_sync(self):
        self.begun.release()
        if not self.go.acquire(timeout=SOON):
            raise AssertionError("nobody let it go on")
        self.count += 1
        if self.fail:
            raise OSError(5, "I/O error")

    def start(self):
        def work():
            try:
                self.sync()
            except OSError:
                self.results.append("failed")
            else:
                self.results.append("done")

        thread = threading.Thread(target=work)
        thread.start()
        self.addCleanup(thread.join, SOON)
        return thread

    def let_go(self):
        self.assertTrue(self.begun.acquire(timeout=SOON))
        self.go.release()

    def test_alone(self):
        for number in (1, 2):
            self.start()
            self.let_go()
            wait_until(lambda n=number: len(self.results) == n)
            self.assertEqual(number, self.count)

    def test_all_who_wait_share_the_next(self):
        self.start()
        self.assertTrue(self.begun.acquire(timeout=SOON))
        # The first is at work: it may have missed what these have done.
        threads = [self.start() for _ in range(20)]
        wait_until(lambda: len(self.sync._changed._waiters) == 20)
        self.go.release()
        self.let_go()
        for thread in threads:
            thread.join(SOON)
        self.assertEqual(["done"] * 21, self.results)
        self.assertEqual(2, self.count)

    def test_failure_is_nobody_elses(self):
        self.fail = True
        self.start()
        self.assertTrue(self.begun.acquire(timeout=SOON))
        self.start()
        self.start()
        wait_until(lambda: len(self.sync._changed._waiters) == 2)
        self.go.release()
        wait_until(lambda: self.results == ["failed"])
        self.let_go()
        wait_until(lambda: len(self.results) == 2)
        self.fail = False
        self.let_go()
        wait_until(lambda: len(self.results) == 3)
        self.assertEqual(["failed", "failed", "done"], self.results)
