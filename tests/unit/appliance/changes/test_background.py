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

"""Threads of the service: what runs by time, and a pool's workers."""

import threading
import time
import unittest
from unittest import mock

from acme_appliance import problems
from acme_appliance.changes import background
from acme_appliance.storage import workers

SOON = 120.0


class TestBackground(unittest.TestCase):
    def run_tasks(self, *runs):
        found = background.Background(
            *(
                background.Task(f"task {number}", 0.001, run)
                for number, run in enumerate(runs)
            )
        )
        self.addCleanup(found.stop)
        found.start()
        return found

    def test_runs_again_and_again_until_the_stop(self):
        three = threading.Semaphore(0)
        tasks = self.run_tasks(three.release)
        for _ in range(3):
            self.assertTrue(three.acquire(timeout=SOON))
        tasks.stop()
        while three.acquire(blocking=False):
            pass
        self.assertFalse(three.acquire(timeout=0.05))

    def test_exception_is_logged_and_is_not_the_end(self):
        calls = threading.Semaphore(0)

        def fail():
            calls.release()
            raise ValueError("once more")

        with self.assertLogs(background.LOG, "ERROR") as logs:
            tasks = self.run_tasks(fail)
            for _ in range(2):
                self.assertTrue(calls.acquire(timeout=SOON))
            tasks.stop()
        self.assertIn("task 0", logs.output[0])

    def test_one_that_hangs_delays_no_other_and_never_overlaps(self):
        go, other = threading.Event(), threading.Semaphore(0)
        self.addCleanup(go.set)
        hung = []

        def hang():
            hung.append(1)
            go.wait(SOON)

        self.run_tasks(hang, other.release)
        for _ in range(20):
            self.assertTrue(other.acquire(timeout=SOON))
        self.assertEqual([1], hung)

    def test_one_that_hangs_is_named(self):
        go, begun = threading.Event(), threading.Event()
        self.addCleanup(go.set)
        now = [0.0]

        def hang():
            begun.set()
            go.wait(SOON)

        task = background.Task("compare gold", 0.001, hang)
        tasks = background.Background(task, clock=lambda: now[0])
        self.addCleanup(tasks.stop)
        tasks.start()
        self.assertTrue(begun.wait(SOON))
        self.assertEqual([], tasks.overdue())
        now[0] = 1200.0
        (line,) = tasks.overdue()
        self.assertIn("'compare gold' has been running for 20 min", line)
        go.set()
        self.assertTrue(self.ends(lambda: not tasks.overdue()))

    def ends(self, condition):
        deadline = time.monotonic() + SOON
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)
        return condition()

    def test_one_that_hangs_is_logged_once(self):
        go, begun = threading.Event(), threading.Event()
        self.addCleanup(go.set)
        now = [0.0]

        def hang():
            begun.set()
            go.wait(SOON)

        with (
            mock.patch.object(background, "OVERDUE_SECONDS", 0.05),
            self.assertLogs(background.LOG, "WARNING") as logs,
        ):
            task = background.Task("compare gold", 0.001, hang)
            tasks = background.Background(task, clock=lambda: now[0])
            self.addCleanup(tasks.stop)
            tasks.start()
            self.assertTrue(begun.wait(SOON))
            now[0] = 60.0
            self.assertTrue(self.ends(lambda: bool(logs.output)))
            # Several more looks: the watching task runs each 5 ms.
            time.sleep(0.1)
            go.set()
            tasks.stop()
        self.assertEqual(1, len(logs.output), logs.output)

    def test_stop_without_a_start(self):
        background.Background(background.Task("x", 1.0, lambda: None)).stop()


class TestWorkers(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.workers = workers.Workers(3)
        self.go = threading.Event()
        self.addCleanup(self.workers.stop, SOON)
        self.addCleanup(self.go.set)

    def test_result_and_error(self):
        done = self.workers.submit("gold", divmod, 7, 2)
        self.assertEqual((3, 1), done.result(SOON))
        failed = self.workers.submit("gold", divmod, 7, 0)
        self.assertIsInstance(failed.exception(SOON), ZeroDivisionError)

    def test_as_many_at_a_time_as_said_for_each_pool(self):
        reached = threading.Semaphore(0)

        def work():
            reached.release()
            self.go.wait(SOON)

        begun = [self.workers.submit("gold", work) for _ in range(5)]
        for _ in range(3):
            self.assertTrue(reached.acquire(timeout=SOON))
        self.assertFalse(reached.acquire(timeout=0.05))
        self.assertEqual(7, self.workers.submit("iron", int, "7").result(SOON))
        self.go.set()
        for future in begun:
            future.result(SOON)

    def test_idle_threads_are_used_again(self):
        for _ in range(50):
            self.workers.submit("gold", int).result(SOON)
        names = [thread.name for thread in threading.enumerate()]
        self.assertLessEqual(names.count("change gold"), 3)

    def test_stop_waits_and_then_not_for_ever(self):
        self.workers.submit("gold", self.go.wait, SOON)
        begin = time.monotonic()
        with self.assertLogs(workers.LOG, "WARNING"):
            self.workers.stop(0.05)
        self.assertLess(time.monotonic() - begin, SOON / 2)
        with self.assertRaises(problems.Problem) as caught:
            self.workers.submit("gold", int)
        self.assertEqual("system.starting", caught.exception.code)
