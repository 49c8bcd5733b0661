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

"""More features of a volume: the steps of ``tools/demo.sh --tour``.

Add the steps of new features to :meth:`Tour.steps`. Each must create what it
needs and check its result; the last one deletes everything.
"""

import errno
import os
import random
import subprocess
from typing import Any

from tests.harness import content
from tests.harness import processes
from tests.harness import scenario
from tests.harness.scenario import check
from tests.harness.scenario import check_equal
from tests.harness.scenario import Step

CHAIN_LENGTH = 6
SHARED = "shared"
RENAMED = "renamed"
WRONG = "wrong"
THICK = "thick"
LIMITS = {"total_iops_sec": "500"}


class Tour(scenario.Scenario):
    """Uses the demonstration's helpers for Cinder and the appliance.

    :param other: a client of another project.
    """

    def __init__(self, other: Any, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._other = other
        self._types: list[Any] = []
        self._qos: list[Any] = []
        self._managed_snapshot_id = ""
        self._given_host = ""

    def steps(self) -> list[Step]:
        return [
            Step("figures of the pools for the scheduler", self.figures),
            Step("move to the other pool and back", self.move),
            Step("a thick volume, by its type", self.thick),
            Step("discard gives space back to the pool", self.discard),
            Step("what types may ask for", self.capabilities),
            Step("a wrong extra spec is refused", self.wrong_type),
            Step("retype to multiattach, with a snapshot", self.retype),
            Step("attach to two hosts, one read-only", self.two_hosts),
            Step("retype while attached", self.retype_attached),
            Step("QoS for the back end is refused", self.back_end_qos),
            Step("QoS for the front end, by a retype", self.front_end_qos),
            Step("transfer to another project", self.transfer),
            Step("unmanage a volume and its snapshot", self.unmanage),
            Step("manage both again, as a new volume", self.manage),
            Step("revert the managed volume", self.revert_managed),
            Step("a busy volume stays available", self.busy),
            Step("clones of clones, deleted in any order", self.chain),
            Step("delete all the rest", self.delete_tour),
        ]

    # -- scheduling

    def figures(self) -> str:
        shown = []
        for pool in self._cinder.pools.list(detailed=True):
            for name in ("total_capacity_gb", "free_capacity_gb"):
                check(getattr(pool, name) > 0, f"no {name}")
            check_equal("its state", pool.backend_state, "up")
            check(0 <= int(pool.goodness_function) <= 100, "no goodness")
            check(" > " in pool.filter_function, "no filter")
            name = pool.name.partition("#")[2]
            shown.append(f"{name}: goodness {pool.goodness_function}")
        check_equal("pools", len(shown), 2)
        return ", ".join(sorted(shown))

    # -- where the data is

    def _host_of(self, name: str) -> str:
        volume = self._cinder.volumes.get(self._volumes[name])
        return str(getattr(volume, "os-vol-host-attr:host"))

    def _write_once(self, name: str, pattern: str) -> None:
        self._attach(name)
        self.write_to(name, pattern)
        self._detach(name)

    def move(self) -> str:
        """The volume keeps its content, and its share where the pools can."""
        can = all(
            "share.move_pool" in pool["features"] for pool in self._box.pools()
        )
        self._create_volume("moving", 1)
        self._write_once("moving", "M")
        home = self._host_of("moving")
        (other,) = {pool.name for pool in self._cinder.pools.list()} - {home}
        for host in (other, home):
            self._migrate("moving", host)
            pool = host.partition("#")[2]
            check_equal(
                "the share's pool", self._share("moving")["pool"], pool
            )
            self._check_server_side("moving", "M")
        share_id = self._share_id("moving")
        kept = share_id == self._volumes["moving"]
        check_equal("whether it keeps its share", kept, can)
        self._delete_volume("moving")
        how = "on the appliance" if can else "copied by Cinder"
        return f"{how}, {self._short('M')}"

    def _migrate(self, name: str, host: str) -> None:
        volume_id = self._volumes[name]
        volumes = self._cinder.volumes
        volumes.migrate_volume(volume_id, host, False, False)
        processes.wait_until(
            lambda: (
                volumes.get(volume_id).migration_status in ("success", "error")
            ),
            f"the migration to {host}",
            timeout_seconds=scenario.WAIT_SECONDS,
        )
        status = volumes.get(volume_id).migration_status
        check_equal("the migration", status, "success")
        found = volumes.get(volume_id)
        self._share_ids[name] = getattr(
            found, "os-vol-mig-status-attr:name_id"
        ) or str(found.id)
        check_equal("its host", self._host_of(name), host)

    def _used_bytes(self, name: str) -> int:
        share = self._share(name)
        if share["file"] is None:  # the appliance does not look into it
            return 512 * os.stat(self._box.volume_file(share)).st_blocks
        return int(share["used_bytes"])

    def thick(self) -> str:
        self._make_type(
            THICK,
            acme__provisioning=THICK,
            provisioning__type=THICK,
            thick_provisioning_support="<is> True",
        )
        pools = self._cinder.pools.list(detailed=True)
        if not any(pool.thick_provisioning_support for pool in pools):
            self._check_refused(THICK)
            return "no pool can: error, no share"
        self._create_volume("thick", 1, volume_type=THICK)
        used = self._used_bytes("thick")
        check(used >= scenario.GIB, f"it uses only {used} bytes")
        self._delete_volume("thick")
        return f"{used >> 20} MiB from the start"

    def discard(self) -> str:
        """As a guest's fstrim, with ``discard=unmap``."""
        self._create_volume("trimmed", 1)
        self._attach("trimmed")
        attached = self._attached["trimmed"]
        found = self._cinder.attachments.show(attached.attachment_id)
        check_equal("discard", found.connection_info["discard"], True)
        self.write_to("trimmed", "D")
        before = self._used_bytes("trimmed")
        written = content.PATTERN_BYTES
        subprocess.run(
            ["fallocate", "-p", "-l", str(written), str(attached.path)],
            check=True,
        )
        after = self._used_bytes("trimmed")
        check(
            after <= before - written,
            f"{after} bytes after it, {before} before",
        )
        self._detach("trimmed")
        self._delete_volume("trimmed")
        return f"{before >> 20} MiB before, {after >> 20} MiB after"

    # -- types

    def _make_type(self, name: str, **extra_specs: str) -> Any:
        made = self._cinder.volume_types.create(name)
        self._types.append(made)
        made.set_keys(
            {
                key.replace("__", ":"): value
                for key, value in extra_specs.items()
            }
        )
        return made

    def capabilities(self) -> str:
        (host,) = {
            pool.name.partition("#")[0] for pool in self._cinder.pools.list()
        }
        found = self._cinder.capabilities.get(host)
        choice = found.properties["acme:provisioning"]["enum"]
        check("thin" in choice, f"thin is not in {choice}")
        return f"acme:provisioning: {', '.join(choice)}"

    def wrong_type(self) -> str:
        self._make_type(WRONG, acme__provisioning="fat")
        self._check_refused(WRONG)
        return "acme:provisioning=fat: error, no share"

    def _check_refused(self, type_name: str) -> None:
        """Check that no volume of that type can be created."""
        volume = self._cinder.volumes.create(
            1, name="refused", volume_type=type_name
        )
        self._wait(self._cinder.volumes, volume.id, "error", fails=False)
        check(
            self._box.share(volume.id) is None,
            "the appliance has a share of it",
        )
        self._cinder.volumes.delete(volume.id)
        self._wait_gone(self._cinder.volumes, volume.id)

    def _retype(self, name: str, new_type: str, status: str) -> Any:
        """Retype without a copy, or not at all; the share stays the same."""
        volume_id = self._volumes[name]
        before = self._share(name)
        self._cinder.volumes.retype(volume_id, new_type, "never")
        volume = self._wait(self._cinder.volumes, volume_id, status)
        check_equal("its type", volume.volume_type, new_type)
        check_equal("its share", self._share(name), before)
        return volume

    def retype(self) -> str:
        self._make_type(SHARED, multiattach="<is> True")
        self._create_volume("typed", 1)
        snapshot = self._cinder.volume_snapshots.create(
            self._volumes["typed"], name="typed"
        )
        self._snapshot_id = snapshot.id
        self._wait(self._cinder.volume_snapshots, snapshot.id, "available")
        volume = self._retype("typed", SHARED, "available")
        check(volume.multiattach, "it is not multiattach")
        return "multiattach, no copy, the snapshot stays"

    def two_hosts(self) -> str:
        """Each has access while it needs it, and not more of it."""
        volume_id = self._volumes["typed"]
        writer, reader = self._host, self._host.beside("compute-2")
        written = writer.attach(volume_id)
        self._check_rules({"compute-1": "rw"})
        read = reader.attach(volume_id, "ro")
        self._check_rules({"compute-1": "rw", "compute-2": "ro"})
        writer.detach(written)
        self._check_rules({"compute-2": "ro"})
        try:
            read.path.open("r+b").close()
        except OSError as error:
            check_equal("the error", error.errno, errno.EROFS)
        else:
            raise scenario.CheckFailed("the reader can write")
        reader.detach(read)
        self._wait(self._cinder.volumes, volume_id, "available")
        self._check_rules({})
        return "rw, rw and ro, ro, none: as they come and go"

    def _check_rules(self, hosts: dict[str, str]) -> None:
        """Check who has access to the typed volume."""
        rules = self._share("typed")["access"]
        seen = {name: rule["level"] for name, rule in rules.items()}
        expected = {f"cinder:{name}": level for name, level in hosts.items()}
        check_equal("access", seen, expected)

    def retype_attached(self) -> str:
        self._make_type(
            RENAMED, multiattach="<is> True", volume_backend_name="acme-1"
        )
        self._attach("typed")
        self.write_to("typed", "T")
        self._retype("typed", RENAMED, "in-use")
        self._check_server_side("typed", "T")
        self._detach("typed")
        return f"in-use, {self._short('T')}"

    def _limited_type(self, consumer: str) -> str:
        """A volume type whose name is the consumer."""
        found = self._cinder.qos_specs.create(
            consumer, {"consumer": consumer, "total_iops_sec": "500"}
        )
        self._qos.append(found)
        made = self._make_type(consumer)
        self._cinder.qos_specs.associate(found, made.id)
        return consumer

    def back_end_qos(self) -> str:
        """The reference appliance's pools have no QoS."""
        self._check_refused(self._limited_type("back-end"))
        return "total_iops_sec: error, no share"

    def front_end_qos(self) -> str:
        name = self._limited_type("front-end")
        self._retype("typed", name, "available")
        attached = self._host.attach(self._volumes["typed"], "rw")
        found = self._cinder.attachments.show(attached.attachment_id)
        specs = found.connection_info["qos_specs"]
        check_equal("what the hypervisor is told", specs, LIMITS)
        self._host.detach(attached)
        self._wait(self._cinder.volumes, self._volumes["typed"], "available")
        return f"the hypervisor is told {specs}"

    # -- projects

    def transfer(self) -> str:
        """Transfer a volume with its snapshot."""
        volume_id = self._volumes["typed"]
        offer = self._cinder.transfers.create(volume_id, "gift")
        self._other.transfers.accept(offer.id, offer.auth_key)
        volume = self._wait(self._other.volumes, volume_id, "available")
        project = getattr(volume, "os-vol-tenant-attr:tenant_id")
        snapshot = self._box.snapshot(self._snapshot_id)
        check(snapshot, "the appliance does not have the snapshot")
        for kind, found in (
            ("share", self._share("typed")),
            ("snapshot", snapshot),
        ):
            label = (found or {})["labels"]["cinder.project_id"]
            check_equal(f"the label of the {kind}", label, project)
        return f"the labels name project {project[:8]}"

    # -- manage

    def unmanage(self) -> str:
        """Cinder forgets them; the appliance keeps them."""
        volume_id = self._create_volume("given", 1)
        self._given_host = self._host_of("given")
        self._write_once("given", "G")
        snapshots = self._cinder.volume_snapshots
        snapshot = snapshots.create(volume_id, name="given")
        self._wait(snapshots, snapshot.id, "available")
        snapshots.unmanage(snapshot.id)
        self._wait_gone(snapshots, snapshot.id)
        self._cinder.volumes.unmanage(volume_id)
        self._wait_gone(self._cinder.volumes, volume_id)
        self._managed_snapshot_id = snapshot.id
        check_equal("its labels", self._share("given")["labels"], {})
        self._check_server_side("given", "G")
        self._check_closed("given")
        return f"share and snapshot stay, {self._short('G')}"

    def manage(self) -> str:
        """Their ids are those that the appliance knows."""
        share_id = self._volumes.pop("given")
        volume = self._cinder.volumes.manage(
            self._given_host, {"source-id": share_id}, name="taken"
        )
        self._volumes["taken"] = volume.id
        self._share_ids["taken"] = share_id
        self._wait(self._cinder.volumes, volume.id, "available")
        snapshots = self._cinder.volume_snapshots
        snapshot = snapshots.manage(
            volume.id, {"source-id": self._managed_snapshot_id}, name="taken"
        )
        self._wait(snapshots, snapshot.id, "available")
        self._managed_snapshot_id = snapshot.id
        check_equal(
            "the label of the share",
            self._share("taken")["labels"]["cinder.volume_id"],
            volume.id,
        )
        return self._check_content("taken", 1, "G")

    def revert_managed(self) -> str:
        self._write_once("taken", "H")
        snapshots = self._cinder.volume_snapshots
        volume_id = self._volumes["taken"]
        snapshot_id = self._managed_snapshot_id
        self._cinder.volumes.revert_to_snapshot(volume_id, snapshot_id)
        self._wait(self._cinder.volumes, volume_id, "available")
        self._wait(snapshots, snapshot_id, "available")
        shown = self._check_content("taken", 1, "G")
        snapshots.delete(snapshot_id)
        self._wait_gone(snapshots, snapshot_id)
        self._delete_volume("taken")
        return shown

    # -- deletes

    def busy(self) -> str:
        self._create_volume("busy", 1)
        share = self._share("busy")
        self._box.grant(share["id"], "backup-box", "192.0.2.99")
        self._cinder.volumes.delete(self._volumes["busy"])
        self._wait(self._cinder.volumes, self._volumes["busy"], "available")
        check_equal(
            "access", list(self._share("busy")["access"]), ["backup-box"]
        )
        self._box.revoke(share["id"], "backup-box")
        self._delete_volume("busy")
        return "available beside a rule of another, then deleted"

    def chain(self) -> str:
        names = [f"link-{number}" for number in range(CHAIN_LENGTH)]
        self._create_volume(names[0], 1)
        for origin, name in zip(names, names[1:], strict=False):
            self._create_volume(name, 1, source_volid=self._volumes[origin])
        random.Random(9).shuffle(names)
        for name in names:
            self._delete_volume(name)
        return " ".join(name.removeprefix("link-") for name in names)

    def delete_tour(self) -> str:
        self._cinder.volume_snapshots.delete(self._snapshot_id)
        self._wait_gone(self._cinder.volume_snapshots, self._snapshot_id)
        self._delete_volume("typed")
        for each in self._types:
            self._cinder.volume_types.delete(each)
        for found in self._qos:
            self._cinder.qos_specs.delete(found, force=True)
        return f"snapshot, volume and {len(self._types)} types"
