# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Limits of a share's throughput."""

import dataclasses

import ddt

from acme_appliance.engines import base as engines
from tests.unit.appliance import case
from tests.unit.appliance import fixtures

NONE = {
    "max_read_bytes_per_second": None,
    "max_write_bytes_per_second": None,
    "max_iops": None,
}


@ddt.ddt
class QosTest(case.ServiceCase):
    def in_force(self, share_id):
        """What the storage holds clients to."""
        root = self.fixture.engine.root_of(fixtures.share(share_id))
        return dataclasses.asdict(root.qos)

    def check_limits(self, share_id, **limits):
        wanted = {**NONE, **limits} if limits else None
        self.assertEqual(wanted, self.share(share_id)["qos"])
        self.assertEqual({**NONE, **limits}, self.in_force(share_id))

    def test_create(self):
        limited = self.make_share(qos={"max_iops": 500})
        self.check_limits(limited, max_iops=500)
        self.check_limits(self.make_share())
        self.check_limits(self.make_share(qos=None))
        self.check_limits(self.make_share(qos={"max_iops": None}))

    def test_the_same_create_again(self):
        id_ = fixtures.new_id()
        for _ in range(2):
            self.fixture.put_share(id_, qos={"max_iops": 500})
        self.check_problem(
            "share.exists_mismatch",
            lambda: self.fixture.put_share(id_, qos={"max_iops": 501}),
        )
        self.check_limits(id_, max_iops=500)

    def test_a_clone_has_its_own(self):
        source = self.make_share(qos={"max_iops": 500})
        kept = self.make_snapshot(source)
        for kind, id_ in (("share", source), ("snapshot", kept)):
            clone = self.fixture.clone(kind, id_).body["id"]
            self.check_limits(clone)
            other = self.fixture.clone(kind, id_, qos={"max_iops": 9})
            self.check_limits(other.body["id"], max_iops=9)

    @ddt.data(
        ({"max_iops": 9}, {"max_iops": 9}),
        (
            {"max_read_bytes_per_second": 7},
            {"max_read_bytes_per_second": 7, "max_iops": 500},
        ),
        ({"max_iops": None}, {}),
        (None, {}),
        ({}, {"max_iops": 500}),
    )
    @ddt.unpack
    def test_patch(self, patch, limits):
        """A merge patch; the volume may be attached."""
        id_ = self.make_share(qos={"max_iops": 500})
        self.fixture.put_access(id_)
        self.fixture.patch_share(id_, qos=patch)
        self.check_limits(id_, **limits)
        before = self.share(id_)
        self.fixture.patch_share(id_, qos=patch)
        self.assertEqual(before, self.share(id_))

    def test_other_patches_leave_them(self):
        id_ = self.make_share(qos={"max_iops": 500})
        self.fixture.patch_share(id_, name="new")
        self.fixture.patch_share(id_, size_bytes=9 * fixtures.MIB)
        self.check_limits(id_, max_iops=500)

    def test_a_pool_without(self):
        id_ = self.make_share()
        able = self.fixture.engine.capabilities
        self.fixture.engine.capabilities = dataclasses.replace(
            able, qos_iops=False
        )
        for request in (
            lambda: self.fixture.put_share(qos={"max_iops": 500}),
            lambda: self.fixture.patch_share(id_, qos={"max_iops": 500}),
        ):
            self.check_as_before(
                lambda request=request: self.check_problem(
                    "request.unknown_field", request, "/qos/max_iops"
                )
            )
        self.fixture.patch_share(id_, qos={"max_read_bytes_per_second": 7})
        self.fixture.patch_share(id_, qos=None)
        self.check_limits(id_)

    def test_a_fault_of_the_storage(self):
        id_ = self.make_share(qos={"max_iops": 500})

        def fail(share_id, qos):
            raise engines.EngineError("no")

        self.fixture.engine.set_qos = fail
        self.check_problem(
            "engine.unavailable",
            lambda: self.fixture.patch_share(id_, qos={"max_iops": 9}),
        )
        del self.fixture.engine.set_qos
        self.fixture.restart()
        self.assertEqual("available", self.share(id_)["state"])
        self.check_limits(id_, max_iops=500)
