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

"""A service on a real database file, on storage and exports in memory.

The engine and the exporter outlive a service, as a disk and a server do:
:meth:`ServiceFixture.restart` makes a new service on them.
"""

import copy
import datetime
import functools
import hashlib
import threading
import unittest
import uuid

from acme_appliance import references
from acme_appliance.engines import base as engines
from acme_appliance.engines.memory.engine import MemoryEngine
from acme_appliance.exporters.memory.exporter import MemoryExporter
from acme_appliance.service import Caller
from acme_appliance.service import Done
from acme_appliance.service import Portal
from acme_appliance.service import Service
from acme_appliance.service import ServiceSettings
from tests.harness import databases

MIB = 1 << 20
CALLER = Caller("cinder-a", "driver", "a", "req-a")
OTHER = Caller("cinder-b", "driver", "b", "req-b")
ADMIN = Caller("admin", "admin", None, "req-admin")
WAIT = 30

SYSTEM_ID = "6f2d5b58-9b80-4f6e-8d4c-0f6a1f3c7e11"


def new_id():
    return str(uuid.uuid4())


def share(id_):
    return engines.Reference(engines.Kind.SHARE, id_)


def snapshot(id_):
    return engines.Reference(engines.Kind.SNAPSHOT, id_)


def described(engine):
    """Everything that a pool has metadata of."""
    return [
        references.subject(kind, id_)
        for kind in references.SUBJECT_KINDS
        for id_ in sorted(engine.metadata.ids(kind))
    ]


class Crash(BaseException):
    """The end of the process, as far as a test can have it."""


class Steps:
    """What ``on_step`` is: notes each step, and dies at a given one."""

    def __init__(self, crash_at=None):
        self.names = []
        self.crash_at = crash_at
        self.crashed = False
        self.hooks = {}
        self._lock = threading.Lock()

    def __call__(self, job_id, name):
        with self._lock:
            if self.crashed:
                raise Crash(name)
            self.names.append(name)
            if len(self.names) - 1 == self.crash_at:
                self.crashed = True
                raise Crash(name)
        hook = self.hooks.get(name)
        if hook is not None:
            hook()


class Clock:
    def __init__(self):
        self.now = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)

    def __call__(self):
        return self.now

    def advance(self, **by):
        self.now += datetime.timedelta(**by)


