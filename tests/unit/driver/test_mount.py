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

"""Mounts of one host: users, holders, stale ones, leftovers."""

import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock
import uuid

from os_brick import exception as brick_exception
from oslo_concurrency import processutils

from acme_cinder import errors
from acme_cinder import hostlock
from acme_cinder import mount

FAILED = processutils.ProcessExecutionError(exit_code=32, stderr="no")


class Host:
    """Commands without a kernel: mount only writes into a table."""

    def __init__(self):
        self.table = {}
        self.commands = []
        self.failures = {}
        self.stale = set()

    def execute(self, *command, **options):
        self.commands.append(command)
        planned = self.failures.get(command[0])
        if planned:
            raise planned.pop(0)
        if command[0] == "mount":
            self.table[command[-1]] = command[-2]
        elif command[0] == "umount":
            if command[-1] not in self.table:
                raise processutils.ProcessExecutionError(exit_code=32)
            del self.table[command[-1]]
            self.stale.discard(command[-1])
        elif command[0] == "stat" and command[-1] in self.stale:
            raise processutils.ProcessExecutionError(
                exit_code=1, stderr="Stale file handle"
            )
        return "", ""

    def count(self, program):
        return sum(command[0] == program for command in self.commands)


class MountTestCase(unittest.TestCase):
    def setUp(self):
        super().setUp()
        made = tempfile.TemporaryDirectory(prefix="acme-mounts-")
        self.addCleanup(made.cleanup)
        self.base = os.path.realpath(made.name)
        self.host = Host()
        self.mounts = self.new_mounts()
        self.share_id = str(uuid.uuid4())
        self.export = f"192.0.2.10:/shares/{self.share_id}"
        self.path = self.mounts.path(self.export)
        self.rules = []
        self.access = mount.Access(self.grant, self.revoke)

    def new_mounts(self, **changes):
        given = {
            "base": self.base,
            "root_helper": "sudo",
            "attempts": 3,
            "timeout_seconds": 2,
            "execute": self.host.execute,
            "mount_table": lambda: dict(self.host.table),
            "sleep": lambda seconds: time.sleep(min(seconds, 0.005)),
        }
        return mount.Mounts(**(given | changes))

    def grant(self):
        self.rules.append("granted")
        return self.export, "vers=4.2"

    def revoke(self):
        self.rules.append("revoked")

    def mounted(self):
        return self.mounts.mounted(self.share_id, self.access)

    def assert_gone(self):
        self.assertEqual({}, self.host.table)
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual([], os.listdir(f"{self.base}/.acme"))


