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

"""One change of each kind, as something to be cut off and sent again.

``prepare(fixture)`` makes what the change needs; ``request(fixture)`` is the
change, which a client sends again until it has an answer. Both use fixed
ids, so that the end states of two runs can be compared. A fixture is anything
with the calls of ``tests.unit.appliance.fixtures.ServiceFixture``.
"""

SHARE = "11111111-1111-4111-8111-111111111111"
CLONE = "22222222-2222-4222-8222-222222222222"
SNAPSHOT = "33333333-3333-4333-8333-333333333333"
SECOND = "44444444-4444-4444-8444-444444444444"

REVERT = "55555555-5555-4555-8555-555555555555"

MIB = 1 << 20


def _nothing(fixture):
    return


def _share(fixture):
    fixture.put_share(SHARE, size_bytes=MIB)


def _snapshot(fixture):
    _share(fixture)
    fixture.put_snapshot(SHARE, SNAPSHOT)


def _two_snapshots(fixture):
    _snapshot(fixture)
    fixture.put_snapshot(SHARE, SECOND)


def _granted(fixture):
    _share(fixture)
    fixture.put_access(SHARE, "cmp-1")
    fixture.put_access(SHARE, "cmp-2", ("192.0.2.52",), "ro")


def _snapshot_granted(fixture):
    _snapshot(fixture)
    fixture.put_access(SHARE, "cmp-1")
    fixture.put_snapshot_access(SNAPSHOT, "bak-1")
    fixture.put_snapshot_access(SNAPSHOT, "bak-2", ("192.0.2.62",))


def _written(fixture):
    """A snapshot that is smaller, and a later one."""
    _share(fixture)
    fixture.write(SHARE, b"1" * MIB)
    fixture.put_snapshot(SHARE, SNAPSHOT)
    fixture.write(SHARE, b"2" * MIB)
    fixture.put_snapshot(SHARE, SECOND)
    fixture.patch_share(SHARE, size_bytes=2 * MIB, file={"name": "new"})
    fixture.write(SHARE, b"3" * 2 * MIB, "new")
    fixture.patch_share(SHARE, size_bytes=3 * MIB)


SCENARIOS = {
    "create": (
        _nothing,
        lambda fixture: fixture.put_share(
            SHARE, size_bytes=3 * MIB, labels={"a": "b"}
        ),
    ),
    "create full": (
        _nothing,
        lambda fixture: fixture.put_share(
            SHARE,
            size_bytes=2 * MIB,
            file={"allocation": "full", "name": "data", "mode": "0600"},
        ),
    ),
    "create from snapshot": (
        _snapshot,
        lambda fixture: fixture.clone(
            "snapshot",
            SNAPSHOT,
            CLONE,
            size_bytes=2 * MIB,
            file={"name": "clone"},
        ),
    ),
    "clone": (
        _granted,
        lambda fixture: fixture.clone(
            "share", SHARE, CLONE, size_bytes=2 * MIB, file={"name": "clone"}
        ),
    ),
    "extend and rename": (
        _share,
        lambda fixture: fixture.patch_share(
            SHARE,
            size_bytes=4 * MIB,
            name="new",
            file={"name": "renamed"},
            labels={"x": "y"},
        ),
    ),
    "create limited": (
        _nothing,
        lambda fixture: fixture.put_share(SHARE, qos={"max_iops": 500}),
    ),
    "limit": (
        lambda fixture: fixture.put_share(SHARE, qos={"max_iops": 500}),
        lambda fixture: fixture.patch_share(
            SHARE,
            qos={"max_iops": None, "max_read_bytes_per_second": MIB},
        ),
    ),
    "rename share": (
        _share,
        lambda fixture: fixture.patch_share(SHARE, name="new"),
    ),
    "delete": (_share, lambda fixture: fixture.delete_share(SHARE)),
    "delete with snapshots": (
        _two_snapshots,
        lambda fixture: fixture.delete_share(SHARE, "cascade"),
    ),
    "snapshot": (
        _share,
        lambda fixture: fixture.put_snapshot(SHARE, SNAPSHOT),
    ),
    "delete snapshot": (
        _two_snapshots,
        lambda fixture: fixture.delete_snapshot(SNAPSHOT),
    ),
    "grant": (
        _share,
        lambda fixture: fixture.put_access(SHARE, "cmp-1", ("192.0.2.0/24",)),
    ),
    "grant more": (
        _granted,
        lambda fixture: fixture.put_access(
            SHARE, "cmp-2", ("192.0.2.52", "192.0.2.53"), "rw"
        ),
    ),
    "revert": (
        _written,
        lambda fixture: fixture.put_revert(SHARE, REVERT, SNAPSHOT),
    ),
    "revoke": (
        _granted,
        lambda fixture: fixture.delete_access(SHARE, "cmp-1"),
    ),
    "grant of a snapshot": (
        _snapshot_granted,
        lambda fixture: fixture.put_snapshot_access(
            SNAPSHOT, "bak-2", ("192.0.2.62", "192.0.2.63")
        ),
    ),
    "revoke of a snapshot": (
        _snapshot_granted,
        lambda fixture: fixture.delete_snapshot_access(SNAPSHOT, "bak-1"),
    ),
}
