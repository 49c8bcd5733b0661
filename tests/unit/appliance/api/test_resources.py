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

"""Every operation over real HTTPS; every reply is held to the contract."""

import threading
import uuid

import ddt
import yaml

from acme_appliance import references
from acme_appliance.api import contract
from tests.unit.appliance.api import base


class AboutTest(base.ApiCase):
    def test_versions_are_for_everybody(self):
        reply = self.anybody.call("GET", "/")
        self.assertEqual("v1", reply.json()["versions"][0]["id"])

    def test_liveness_and_readiness(self):
        self.assertEqual(200, self.anybody.call("GET", "/healthz").status_code)
        reply = self.anybody.call("GET", "/readyz")
        self.assertEqual(
            {"ready": True, "reasons": [], "warnings": []}, reply.json()
        )

    def test_not_ready_says_why(self):
        engine = self.appliance.engines["gold"]
        self.addCleanup(engine.reasons.clear)
        engine.reasons.append("it is not mounted")
        reply = self.anybody.call("GET", "/readyz")
        self.assertEqual(503, reply.status_code)
        self.assertIn("it is not mounted", reply.json()["reasons"][0])
        system = self.expect(200, "GET", "/v1/system").json()
        self.assertEqual("degraded", system["health"])

    def test_the_contract_itself(self):
        reply = self.anybody.call("GET", "/v1/openapi.yaml")
        self.assertEqual(contract.load().document, yaml.safe_load(reply.text))
        again = self.anybody.call(
            "GET",
            "/v1/openapi.yaml",
            headers={"If-None-Match": reply.headers["ETag"]},
        )
        self.assertEqual(304, again.status_code)

    def test_system_and_pools(self):
        system = self.expect(200, "GET", "/v1/system").json()
        self.assertIn("share.volume_file", system["features"])
        pools = self.expect(200, "GET", "/v1/pools").json()["pools"]
        self.assertEqual(
            pools[0], self.expect(200, "GET", "/v1/pools/gold").json()
        )
        self.refused("pool.not_found", "GET", "/v1/pools/lead")

    def test_stats_are_not_sent_twice(self):
        first = self.expect(200, "GET", "/v1/stats")
        tag = {"If-None-Match": first.headers["ETag"]}
        self.expect(304, "GET", "/v1/stats", headers=tag)
        self.make_share()
        again = self.expect(200, "GET", "/v1/stats", headers=tag)
        self.assertEqual(
            1 << 20,
            again.json()["pools"][0]["provisioned_bytes"]
            - first.json()["pools"][0]["provisioned_bytes"],
        )

    def test_head_is_get_without_a_body(self):
        share = self.make_share()
        reply = self.expect(200, "HEAD", f"/v1/shares/{share['id']}")
        self.assertEqual(f'"{share["generation"]}"', reply.headers["ETag"])
        self.assertGreater(int(reply.headers["Content-Length"]), 100)


