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

"""Consistent groups through a real Cinder."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.e2e import base
from tests.harness import compute
from tests.harness import content
from tests.harness import processes

SECONDS = 120
BOTH = ("data", "log")


class GroupsTestCase(base.E2ETestCase):
    # For ipset: the sandbox's kernel has no nftables for the family inet.
    more_rights = ("net_raw",)

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # These load the kernel's modules, which the appliance may not.
        for program in ("iptables-legacy", "ip6tables-legacy"):
            subprocess.run(
                [program, "--list-rules"],
                capture_output=True,
                timeout=SECONDS,
                check=True,
            )

    def setUp(self) -> None:
        super().setUp()
        self.group_type = self.cinder.group_types.create("database")
        self.group_type.set_keys(
            {"consistent_group_snapshot_enabled": "<is> True"}
        )
        self.volume_type = self.cinder.volume_types.create("acme")
        self.group = self.cinder.groups.create(
            self.group_type.id, self.volume_type.id, name="db1"
        )
        self.wait_for(self.cinder.groups, self.group.id)
        self.volumes = {name: self.create(name) for name in BOTH}
        for volume_id in self.volumes.values():
            self.wait_for(self.cinder.volumes, volume_id)

    def create(self, name: str) -> str:
        return str(
            self.cinder.volumes.create(
                1, name=name, volume_type="acme", group_id=self.group.id
            ).id
        )

    def wait_for(
        self, manager: Any, ident: str, status: str = "available"
    ) -> None:
        def is_so() -> bool:
            seen = str(manager.get(ident).status)
            self.assertFalse(
                seen.startswith("error"), f"{ident}: {self.last_error()}"
            )
            return seen == status

        processes.wait_until(
            is_so, f"{ident} to be {status}", timeout_seconds=SECONDS
        )

    def last_error(self) -> str:
        """Cinder has no messages about groups for users."""
        log = self.machine.logs / "cinder.log"
        lines = log.read_text(errors="replace").splitlines()
        return next(
            (line for line in reversed(lines) if "Exception" in line), ""
        )

    def wait_gone(self, manager: Any, ident: str) -> None:
        processes.wait_until(
            lambda: ident not in {each.id for each in manager.list()},
            f"the end of {ident}",
            timeout_seconds=SECONDS,
        )

    def write(self, pattern: str) -> dict[str, str]:
        """To the attached volumes; returns the digests."""
        for name, attached in self.attached.items():
            content.write_pattern(str(attached.path), f"{pattern}{name[0]}")
        return {
            name: content.digest(str(attached.path))
            for name, attached in self.attached.items()
        }

    def attach(self, volumes: dict[str, str]) -> dict[str, compute.Attached]:
        return {
            name: self.host.attach(volume_id)
            for name, volume_id in volumes.items()
        }

    def detach(
        self, volumes: dict[str, str], attached: dict[str, compute.Attached]
    ) -> None:
        for name, each in attached.items():
            self.host.detach(each)
            self.wait_for(self.cinder.volumes, volumes[name])

    def copy(self, snapshot_id: str | None, group_id: str | None) -> Any:
        made = self.cinder.groups.create_from_src(snapshot_id, group_id)
        return self.cinder.groups.get(made["id"])

    def members(self, group: Any) -> dict[str, str]:
        """The copies in a group, by the names of their sources."""
        found = self.cinder.groups.get(group.id, list_volume=True)
        names = {volume_id: name for name, volume_id in self.volumes.items()}
        members = {}
        for volume_id in found.volumes:
            volume = self.cinder.volumes.get(volume_id)
            source = volume.source_volid
            if volume.snapshot_id:
                source = self.cinder.volume_snapshots.get(
                    volume.snapshot_id
                ).volume_id
            members[names[source]] = volume.id
        return members

    def digests_of(self, group: Any) -> dict[str, str]:
        volumes = self.members(group)
        attached = self.attach(volumes)
        found = {
            name: content.digest(str(each.path))
            for name, each in attached.items()
        }
        self.detach(volumes, attached)
        return found

    def share_ids(self, group: Any) -> set[str]:
        """What the appliance has in a group."""
        found = self.view.group(group.id) or {}
        return set(found["share_ids"])

    def delete(self, *groups: Any) -> None:
        for group in groups:
            self.cinder.groups.delete(group.id, delete_volumes=True)
            self.wait_gone(self.cinder.groups, group.id)

    def test_life(self) -> None:
        self.assertEqual(
            set(self.volumes.values()), self.share_ids(self.group)
        )
        self.attached = self.attach(self.volumes)
        first = self.write("a")
        taken = self.cinder.group_snapshots.create(self.group.id, name="then")
        self.wait_for(self.cinder.group_snapshots, taken.id)
        second = self.write("b")
        # Cinder copies only a group whose volumes are detached.
        self.detach(self.volumes, self.attached)
        of_snapshot = self.copy(taken.id, None)
        of_group = self.copy(None, self.group.id)
        for copy, digests in ((of_snapshot, first), (of_group, second)):
            self.wait_for(self.cinder.groups, copy.id)
            self.assertEqual(digests, self.digests_of(copy))
            self.assertEqual(
                set(self.members(copy).values()), self.share_ids(copy)
            )
        self.update_membership()
        self.cinder.group_snapshots.delete(taken.id)
        self.wait_gone(self.cinder.group_snapshots, taken.id)
        self.assertEqual([], self.view.all_ids("snapshots"))
        self.delete(of_snapshot, of_group, self.group)
        self.assert_nothing_left()

    def update_membership(self) -> None:
        """A volume leaves the group, and comes back."""
        volume_id = self.volumes["log"]
        self.cinder.groups.update(self.group.id, remove_volumes=volume_id)
        self.wait_for(self.cinder.groups, self.group.id)
        self.assertEqual({self.volumes["data"]}, self.share_ids(self.group))
        self.cinder.groups.update(self.group.id, add_volumes=volume_id)
        self.wait_for(self.cinder.groups, self.group.id)
        self.assertEqual(
            set(self.volumes.values()), self.share_ids(self.group)
        )
