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

"""Mounts of one host: users, stale ones, leftovers, attachments."""

import errno
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
        elif "stat" in command and command[-1] in self.stale:
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
        self.path = self.mounts.path(self.share_id)
        self.attached_path = self.mounts.attached_path(self.export)
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
        self.assertEqual([], self.mounts.leftovers())
        self.assertEqual(0, os.path.getsize(f"{self.base}/.acme/locks"))

    def attach(self):
        """As os-brick does."""
        self.host.table[self.attached_path] = self.export
        os.mkdir(self.attached_path)


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

    def leave_mounted(self, export=None):
        os.makedirs(self.path)
        self.host.table[self.path] = export or self.export

    def test_a_stale_mount_is_replaced(self):
        self.leave_mounted()
        self.host.stale.add(self.path)
        with self.mounted():
            self.assertEqual(
                ["env", "umount", "mount"],
                [command[0] for command in self.host.commands],
            )
        self.assert_gone()

    def test_a_mount_that_was_left_is_used_and_undone(self):
        self.leave_mounted()
        with self.mounted():
            self.assertEqual(0, self.host.count("mount"))
        self.assert_gone()

    def test_a_mount_from_another_address_is_replaced(self):
        self.leave_mounted(f"192.0.2.99:/shares/{self.share_id}")
        with self.mounted():
            self.assertEqual({self.path: self.export}, self.host.table)
        self.assert_gone()

    def test_what_os_brick_mounted_stays(self):
        self.attach()
        with self.mounted() as path:
            self.assertNotEqual(self.attached_path, path)
        self.assertEqual({self.attached_path: self.export}, self.host.table)
        self.assertEqual("revoked", self.rules[-1])

    def test_back_ends_do_not_share_mount_points(self):
        other = self.new_mounts(backend="a/b ..")
        self.assertTrue(other.path("x").startswith(f"{self.base}/.acme/"))
        with self.mounted():
            self.assertEqual([], other.leftovers())

    def test_a_lock_that_others_keep_at_the_end(self):
        """The operation is done; nothing stays that nobody finds."""
        mounts = self.new_mounts(timeout_seconds=0.01)
        before = set(os.listdir("/proc/self/fd"))
        with mounts.mounted(self.share_id, self.access):
            holding = self.mounts._locks.changing(self.share_id)
            holding.__enter__()
        self.assertEqual({self.path: self.export}, self.host.table)
        self.assertEqual([self.share_id], self.mounts.leftovers())
        holding.__exit__(None, None, None)
        self.assertEqual(before, set(os.listdir("/proc/self/fd")))
        self.assertTrue(self.mounts.reap(self.share_id, self.revoke))
        self.assertEqual("revoked", self.rules[-1])
        self.assert_gone()

    def test_a_revoke_that_fails_leaves_something_to_be_found(self):
        def fail():
            raise errors.MountError("no")

        with self.mounts.mounted(
            self.share_id, mount.Access(self.grant, fail)
        ):
            pass
        self.assertEqual({}, self.host.table)
        self.assertTrue(self.mounts.reap(self.share_id, self.revoke))
        self.assert_gone()

    def test_a_grant_that_was_made_and_a_service_that_died(self):
        """Killed before it could mount: the rule is found all the same."""

        class Killed(BaseException):
            pass

        def die():
            self.rules.append("granted")
            raise Killed

        with self.mounts._locks.changing(self.share_id):
            with self.assertRaises(Killed):
                self.mounts._ensure_mounted(
                    self.share_id, mount.Access(die, self.revoke)
                )
        self.assertEqual([self.share_id], self.mounts.leftovers())
        self.assertTrue(self.mounts.reap(self.share_id, self.revoke))
        self.assertEqual(["granted", "revoked"], self.rules)
        self.assert_gone()

    def test_a_mount_point_with_data_in_it_is_not_removed(self):
        with self.mounted():
            with open(f"{self.path}/data", "w") as file:
                file.write("of somebody")
        self.assertTrue(os.path.exists(f"{self.path}/data"))


class AttachedTest(MountTestCase):
    def test_detach(self):
        self.attach()
        self.assertTrue(self.mounts.detach(self.share_id, self.export))
        self.assertFalse(os.path.exists(self.attached_path))
        self.assert_gone()

    def test_what_is_not_mounted(self):
        self.assertTrue(self.mounts.detach(self.share_id, self.export))
        self.assertEqual([], self.host.commands)

    def test_what_is_busy_stays(self):
        self.attach()
        self.host.failures["umount"] = [FAILED]
        self.assertFalse(self.mounts.detach(self.share_id, self.export))
        self.assertEqual({self.attached_path: self.export}, self.host.table)

    def test_no_lock_can_be_had(self):
        """Whatever the local disk does: the rule must go after this."""
        self.attach()
        with open(f"{self.base}/.acme", "w"):
            pass
        self.assertFalse(self.mounts.detach(self.share_id, self.export))

    def test_the_list(self):
        self.attach()
        table = self.host.table
        table[f"{self.base}/other"] = "192.0.2.9:/exports/data"
        table["/mnt/x"] = f"192.0.2.9:/{uuid.uuid4()}"
        with self.mounted():
            self.assertEqual(
                [mount.Attached(self.share_id, self.export)],
                self.mounts.attached(),
            )

    def test_refused(self):
        self.attach()
        self.assertFalse(self.mounts.is_refused(self.export))
        self.host.stale.add(self.attached_path)
        self.assertTrue(self.mounts.is_refused(self.export))

    def test_silence_is_no_refusal(self):
        self.attach()
        self.host.failures["env"] = [
            brick_exception.ExecutionTimeout(stderr="killed after 10 s")
        ]
        self.assertFalse(self.mounts.is_refused(self.export))