@ddt.ddt
class ShareTest(base.ApiCase):
    def test_create_twice_is_once(self):
        path = f"/v1/shares/{uuid.uuid4()}"
        body = {"name": "v", "size_bytes": 1 << 20, "labels": {"a": "b"}}
        made = self.expect(201, "PUT", path, body).json()
        self.assertEqual(made, self.expect(200, "PUT", path, body).json())
        self.assertEqual(made, self.expect(200, "GET", path).json())
        other = {**body, "size_bytes": 2 << 20}
        self.refused("share.exists_mismatch", "PUT", path, other)
        self.assertEqual({}, made["access"])

    def test_from_a_share_and_from_a_snapshot_larger(self):
        share = self.make_share()
        snapshot = self.make_snapshot(share["id"])
        for type_, id_ in (
            ("share", share["id"]),
            ("snapshot", snapshot["id"]),
        ):
            body = {
                "name": "clone",
                "size_bytes": 2 << 20,
                "source": {"type": type_, "id": id_},
                "file": {"name": "renamed"},
            }
            path = f"/v1/shares/{uuid.uuid4()}"
            clone = self.expect(201, "PUT", path, body).json()
            self.assertEqual({"type": type_, "id": id_}, clone["origin"])
            self.assertEqual(2 << 20, clone["size_bytes"])
            self.assertEqual("renamed", clone["file"]["name"])

    def test_patch(self):
        path = f"/v1/shares/{self.make_share(labels={'a': '1'})['id']}"
        merge = {"Content-Type": "application/merge-patch+json"}
        patch = {"size_bytes": 3 << 20, "labels": {"a": None, "b": "2"}}
        share = self.expect(200, "PATCH", path, patch, headers=merge).json()
        self.assertEqual(3 << 20, share["size_bytes"])
        self.assertEqual({"b": "2"}, share["labels"])
        again = self.expect(200, "PATCH", path, patch)
        self.assertEqual(f'"{share["generation"]}"', again.headers["ETag"])
        self.refused("share.shrink_refused", "PATCH", path, {"size_bytes": 1})

    def test_generations_guard_changes(self):
        share = self.make_share()
        path = f"/v1/shares/{share['id']}"
        old = {"If-Match": f'"{share["generation"]}"'}
        patched = self.expect(200, "PATCH", path, {"name": "new"}, headers=old)
        tag = patched.headers["ETag"]
        self.refused(
            "precondition.failed", "PATCH", path, {"name": "x"}, headers=old
        )
        self.refused("precondition.failed", "DELETE", path, headers=old)
        self.refused(
            "request.invalid", "DELETE", path, headers={"If-Match": "1"}
        )
        self.expect(304, "GET", path, headers={"If-None-Match": tag})
        self.expect(204, "DELETE", path, headers={"If-Match": tag})

    def test_delete(self):
        share = self.make_share()
        path = f"/v1/shares/{share['id']}"
        snapshot = self.make_snapshot(share["id"])
        self.refused("share.has_snapshots", "DELETE", path)
        gone = self.expect(204, "DELETE", f"{path}?snapshots=cascade")
        self.assertNotIn("Was-Absent", gone.headers)
        gone = self.expect(204, "DELETE", path)
        self.assertEqual("true", gone.headers["Was-Absent"])
        self.refused("share.not_found", "GET", path)
        self.refused(
            "snapshot.not_found", "GET", f"/v1/snapshots/{snapshot['id']}"
        )

    def test_pages_and_filters(self):
        label = {"test": uuid.uuid4().hex}
        made = {self.make_share(labels=label)["id"] for _ in range(5)}
        self.make_share()
        query = f"?label.test={label['test']}&limit=2"
        found, pages, path = [], 0, f"/v1/shares{query}"
        while path:
            reply = self.expect(200, "GET", path)
            found += [share["id"] for share in reply.json()["shares"]]
            pages += 1
            link = reply.links.get("next", {}).get("url")
            self.assertEqual(link is None, reply.json()["next_marker"] is None)
            path = link
        self.assertEqual((sorted(made), 3), (found, pages))
        self.refused("request.invalid", "GET", "/v1/shares?marker=nonsense~~")
        for query in ("name=volume", "pool=gold", "state=available"):
            shares = self.expect(200, "GET", f"/v1/shares?{query}").json()
            self.assertGreaterEqual(len(shares["shares"]), 6)
        for query in ("name=x", "pool=x", "state=error", "label.test=x"):
            shares = self.expect(200, "GET", f"/v1/shares?{query}").json()
            self.assertEqual([], shares["shares"])

    @ddt.data("NOT-A-UUID", "0", "%00", "%ff", "%0a", "x" * 3000)
    def test_ids_that_are_none(self, share_id):
        for method in ("GET", "DELETE"):
            problem = self.refused(
                "request.invalid", method, f"/v1/shares/{share_id}"
            )
            self.assertEqual("/path/share_id", problem["errors"][0]["pointer"])

    def test_another_namespace_sees_nothing(self):
        share = self.make_share()
        path = f"/v1/shares/{share['id']}"
        snapshot = self.make_snapshot(share["id"])
        stranger = self.client_of(
            self.appliance.make_token("driver", "cinder-b")
        )
        self.refused("share.not_found", "GET", path, client=stranger)
        self.refused(
            "snapshot.not_found",
            "GET",
            f"/v1/snapshots/{snapshot['id']}",
            client=stranger,
        )
        body = {"name": "volume", "size_bytes": 1 << 20}
        self.refused(
            "share.exists_mismatch", "PUT", path, body, client=stranger
        )
        self.assertEqual(204, stranger.call("DELETE", path).status_code)
        self.assertEqual(share, self.expect(200, "GET", path).json())
        self.assertEqual(
            [], stranger.call("GET", "/v1/shares").json()["shares"]
        )
        self.assertEqual(
            [], stranger.call("GET", "/v1/events").json()["events"]
        )
        seen = self.admin.call("GET", path).json()
        self.assertEqual("cinder-a", seen["namespace"])


