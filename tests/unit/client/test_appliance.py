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

"""The client against the real appliance, over HTTPS, faults at the edge."""

import threading
import uuid

import ddt

from acme_appliance.engines import base as engines
import acme_client
from acme_client import calls
from acme_client import messages
from acme_client import requester
from acme_client import transport
from tests.harness import inprocess
from tests.harness import transports
from tests.unit.client import base

GIB = 1 << 30


def new_id() -> str:
    return str(uuid.uuid4())


class ApplianceTestCase(base.ClientTestCase):
    options: dict = {}

    def setUp(self):
        super().setUp()
        self.appliance = inprocess.RunningAppliance(**self.options)
        self.addCleanup(self.appliance.stop)
        self.appliance.start()
        self.api = self.connect()

    def connect(self, *faults, **kwargs):
        kwargs.setdefault(
            "credentials", acme_client.BearerToken(self.appliance.token)
        )
        return self.client(
            self.appliance.url,
            faults=faults,
            verify=self.appliance.ca_file,
            **kwargs,
        )

    def share(self, **kwargs):
        share_id = kwargs.pop("share_id", None) or new_id()
        kwargs.setdefault("name", f"volume-{share_id}")
        if "source" not in kwargs:
            kwargs.setdefault("size_bytes", GIB)
        return self.api.create_share(share_id, **kwargs)

    def counted(self):
        """Requests since the last look."""
        counts = dict(self.log.counts)
        self.log.clear()
        return counts


