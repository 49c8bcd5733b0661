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

"""Groups and group snapshots over real HTTPS."""

import uuid

import ddt

from tests.unit.appliance.api import base


def new_id():
    return str(uuid.uuid4())


class GroupCase(base.ApiCase):
    def make_group(self, **members):
        path = f"/v1/groups/{new_id()}"
        return self.expect(201, "PUT", path, {"name": "g", **members}).json()

    def make_members(self, count=2):
        """A group and its shares."""
        group = self.make_group()
        shares = [
            self.make_share(group_id=group["id"])["id"] for _ in range(count)
        ]
        return group["id"], sorted(shares)

    def make_group_snapshot(self, share_ids, **members):
        snapshots = {id_: {"id": new_id()} for id_ in share_ids}
        body = {"name": "gs", "snapshots": snapshots, **members}
        path = f"/v1/group-snapshots/{new_id()}"
        return self.expect(201, "PUT", path, body).json()

    def get_group(self, group_id):
        return self.expect(200, "GET", f"/v1/groups/{group_id}").json()


class GroupTest(GroupCase):
    def test_create_twice_is_once(self):
        path = f"/v1/groups/{new_id()}"
        body = {"name": "g", "labels": {"a": "b"}}
        made = self.expect(201, "PUT", path, body).json()
        self.assertEqual(
            ("gold", "available", [], {"a": "b"}, None),
            (
                made["pool"],
                made["state"],
                made["share_ids"],
                made["labels"],
                made["moment"],
            ),
        )
        self.assertEqual(made, self.expect(200, "PUT", path, body).json())
        self.assertEqual(made, self.expect(200, "GET", path).json())
        other = {"name": "other"}
        self.refused("group.exists_mismatch", "PUT", path, other)

    def test_members_join_and_leave(self):
        group_id, shares = self.make_members()
        path = f"/v1/groups/{group_id}"
        self.assertEqual(shares, self.get_group(group_id)["share_ids"])
        query = f"/v1/shares?group_id={group_id}"
        listed = self.expect(200, "GET", query).json()["shares"]
        self.assertEqual(shares, [each["id"] for each in listed])
        self.assertEqual({group_id}, {each["group_id"] for each in listed})
        later = self.make_share()["id"]
        patch = {"add_share_ids": [later], "remove_share_ids": shares[:1]}
        patched = self.expect(200, "PATCH", path, patch).json()
        self.assertEqual(sorted([later, shares[1]]), patched["share_ids"])
        again = self.expect(200, "PATCH", path, patch)
        self.assertEqual(f'"{patched["generation"]}"', again.headers["ETag"])
        left = self.expect(200, "GET", f"/v1/shares/{shares[0]}").json()
        self.assertIsNone(left["group_id"])

    def test_share_is_patched_into_and_out_of_a_group(self):
        group_id, share = self.make_group()["id"], self.make_share()
        path = f"/v1/shares/{share['id']}"
        patch = {"group_id": group_id}
        patched = self.expect(200, "PATCH", path, patch).json()
        self.assertEqual(group_id, patched["group_id"])
        self.assertEqual([share["id"]], self.get_group(group_id)["share_ids"])
        other = {"group_id": self.make_group()["id"]}
        self.refused("share.in_group", "PATCH", path, other)
        patch = {"add_share_ids": [share["id"]]}
        self.refused(
            "share.in_group", "PATCH", f"/v1/groups/{other['group_id']}", patch
        )
        patch = {"group_id": other["group_id"], "size_bytes": 4 << 20}
        self.expect(200, "PATCH", path, {"group_id": None})
        patched = self.expect(200, "PATCH", path, patch).json()
        self.assertEqual(other["group_id"], patched["group_id"])
        self.assertEqual([], self.get_group(group_id)["share_ids"])

    def test_etag_changes_with_the_members(self):
        group_id, shares = self.make_members(1)
        path = f"/v1/groups/{group_id}"
        tag = self.expect(200, "GET", path).headers["ETag"]
        self.expect(304, "GET", path, headers={"If-None-Match": tag})
        for change in (
            lambda: self.make_share(group_id=group_id),
            lambda: self.expect(204, "DELETE", f"/v1/shares/{shares[0]}"),
        ):
            change()
            reply = self.expect(
                200, "GET", path, headers={"If-None-Match": tag}
            )
            self.assertNotEqual(tag, reply.headers["ETag"])
            tag = reply.headers["ETag"]
        old = {"If-Match": '"1"'}
        self.refused("precondition.failed", "DELETE", path, headers=old)
        self.expect(204, "DELETE", path, headers={"If-Match": tag})

    def test_delete_keeps_the_shares(self):
        group_id, shares = self.make_members()
        path = f"/v1/groups/{group_id}"
        self.expect(204, "DELETE", path)
        gone = self.expect(204, "DELETE", path)
        self.assertEqual("true", gone.headers["Was-Absent"])
        self.refused("group.not_found", "GET", path)
        for share_id in shares:
            share = self.expect(200, "GET", f"/v1/shares/{share_id}").json()
            self.assertIsNone(share["group_id"])

    def test_delete_with_the_shares_tells_which_are_left(self):
        group_id, shares = self.make_members(3)
        bystander = self.make_share()["id"]
        access = f"/v1/shares/{shares[1]}/access/cmp-1"
        rule = {"clients": ["192.0.2.51"], "level": "rw"}
        self.expect(201, "PUT", access, rule)
        self.make_snapshot(shares[2])
        path = f"/v1/groups/{group_id}?shares=delete"
        problem = self.refused("group.shares_left", "DELETE", path)
        self.assertEqual(
            {
                f"/shares/{shares[1]}": "share.in_use",
                f"/shares/{shares[2]}": "share.has_snapshots",
            },
            {each["pointer"]: each["code"] for each in problem["errors"]},
        )
        self.assertEqual(shares[1:], self.get_group(group_id)["share_ids"])
        self.refused("share.not_found", "GET", f"/v1/shares/{shares[0]}")
        self.expect(200, "DELETE", access)
        self.expect(204, "DELETE", f"{path}&snapshots=cascade")
        self.refused("group.not_found", "GET", f"/v1/groups/{group_id}")
        self.expect(200, "GET", f"/v1/shares/{bystander}")

    def test_lists(self):
        name = new_id()
        made = sorted(self.make_group(name=name)["id"] for _ in range(3))
        query = f"/v1/groups?name={name}&limit=2"
        page = self.expect(200, "GET", query)
        found = [each["id"] for each in page.json()["groups"]]
        query += f"&marker={page.json()['next_marker']}"
        page = self.expect(200, "GET", query)
        found += [each["id"] for each in page.json()["groups"]]
        self.assertEqual(made, found)

    def test_copies_of_a_group_and_of_a_group_snapshot(self):
        group_id, shares = self.make_members()
        snapshot = self.make_group_snapshot(shares)
        sources = {
            "group": (group_id, shares),
            "group_snapshot": (
                snapshot["id"],
                sorted(snapshot["snapshots"].values()),
            ),
        }
        for type_, (id_, members) in sources.items():
            new = {
                member: {
                    "id": new_id(),
                    "name": "copy",
                    "size_bytes": 2 << 20,
                    "file": {"name": "renamed"},
                    "labels": {"a": "b"},
                }
                for member in members
            }
            body = {
                "name": "copies",
                "source": {"type": type_, "id": id_},
                "shares": new,
            }
            path = f"/v1/groups/{new_id()}"
            made = self.expect(201, "PUT", path, body).json()
            self.assertEqual(made, self.expect(200, "PUT", path, body).json())
            self.assertEqual(
                sorted(each["id"] for each in new.values()),
                made["share_ids"],
            )
            self.assertEqual(type_ == "group", made["moment"] is not None)
            for member, each in new.items():
                share = self.expect(200, "GET", f"/v1/shares/{each['id']}")
                share = share.json()
                kind = "share" if type_ == "group" else "snapshot"
                self.assertEqual(
                    ({"type": kind, "id": member}, 2 << 20, "renamed"),
                    (
                        share["origin"],
                        share["size_bytes"],
                        share["file"]["name"],
                    ),
                )
                self.assertEqual(path.split("/")[-1], share["group_id"])
                query = f"/v1/snapshots?share_id={member}"
                listed = self.expect(200, "GET", query).json()["snapshots"]
                self.assertEqual(
                    {snapshot["id"]} if type_ == "group" else set(),
                    {each["group_snapshot_id"] for each in listed},
                )