class AccessTest(base.ApiCase):
    def test_a_rule_from_grant_to_revoke(self):
        share = self.make_share()
        path = f"/v1/shares/{share['id']}/access/cmp-1"
        self.refused("access.not_found", "GET", path)
        body = {"clients": ["192.0.2.51"], "level": "rw"}
        rule = self.expect(201, "PUT", path, body).json()
        self.assertEqual(share["export_locations"], rule["export_locations"])
        self.assertEqual(rule, self.expect(200, "PUT", path, body).json())
        self.assertEqual(rule, self.expect(200, "GET", path).json())
        seen = self.expect(200, "GET", f"/v1/shares/{share['id']}").json()
        self.assertEqual({"cmp-1": body}, seen["access"])
        self.assertEqual(
            {references.share(share["id"]): {"192.0.2.51": "rw"}},
            self.appliance.exporter.exported(),
        )
        self.refused("share.in_use", "DELETE", f"/v1/shares/{share['id']}")
        for _ in range(2):
            left = self.expect(200, "DELETE", path).json()
            self.assertEqual({"share_id": share["id"], "access": {}}, left)
        self.assertEqual({}, self.appliance.exporter.exported())

    def test_a_rule_of_a_snapshot_from_grant_to_revoke(self):
        snapshot = self.make_snapshot(self.make_share()["id"])
        of_snapshot = f"/v1/snapshots/{snapshot['id']}"
        path = f"{of_snapshot}/access/cinder:bak-1"
        self.refused("access.not_found", "GET", path)
        body = {"clients": ["192.0.2.61"], "level": "ro"}
        problem = self.refused(
            "request.invalid", "PUT", path, {**body, "level": "rw"}
        )
        self.assertEqual("/level", problem["errors"][0]["pointer"])
        self.assertIn("ro", problem["errors"][0]["detail"])
        rule = self.expect(201, "PUT", path, body).json()
        self.assertIn(
            f"/snapshots/{snapshot['id']}", rule["export_locations"][0]["path"]
        )
        self.assertEqual(rule, self.expect(200, "PUT", path, body).json())
        self.assertEqual(rule, self.expect(200, "GET", path).json())
        seen = self.expect(200, "GET", of_snapshot).json()
        self.assertEqual({"cinder:bak-1": body}, seen["access"])
        self.refused("snapshot.in_use", "DELETE", of_snapshot)
        for _ in range(2):
            left = self.expect(200, "DELETE", path).json()
            self.assertEqual(
                {"snapshot_id": snapshot["id"], "access": {}}, left
            )
        self.assertEqual({}, self.appliance.exporter.exported())
        self.expect(204, "DELETE", of_snapshot)
        self.expect(204, "DELETE", path)

    def test_bad_clients_are_pointed_at(self):
        path = f"/v1/shares/{self.make_share()['id']}/access/cmp-1"
        for client in ("0.0.0.0/0", "::/0", "1.2.3", "192.0.2.1/24"):
            body = {"clients": ["192.0.2.5", client], "level": "ro"}
            problem = self.refused("request.invalid", "PUT", path, body)
            self.assertEqual(
                "/clients/1", problem["errors"][0]["pointer"], client
            )

    def test_holders_of_an_absent_share(self):
        path = f"/v1/shares/{uuid.uuid4()}/access/cmp-1"
        body = {"clients": ["192.0.2.51"], "level": "rw"}
        self.refused("share.not_found", "PUT", path, body)
        self.expect(204, "DELETE", path)
        self.refused("share.not_found", "GET", path)
        self.expect(204, "DELETE", path)


