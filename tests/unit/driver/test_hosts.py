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

"""Several hosts of one volume, through Cinder's own API and manager.

After every step, the access table on the appliance is exactly the set of the
hosts that need it.
"""

import ddt

from tests.unit.driver import attachflow
from tests.unit.driver import base

ONE = base.connector("cmp-1", "192.0.2.51")
TWO = base.connector("cmp-2", "192.0.2.52")
THREE = base.connector("cmp-3", "192.0.2.53")


class HostsCase(base.DriverTestCase):
    multiattach = False

    def setUp(self):
        super().setUp()
        self.nova = attachflow.Nova(self, self.driver)
        self.volume = self.create(multiattach=self.multiattach)
        self.log.clear()

    def assert_hosts(self, **levels):
        """Both the rules and what the NFS server exports.

        :param levels: of ``cmp_1`` and so on.
        """
        hosts = {
            name.replace("_", "-"): level for name, level in levels.items()
        }
        rules = {
            holder: (list(rule.clients), rule.level)
            for holder, rule in self.share(self.volume).access.items()
        }
        addresses = {name: f"192.0.2.5{name[-1]}" for name in hosts}
        self.assertEqual(
            {
                f"cinder:{name}": ([addresses[name]], level)
                for name, level in hosts.items()
            },
            rules,
        )
        self.assertEqual(
            {addresses[name]: level for name, level in hosts.items()},
            self.exported(self.volume),
        )

    def assert_status(self, status):
        self.assertEqual(status, self.nova.volume(self.volume).status)


class MoveTest(HostsCase):
    """A server moves; the volume is not multiattach."""

    def setUp(self):
        super().setUp()
        self.server = attachflow.server()
        self.source = self.nova.attach(self.volume, self.server, ONE)
        self.assert_hosts(cmp_1="rw")

    def test_live_migration(self):
        """Nova's pre_live_migration, _post_live_migration, and the end at
        the destination."""
        target = self.nova.create(self.volume, self.server, TWO)
        self.assert_hosts(cmp_1="rw", cmp_2="rw")
        self.nova.delete(self.source)
        self.assert_hosts(cmp_2="rw")
        self.nova.complete(target)
        self.assert_status("in-use")
        self.assert_hosts(cmp_2="rw")
        self.nova.delete(target)
        self.assert_hosts()
        self.assert_status("available")

    def test_live_migration_with_a_reserved_attachment(self):
        """Create, update, complete, then delete that of the source."""
        target = self.nova.create(self.volume, self.server)
        self.assert_hosts(cmp_1="rw")
        # Cinder's API refuses this while the source has a connection: Nova
        # gives the connector with the creation. So the driver is called as
        # by a Cinder that does not.
        self.nova._api.volume_rpcapi.attachment_update(
            self.context, self.nova.volume(self.volume), dict(TWO), target
        )
        self.assert_hosts(cmp_1="rw", cmp_2="rw")
        self.nova.complete(target)
        self.nova.delete(self.source)
        self.assert_hosts(cmp_2="rw")

    def test_there_and_back(self):
        for where, levels in (
            (TWO, {"cmp_2": "rw"}),
            (ONE, {"cmp_1": "rw"}),
            (THREE, {"cmp_3": "rw"}),
        ):
            target = self.nova.create(self.volume, self.server, where)
            self.nova.complete(target)
            self.nova.delete(self.source)
            self.source = target
            self.assert_hosts(**levels)

    def test_live_migration_that_is_rolled_back(self):
        target = self.nova.create(self.volume, self.server, TWO)
        self.assert_hosts(cmp_1="rw", cmp_2="rw")
        self.nova.delete(target)
        self.assert_hosts(cmp_1="rw")
        self.assert_status("in-use")

    def test_evacuation(self):
        """The old host is dead: it gets no access while the new one has."""
        target = self.nova.create(self.volume, self.server)
        self.assert_hosts(cmp_1="rw")
        self.nova.delete(self.source)
        self.assert_hosts()
        self.nova.update(target, TWO)
        self.assert_hosts(cmp_2="rw")
        self.nova.complete(target)
        self.assert_hosts(cmp_2="rw")
        self.assert_status("in-use")

    def test_forced_detach_without_a_connector(self):
        self.nova.force_detach(self.volume, None, self.source)
        self.assert_hosts()
        self.assert_status("available")
        self.nova.attach(self.volume, self.server, TWO)
        self.assert_hosts(cmp_2="rw")

    def test_forced_detach_of_the_source_in_a_live_migration(self):
        target = self.nova.create(self.volume, self.server, TWO)
        self.nova.force_detach(self.volume, ONE, self.source)
        self.assert_hosts(cmp_2="rw")
        self.nova.delete(target)
        self.assert_hosts()

    def test_a_sweep_at_any_time_changes_nothing(self):
        target = self.nova.create(self.volume, self.server, TWO)
        self.driver._sweep.run()
        self.assert_hosts(cmp_1="rw", cmp_2="rw")
        self.nova.delete(self.source)
        self.driver._sweep.run()
        self.assert_hosts(cmp_2="rw")
        self.nova.delete(target)
        self.driver._sweep.run()
        self.assert_hosts()

    def test_requests(self):
        self.log.clear()
        target = self.nova.create(self.volume, self.server, TWO)
        self.nova.complete(target)
        self.nova.delete(self.source)
        self.assertEqual(2, self.log.total, self.log.counts)


