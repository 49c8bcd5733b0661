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

"""The memory engine: the common suite, and its power cut."""

import unittest

from acme_appliance.engines import base
from acme_appliance.engines.memory import engine as memory
from tests.unit.appliance import engine_suite as suite


class MemoryClient(suite.Client):
    def __init__(self, engine):
        self.engine = engine

    def write(self, reference, name, offset, data):
        entries = self.engine.entries(reference)
        entries.setdefault(name, memory.Entry()).write(offset, data)

    def read(self, reference, name, offset, size):
        return self.engine.entries(reference)[name].read(offset, size)

    def remove(self, reference, name):
        del self.engine.entries(reference)[name]

    def plant_symlink(self, reference, name, target):
        self.engine.entries(reference)[name] = memory.Entry("symlink")

    def plant_directory(self, reference, name):
        self.engine.entries(reference)[name] = memory.Entry("directory")

    def describe(self, reference, name):
        entry = self.engine.entries(reference).get(name)
        return entry and (
            entry.type,
            entry.size_bytes,
            entry.owner.uid,
            entry.owner.gid,
            entry.mode,
        )

    def identify(self, reference, name):
        return id(self.engine.entries(reference)[name])

    def describe_root(self, reference):
        root = self.engine.root_of(reference)
        return root.owner.uid, root.owner.gid, root.mode


class TestMemoryEngine(suite.EngineSuite, unittest.TestCase):
    def setUp(self):
        self.engine = memory.MemoryEngine(total_bytes=64 << 20)
        self.client = MemoryClient(self.engine)

    def test_power_cut_loses_what_was_not_synced(self):
        kept, gone = suite.new_id(), suite.new_id()
        self.engine.create_share(kept, suite.OWNER)
        self.engine.sync()
        self.engine.create_share(gone, suite.OWNER)
        self.engine.ensure_file(kept, suite.volume())
        self.engine.lose_unsynced()
        self.assertEqual({kept}, self.engine.ids(base.Kind.SHARE))
        self.assertFalse(self.engine.file_intact(kept, "volume"))
        self.engine.sync()
        self.engine.delete_share(kept)
        self.engine.lose_unsynced()
        self.assertEqual({kept}, self.engine.ids(base.Kind.SHARE))

    def test_failing_pool(self):
        self.engine.reasons = ["the disk is gone"]
        self.assertEqual(["the disk is gone"], self.engine.check())
        self.assertRaises(base.Unavailable, self.engine.usage)
        self.assertRaises(base.Unavailable, self.engine.sync)
