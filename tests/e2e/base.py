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

"""Base class of tests with a real Cinder: one stack per class."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from typing import Any
from typing import ClassVar
import unittest

from tests.harness import appliance
from tests.harness import compute
from tests.harness import scenario
from tests.harness import stack

SANDBOX = ("SANDBOX_SCRATCH", "SANDBOX_EXPORT_ROOT")


class E2ETestCase(unittest.TestCase):
    """Starts an appliance, an image service and Cinder for its tests.

    They run in a sandbox (tools/sandbox.sh), one class at a time, because the
    ports are fixed. Each test must clean up everything.
    """

    #: Added to the appliance's configuration file.
    appliance_options = ""
    #: Lines for Cinder's back end.
    backend_options = ""

    #: Lines for Cinder's [DEFAULT].
    cinder_options = ""

    #: Besides gold.
    more_pools: tuple[str, ...] = ()

    #: Of the appliance, besides those of its systemd unit.
    more_rights: tuple[str, ...] = ()

    machine: ClassVar[stack.Stack]
    view: ClassVar[appliance.View]
    cinder: ClassVar[Any]
    host: ClassVar[compute.ComputeHost]
    _folder: ClassVar[pathlib.Path]

    @classmethod
    def setUpClass(cls) -> None:
        if not all(name in os.environ for name in SANDBOX):
            raise unittest.SkipTest(
                "needs NFS: run by 'tools/sandbox.sh run -- ...'"
            )
        super().setUpClass()
        scratch = pathlib.Path(os.environ["SANDBOX_SCRATCH"])
        cls._folder = pathlib.Path(tempfile.mkdtemp(dir=scratch))
        cls.machine = stack.Stack(
            cls._folder,
            cls._folder / "logs",
            export_root=pathlib.Path(os.environ["SANDBOX_EXPORT_ROOT"]),
            appliance_options=cls.appliance_options,
            backend_options=cls.backend_options,
            cinder_options=cls.cinder_options,
            api_url=cls.api_url(),
            more_pools=cls.more_pools,
            more_rights=cls.more_rights,
        )
        cls.addClassCleanup(shutil.rmtree, cls._folder)
        cls.addClassCleanup(cls.machine.stop)
        cls.machine.start()
        cls.view = cls.machine.view()
        cls.cinder = cls.machine.cinder()
        cls.host = cls.machine.compute_host()

    @classmethod
    def api_url(cls) -> str | None:
        """The appliance's URL in Cinder's configuration; None: the real
        one."""
        return None

    def assert_nothing_left(self) -> None:
        self.assertEqual(
            {},
            {
                kind: found
                for kind, found in self.machine.leftovers(self.view).items()
                if found
            },
        )

    def new_scenario(self) -> scenario.Scenario:
        return self.machine.scenario(self.view)
