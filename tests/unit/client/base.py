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

"""What the client's tests have in common."""

from collections.abc import Sequence
import tempfile
from typing import Any
import unittest

import acme_client
from acme_client import timing
from tests.harness import transports
from tests.unit.client import wire

TOKEN = "acme_" + "t0ken" * 9
SHARE_ID = "0d9e2a54-58d2-4f0f-9d3c-1f4f9a1c2b3d"
SNAPSHOT_ID = "5b8a1a8e-6f43-4f0c-8e2b-74a9a9e6b111"
JOB_ID = "c1d1f9a6-93d3-4b3c-b7f1-0a4b0e1d2f3a"

SHARE = {
    "id": SHARE_ID,
    "name": "volume-1",
    "namespace": "cinder-a",
    "pool": "gold",
    "state": "available",
    "generation": 7,
    "size_bytes": 1 << 30,
    "used_bytes": 4096,
    "qos": None,
    "file": {
        "name": "volume",
        "format": "raw",
        "allocation": "sparse",
        "uid": 64061,
        "gid": 64061,
        "mode": "0660",
    },
    "origin": {"type": "snapshot", "id": SNAPSHOT_ID},
    "group_id": None,
    "export_locations": [
        {
            "address": "192.0.2.10",
            "path": f"/shares/{SHARE_ID}",
            "preferred": True,
            "nfs_versions": ["4.2", "4.1"],
        }
    ],
    "access": {"cmp-1": {"clients": ["192.0.2.51"], "level": "rw"}},
    "labels": {"cinder.volume_id": "1"},
    "created_at": "2026-11-20T10:00:00Z",
    "updated_at": "2026-11-20T10:00:00.25Z",
    "job_id": None,
    "from_the_future": {"x": 1},
}

POOL = {
    "name": "gold",
    "state": "up",
    "engine": "btrfs",
    "total_bytes": 100,
    "free_bytes": 60,
    "used_bytes": 40,
    "provisioned_bytes": 500,
    "share_count": 3,
    "snapshot_count": 1,
    "features": ["share.volume_file"],
    "observed_at": None,
}

SNAPSHOT = {
    "id": SNAPSHOT_ID,
    "share_id": SHARE_ID,
    "group_snapshot_id": None,
    "name": "snapshot-1",
    "namespace": "cinder-a",
    "pool": "gold",
    "state": "available",
    "generation": 1,
    "size_bytes": 1 << 30,
    "file": None,
    "export_locations": [],
    "access": {},
    "labels": {},
    "created_at": "2026-11-20T10:00:00Z",
    "updated_at": "2026-11-20T10:00:00Z",
    "job_id": None,
}

STATS = {
    "system_id": JOB_ID,
    "system_name": "demo",
    "health": "ok",
    "portals": ["192.0.2.10"],
    "nfs_versions": ["4.2"],
    "pools": [POOL],
}


def job(state: str, **members: Any) -> dict[str, Any]:
    return {
        "id": JOB_ID,
        "kind": "share.create",
        "state": state,
        "share_id": SHARE_ID,
        "snapshot_id": None,
        "request_id": "req-1",
        "problem": None,
        "progress": None,
        **members,
    }


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("nobody sleeps backwards")
        self.sleeps.append(seconds)
        self.now += seconds


class ClientTestCase(unittest.TestCase):
    """Makes servers and clients, and closes them."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.log = transports.RequestLog()

    def directory(self) -> str:
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        return made.name

    def serve(self, respond: wire.Respond, **kwargs: Any) -> wire.Server:
        server = wire.Server(respond, **kwargs)
        self.addCleanup(server.close)
        return server

    def serve_in_turn(
        self, *behaviours: wire.Behaviour, **kwargs: Any
    ) -> wire.Server:
        """Each request gets the next behaviour; the last one stays."""
        left = list(behaviours)

        def respond(seen: wire.Seen) -> wire.Behaviour:
            return left.pop(0) if len(left) > 1 else left[0]

        return self.serve(respond, **kwargs)

    def client(
        self,
        *addresses: str,
        faults: Sequence[transports.Fault] = (),
        **kwargs: Any,
    ) -> acme_client.Client:
        """A client on the fake clock, with its requests in ``self.log``."""
        self.adapter = transports.FaultyAdapter(self.log, faults)
        kwargs.setdefault("credentials", acme_client.BearerToken(TOKEN))
        kwargs.setdefault("adapter_factory", lambda: self.adapter)
        kwargs.setdefault("sleep", self.clock.sleep)
        kwargs.setdefault("clock", self.clock)
        kwargs.setdefault("new_backoff", lambda: timing.Backoff(lambda: 1.0))
        made = acme_client.Client(list(addresses), **kwargs)
        self.addCleanup(made.close)
        return made