class GroupSnapshotTest(GroupCase):
    def test_create_twice_is_once(self):
        group_id, shares = self.make_members()
        bystander = self.make_share()["id"]
        path = f"/v1/group-snapshots/{new_id()}"
        body = {
            "name": "gs",
            "group_id": group_id,
            "labels": {"a": "b"},
            "snapshots": {
                shares[0]: {"id": new_id(), "name": "first"},
                shares[1]: {"id": new_id(), "labels": {"c": "d"}},
            },
        }
        made = self.expect(201, "PUT", path, body).json()
        ids = {key: each["id"] for key, each in body["snapshots"].items()}
        self.assertEqual(ids, made["snapshots"])
        self.assertEqual(
            (group_id, "gold", "available", "engine"),
            (
                made["group_id"],
                made["pool"],
                made["state"],
                made["moment"]["method"],
            ),
        )
        self.assertGreaterEqual(made["moment"]["pause_ms"], 0)
        self.assertEqual(made, self.expect(200, "PUT", path, body).json())
        self.assertEqual(made, self.expect(200, "GET", path).json())
        self.refused(
            "group_snapshot.exists_mismatch",
            "PUT",
            path,
            {**body, "name": "other"},
        )
        query = f"/v1/snapshots?group_snapshot_id={made['id']}"
        listed = self.expect(200, "GET", query).json()["snapshots"]
        self.assertEqual(
            {
                ids[shares[0]]: ("first", {}, shares[0]),
                ids[shares[1]]: ("gs", {"c": "d"}, shares[1]),
            },
            {
                each["id"]: (each["name"], each["labels"], each["share_id"])
                for each in listed
            },
        )
        query = f"/v1/snapshots?share_id={bystander}"
        self.assertEqual(
            [], self.expect(200, "GET", query).json()["snapshots"]
        )
        query = f"/v1/group-snapshots?group_id={group_id}"
        listed = self.expect(200, "GET", query).json()["group_snapshots"]
        self.assertEqual([made], listed)

    def test_its_snapshots_are_ordinary_ones(self):
        _, shares = self.make_members()
        made = self.make_group_snapshot(shares)
        path = f"/v1/group-snapshots/{made['id']}"
        first = made["snapshots"][shares[0]]
        self.expect(204, "DELETE", f"/v1/snapshots/{first}")
        now = self.expect(200, "GET", path).json()
        self.assertEqual({shares[1]}, now["snapshots"].keys())
        self.assertGreater(now["generation"], made["generation"])
        self.expect(204, "DELETE", f"/v1/shares/{shares[1]}?snapshots=cascade")
        now = self.expect(200, "GET", path).json()
        self.assertEqual({}, now["snapshots"])
        self.expect(204, "DELETE", path)

    def test_delete(self):
        _, shares = self.make_members()
        made = self.make_group_snapshot(shares)
        path = f"/v1/group-snapshots/{made['id']}"
        used = made["snapshots"][shares[1]]
        access = f"/v1/snapshots/{used}/access/bak-1"
        rule = {"clients": ["192.0.2.61"], "level": "ro"}
        self.expect(201, "PUT", access, rule)
        problem = self.refused("snapshot.in_use", "DELETE", path)
        self.assertEqual(
            [f"/snapshots/{used}"],
            [each["pointer"] for each in problem["errors"]],
        )
        self.assertEqual(
            2, len(self.expect(200, "GET", path).json()["snapshots"])
        )
        self.expect(200, "DELETE", access)
        self.expect(204, "DELETE", path)
        for snapshot_id in made["snapshots"].values():
            self.refused(
                "snapshot.not_found", "GET", f"/v1/snapshots/{snapshot_id}"
            )
        gone = self.expect(204, "DELETE", path)
        self.assertEqual("true", gone.headers["Was-Absent"])