class LifeTest(ApplianceTestCase):
    """Every call, and the number of requests that it takes."""

    def test_own_token(self):
        token = self.api.get_own_token()
        self.assertEqual(
            ("driver", "cinder-a"), (token.scope, token.namespace)
        )
        self.assertIsNone(token.expires_at)
        self.assertEqual({"GET /v1/tokens/self": 1}, self.counted())

    def test_stats_and_pools(self):
        stats = self.api.get_stats()
        self.assertEqual(stats, self.api.get_stats())
        self.assertEqual(
            [200, 304], [one.status for one in self.appliance.requests]
        )
        self.share()
        (pool,) = self.api.get_stats().pools
        self.assertEqual(1, pool.share_count)
        self.assertEqual(GIB, pool.provisioned_bytes)
        self.assertEqual((pool.name,), ("gold",))

    def test_share(self):
        share_id = new_id()
        made = self.share(
            share_id=share_id,
            name="volume-x",
            file=acme_client.VolumeFileSpec(
                name="volume-x", allocation="sparse"
            ),
            labels={"cinder.volume_id": "7"},
        )
        self.assertEqual({"PUT /v1/shares/{id}": 1}, self.counted())
        self.assertEqual("available", made.state)
        self.assertEqual("volume-x", made.file.name)
        self.assertEqual({}, made.access)
        self.assertEqual("7", made.labels["cinder.volume_id"])
        self.assertEqual(inprocess.NAMESPACE, made.namespace)
        self.assertEqual(inprocess.PORTAL, made.export_locations[0].address)
        self.assertIsNotNone(made.created_at.tzinfo)
        self.assertEqual(made, self.api.get_share(share_id))
        self.assertEqual(made, self.api.find_share(share_id))
        self.counted()

        grown = self.api.update_share(
            share_id,
            size_bytes=2 * GIB,
            file_name="volume-y",
            labels={"cinder.volume_id": None, "a": "b"},
            if_match=made.generation,
        )
        self.assertEqual({"PATCH /v1/shares/{id}": 1}, self.counted())
        self.assertEqual(2 * GIB, grown.size_bytes)
        self.assertEqual("volume-y", grown.file.name)
        self.assertEqual({"a": "b"}, grown.labels)
        self.assertGreater(grown.generation, made.generation)
        with self.assertRaises(acme_client.PreconditionFailed):
            self.api.update_share(share_id, name="z", if_match=made.generation)
        with self.assertRaises(acme_client.ShrinkRefused):
            self.api.update_share(share_id, size_bytes=GIB)
        self.counted()

        self.api.delete_share(share_id)
        self.assertEqual({"DELETE /v1/shares/{id}": 1}, self.counted())
        self.api.delete_share(share_id)
        self.assertIsNone(self.api.find_share(share_id))

    def test_same_create_again_and_another_one(self):
        made = self.share(name="a")
        self.assertEqual(made, self.share(share_id=made.id, name="a"))
        with self.assertRaises(acme_client.AlreadyExists) as caught:
            self.share(share_id=made.id, name="b")
        self.assertEqual("share.exists_mismatch", caught.exception.code)

    def test_access(self):
        share = self.share()
        self.counted()
        rule = self.api.grant_access(share.id, "cmp-1", ["192.0.2.51"], "rw")
        self.assertEqual(
            {"PUT /v1/shares/{id}/access/cmp-1": 1}, self.counted()
        )
        self.assertEqual("cmp-1", rule.holder)
        self.assertEqual(("192.0.2.51",), rule.clients)
        self.assertEqual(share.export_locations, rule.export_locations)
        self.assertEqual(self.api.get_share(share.id).access, rule.access)
        listed = rule.access["cmp-1"]
        self.assertEqual(rule.clients, listed.clients)
        with self.assertRaises(acme_client.InUse):
            self.api.delete_share(share.id)
        self.counted()
        self.api.grant_access(share.id, "cmp-2", ["192.0.2.52"], "ro")
        self.counted()
        left = self.api.revoke_access(share.id, "cmp-1")
        self.assertEqual(
            {"DELETE /v1/shares/{id}/access/cmp-1": 1}, self.counted()
        )
        self.assertEqual(["cmp-2"], list(left))
        self.assertEqual("ro", left["cmp-2"].level)
        self.assertEqual(left, self.api.revoke_access(share.id, "cmp-1"))
        self.assertEqual({}, self.api.revoke_access(share.id, "cmp-2"))
        self.api.delete_share(share.id)
        self.assertIsNone(self.api.revoke_access(share.id, "cmp-1"))

    def test_snapshot_that_is_read(self):
        share = self.share()
        snapshot_id = new_id()
        self.api.create_snapshot(snapshot_id, share.id)
        self.counted()
        rule = self.api.grant_snapshot_access(
            snapshot_id, "bak-1", ["192.0.2.61"]
        )
        self.assertEqual(
            {"PUT /v1/snapshots/{id}/access/bak-1": 1}, self.counted()
        )
        self.assertEqual(("ro", share.file), (rule.level, rule.file))
        found = self.api.get_snapshot(snapshot_id)
        self.assertEqual(rule.export_locations, found.export_locations)
        self.assertEqual({"bak-1"}, found.access.keys())
        self.assertEqual(
            [found],
            [s for s in self.api.list_snapshots() if s.id == snapshot_id],
        )
        with self.assertRaises(acme_client.InUse):
            self.api.delete_snapshot(snapshot_id)
        for _ in range(2):
            left = self.api.revoke_snapshot_access(snapshot_id, "bak-1")
            self.assertEqual({}, left)
        self.assertTrue(self.api.delete_snapshot(snapshot_id))
        self.assertIsNone(self.api.find_snapshot(snapshot_id))
        self.assertIsNone(
            self.api.revoke_snapshot_access(snapshot_id, "bak-1")
        )
        self.api.delete_share(share.id)

    def test_snapshots_and_clones(self):
        share = self.share()
        self.counted()
        snapshot_id = new_id()
        made = self.api.create_snapshot(snapshot_id, share.id, name="s")
        self.assertEqual({"PUT /v1/snapshots/{id}": 1}, self.counted())
        self.assertEqual(
            (share.id, GIB, "s"), (made.share_id, made.size_bytes, made.name)
        )
        again = self.api.create_snapshot(snapshot_id, share.id, name="s")
        self.assertEqual(made, again)
        self.counted()
        self.assertEqual(made, self.api.get_snapshot(snapshot_id))
        self.assertEqual({"GET /v1/snapshots/{id}": 1}, self.counted())
        self.assertEqual([made], list(self.api.list_snapshots(name="s")))
        self.assertEqual({"GET /v1/snapshots": 1}, self.counted())
        self.assertEqual(
            [made], list(self.api.list_snapshots(share_id=share.id))
        )
        self.assertEqual([], list(self.api.list_snapshots(state="error")))
        self.counted()
        renamed = self.api.update_snapshot(
            snapshot_id,
            name="t",
            labels={"a": "b"},
            if_match=made.generation,
        )
        self.assertEqual({"PATCH /v1/snapshots/{id}": 1}, self.counted())
        self.assertEqual(("t", {"a": "b"}), (renamed.name, renamed.labels))
        with self.assertRaises(acme_client.PreconditionFailed):
            self.api.update_snapshot(
                snapshot_id, name="u", if_match=made.generation
            )
        with self.assertRaises(acme_client.HasSnapshots):
            self.api.delete_share(share.id)
        self.counted()
        for source in (
            acme_client.Source("snapshot", snapshot_id),
            acme_client.Source("share", share.id),
        ):
            clone = self.share(source=source, size_bytes=3 * GIB)
            self.assertEqual({"PUT /v1/shares/{id}": 1}, self.counted())
            self.assertEqual(source, clone.origin)
            self.assertEqual(3 * GIB, clone.size_bytes)
        self.api.delete_snapshot(snapshot_id)
        self.assertEqual({"DELETE /v1/snapshots/{id}": 1}, self.counted())
        self.api.delete_snapshot(snapshot_id)
        self.api.delete_share(share.id)
        with self.assertRaises(acme_client.NotFound) as caught:
            self.api.create_snapshot(new_id(), share.id)
        self.assertEqual("share.not_found", caught.exception.code)

    def test_list_with_filters(self):
        shares = [
            self.share(name=f"v{number % 2}", labels={"odd": str(number % 2)})
            for number in range(5)
        ]
        self.counted()
        listed = list(self.api.list_shares())
        self.assertEqual({"GET /v1/shares": 1}, self.counted())
        self.assertEqual(
            sorted(share.id for share in shares),
            [share.id for share in listed],
        )
        self.assertEqual(2, len(list(self.api.list_shares(name="v1"))))
        odd = self.api.list_shares(labels={"odd": "1"}, state="available")
        self.assertEqual(2, len(list(odd)))
        self.assertEqual([], list(self.api.list_shares(origin_id=new_id())))
        self.api.grant_access(shares[3].id, "host:a", ["192.0.2.1"], "rw")
        self.api.grant_access(shares[1].id, "host:b", ["192.0.2.2"], "rw")
        (found,) = self.api.list_shares(holder="host:a")
        self.assertEqual(shares[3].id, found.id)
        self.assertEqual([], list(self.api.list_shares(holder="host:c")))

    def test_pages(self):
        shares = {self.share().id for _ in range(5)}
        self.addCleanup(setattr, calls, "PAGE_LIMIT", calls.PAGE_LIMIT)
        calls.PAGE_LIMIT = 2
        self.counted()
        listed = [share.id for share in self.api.list_shares()]
        self.assertEqual({"GET /v1/shares": 3}, self.counted())
        self.assertEqual(shares, set(listed))
        self.assertEqual(5, len(listed))
        snapshots = {new_id() for _ in range(3)}
        for snapshot_id in snapshots:
            self.api.create_snapshot(snapshot_id, listed[0])
        self.counted()
        found = [each.id for each in self.api.list_snapshots()]
        self.assertEqual({"GET /v1/snapshots": 2}, self.counted())
        self.assertEqual(sorted(snapshots), found)

    def test_request_id_arrives(self):
        api = self.connect(request_id=lambda: "req-of-cinder")
        api.create_share(new_id(), name="n", size_bytes=GIB)
        events = api._calls.read(messages.get("/v1/events"), dict)["events"]
        self.assertEqual("req-of-cinder", events[-1]["request_id"])
        with self.assertRaises(acme_client.NotFound) as caught:
            api.get_share(new_id())
        self.assertEqual("req-of-cinder", caught.exception.request_id)

    def test_refusals(self):
        with self.assertRaises(acme_client.BadRequest) as caught:
            self.share(name="x" * 300)
        self.assertEqual("/name", caught.exception.errors[0].pointer)
        with self.assertRaises(acme_client.NotFound) as caught:
            self.share(source=acme_client.Source("snapshot", new_id()))
        self.assertEqual("snapshot.not_found", caught.exception.code)
        with self.assertRaises(acme_client.BadRequest):
            self.api.get_share("no-uuid")
        stranger = self.connect(
            credentials=acme_client.BearerToken(
                self.appliance.make_token("driver", "cinder-b")
            )
        )
        share = self.share()
        self.assertIsNone(stranger.find_share(share.id))
        metrics = self.connect(
            credentials=acme_client.BearerToken(
                self.appliance.make_token("metrics")
            )
        )
        with self.assertRaises(acme_client.Forbidden):
            metrics.get_share(share.id)
        nobody = self.connect(credentials=acme_client.BearerToken("acme_x"))
        with self.assertRaises(acme_client.AuthenticationFailed):
            nobody.get_stats()