class SnapshotTest(base.ApiCase):
    def test_a_snapshot_from_put_to_delete(self):
        share = self.make_share()
        path = f"/v1/snapshots/{uuid.uuid4()}"
        body = {"share_id": share["id"], "name": "s", "labels": {"a": "b"}}
        made = self.expect(201, "PUT", path, body).json()
        self.assertEqual(made, self.expect(200, "PUT", path, body).json())
        self.assertEqual(made, self.expect(200, "GET", path).json())
        self.refused(
            "snapshot.exists_mismatch", "PUT", path, {**body, "name": "t"}
        )
        listed = self.expect(
            200, "GET", f"/v1/snapshots?share_id={share['id']}"
        ).json()
        self.assertEqual([made], listed["snapshots"])
        self.refused("request.unknown_field", "GET", "/v1/snapshots?label.a=b")
        patched = self.expect(200, "PATCH", path, {"name": "t"}).json()
        self.assertEqual("t", patched["name"])
        self.assertGreater(patched["generation"], made["generation"])
        gone = self.expect(204, "DELETE", path)
        self.assertNotIn("Was-Absent", gone.headers)
        gone = self.expect(204, "DELETE", path)
        self.assertEqual("true", gone.headers["Was-Absent"])
        self.refused("snapshot.not_found", "GET", path)

    def test_a_revert_and_the_same_again(self):
        share = self.make_share()
        snapshot_id = str(uuid.uuid4())
        self.expect(
            201,
            "PUT",
            f"/v1/snapshots/{snapshot_id}",
            {"share_id": share["id"], "name": "s"},
        )
        path = f"/v1/shares/{share['id']}/reverts/{uuid.uuid4()}"
        body = {"snapshot_id": snapshot_id}
        made = self.expect(201, "PUT", path, body)
        self.assertEqual(share["id"], made.json()["id"])
        self.assertGreater(made.json()["generation"], share["generation"])
        again = self.expect(200, "PUT", path, body)
        self.assertEqual(made.json(), again.json())
        self.assertEqual(made.headers["ETag"], again.headers["ETag"])
        self.refused("request.invalid", "PUT", path, {})
        self.refused("request.unknown_field", "PUT", path, {**body, "x": 1})
        self.refused("request.invalid", "PUT", f"{path}x", body)

    def test_of_an_absent_share(self):
        body = {"share_id": str(uuid.uuid4()), "name": "s"}
        path = f"/v1/snapshots/{uuid.uuid4()}"
        self.refused("share.not_found", "PUT", path, body)


class JobTest(base.ApiCase):
    def test_jobs_are_listed_read_and_too_late_to_cancel(self):
        share = self.make_share()
        jobs = self.expect(
            200, "GET", f"/v1/jobs?share_id={share['id']}&state=succeeded"
        ).json()["jobs"]
        self.assertEqual(["share.create"], [job["kind"] for job in jobs])
        path = f"/v1/jobs/{jobs[0]['id']}"
        self.assertEqual(jobs[0], self.expect(200, "GET", path).json())
        self.refused("job.not_cancellable", "POST", f"{path}/cancel")
        absent = f"/v1/jobs/{uuid.uuid4()}"
        self.refused("job.not_found", "GET", absent)
        self.refused("job.not_found", "POST", f"{absent}/cancel")

    def test_events_in_order_and_waited_for(self):
        share = self.make_share()
        found = self.expect(200, "GET", "/v1/events?limit=1000").json()
        self.assertEqual(share["id"], found["events"][-1]["share_id"])
        after = found["next_after"]
        self.assertEqual(
            {"events": [], "next_after": after},
            self.expect(200, "GET", f"/v1/events?after={after}").json(),
        )
        self.expect(204, "DELETE", f"/v1/shares/{share['id']}")
        more = self.expect(
            200, "GET", f"/v1/events?after={after}&wait=30"
        ).json()
        self.assertGreater(more["events"][0]["seq"], after)


