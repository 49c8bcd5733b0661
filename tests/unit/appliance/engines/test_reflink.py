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

"""What the reflink engine's plugin decides; nothing here needs a disk."""

import errno
import os
import pathlib
import tempfile
import unittest
from unittest import mock

import ddt

from acme_appliance.engines import plugin
from acme_appliance.engines.reflink.plugin import ReflinkPlugin
from acme_appliance.host import commands
from acme_appliance.host import filesystem
from acme_appliance.host import projectquota
from acme_appliance.host import reflink


def plan(name="gold", **given):
    return plugin.Plan(name=name, path="/srv/gold", **given)


class KernelCase(unittest.TestCase):
    """With a /proc of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.proc = pathlib.Path(folder.name)
        self.enterContext(mock.patch.object(projectquota, "_PROC", self.proc))

    def kernel(self, *, loaded, quotas=False):
        kinds = "nodev\tsysfs\n" + ("\txfs\n" if loaded else "")
        (self.proc / "filesystems").write_text(kinds)
        if quotas:
            (self.proc / "fs/xfs").mkdir(parents=True)
            (self.proc / "fs/xfs/xqm").touch()


class QuotaTest(KernelCase):
    def check_new_pools(self, limited):
        found = ReflinkPlugin()
        text = found.new_pool_options(plan(device="/dev/vdb"))
        self.assertEqual(limited, "quota = project\n" in text)
        self.assertEqual(limited, found.mount_options(None) == "prjquota")
        # Beside others' files.
        self.assertEqual("", found.new_pool_options(plan()))

    def test_a_kernel_that_has_quotas(self):
        self.kernel(loaded=True, quotas=True)
        self.check_new_pools(True)

    def test_a_kernel_that_has_none(self):
        self.kernel(loaded=True)
        self.check_new_pools(False)

    def test_a_kernel_that_has_not_loaded_xfs(self):
        self.kernel(loaded=False)
        self.check_new_pools(True)

    def test_a_pool_is_mounted_as_its_options_say(self):
        for quota, options in (("project", "prjquota"), ("none", "")):
            with self.subTest(quota):
                self.assertEqual(
                    options, ReflinkPlugin().mount_options({"quota": quota})
                )


@ddt.ddt
class LabelTest(unittest.TestCase):
    @ddt.data("gold", "a" * 7)
    def test_it_is_the_pools_name(self, name):
        self.assertEqual(f"acme-{name}", ReflinkPlugin().label(plan(name)))

    def test_longer_names_have_labels_of_their_own(self):
        labels = {
            ReflinkPlugin().label(plan(name))
            for name in ("production-a", "production-b", "a" * 63)
        }
        self.assertEqual(3, len(labels))
        self.assertEqual({12}, {len(label) for label in labels})


class MakeTest(unittest.TestCase):
    """Without the mkfs and the mount."""

    def setUp(self):
        self.commands = []
        self.enterContext(
            mock.patch.object(
                commands, "run", autospec=True, side_effect=self.run_command
            )
        )

    def run_command(self, argv, **given):
        self.commands.append(list(argv))
        return ""

    def test_xfs_has_reflinks(self):
        ReflinkPlugin().make_filesystem("/dev/vdb", "acme-gold", discard=True)
        ReflinkPlugin().make_filesystem("/i", "acme-gold", discard=False)
        device, image = self.commands
        for command in (device, image):
            self.assertEqual("mkfs.xfs", command[0])
            self.assertIn("reflink=1", command)
        self.assertEqual((False, True), ("-K" in device, "-K" in image))

    def test_options_of_a_mount(self):
        for options, loop, wanted in (
            ("", False, ""),
            ("prjquota", False, ",prjquota"),
            ("prjquota", True, ",prjquota,loop"),
        ):
            filesystem.mount("/dev/vdb", "/srv", "xfs", options, loop=loop)
            command = self.commands.pop()
            self.assertIn(f"{filesystem.POOL_OPTIONS}{wanted}", command)
            self.assertEqual("xfs", command[command.index("-t") + 1])


class SupportTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def test_what_file_systems_say_that_have_none(self):
        for number in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY):
            error = OSError(number, os.strerror(number))
            with mock.patch.object(
                reflink, "clone", autospec=True, side_effect=error
            ):
                self.assertFalse(reflink.is_supported(self.folder))

    def test_a_full_disk_is_no_answer(self):
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with (
            mock.patch.object(
                reflink, "clone", autospec=True, side_effect=error
            ),
            self.assertRaisesRegex(OSError, "No space"),
        ):
            reflink.is_supported(self.folder)

    def test_nothing_is_left(self):
        reflink.is_supported(self.folder)
        self.assertEqual([], os.listdir(self.folder))


class EmptyTest(unittest.TestCase):
    def test_all_goes_and_nothing_else(self):
        with tempfile.TemporaryDirectory() as folder:
            top = pathlib.Path(folder)
            kept = top / "kept"
            kept.write_text("content")
            trash = top / "trash"
            below = trash / "a" / "b"
            below.mkdir(parents=True)
            (below / "file").touch()
            (below / "link").symlink_to(top, target_is_directory=True)
            (trash / "a" / "link").symlink_to(kept)
            fd = os.open(trash, os.O_RDONLY)
            try:
                filesystem.empty(fd)
            finally:
                os.close(fd)
            self.assertEqual([], os.listdir(trash))
            self.assertEqual("content", kept.read_text())
