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

import os
import pathlib
import tempfile
import unittest

from acme_appliance import locks


class LockTest(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.path = pathlib.Path(temporary.name) / "lock"
        self.lock = self.make()

    def make(self, **parts: object) -> locks.Lock:
        lock = locks.Lock(self.path, **parts)
        self.addCleanup(lock.leave)
        return lock

    def test_one_at_a_time_and_who(self):
        self.assertFalse(self.lock.is_held())
        self.lock.take()
        self.assertTrue(self.lock.is_held())
        with self.assertRaises(locks.Held) as caught:
            self.make().take()
        self.assertEqual(os.getpid(), caught.exception.pid)
        self.lock.leave()
        self.assertFalse(self.lock.is_held())
        self.make().take()

    def test_waiting_is_bounded(self):
        self.lock.take()
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        with self.assertRaises(locks.Held):
            self.make(sleep=sleep, clock=lambda: now[0]).take(5)
        self.assertAlmostEqual(5, now[0], delta=0.2)

    def test_waiting_ends_when_it_is_free(self):
        self.lock.take()
        waits = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                self.lock.leave()

        self.make(sleep=sleep).take(5)
        self.assertEqual(3, len(waits))

    def test_a_file_that_is_garbage(self):
        self.path.write_text("who knows")
        self.assertIsNone(self.lock.holder())
        self.lock.take()
        self.assertEqual(os.getpid(), self.lock.holder())