class MinimalVendorTest(ApplianceTestCase):
    options = {"volume_file": False}

    def test_share_without_a_file(self):
        self.assertNotIn(
            "share.volume_file", self.api.get_stats().pools[0].features
        )
        self.assertIsNone(self.share().file)


class SmallPoolTest(ApplianceTestCase):
    options = {"pool_bytes": 1 << 20}

    def test_no_space(self):
        with self.assertRaises(acme_client.NoSpace) as caught:
            self.share(file=acme_client.VolumeFileSpec(allocation="full"))
        self.assertEqual("pool.no_space", caught.exception.code)
        self.assertEqual([], list(self.api.list_shares()))


@ddt.ddt
class AnyReplyMayBeLostTest(ApplianceTestCase):
    """Each call, hit by each fault, ends as if nothing had happened."""

    FAULTS = {
        "reply lost": [transports.ReplyLost()],
        "lost twice": [transports.ReplyLost(), transports.ReplyLost()],
        "refused": [transports.Refused()],
        "slow": [transports.SlowReply()],
        "reset": [transports.ResetInTheMiddle()],
        "starting": [transports.unavailable("1")],
        "gateway": [transports.Answer(504, b"", applied=True)],
        "lost, then busy": [
            transports.ReplyLost(),
            transports.problem(409, "share.busy", retryable=True),
        ],
    }

    @ddt.data(*FAULTS)
    def test_fault(self, name):
        def hit():
            self.adapter.add(*self.FAULTS[name])

        ids = [new_id() for _ in range(3)]
        hit()
        share = self.api.create_share(ids[0], name="n", size_bytes=GIB)
        self.assertEqual(GIB, share.size_bytes)
        hit()
        self.api.create_snapshot(ids[1], ids[0])
        hit()
        source = acme_client.Source("snapshot", ids[1])
        clone = self.api.create_share(
            ids[2], name="c", source=source, size_bytes=2 * GIB
        )
        self.assertEqual(source, clone.origin)
        hit()
        grown = self.api.update_share(
            ids[0], size_bytes=2 * GIB, if_match=share.generation
        )
        self.assertEqual(2 * GIB, grown.size_bytes)
        self.assertGreater(grown.generation, share.generation)
        hit()
        rule = self.api.grant_access(ids[0], "h", ["192.0.2.51"], "ro")
        self.assertEqual("ro", rule.level)
        hit()
        self.api.revoke_access(ids[0], "h")
        hit()
        self.api.delete_snapshot(ids[1])
        hit()
        listed = [one.id for one in self.api.list_shares()]
        self.assertEqual(sorted([ids[0], ids[2]]), sorted(listed))
        for share_id in (ids[0], ids[2]):
            hit()
            self.api.delete_share(share_id)
        self.assertEqual(0, self.adapter.pending)
        (pool,) = self.api.get_stats().pools
        self.assertEqual((0, 0), (pool.share_count, pool.snapshot_count))

    def test_garbage_is_told_and_a_repetition_helps(self):
        self.adapter.add(transports.garbage())
        with self.assertRaises(acme_client.ProtocolError) as caught:
            self.share(share_id=base.SHARE_ID)
        self.assertTrue(caught.exception.may_have_been_applied)
        self.assertEqual(base.SHARE_ID, self.share(share_id=base.SHARE_ID).id)

    def test_restarted_server_fails_no_call(self):
        share = self.share()
        for _ in range(3):
            self.appliance.drop_connections()
            self.api.update_share(share.id, name=new_id())
        self.assertEqual([], self.clock.sleeps)