class LeftoverTest(MountTestCase):
    def leave(self):
        """A mount of the driver's that could not be undone."""
        self.host.failures["umount"] = [FAILED]
        with self.mounted():
            pass
        self.rules.clear()

    def reap(self, mounts=None):
        return (mounts or self.mounts).reap(self.share_id, self.revoke)

    def test_reaped(self):
        self.leave()
        self.assertEqual([self.share_id], self.mounts.leftovers())
        self.assertTrue(self.reap())
        self.assertEqual(["revoked"], self.rules)
        self.assert_gone()

    def test_what_is_in_use_keeps_its_rule(self):
        self.leave()
        with self.mounted():
            self.assertFalse(self.reap())
            self.assertEqual(["granted"], self.rules)

    def test_what_somebody_works_on_is_not_waited_for(self):
        self.leave()
        waits = []
        mounts = self.new_mounts(sleep=waits.append)
        with self.mounts._locks.changing(self.share_id):
            self.assertFalse(self.reap(mounts))
        self.assertEqual(([], []), (waits, self.rules))

    def test_one_that_is_busy(self):
        self.leave()
        self.host.failures["umount"] = [FAILED]
        self.assertFalse(self.reap())
        self.assertEqual([self.share_id], self.mounts.leftovers())
        self.assertTrue(self.reap())
        self.assert_gone()

    def test_a_revoke_that_fails_is_done_the_next_time(self):
        self.leave()

        def fail():
            raise errors.MountError("no")

        with self.assertRaises(errors.MountError):
            self.mounts.reap(self.share_id, fail)
        self.assertTrue(self.reap())
        self.assertEqual(["revoked"], self.rules)
        self.assert_gone()

    def test_what_dies_in_the_middle_of_a_mount(self):
        """The kernel mounts, and the service is gone before it knows."""
        execute = self.host.execute

        class Killed(BaseException):
            pass

        def killing(*command, **options):
            execute(*command, **options)
            raise Killed

        mounts = self.new_mounts(execute=killing)
        with mounts._locks.changing(self.share_id):
            with self.assertRaises(Killed):
                mounts._ensure_mounted(self.share_id, self.access)
        self.assertEqual({self.path: self.export}, self.host.table)
        self.assertTrue(self.reap())
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

    def test_names_that_users_have_given(self):
        """Anybody can mount with FUSE, whatever the names are like."""
        for odd in ("\xfcber", "a\rb", "a\x0cb", "a\x1cb"):
            self.assert_read(odd.encode("latin-1"))
        self.assert_read("a\x85b\u2028c".encode())

    def assert_read(self, odd):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"%b /media/%b fuse rw 0 0\n" % (odd, odd))
            file.write(b"192.0.2.10:/gold/x /mnt/x nfs4 rw 0 0\n")
            file.flush()
            path = pathlib.Path(file.name)
            with unittest.mock.patch.object(mount, "_MOUNT_TABLE", path):
                found = mount.mount_table()
        self.assertEqual(
            {
                b"/media/" + odd: odd,
                b"/mnt/x": b"192.0.2.10:/gold/x",
            },
            {os.fsencode(key): os.fsencode(found[key]) for key in found},
        )


class OtherProcessTest(MountTestCase):
    """The locks count between processes, and die with them."""

    PROGRAM = """
import sys
from acme_cinder import hostlock
locks = hostlock.HostLocks(sys.argv[1], 5)
with locks.changing(sys.argv[2]):
    user = locks.use(sys.argv[2])
    print("in", flush=True)
    if sys.argv[3] == "changing":
        sys.stdin.read()
sys.stdin.read()
"""

    def start(self, what):
        process = subprocess.Popen(
            [
                sys.executable, "-W", "ignore", "-c", self.PROGRAM,
                f"{self.base}/.acme/locks", self.share_id, what,
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
        self.assertFalse(self.mounts.reap(self.share_id, self.revoke))
        process.kill()
        process.wait()
        self.assertTrue(self.mounts.reap(self.share_id, self.revoke))
        self.assert_gone()

    def test_a_lock_that_is_kept_elsewhere(self):
        process = self.start("changing")
        locks = hostlock.HostLocks(f"{self.base}/.acme/locks", 0.1)
        with self.assertRaisesRegex(errors.MountError, self.share_id):
            with locks.changing(self.share_id):
                self.fail("two have the lock")
        with locks.changing(str(uuid.uuid4())):
            pass
        process.kill()
        process.wait()
        with locks.changing(self.share_id):
            pass


class FullDiskTest(MountTestCase):
    """The mount point base is on a disk that is full."""

    def setUp(self):
        super().setUp()
        with self.mounted():
            pass
        self.rules.clear()
        self.attach()
        full = OSError(errno.ENOSPC, "No space left on device")
        for name in ("mkdir", "makedirs", "truncate", "ftruncate", "pwrite"):
            patcher = unittest.mock.patch.object(os, name, side_effect=full)
            patcher.start()
            self.addCleanup(patcher.stop)

    def test_an_attachment_ends(self):
        self.assertTrue(self.mounts.detach(self.share_id, self.export))
        self.assertEqual({}, self.host.table)

    def test_a_mount_is_refused_before_access_is_given(self):
        with self.assertRaises(OSError), self.mounted():
            self.fail("mounted")
        self.assertNotIn("granted", self.rules)