class ServiceCalls:
    """The calls of a driver on ``service``, which succeed at once."""

    service: Service

    def put_share(self, id_=None, caller=CALLER, **body):
        id_ = id_ or new_id()
        if "source" not in body:
            body.setdefault("size_bytes", MIB)
        body.setdefault("name", "volume")
        return self._done(
            self.service.shares.put(caller, id_, body, wait_seconds=WAIT)
        )

    def clone(self, type_, source_id, id_=None, **body):
        source = {"type": type_, "id": source_id}
        return self.put_share(id_, source=source, **body)

    def patch_share(self, id_, caller=CALLER, if_match=None, **patch):
        return self._done(
            self.service.shares.patch(
                caller, id_, patch, wait_seconds=WAIT, if_match=if_match
            )
        )

    def delete_share(self, id_, snapshots="fail", caller=CALLER):
        return self._done(
            self.service.shares.delete(
                caller, id_, snapshots=snapshots, wait_seconds=WAIT
            )
        )

    def put_revert(self, share_id, revert_id, snapshot_id, caller=CALLER):
        body = {"snapshot_id": snapshot_id}
        return self._done(
            self.service.reverts.put(
                caller, share_id, revert_id, body, wait_seconds=WAIT
            )
        )

    def put_snapshot(self, share_id, id_=None, caller=CALLER, **body):
        id_ = id_ or new_id()
        body = {"share_id": share_id, "name": "snapshot", **body}
        return self._done(
            self.service.snapshots.put(caller, id_, body, wait_seconds=WAIT)
        )

    def delete_snapshot(self, id_, caller=CALLER):
        return self._done(
            self.service.snapshots.delete(caller, id_, wait_seconds=WAIT)
        )

    def put_access(
        self,
        share_id,
        holder="cmp-1",
        clients=("192.0.2.51",),
        level="rw",
        caller=CALLER,
    ):
        return self._done(
            self.service.access.put(
                caller,
                share_id,
                holder,
                {"clients": list(clients), "level": level},
                wait_seconds=WAIT,
            )
        )

    def delete_access(self, share_id, holder="cmp-1", caller=CALLER):
        return self._done(
            self.service.access.delete(
                caller, share_id, holder, wait_seconds=WAIT
            )
        )

    def put_snapshot_access(
        self,
        snapshot_id,
        holder="cinder:bak-1",
        clients=("192.0.2.61",),
        level="ro",
        caller=CALLER,
    ):
        return self._done(
            self.service.snapshot_access.put(
                caller,
                snapshot_id,
                holder,
                {"clients": list(clients), "level": level},
                wait_seconds=WAIT,
            )
        )

    def delete_snapshot_access(
        self, snapshot_id, holder="cinder:bak-1", caller=CALLER
    ):
        return self._done(
            self.service.snapshot_access.delete(
                caller, snapshot_id, holder, wait_seconds=WAIT
            )
        )

    def put_group(self, id_=None, caller=CALLER, **body):
        body.setdefault("name", "group")
        return self._done(
            self.service.groups.put(
                caller, id_ or new_id(), body, wait_seconds=WAIT
            )
        )

    def patch_group(self, id_, caller=CALLER, if_match=None, **patch):
        return self._done(
            self.service.groups.patch(
                caller, id_, patch, wait_seconds=WAIT, if_match=if_match
            )
        )

    def delete_group(self, id_, caller=CALLER, **how):
        return self._done(
            self.service.groups.delete(caller, id_, wait_seconds=WAIT, **how)
        )

    def put_group_snapshot(self, snapshots, id_=None, caller=CALLER, **body):
        """:param snapshots: by the id of the share, that of the snapshot."""
        body.setdefault("name", "group snapshot")
        body["snapshots"] = {
            share_id: {"id": each} for share_id, each in snapshots.items()
        }
        return self._done(
            self.service.group_snapshots.put(
                caller, id_ or new_id(), body, wait_seconds=WAIT
            )
        )

    def delete_group_snapshot(self, id_, caller=CALLER):
        return self._done(
            self.service.group_snapshots.delete(caller, id_, wait_seconds=WAIT)
        )

    def events(self):
        found = self.service.events.read(ADMIN, 0, 0, 1000)["events"]
        return [event["type"] for event in found]

    @staticmethod
    def _done(outcome):
        assert isinstance(outcome, Done), outcome
        return outcome

    # -- what there is

    def listed(self):
        """Shares and snapshots, for comparison with another fixture's."""
        return {
            "shares": [
                _settled(body)
                for body in self.service.shares.page(
                    ADMIN, {}, 1000, None
                ).items
            ],
            "snapshots": [
                _settled(body)
                for body in self.service.snapshots.page(
                    ADMIN, {}, 1000, None
                ).items
            ],
            "groups": [
                _settled(body)
                for body in self.service.groups.page(
                    ADMIN, {}, 1000, None
                ).items
            ],
            "group_snapshots": [
                _settled(body)
                for body in self.service.group_snapshots.page(
                    ADMIN, {}, 1000, None
                ).items
            ],
            "open_jobs": self.service.system.status()["open_jobs"],
        }


class Saved:
    """What a stopped fixture has on its disks, for more fixtures like it."""

    def __init__(self, fixture):
        self._content = databases.Content(fixture.database.writers)
        self._engines = fixture.engines
        self._exporter = fixture.exporter

    def restore(self, fixture):
        self._content.restore(fixture.database.writers)
        fixture.engines = {
            name: _copied(engine) for name, engine in self._engines.items()
        }
        fixture.exporter = _copied(self._exporter)


def _copied(device):
    """With a lock of its own."""
    locks = {id(device._lock): threading.RLock()}
    return copy.deepcopy(device, locks)