class LoginTest(ApplianceTestCase):
    def setUp(self):
        super().setUp()
        token, record = self.appliance.tokens.create(
            "cinder", "driver", inprocess.NAMESPACE
        )
        self.record = record
        self.api = self.connect(
            credentials=acme_client.BasicLogin("cinder", token)
        )

    def test_session(self):
        share = self.share()
        self.assertEqual(inprocess.NAMESPACE, share.namespace)
        self.assertEqual(
            {"POST /v1/tokens": 1, "PUT /v1/shares/{id}": 1}, self.counted()
        )
        self.api.close()
        self.assertEqual({"DELETE /v1/tokens/self": 1}, self.counted())
        self.api.get_share(share.id)
        self.assertEqual(
            {"POST /v1/tokens": 1, "GET /v1/shares/{id}": 1}, self.counted()
        )

    def test_forgotten_session(self):
        share = self.share()
        # A session that ends in the middle, as at the end of its hour.
        session = self.api._calls.requester._session_token
        other = self.connect(credentials=acme_client.BearerToken(session))
        other._calls.requester.perform(
            transport.Request("DELETE", "/v1/tokens/self"),
            other._calls.begin(),
            requester.nothing,
        )
        self.api.get_share(share.id)
        self.counted()
        self.api.get_share(share.id)
        self.assertEqual({"GET /v1/shares/{id}": 1}, self.counted())