class MountedTest(MountTestCase):
    def test_once(self):
        with self.mounted() as path:
            self.assertEqual(self.path, path)
            self.assertEqual({self.path: self.export}, self.host.table)
            self.assertEqual(["granted"], self.rules)
        self.assert_gone()
        self.assertEqual(["granted", "revoked"], self.rules)
        self.assertEqual(
            [
                (
                    "mount", "-t", "nfs", "-o", "vers=4.2",
                    self.export, self.path,
                ),
                ("umount", self.path),
            ],
            self.host.commands,
        )  # fmt: skip

    def test_every_command_has_a_time_limit(self):
        limits = []
        execute = self.host.execute

        def noting(*command, **options):
            limits.append(options["timeout"])
            return execute(*command, **options)

        self.mounts = self.new_mounts(execute=noting)
        with self.mounted():
            pass
        self.assertEqual([2, 2], limits)

    def test_an_error_inside(self):
        with self.assertRaises(ZeroDivisionError), self.mounted():
            raise ZeroDivisionError
        self.assert_gone()
        self.assertEqual("revoked", self.rules[-1])

    def test_users_in_one_process(self):
        with self.mounted(), self.mounted():
            self.assertEqual(1, self.host.count("mount"))
        self.assertEqual(1, self.host.count("umount"))
        self.assertEqual(1, self.rules.count("revoked"))
        self.assertEqual("revoked", self.rules[-1])
        self.assert_gone()

    def test_users_in_turn_out_of_order(self):
        first, second = self.mounted(), self.mounted()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        self.assertEqual(0, self.host.count("umount"))
        self.assertNotIn("revoked", self.rules)
        second.__exit__(None, None, None)
        self.assert_gone()

    def test_many_threads(self):
        wrong = []

        def use():
            for _ in range(5):
                with self.mounted() as path:
                    if self.host.table.get(path) != self.export:
                        wrong.append(path)

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual([], wrong)
        self.assert_gone()

    def test_attempts(self):
        self.host.failures["mount"] = [FAILED, FAILED]
        with self.mounted():
            self.assertEqual(3, self.host.count("mount"))
        self.assert_gone()

    def test_all_attempts_fail(self):
        self.host.failures["mount"] = [FAILED] * 3
        with (
            self.assertRaisesRegex(errors.MountError, self.export),
            self.mounted(),
        ):
            self.fail("mounted")
        self.assertEqual(3, self.host.count("mount"))
        self.assertEqual("revoked", self.rules[-1])
        self.assert_gone()

    def test_a_grant_that_fails(self):
        def refuse():
            raise errors.MountError("no")

        self.access = mount.Access(refuse, self.revoke)
        with self.assertRaises(errors.MountError), self.mounted():
            self.fail("mounted")
        self.assert_gone()

    def test_a_mount_that_only_says_that_it_worked(self):
        """What is written to the mount point then stays on this host."""
        execute = self.host.execute

        def lying(*command, **options):
            if command[0] == "mount":
                self.host.commands.append(command)
                return "", "Time out on proc 7 after waiting 60 seconds"
            return execute(*command, **options)

        self.mounts = self.new_mounts(execute=lying)
        with (
            self.assertRaisesRegex(errors.MountError, "nothing is mounted"),
            self.mounted(),
        ):
            self.fail("mounted")
        self.assertEqual(3, self.host.count("mount"))
        self.assert_gone()

    def test_a_mount_that_works_and_says_no(self):
        """Killed by its time limit, a moment too late."""
        execute = self.host.execute

        def late(*command, **options):
            result = execute(*command, **options)
            if command[0] == "mount":
                raise brick_exception.ExecutionTimeout(stderr="Time out")
            return result

        self.mounts = self.new_mounts(execute=late, attempts=1)
        with self.assertRaises(errors.MountError), self.mounted():
            self.fail("mounted")
        self.assert_gone()

    def test_the_rule_goes_though_unmounting_fails(self):
        self.host.failures["umount"] = [FAILED]
        with self.mounted():
            pass
        self.assertEqual("revoked", self.rules[-1])
        self.assertEqual({self.path: self.export}, self.host.table)
        # And the next user cleans up.
        with self.mounted():
            pass
        self.assert_gone()

    def test_an_unmount_that_hangs(self):
        self.host.failures["umount"] = [
            brick_exception.ExecutionTimeout(stderr="Time out")
        ]
        with self.mounted():
            pass
        self.assertEqual(("umount", "-l", self.path), self.host.commands[-1])
        self.assert_gone()

    def test_a_stale_mount_is_replaced(self):
        self.host.table[self.path] = self.export
        self.host.stale.add(self.path)
        os.mkdir(self.path)
        with self.mounted():
            self.assertEqual(
                ["stat", "umount", "mount"],
                [command[0] for command in self.host.commands],
            )
        self.assert_gone()

    def test_what_somebody_else_mounted_stays(self):
        self.host.table[self.path] = self.export
        os.mkdir(self.path)
        with self.mounted():
            pass
        self.assertEqual({self.path: self.export}, self.host.table)
        self.assertEqual(0, self.host.count("umount"))
        self.assertEqual("revoked", self.rules[-1])

    def test_a_mount_point_with_data_in_it_is_not_removed(self):
        with self.mounted():
            with open(f"{self.path}/data", "w") as file:
                file.write("of somebody")
        self.assertTrue(os.path.exists(f"{self.path}/data"))


