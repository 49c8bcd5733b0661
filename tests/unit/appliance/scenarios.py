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

GROUP = "66666666-6666-4666-8666-666666666666"
SOURCE_GROUP = "77777777-7777-4777-8777-777777777777"
GROUP_SNAPSHOT = "88888888-8888-4888-8888-888888888888"
REVERT = "55555555-5555-4555-8555-555555555555"

MIB = 1 << 20
#: What a fixture needs to have.
POOLS = ("gold", "silver")


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


def numbered(kind, number):
    """The id of one of many."""
    return f"{number:08x}-0000-4000-8000-{kind:012x}"


def shares(count):
    return [numbered(1, number) for number in range(count)]


def snapshots(count):
    return {
        share_id: numbered(2, number)
        for number, share_id in enumerate(shares(count))
    }


def _group(count):
    """A group of so many shares, with something in each."""

    def prepare(fixture):
        fixture.put_group(SOURCE_GROUP)
        for share_id in shares(count):
            fixture.put_share(share_id, group_id=SOURCE_GROUP)
            fixture.write(share_id, share_id[:8].encode() * 512)
        # Syncs the pool.
        fixture.put_share(SHARE)

    return prepare


def _snapshot_of_group(fixture, count):
    fixture.put_group_snapshot(
        snapshots(count), GROUP_SNAPSHOT, group_id=SOURCE_GROUP
    )


def _group_with_snapshot(count):
    def prepare(fixture):
        _group(count)(fixture)
        _snapshot_of_group(fixture, count)

    return prepare


def _copy(fixture, type_, id_, sources):
    fixture.put_group(
        GROUP,
        source={"type": type_, "id": id_},
        shares={
            source: {
                "id": numbered(3, number),
                "name": f"copy {number}",
                "file": {"name": f"copy-{number}"},
            }
            for number, source in enumerate(sources)
        },
    )


def of_groups(count):
    """One change of each kind on a group of so many shares."""
    sources = {
        "group": shares(count),
        "group_snapshot": list(snapshots(count).values()),
    }
    return {
        f"group snapshot of {count}": (
            _group(count),
            lambda fixture: _snapshot_of_group(fixture, count),
        ),
        f"delete group snapshot of {count}": (
            _group_with_snapshot(count),
            lambda fixture: fixture.delete_group_snapshot(GROUP_SNAPSHOT),
        ),
        f"copy group of {count}": (
            _group(count),
            lambda fixture: _copy(
                fixture, "group", SOURCE_GROUP, sources["group"]
            ),
        ),
        f"copy group snapshot of {count}": (
            _group_with_snapshot(count),
            lambda fixture: _copy(
                fixture,
                "group_snapshot",
                GROUP_SNAPSHOT,
                sources["group_snapshot"],
            ),
        ),
    }


def _written_once(fixture):
    """With a hole, and an owner of its own."""
    fixture.put_share(
        SHARE,
        size_bytes=3 * MIB,
        file={"name": "data", "mode": "0600", "uid": 1001},
        labels={"a": "b"},
    )
    fixture.write(SHARE, b"1" * MIB, "data")
    fixture.engine.sync()


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
    "move": (
        _written_once,
        lambda fixture: fixture.patch_share(SHARE, pool="silver"),
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
    "create in group": (
        lambda fixture: fixture.put_group(GROUP),
        lambda fixture: fixture.put_share(SHARE, group_id=GROUP),
    ),
    "extend into group": (
        lambda fixture: (fixture.put_group(GROUP), _share(fixture)),
        lambda fixture: fixture.patch_share(
            SHARE, size_bytes=2 * MIB, group_id=GROUP
        ),
    ),
    "create group": (_nothing, lambda fixture: fixture.put_group(GROUP)),
    **of_groups(2),
}