@ddt.ddt
class HostileTest(GroupCase):
    """What a client must not get away with."""

    options = {"pools": ("gold", "silver")}

    def foreign_share(self):
        path = f"/v1/shares/{new_id()}"
        body = {"name": "theirs", "size_bytes": 1 << 20}
        self.assertEqual(201, self.admin.call("PUT", path, body).status_code)
        return path.split("/")[-1]

    def refuse_snapshot(self, code, snapshots, pointer=None, **members):
        path = f"/v1/group-snapshots/{new_id()}"
        body = {"name": "gs", "snapshots": snapshots, **members}
        problem = self.refused(code, "PUT", path, body)
        if pointer is not None:
            self.assertEqual(
                [pointer], [each["pointer"] for each in problem["errors"]]
            )
        self.refused("group_snapshot.not_found", "GET", path)
        for each in snapshots.values():
            self.refused(
                "snapshot.not_found", "GET", f"/v1/snapshots/{each['id']}"
            )

    def test_members_of_another_namespace(self):
        ours, theirs = self.make_share()["id"], self.foreign_share()
        self.refuse_snapshot(
            "share.not_found",
            {ours: {"id": new_id()}, theirs: {"id": new_id()}},
            f"/snapshots/{theirs}",
        )
        group = f"/v1/groups/{self.make_group()['id']}"
        patch = {"add_share_ids": [theirs]}
        self.refused("share.not_found", "PATCH", group, patch)
        path = f"/v1/groups/{new_id()}"
        self.assertEqual(
            201, self.admin.call("PUT", path, {"name": "x"}).status_code
        )
        self.refused("group.not_found", "GET", path)
        self.refused("group.not_found", "PATCH", path, {"name": "y"})
        self.refused("group.exists_mismatch", "PUT", path, {"name": "x"})
        gone = self.expect(204, "DELETE", f"{path}?shares=delete")
        self.assertEqual("true", gone.headers["Was-Absent"])
        theirs = path.split("/")[-1]
        self.refused(
            "group.not_found",
            "PUT",
            f"/v1/shares/{new_id()}",
            {"name": "v", "size_bytes": 1 << 20, "group_id": theirs},
        )
        self.refused(
            "group.not_found",
            "PATCH",
            f"/v1/shares/{ours}",
            {"group_id": theirs},
        )
        self.refuse_snapshot(
            "group.not_found", {ours: {"id": new_id()}}, group_id=theirs
        )
        body = {
            "name": "copies",
            "source": {"type": "group", "id": theirs},
            "shares": {ours: {"id": new_id(), "name": "c"}},
        }
        self.refused("group.not_found", "PUT", f"/v1/groups/{new_id()}", body)
        self.assertEqual(200, self.admin.call("GET", path).status_code)

    def test_admin_mixes_no_namespaces(self):
        ours, theirs = self.make_share()["id"], self.foreign_share()
        body = {
            "name": "gs",
            "snapshots": {id_: {"id": new_id()} for id_ in (ours, theirs)},
        }
        self.refused(
            "share.not_found",
            "PUT",
            f"/v1/group-snapshots/{new_id()}",
            body,
            client=self.admin,
        )
        patch = {"add_share_ids": [theirs]}
        group = f"/v1/groups/{self.make_group()['id']}"
        self.refused(
            "share.not_found", "PATCH", group, patch, client=self.admin
        )

    def test_two_pools(self):
        gold = self.make_share()["id"]
        silver = self.make_share(pool="silver")["id"]
        self.refuse_snapshot(
            "group.other_pool",
            {gold: {"id": new_id()}, silver: {"id": new_id()}},
        )
        group = self.make_group()["id"]
        path = f"/v1/groups/{group}"
        patch = {"add_share_ids": [gold, silver]}
        self.refused("group.other_pool", "PATCH", path, patch)
        self.assertEqual([], self.get_group(group)["share_ids"])
        patch = {"group_id": group}
        self.refused(
            "group.other_pool", "PATCH", f"/v1/shares/{silver}", patch
        )
        body = {"name": "v", "size_bytes": 1 << 20, "pool": "silver"}
        self.refused(
            "group.other_pool",
            "PUT",
            f"/v1/shares/{new_id()}",
            {**body, "group_id": group},
        )

    def test_ids_twice_or_taken(self):
        group, shares = self.make_members()
        same = new_id()
        self.refuse_snapshot(
            "request.invalid", {id_: {"id": same} for id_ in shares}
        )
        taken = self.make_snapshot(shares[0])["id"]
        path = f"/v1/group-snapshots/{new_id()}"
        body = {
            "name": "gs",
            "snapshots": {
                shares[0]: {"id": new_id()},
                shares[1]: {"id": taken},
            },
        }
        self.refused("snapshot.exists_mismatch", "PUT", path, body)
        patch = {
            "add_share_ids": shares[:1],
            "remove_share_ids": shares[:1],
        }
        self.refused("request.invalid", "PATCH", f"/v1/groups/{group}", patch)
        source = {"type": "group", "id": group}
        for code, ids in (
            ("request.invalid", [same, same]),
            ("share.exists_mismatch", [same, shares[0]]),
        ):
            new = {
                share_id: {"id": id_, "name": "copy"}
                for share_id, id_ in zip(shares, ids, strict=True)
            }
            body = {"name": "copies", "source": source, "shares": new}
            path = f"/v1/groups/{new_id()}"
            self.refused(code, "PUT", path, body)
            self.refused("group.not_found", "GET", path)
        self.refused("share.not_found", "GET", f"/v1/shares/{same}")

    @ddt.data(0, 101)
    def test_number_of_snapshots(self, count):
        snapshots = {new_id(): {"id": new_id()} for _ in range(count)}
        self.refuse_snapshot("request.invalid", snapshots)

    def test_share_twice_in_the_text(self):
        share_id = self.make_share()["id"]
        member = f'"{share_id}": {{"id": "{new_id()}"}}'
        reply = self.client.session.put(
            f"{self.appliance.url}/v1/group-snapshots/{new_id()}",
            data=f'{{"name": "gs", "snapshots": {{{member}, {member}}}}}',
            headers={"Content-Type": "application/json"},
            timeout=60,
        )
        self.assertEqual("request.bad_json", reply.json()["code"])

    def test_share_that_is_not_in_the_group(self):
        group, shares = self.make_members(1)
        other = self.make_share()["id"]
        self.refuse_snapshot(
            "share.in_group",
            {id_: {"id": new_id()} for id_ in (*shares, other)},
            f"/snapshots/{other}",
            group_id=group,
        )
        body = {
            "name": "copies",
            "source": {"type": "group", "id": group},
            "shares": {other: {"id": new_id(), "name": "copy"}},
        }
        self.refused("share.not_found", "PUT", f"/v1/groups/{new_id()}", body)
        del body["shares"]
        self.refused("request.invalid", "PUT", f"/v1/groups/{new_id()}", body)

    def test_more_shares_than_a_group_may_have(self):
        limits = self.expect(200, "GET", "/v1/system").json()["limits"]
        self.assertEqual(100, limits["max_shares_per_group"])
        group, _ = self.make_members(2)
        ids = [self.make_share()["id"] for _ in range(98)]
        patch = {"add_share_ids": ids}
        path = f"/v1/groups/{group}"
        self.expect(200, "PATCH", path, patch)
        body = {"name": "v", "size_bytes": 1 << 20, "group_id": group}
        self.refused(
            "limit.group_shares", "PUT", f"/v1/shares/{new_id()}", body
        )
        other = self.make_share()["id"]
        patch = {"add_share_ids": [other]}
        self.refused("limit.group_shares", "PATCH", path, patch)
        patch = {"group_id": group}
        self.refused(
            "limit.group_shares", "PATCH", f"/v1/shares/{other}", patch
        )
        members = self.get_group(group)["share_ids"]
        self.assertEqual(100, len(members))
        made = self.make_group_snapshot(members, group_id=group)
        self.assertEqual(100, len(made["snapshots"]))
        self.expect(204, "DELETE", f"/v1/group-snapshots/{made['id']}")
        self.expect(204, "DELETE", f"{path}?shares=delete")