class HolderTest(MountTestCase):
    def test_held(self):
        self.mounts.hold(self.share_id, self.export, "cinder:ctl-1")
        with self.mounted():
            pass
        self.mounts.drop_idle(self.share_id, self.export)
        self.assertEqual({self.path: self.export}, self.host.table)
        self.mounts.release(self.share_id, self.export, "cinder:ctl-1")
        self.assert_gone()

    def test_held_twice_and_released(self):
        self.host.table[self.path] = self.export
        os.mkdir(self.path)
        for _ in range(2):
            self.mounts.hold(self.share_id, self.export, "a")
        self.mounts.hold(self.share_id, self.export, "b")
        self.mounts.release(self.share_id, self.export, "a")
        self.assertEqual({self.path: self.export}, self.host.table)
        self.mounts.release(self.share_id, self.export, "b")
        self.assert_gone()

    def test_released_while_in_use(self):
        self.mounts.hold(self.share_id, self.export, "a")
        with self.mounted():
            self.mounts.release(self.share_id, self.export, "a")
            self.assertEqual({self.path: self.export}, self.host.table)
        self.assert_gone()

    def test_drop_idle_of_what_is_not_mounted(self):
        self.mounts.drop_idle(self.share_id, self.export)
        self.assertEqual([], self.host.commands)
        self.assertFalse(os.path.exists(f"{self.base}/.acme"))

    def test_drop_idle(self):
        self.host.table[self.path] = self.export
        os.mkdir(self.path)
        self.mounts.drop_idle(self.share_id, self.export)
        self.assert_gone()


class LeftoverTest(MountTestCase):
    def leftover(self):
        (leftover,) = self.mounts.leftovers()
        return leftover

    def leave(self):
        """A mount that is known and not used."""
        self.host.failures["umount"] = [FAILED]
        with self.mounted():
            pass
        self.rules.clear()

    def reap(self, leftover, mounts=None):
        return (mounts or self.mounts).reap(leftover, self.revoke)

    def test_reaped(self):
        self.leave()
        leftover = self.leftover()
        self.assertEqual((True, True), (leftover.known, leftover.own))
        self.assertTrue(self.reap(leftover))
        self.assertEqual(["revoked"], self.rules)
        self.assert_gone()

    def test_what_is_in_use_is_none(self):
        with self.mounted():
            self.assertEqual([], self.mounts.leftovers())

    def test_what_somebody_works_on_is_none_and_not_waited_for(self):
        self.leave()
        leftover = self.leftover()
        waits = []
        mounts = self.new_mounts(sleep=waits.append)
        with self.mounts._locks.gate(self.share_id):
            self.assertEqual([], mounts.leftovers())
            self.assertFalse(self.reap(leftover, mounts))
        self.assertEqual(([], []), (waits, self.rules))

    def test_one_that_is_used_again_keeps_its_rule(self):
        self.leave()
        leftover = self.leftover()
        with self.mounted():
            self.assertFalse(self.reap(leftover))
            self.assertEqual(["granted"], self.rules)

    def test_one_that_is_held_by_now(self):
        self.host.table[self.path] = self.export
        os.mkdir(self.path)
        leftover = self.leftover()
        self.assertEqual((False, False), (leftover.known, leftover.own))
        self.mounts.hold(self.share_id, self.export, "cinder:ctl-1")
        self.assertFalse(self.reap(leftover))
        self.assertEqual({self.path: self.export}, self.host.table)

    def test_one_that_is_busy(self):
        self.leave()
        leftover = self.leftover()
        self.host.failures["umount"] = [FAILED]
        self.assertFalse(self.reap(leftover))
        self.assertEqual([], self.rules)
        self.assertTrue(self.reap(self.leftover()))

    def test_a_revoke_that_fails_is_done_the_next_time(self):
        self.leave()

        def fail():
            raise errors.MountError("no")

        with self.assertRaises(errors.MountError):
            self.mounts.reap(self.leftover(), fail)
        self.assertTrue(self.reap(self.leftover()))
        self.assertEqual(["revoked"], self.rules)
        self.assert_gone()

    def test_another_back_ends(self):
        self.leave()
        (leftover,) = self.new_mounts(owner="other").leftovers()
        self.assertEqual((True, False), (leftover.known, leftover.own))

    def test_what_dies_in_the_middle_of_a_mount(self):
        """The kernel mounts, and the service is gone before it knows."""
        execute = self.host.execute

        class Killed(BaseException):
            pass

        def killing(*command, **options):
            execute(*command, **options)
            raise Killed

        mounts = self.new_mounts(execute=killing)
        with self.mounts._locks.gate(self.share_id) as gate:
            with self.assertRaises(Killed):
                mounts._ensure_mounted(gate, self.access)
        leftover = self.leftover()
        self.assertEqual(self.export, leftover.state.export)
        self.assertTrue(self.reap(leftover))
        self.assert_gone()


