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

"""Random histories of attachments, against the rules on the appliance.

Cinder's database and the methods of its manager are the real ones; the
appliance is a table of access rules that can lose a request or a reply.
What runs at the same time runs between two steps of Cinder's manager, or
while the appliance makes a grant.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import os
import socket
import tempfile
from typing import Any
from unittest import mock as unittest_mock

from cinder import context as cinder_context
from cinder import exception
from cinder import objects
from cinder.db import api as db
from cinder.volume import manager
import hypothesis
from hypothesis import stateful
from hypothesis import strategies

from acme_cinder import features
from acme_cinder import holders
from acme_cinder import mount
from acme_cinder import settings as options
import acme_client
from tests.unit.driver import base
from tests.unit.driver import cinderdb

HERE = socket.gethostname()
HOSTS = ("cmp-1", "cmp-2", HERE)
ADDRESSES = ("192.0.2.51", "192.0.2.52")
FAULTS = ("lost request", "lost reply")
LOCATION = "127.0.0.1:/gold/shares/x"


class Appliance:
    """What the driver uses of the client, for one share."""

    def __init__(self) -> None:
        self.share_id = ""
        self.volume_id = ""
        self.rules: dict[str, acme_client.AccessRule] = {}
        self.faults: list[str] = []
        self.during_grant: Callable[[], None] | None = None
        self.requests = 0

    def with_deadline(self, seconds: float) -> Appliance:
        return self

    def _change(self, change: Callable[[], None]) -> None:
        self.requests += 1
        fault = self.faults.pop(0) if self.faults else ""
        if fault != "lost request":
            change()
        if fault:
            raise acme_client.OutcomeUnknown(fault)

    def grant_access(
        self, share_id: str, holder: str, clients: Any, level: str
    ) -> acme_client.GrantedAccess:
        rule = acme_client.AccessRule(holder, tuple(clients), level)
        self._change(lambda: self.rules.update({holder: rule}))
        during, self.during_grant = self.during_grant, None
        if during is not None:
            during()
        location = acme_client.ExportLocation(
            "127.0.0.1", "/gold/shares/x", True, ("4.2",)
        )
        return acme_client.GrantedAccess(
            rule.holder, rule.clients, level, (location,), dict(self.rules)
        )

    def revoke_access(
        self, share_id: str, holder: str
    ) -> dict[str, acme_client.AccessRule]:
        self._change(lambda: self.rules.pop(holder, None) and None)
        return dict(self.rules)

    def get_share(self, share_id: str) -> Any:
        self._change(lambda: None)
        return unittest_mock.Mock(
            spec=acme_client.Share,
            id=self.share_id,
            access=dict(self.rules),
            labels={"cinder.volume_id": self.volume_id},
        )

    find_share = get_share

    def list_shares(self) -> Any:
        yield self.get_share(self.share_id)

    def get_stats(self) -> Any:
        """Its one pool has volume files: the driver mounts nothing."""
        pool = unittest_mock.Mock(features=frozenset({features.VOLUME_FILE}))
        return unittest_mock.Mock(pools=(pool,), portals=())


class Manager(manager.VolumeManager):
    """Cinder's, without all that starts a service."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.before_write: Callable[[], None] | None = None
        self.message_api = unittest_mock.Mock()

    @property
    def db(self) -> Any:
        """The database, which a whole other history comes before."""
        between, self.before_write = self.before_write, None
        if between is not None:
            between()
        return db

    def _notify_about_volume_usage(self, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""


@functools.cache
def _unready_driver(number: int) -> Any:
    return cinderdb.new_driver(
        f"model-{number}",
        {
            "acme_api_addresses": ["https://127.0.0.1:1"],
            "acme_api_token": "t" * 43,
        },
    )


@functools.cache
def _settings(number: int) -> options.DriverSettings:
    return options.read(_unready_driver(number).configuration)


class AccessMachine(stateful.RuleBasedStateMachine):
    """One volume, two services, any order of things."""

    multiattach = True

    def __init__(self) -> None:
        super().__init__()
        self.context = cinder_context.get_admin_context()
        self.folder = tempfile.TemporaryDirectory(prefix="acme-model-")
        self.api = Appliance()
        volume = cinderdb.volume(
            status="available",
            multiattach=self.multiattach,
            provider_location=LOCATION,
        )
        self.volume_id = volume.id
        self.api.share_id = self.api.volume_id = volume.id
        self.managers = [Manager(self._driver(number)) for number in range(2)]
        #: What Nova was told, by the attachment: host, address, mode.
        self.connected: dict[str, tuple[str, str, str]] = {}
        self.own = False

    def _driver(self, number: int) -> Any:
        made = _unready_driver(number)
        settings = dataclasses.replace(
            _settings(number),
            mount_point_base=os.path.realpath(self.folder.name),
        )
        mounts = mount.Mounts(
            base=settings.mount_point_base,
            root_helper="sudo",
            mount_table=dict,
            sleep=lambda seconds: None,
        )
        made.assemble(settings, self.api, mounts)
        made.set_initialized()
        return made

    def teardown(self) -> None:
        """At rest, the rules are what the attachments call for."""
        try:
            self.api.faults.clear()
            if self.own:
                self.own_disconnect(0)
            for _ in range(3):
                self.managers[0].driver._sweep.run()
            self.check_rest()
        finally:
            self.folder.cleanup()

    # -- looking

    def volume(self) -> objects.Volume:
        return objects.Volume.get_by_id(self.context, self.volume_id)

    def rows(self) -> list[Any]:
        found = objects.VolumeAttachmentList.get_all_by_volume_id(
            self.context, self.volume_id
        )
        return sorted(found, key=lambda row: row.id)

    def pick(self, number: int, *, attached: bool) -> Any:
        found = [row for row in self.rows() if bool(row.connector) is attached]
        return found[number % len(found)] if found else None

    def check_rest(self) -> None:
        wanted: dict[str, set[str]] = {}
        modes: dict[str, set[str]] = {}
        for row in self.rows():
            if row.connector:
                holder = holders.of_host(row.connector["host"])
                wanted.setdefault(holder, set()).add(row.connector["ip"])
                modes.setdefault(holder, set()).add(row.attach_mode)
        may_hide = len([row for row in self.rows() if not row.connector])
        present = {
            name: rule
            for name, rule in self.api.rules.items()
            if holders.is_attachments(name)
        }
        assert set(wanted) == set(present), (wanted, present)
        for holder, addresses in wanted.items():
            assert addresses <= set(present[holder].clients)
            if not may_hide:
                level = "ro" if modes[holder] == {"ro"} else "rw"
                assert level == present[holder].level, (holder, modes)

    @stateful.invariant()
    def everybody_connected_has_access(self) -> None:
        for host, address, mode in self.connected.values():
            rules = [
                rule
                for holder in (
                    holders.of_host(host),
                    holders.of_service(host),
                )
                if (rule := self.api.rules.get(holder)) is not None
                and address in rule.clients
            ]
            assert rules, (host, self.api.rules)
            if mode == "rw":
                assert "rw" in {rule.level for rule in rules}, host
        if self.own:
            assert holders.of_service(HERE) in self.api.rules

    # -- what happens

    @stateful.rule(fault=strategies.sampled_from(FAULTS))
    def fault(self, fault: str) -> None:
        self.api.faults.append(fault)

    @stateful.precondition(lambda self: not self.own)
    @stateful.rule(mode=strategies.sampled_from(["null", "ro", "rw"]))
    def reserve(self, mode: str) -> None:
        rows = self.rows()
        if len(rows) < (4 if self.multiattach else 2):
            row = objects.VolumeAttachment(
                self.context,
                volume_id=self.volume_id,
                attach_status="reserved",
                attach_mode=mode,
            )
            row.create()
            db.volume_update(
                self.context, self.volume_id, {"status": "reserved"}
            )

    @stateful.rule(
        which=strategies.integers(0, 3),
        host=strategies.sampled_from(HOSTS),
        address=strategies.sampled_from(ADDRESSES),
        service=strategies.integers(0, 1),
        during=strategies.sampled_from(["", "", "deleted", "reset"]),
        between=strategies.sampled_from(
            ["", "", "deleted", "detach", "attach", "sweep", "die"]
        ),
    )
    def attach(
        self,
        which: int,
        host: str,
        address: str,
        service: int,
        during: str,
        between: str,
    ) -> None:
        row = self.pick(which, attached=False)
        if row is None:
            return
        if not self.multiattach and any(
            item.connector for item in self.rows()
        ):
            host = HOSTS[(HOSTS.index(host) + 1) % 2]
            if any(
                (item.connector or {}).get("host") == host
                for item in self.rows()
            ):
                return
        connector = {"host": host, "ip": address, "mountpoint": "/dev/vdb"}
        served = self.managers[service]
        if during == "deleted":
            self.api.during_grant = lambda: self._delete(row.id)
        elif during == "reset":
            self.api.during_grant = self.reset
        served.before_write = self._between(between, row.id, which)
        try:
            served.attachment_update(
                self.context, self.volume(), connector, row.id
            )
        except (exception.CinderException, _Died):
            return
        finally:
            served.before_write = self.api.during_grant = None
        mode = "ro" if row.attach_mode == "ro" else "rw"
        self.connected[row.id] = (host, address, mode)

    def _between(
        self, what: str, row_id: str, which: int
    ) -> Callable[[], None] | None:
        def die() -> None:
            raise _Died

        other = 1
        return {
            "": None,
            "deleted": lambda: self._delete(row_id),
            "detach": lambda: self.detach(which, other),
            "attach": lambda: (
                self.attach(
                    which + 1, HOSTS[which % 3], ADDRESSES[0], other, "", ""
                )
                if self.multiattach
                else None
            ),
            "sweep": lambda: self.sweep(other),
            "die": die,
        }[what]

    def _delete(self, row_id: str) -> None:
        """As cinder-api, when the attachment is only reserved for it."""
        self.connected.pop(row_id, None)
        db.volume_detached(self.context, self.volume_id, row_id)

    @stateful.rule(
        which=strategies.integers(0, 3), service=strategies.integers(0, 1)
    )
    def detach(self, which: int, service: int) -> None:
        row = self.pick(which, attached=True)
        if row is not None and self._terminate(row, service):
            self._delete(row.id)

    def _terminate(self, row: Any, service: int) -> bool:
        """Nova has unmounted when it asks for this."""
        self.connected.pop(row.id, None)
        try:
            self.managers[service].attachment_delete(
                self.context, row.id, self.volume()
            )
        except exception.CinderException:
            return False
        return True

    @stateful.rule(service=strategies.integers(0, 1))
    def detach_all_at_once(self, service: int) -> None:
        """Each sees the records of the others."""
        rows = [row for row in self.rows() if row.connector]
        done = [row for row in rows if self._terminate(row, service)]
        for row in done:
            self._delete(row.id)

    @stateful.rule(which=strategies.integers(0, 3))
    def delete_reserved(self, which: int) -> None:
        row = self.pick(which, attached=False)
        if row is not None:
            self._delete(row.id)

    @stateful.rule(which=strategies.integers(0, 3))
    def mode_comes_later(self, which: int) -> None:
        """attachment_create has it saved after the driver was called."""
        row = self.pick(which, attached=True)
        if row is not None:
            row.attach_mode = "ro"
            row.save()
            if row.id in self.connected:
                host, address, _ = self.connected[row.id]
                self.connected[row.id] = (host, address, "ro")

    @stateful.precondition(lambda self: not self.own)
    @stateful.rule()
    def reset(self) -> None:
        """``cinder reset-state --attach-status detached``"""
        for row in self.rows():
            self._delete(row.id)
        db.volume_update(
            self.context,
            self.volume_id,
            {"status": "available", "attach_status": "detached"},
        )

    @stateful.precondition(lambda self: not self.own and not self.rows())
    @stateful.rule(service=strategies.integers(0, 1))
    def own_connect(self, service: int) -> None:
        db.volume_update(
            self.context, self.volume_id, {"status": "backing-up"}
        )
        try:
            self.managers[service].driver.initialize_connection(
                self.volume(), base.own_connector()
            )
            self.own = True
        except exception.CinderException:
            db.volume_update(
                self.context, self.volume_id, {"status": "available"}
            )

    @stateful.precondition(lambda self: self.own)
    @stateful.rule(service=strategies.integers(0, 1))
    def own_disconnect(self, service: int) -> None:
        """Where it fails, Cinder goes on all the same."""
        self.own = False
        try:
            self.managers[service].driver.terminate_connection(
                self.volume(), base.own_connector()
            )
        except exception.CinderException:
            pass
        db.volume_update(self.context, self.volume_id, {"status": "available"})

    @stateful.rule(service=strategies.integers(0, 1))
    def sweep(self, service: int) -> None:
        self.managers[service].driver._sweep.run()


class _Died(BaseException):
    """The process is killed."""


class PlainAccessMachine(AccessMachine):
    multiattach = False


_SETTINGS = hypothesis.settings(
    max_examples=int(os.environ.get("ACME_MODEL_EXAMPLES", "15")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
AccessMachine.TestCase.settings = _SETTINGS
PlainAccessMachine.TestCase.settings = _SETTINGS


class MultiattachModelTest(AccessMachine.TestCase):  # type: ignore[misc]
    """Several attachments of a volume at a time."""


class PlainModelTest(PlainAccessMachine.TestCase):  # type: ignore[misc]
    """One, or two while a server moves."""