class QueuedJobTest(base.ApiCase):
    """One worker, whose steps wait until they are let go."""

    go = threading.Event()
    options = {"workers": 1, "on_step": lambda job, step: _wait(job, step)}

    def setUp(self) -> None:
        super().setUp()
        self.go.clear()
        self.addCleanup(self.go.set)

    def start(self) -> tuple[str, dict[str, object]]:
        path = f"/v1/shares/{uuid.uuid4()}"
        body = {"name": "v", "size_bytes": 1 << 20}
        reply = self.expect(
            202, "PUT", path, body, headers={"Prefer": "respond-async"}
        )
        self.assertEqual(
            f"/v1/jobs/{reply.json()['id']}", reply.headers["Location"]
        )
        return path, reply.json()

    def test_what_is_not_waited_for_is_a_job_that_can_be(self):
        path, job = self.start()
        at = f"/v1/jobs/{job['id']}"
        self.assertIn(job["state"], ("queued", "running"))
        self.assertEqual(
            "creating", self.expect(200, "GET", path).json()["state"]
        )
        self.refused(
            "share.busy", "DELETE", path, headers={"Prefer": "wait=0"}
        )
        self.assertIsNone(
            self.expect(200, "GET", f"{at}?wait=1").json()["finished_at"]
        )
        self.go.set()
        self.assertEqual(
            "succeeded",
            self.expect(200, "GET", f"{at}?wait=30").json()["state"],
        )
        self.expect(200, "GET", path)

    def test_a_job_that_has_not_begun_can_be_cancelled(self):
        self.start()
        path, job = self.start()
        at = f"/v1/jobs/{job['id']}"
        cancelled = self.expect(200, "POST", f"{at}/cancel").json()
        self.assertEqual("cancelled", cancelled["state"])
        self.refused("share.not_found", "GET", path)
        self.expect(200, "POST", f"{at}/cancel")


def _wait(job: str, step: str) -> None:
    # The intent is written by the one who asks: only the work is to wait.
    if step.startswith("intent"):
        return
    if not QueuedJobTest.go.wait(60):
        raise TimeoutError(f"nobody let {job} go on at {step}")


class MinimalApplianceTest(base.ApiCase):
    """Without the feature share.volume_file."""

    options = {"volume_file": False}

    def test_files_are_unknown(self):
        share = self.make_share()
        self.assertIsNone(share["file"])
        system = self.expect(200, "GET", "/v1/system").json()
        self.assertEqual(
            ["share.qos_bandwidth", "share.qos_iops"], system["features"]
        )
        body = {"name": "v", "size_bytes": 1 << 20, "file": {"name": "f"}}
        problem = self.refused(
            "request.unknown_field", "PUT", f"/v1/shares/{uuid.uuid4()}", body
        )
        self.assertEqual("/file", problem["errors"][0]["pointer"])


class StartingTest(base.ApiCase):
    options = {"start_service": False}

    def test_reads_are_served_and_changes_are_not_yet(self):
        reply = self.anybody.call("GET", "/readyz")
        self.assertEqual(503, reply.status_code)
        self.expect(200, "GET", "/v1/shares")
        path = f"/v1/shares/{uuid.uuid4()}"
        body = {"name": "v", "size_bytes": 1 << 20}
        reply = self.client.call("PUT", path, body)
        self.assertEqual("system.starting", reply.json()["code"])
        self.assertEqual("1", reply.headers["Retry-After"])
        self.appliance.service.start()
        self.expect(201, "PUT", path, body)