class TableTest(unittest.TestCase):
    def test_as_the_kernel_has_it(self):
        table = mount.mount_table()
        self.assertEqual("proc", table["/proc"])

    def test_spaces(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("host:/a\\040b /mnt/c\\134\\011d nfs4 rw 0 0\n")
            file.flush()
            with unittest.mock.patch.object(
                mount, "_MOUNT_TABLE", pathlib.Path(file.name)
            ):
                table = mount.mount_table()
        self.assertEqual({"/mnt/c\\\td": "host:/a b"}, table)


class OtherProcessTest(MountTestCase):
    """The locks count between processes, and die with them."""

    PROGRAM = """
import sys
from acme_cinder import hostlock
locks = hostlock.HostLocks(sys.argv[1], 5)
with locks.gate(sys.argv[2]) as gate:
    user = gate.enter()
    print("in", flush=True)
    if sys.argv[3] == "gate":
        sys.stdin.read()
sys.stdin.read()
"""

    def start(self, what):
        process = subprocess.Popen(
            [
                sys.executable, "-W", "ignore", "-c", self.PROGRAM,
                self.base, self.share_id, what,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(b"in\n", process.stdout.readline())
        return process

    def test_a_user_elsewhere_keeps_the_mount(self):
        process = self.start("use")
        with self.mounted():
            pass
        self.assertEqual({self.path: self.export}, self.host.table)
        self.assertNotIn("revoked", self.rules)
        process.kill()
        process.wait()
        with self.mounted():
            pass
        self.assert_gone()

    def test_a_gate_that_is_kept_elsewhere(self):
        process = self.start("gate")
        locks = hostlock.HostLocks(self.base, 0.1)
        with self.assertRaises(errors.MountError):
            with locks.gate(self.share_id):
                self.fail("two have the gate")
        process.kill()
        process.wait()
        with locks.gate(self.share_id):
            pass


class GateTest(MountTestCase):
    def test_a_state_that_was_cut_off(self):
        os.mkdir(f"{self.base}/.acme")
        for text in ("", "{", "[]", '{"export": 1}', "\xff"):
            path = f"{self.base}/.acme/{self.share_id}.gate"
            with open(path, "w", encoding="latin-1") as file:
                file.write(text)
            with self.mounts._locks.gate(self.share_id) as gate:
                self.assertEqual(hostlock.State(), gate.state)

    def test_a_forgotten_gate_is_not_one(self):
        """Who waited for it while it was removed gets the new one."""
        locks = self.mounts._locks
        entered = threading.Event()
        seen = []

        def wait():
            entered.set()
            with locks.gate(self.share_id):
                seen.append(os.listdir(f"{self.base}/.acme"))

        with locks.gate(self.share_id) as gate:
            thread = threading.Thread(target=wait)
            thread.start()
            entered.wait(10)
            gate.forget()
        thread.join(10)
        self.assertEqual([[f"{self.share_id}.gate"]], seen)