class ServiceFixture(ServiceCalls):
    """See the module. ``settings`` are members of ServiceSettings.

    :param saved: what it begins with; default: nothing.
    :param databases: where its database comes from.
    """

    def __init__(
        self,
        case,
        *,
        pools=("gold",),
        start=True,
        engine_class=MemoryEngine,
        saved=None,
        databases=databases,
        **settings,
    ):
        self._databases = databases
        self.database = databases.take()
        self.engines = {
            name: engine_class(root=f"/memory/{name}") for name in pools
        }
        self.exporter = MemoryExporter()
        if saved is not None:
            saved.restore(self)
        self.engine = self.engines[pools[0]]
        self.clock = Clock()
        self.settings = ServiceSettings(
            system_id=SYSTEM_ID,
            system_name="test",
            portals=(Portal("192.0.2.10"), Portal("192.0.2.11", False)),
            **settings,
        )
        self.steps = Steps()
        self.service = None
        case.addCleanup(self.close)
        self.restart(start=start)

    def close(self):
        """The end; may be called early, where a test makes many fixtures."""
        if self.database is not None:
            self.service.stop()
            self._databases.give_back(self.database)
            self.database = None

    def restart(self, *, steps=None, start=True):
        """A new process; the old one was stopped, or has crashed."""
        if self.service is not None:
            self.service.stop()
        self.steps = steps or Steps()
        self.service = Service(
            self.database,
            self.engines,
            self.exporter,
            self.settings,
            clock=self.clock,
            on_step=self.steps,
        )
        return self.start() if start else None

    def start(self):
        """Start the service; what that and the comparison found."""
        # Interrupted moves, too, which a real start does not wait for.
        self.service.recovery.copy_seconds = WAIT
        report = self.service.start()
        compared = self.service.wait_until_compared(WAIT)
        assert compared is not None
        report.add(compared)
        return report

    def lose_unsynced(self):
        """A power cut."""
        for engine in self.engines.values():
            engine.lose_unsynced()

    # -- what clients do

    def write(self, share_id, data, name="volume"):
        self._entry(share_id, name).write(0, data)

    def read(self, share_id, name="volume"):
        entry = self._entry(share_id, name)
        return entry.read(0, entry.size_bytes)

    def _entry(self, share_id, name):
        """In the pool that the service says."""
        pool = self.service.shares.get(ADMIN, share_id)["pool"]
        return self.engines[pool].entries(share(share_id))[name]

    # -- everything there is

    def state(self):
        """Database, storage and exports, for comparison with another's."""
        return {
            **self.listed(),
            "storage": {
                f"{pool} {kind} {id_}": _content(
                    engine.root_of(engines.Reference(kind, id_))
                )
                for pool, engine in self.engines.items()
                for kind in engines.Kind
                for id_ in engine.ids(kind)
            },
            "metadata": {
                f"{pool} {reference}": _settled(
                    engine.metadata.read(reference)
                )
                for pool, engine in self.engines.items()
                for reference in described(engine)
            },
            "exports": self.exporter.exported(),
        }


@functools.cache
def saved_after(prepare, pools=("gold",)):
    """What a fixture has after ``prepare(fixture)``; once per process."""
    fixture = ServiceFixture(unittest.TestCase(), pools=pools)
    try:
        prepare(fixture)
        fixture.service.stop()
        return Saved(fixture)
    finally:
        fixture.close()


def _settled(body):
    """Without what two runs of the same may differ in."""
    return {
        key: value
        for key, value in body.items()
        if key not in ("generation", "created_at", "updated_at", "moment")
    }


def _digest(blocks):
    """In place of content: what differs is printed."""
    found = hashlib.sha256()
    for number, block in sorted(blocks.items()):
        found.update(b"%d" % number + block)
    return found.hexdigest()


def _content(directory):
    return (
        directory.owner,
        directory.mode,
        {
            name: (
                entry.type,
                entry.size_bytes,
                entry.owner,
                entry.mode,
                _digest(entry.blocks),
            )
            for name, entry in directory.entries.items()
        },
    )