class JobsTest(ApplianceTestCase):
    """Work that outlasts the wait becomes a job, and the call waits on."""

    def setUp(self):
        super().setUp()
        # The appliance holds a change for a second of this, not for 20.
        self.api = self.api.with_deadline(2.5)
        self.engine = self.appliance.engines["gold"]

    def until_asked(self, then=lambda: None):
        """An engine's step that ends when somebody asks about the job."""

        def asked():
            return any("/v1/jobs/" in sent.path for sent in self.log.sent)

        def step(*args):
            for _ in range(1000):
                if asked():
                    return then(*args)
                threading.Event().wait(0.01)
            raise AssertionError("nobody asked about the job")

        return step

    def test_create(self):
        create = self.engine.create_share
        self.engine.create_share = self.until_asked(create)
        share = self.share()
        self.assertEqual("available", share.state)
        counts = self.counted()
        self.assertEqual(1, counts["PUT /v1/shares/{id}"])
        self.assertEqual(1, counts["GET /v1/shares/{id}"])
        self.assertGreaterEqual(counts["GET /v1/jobs/{id}"], 1)

    def test_create_that_fails(self):
        def fail(*args):
            raise engines.NoSpace("no space left")

        self.engine.create_share = self.until_asked(fail)
        with self.assertRaises(acme_client.NoSpace) as caught:
            self.share()
        self.assertIsNotNone(caught.exception.job_id)
        self.assertEqual([], list(self.api.list_shares()))

    def test_delete(self):
        share = self.share()
        delete = self.engine.delete_share
        self.engine.delete_share = self.until_asked(delete)
        self.api.delete_share(share.id)
        self.assertIsNone(self.api.find_share(share.id))

    def test_job_outlasts_the_call(self):
        release = threading.Event()
        create = self.engine.create_share

        def wait(*args):
            release.wait(120)
            create(*args)

        self.engine.create_share = wait
        self.addCleanup(release.set)
        share_id = new_id()
        with self.assertRaises(acme_client.JobUnfinished) as caught:
            self.share(share_id=share_id)
        self.assertEqual("creating", self.api.get_share(share_id).state)
        release.set()
        self.assertRegex(caught.exception.job_id, "^[0-9a-f-]{36}$")
        self.assertEqual("available", self.share(share_id=share_id).state)


class BusyTest(ApplianceTestCase):
    def test_many_threads_change_one_share(self):
        share = self.share()
        wrong = []

        def work(number):
            holder = f"cmp-{number}"
            address = f"192.0.2.{number + 1}"
            try:
                self.api.grant_access(share.id, holder, [address], "rw")
                if number % 2:
                    self.api.revoke_access(share.id, holder)
            except acme_client.ApiError as exc:
                wrong.append(exc)

        threads = [
            threading.Thread(target=work, args=(number,))
            for number in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        self.assertEqual([], wrong)
        self.assertEqual(
            {f"cmp-{number}" for number in range(0, 16, 2)},
            set(self.api.get_share(share.id).access),
        )
