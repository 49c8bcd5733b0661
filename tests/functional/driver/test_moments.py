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

"""Snapshots of a volume that is being written are of one moment."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import subprocess
import sys
import threading
from typing import Any
import uuid

from cinder import objects

from acme_appliance import references
from tests.functional.driver import test_nfs
from tests.harness import machine
from tests.harness import sequence
from tests.unit.driver import cinderdb

SNAPSHOTS = 200
WAIT_SECONDS = 60


class Writer:
    """A process that writes over NFS.

    :ivar acknowledged: the last number that is on the disk.
    """

    def __init__(self, path: str) -> None:
        self.acknowledged = 0
        self._moved = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", sequence.__file__, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._moved:
                self.acknowledged = int(line)
                self._moved.notify_all()

    def wait_for_more(self, number: int) -> None:
        """:raises AssertionError: nothing more is written."""
        with self._moved:
            if not self._moved.wait_for(
                lambda: self.acknowledged > number, WAIT_SECONDS
            ):
                raise AssertionError(f"nothing is written after {number}")

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(WAIT_SECONDS)
        self._thread.join(WAIT_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        if code != 0:
            raise AssertionError(f"the writer ended with {code}")


class MomentsTest(test_nfs.NfsCase):
    count = SNAPSHOTS

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[Writer]:
        writer = Writer(path)
        try:
            writer.wait_for_more(0)
            yield writer
        finally:
            writer.end()

    def take(self, volume: objects.Volume) -> objects.Snapshot:
        """Without a row in Cinder's database, which takes longer."""
        snapshot = objects.Snapshot(
            context=self.context,
            id=str(uuid.uuid4()),
            provider_id=None,
            volume_id=volume.id,
            volume=volume,
            project_id=volume.project_id,
        )
        self.driver.create_snapshot(snapshot)
        return snapshot

    def last_number(self, snapshot: objects.Snapshot, name: str) -> int:
        engine: Any = self.appliance.engines["gold"]
        folder = engine.directory(references.snapshot(snapshot.id))
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read(sequence.SLOTS * sequence.SLOT_BYTES)
        return sequence.last_number(data)

    def test_each_has_a_prefix_of_what_was_written(self) -> None:
        """All that was acknowledged before, and nothing without what came
        before it."""
        volume = self.create()
        path = self.attached(volume)
        volume = cinderdb.reloaded(volume)
        seen = []
        with self.writing(path) as writer:
            for _ in range(self.count):
                before = writer.acknowledged
                snapshot = self.take(volume)
                number = self.last_number(snapshot, volume.name)
                self.assertGreaterEqual(number, before)
                seen.append(number)
                self.driver.delete_snapshot(snapshot)
                writer.wait_for_more(before)
            self.assertEqual(sorted(seen), seen)
            # One may be on the disk that is not acknowledged yet.
            writer.wait_for_more(seen[-1] - 1)
        self.assertGreater(len({*seen}), self.count // 2)
        self.end(volume, path)


class ReflinkMomentsTest(MomentsTest):
    pool_class = machine.ReflinkPool
    count = 50