@ddt.ddt
class MultiattachTest(HostsCase):
    """Several servers have it."""

    multiattach = True

    @ddt.data((0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0))
    def test_three_hosts(self, order):
        wheres = (ONE, TWO, THREE)
        made, levels = [], {}
        for number, where in enumerate(wheres, 1):
            made.append(
                self.nova.attach(self.volume, attachflow.server(), where)
            )
            levels[f"cmp_{number}"] = "rw"
            self.assert_hosts(**levels)
        for number in order:
            self.nova.delete(made[number])
            del levels[f"cmp_{number + 1}"]
            self.assert_hosts(**levels)
        self.assert_status("available")

    def test_the_same_host_twice(self):
        """Two servers on one host: it needs access until both are gone."""
        one = self.nova.attach(self.volume, attachflow.server(), ONE)
        two = self.nova.attach(
            self.volume, attachflow.server(), {**ONE, "mountpoint": "/dev/vdb"}
        )
        self.assert_hosts(cmp_1="rw")
        self.nova.delete(one)
        self.assert_hosts(cmp_1="rw")
        self.nova.delete(two)
        self.assert_hosts()

    def test_equal_connectors_on_the_same_host(self):
        """Nova gives the same connector for both servers."""
        one = self.nova.attach(self.volume, attachflow.server(), ONE)
        two = self.nova.attach(self.volume, attachflow.server(), ONE)
        self.nova.delete(two)
        self.assert_hosts(cmp_1="rw")
        self.nova.delete(one)
        self.assert_hosts()

    @ddt.data(("ro", "rw"), ("rw", "ro"))
    @ddt.unpack
    def test_the_same_host_read_only_and_read_write(self, first, second):
        """One host, one rule: that of the attachment that needs most."""
        ids = {}
        for mode in (first, second):
            ids[mode] = self.nova.attach(
                self.volume, attachflow.server(), ONE, mode
            )
        self.assert_hosts(cmp_1="rw")
        self.nova.delete(ids["rw"])
        self.assert_hosts(cmp_1="ro")
        self.nova.delete(ids["ro"])
        self.assert_hosts()

    def test_read_only_beside_a_writer_elsewhere(self):
        reader = self.nova.attach(
            self.volume, attachflow.server(), ONE, mode="ro"
        )
        self.assert_hosts(cmp_1="ro")
        self.nova.attach(self.volume, attachflow.server(), TWO, mode="rw")
        self.assert_hosts(cmp_1="ro", cmp_2="rw")
        self.nova.delete(reader)
        self.assert_hosts(cmp_2="rw")

    def test_live_migration_to_a_host_that_has_it(self):
        """Beside another server's attachment there."""
        moving = attachflow.server()
        source = self.nova.attach(self.volume, moving, ONE)
        other = self.nova.attach(self.volume, attachflow.server(), TWO)
        target = self.nova.create(self.volume, moving, TWO)
        self.assert_hosts(cmp_1="rw", cmp_2="rw")
        self.nova.delete(source)
        self.assert_hosts(cmp_2="rw")
        self.nova.complete(target)
        self.nova.delete(other)
        self.assert_hosts(cmp_2="rw")
        self.nova.delete(target)
        self.assert_hosts()

    def test_forced_detach_of_one(self):
        one = self.nova.attach(self.volume, attachflow.server(), ONE)
        self.nova.attach(self.volume, attachflow.server(), TWO)
        self.nova.force_detach(self.volume, ONE, one)
        self.assert_hosts(cmp_2="rw")
        self.assert_status("in-use")

    def test_forced_detach_without_a_connector(self):
        """That is: of all hosts (interface/volume_driver.py). Those whose
        attachments Cinder keeps have access again after the next sweep."""
        one = self.nova.attach(self.volume, attachflow.server(), ONE)
        two = self.nova.attach(self.volume, attachflow.server(), TWO)
        self.nova.force_detach(self.volume, None, one)
        self.assert_hosts()
        self.driver._sweep.run()
        self.assert_hosts(cmp_2="rw")
        self.nova.delete(two)
        self.assert_hosts()

    def test_evacuation_of_one_of_two(self):
        moving = attachflow.server()
        source = self.nova.attach(self.volume, moving, ONE)
        self.nova.attach(self.volume, attachflow.server(), TWO)
        target = self.nova.create(self.volume, moving)
        self.nova.delete(source)
        # The reserved attachment may be one that cmp-1 is being connected
        # for: Cinder says so only afterwards.
        self.assert_hosts(cmp_1="rw", cmp_2="rw")
        self.nova.update(target, THREE)
        self.assert_hosts(cmp_2="rw", cmp_3="rw")
        self.nova.complete(target)
        self.assert_hosts(cmp_2="rw", cmp_3="rw")
