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

"""Jobs, pages, cached stats: what a call makes of several requests."""

import itertools

import ddt

import acme_client
from tests.harness import transports
from tests.unit.client import base
from tests.unit.client import wire

PROBLEM = {
    "code": "pool.no_space",
    "detail": "The pool gold is full.",
    "status": 507,
    "retryable": False,
}


class JobsTest(base.ClientTestCase):
    """A change that is answered by 202."""

    def appliance(self, *jobs, change=None, share=None):
        """Accepts every change, and answers about its job in turn."""
        states = list(jobs)

        def respond(seen: wire.Seen) -> wire.Behaviour:
            if seen.path.startswith("/v1/jobs/"):
                return wire.reply(
                    states.pop(0) if len(states) > 1 else states[0]
                )
            if seen.method == "GET":
                return share or wire.reply(base.SHARE)
            return change or wire.reply(base.job("queued"), 202)

        return self.serve(respond)

    def create(self, server, **kwargs):
        return self.client(server.address, **kwargs).create_share(
            base.SHARE_ID, name="n", size_bytes=1
        )

    def test_share_is_read_when_its_job_has_succeeded(self):
        server = self.appliance(base.job("running"), base.job("succeeded"))
        self.assertEqual(base.SHARE_ID, self.create(server).id)
        self.assertEqual(
            [
                f"PUT /v1/shares/{base.SHARE_ID}",
                f"GET /v1/jobs/{base.JOB_ID}",
                f"GET /v1/jobs/{base.JOB_ID}",
                f"GET /v1/shares/{base.SHARE_ID}",
            ],
            [f"{seen.method} {seen.path}" for seen in server.seen],
        )
        self.assertEqual("30", server.seen[1].query["wait"])
        ids = {seen.headers["X-Request-Id"] for seen in server.seen}
        self.assertEqual(1, len(ids))

    def test_job_that_is_already_done_is_not_asked_about(self):
        server = self.appliance(
            base.job("running"),
            change=wire.reply(base.job("succeeded"), 202),
        )
        self.create(server)
        self.assertEqual(2, len(server.seen))

    def test_failed_job_raises_its_problem(self):
        server = self.appliance(base.job("failed", problem=PROBLEM))
        with self.assertRaises(acme_client.NoSpace) as caught:
            self.create(server)
        self.assertEqual(base.JOB_ID, caught.exception.job_id)
        self.assertEqual("The pool gold is full.", caught.exception.detail)
        self.assertFalse(caught.exception.may_have_been_applied)

    def test_job_without_a_reason(self):
        for state in ("failed", "cancelled"):
            server = self.appliance(base.job(state))
            with self.assertRaises(acme_client.JobFailed) as caught:
                self.create(server)
            self.assertEqual(f"job.{state}", caught.exception.code)

    def test_deadline_leaves_the_job_running(self):
        server = self.appliance(base.job("running"))
        with self.assertRaises(acme_client.JobUnfinished) as caught:
            self.create(server, deadline_seconds=20)
        self.assertEqual(base.JOB_ID, caught.exception.job_id)
        self.assertTrue(caught.exception.may_have_been_applied)
        self.assertLessEqual(sum(self.clock.sleeps), 20)

    def test_appliance_that_does_not_hold_is_not_hammered(self):
        running = [base.job("running")] * 4
        server = self.appliance(*running, base.job("succeeded"))
        self.create(server)
        self.assertEqual([0.2, 0.4, 0.8, 1.6], self.clock.sleeps)

    def test_trouble_with_asking_is_no_trouble_with_the_work(self):
        faults = (
            [transports.Refused()] * 99,
            [transports.ReplyLost()] * 99,
            [transports.problem(404, "job.not_found")],
            [transports.unauthorised()],
            [transports.unavailable()] * 99,
            [transports.garbage()],
        )
        for fault in faults:
            server = self.appliance(base.job("running"))
            with self.assertRaises(acme_client.JobUnfinished):
                self.create(
                    server,
                    faults=[transports.Fault(), *fault],
                    deadline_seconds=5,
                )

    def test_share_that_cannot_be_read_afterwards_was_made(self):
        server = self.appliance(base.job("succeeded"))
        faults = [transports.Fault()] * 2 + [transports.Refused()] * 99
        with self.assertRaises(acme_client.OutcomeUnknown):
            self.create(server, faults=faults, deadline_seconds=5)

    def test_deletes_wait_too_and_read_nothing(self):
        server = self.appliance(base.job("succeeded"))
        api = self.client(server.address)
        api.delete_share(base.SHARE_ID)
        api.delete_snapshot(base.SNAPSHOT_ID)
        api.revoke_access(base.SHARE_ID, "cmp-1")
        self.assertEqual(6, len(server.seen))

    def test_failed_delete_is_an_error(self):
        server = self.appliance(
            base.job("failed", problem={**PROBLEM, "code": "share.in_use"})
        )
        with self.assertRaises(acme_client.InUse):
            self.client(server.address).delete_share(base.SHARE_ID)

    def test_job_of_a_share_that_is_gone(self):
        server = self.appliance(
            base.job("failed", problem={**PROBLEM, "code": "share.not_found"})
        )
        # Its status in the problem is 507: only the code decides.
        with self.assertRaises(acme_client.ProblemError):
            self.create(server)


@ddt.ddt
class PagesTest(base.ClientTestCase):
    def shares(self, count, size, link):
        """Serves ``count`` shares, ``size`` a page, next ones by ``link``."""

        def respond(seen: wire.Seen) -> wire.Behaviour:
            start = int(seen.query.get("marker", "0"))
            page = [
                {**base.SHARE, "name": f"volume-{number}"}
                for number in range(start, min(start + size, count))
            ]
            headers = {}
            if start + size < count:
                headers["Link"] = link.format(start + size)
            return wire.reply({"shares": page}, **headers)

        return self.serve(respond)

    @ddt.data(
        '</v1/shares?limit=1000&marker={}>; rel="next"',
        '<https://evil.example/v1/shares?marker={}>; rel="next"',
        '</v1/shares>; rel="first", <?marker={}>; rel="last next"',
        "</v1/shares?marker={}>; rel=next",
    )
    def test_all_pages_from_the_same_place(self, link):
        server = self.shares(25, 10, link)
        api = self.client(server.address)
        names = [share.name for share in api.list_shares(name="x")]
        self.assertEqual([f"volume-{n}" for n in range(25)], names)
        self.assertEqual(3, len(server.seen))
        for seen in server.seen:
            self.assertEqual("1000", seen.query["limit"])
            self.assertEqual("x", seen.query["name"])

    def test_pages_come_as_they_are_needed(self):
        server = self.shares(25, 10, '<?marker={}>; rel="next"')
        api = self.client(server.address)
        first = list(itertools.islice(api.list_shares(), 10))
        self.assertEqual(10, len(first))
        self.assertEqual(1, len(server.seen))

    def test_no_shares(self):
        server = self.shares(0, 10, "")
        self.assertEqual([], list(self.client(server.address).list_shares()))

    def test_lost_page_is_asked_for_again(self):
        server = self.shares(25, 10, '<?marker={}>; rel="next"')
        api = self.client(
            server.address,
            faults=[
                transports.Fault(),
                transports.ResetInTheMiddle(),
                transports.ReplyLost(),
            ],
        )
        self.assertEqual(25, len(list(api.list_shares())))

    def test_circle_is_noticed(self):
        server = self.serve(
            lambda seen: wire.reply(
                {"shares": []}, Link='<?marker=7>; rel="next"'
            )
        )
        with self.assertRaises(acme_client.ProtocolError):
            list(self.client(server.address).list_shares())
        self.assertEqual(2, len(server.seen))

    def test_filters(self):
        server = self.serve(lambda seen: wire.reply({"shares": []}))
        api = self.client(server.address)
        list(
            api.list_shares(
                origin_id=base.SHARE_ID, name="a&b", labels={"x/y": "1 2"}
            )
        )
        self.assertEqual(
            {
                "origin_id": base.SHARE_ID,
                "name": "a&b",
                "label.x/y": "1 2",
                "limit": "1000",
            },
            server.seen[0].query,
        )

    def test_page_without_its_list(self):
        server = self.serve(lambda seen: wire.reply({"items": []}))
        with self.assertRaises(acme_client.ProtocolError):
            list(self.client(server.address).list_shares())


class StatsTest(base.ClientTestCase):
    def test_unchanged_stats_are_not_sent_again(self):
        def respond(seen: wire.Seen) -> wire.Behaviour:
            if seen.headers.get("If-None-Match") == '"a"':
                return wire.Reply(304, headers=(("ETag", '"a"'),))
            return wire.reply(base.STATS, ETag='"a"')

        server = self.serve(respond)
        api = self.client(server.address)
        first = api.get_stats()
        self.assertIs(first, api.get_stats())
        self.assertIs(first, api.with_deadline(3).get_stats())
        self.assertEqual(3, len(server.seen))
        self.assertEqual(60, first.pools[0].free_bytes)
        self.assertIn("share.volume_file", first.pools[0].features)

    def test_changed_stats_replace_the_old(self):
        tags = iter("abc")
        server = self.serve(
            lambda seen: wire.reply(base.STATS, ETag=f'"{next(tags)}"')
        )
        api = self.client(server.address)
        for _ in range(3):
            api.get_stats()
        self.assertEqual(
            [None, '"a"', '"b"'],
            [seen.headers.get("If-None-Match") for seen in server.seen],
        )

    def test_without_etag_nothing_is_kept(self):
        server = self.serve(lambda seen: wire.reply(base.STATS))
        api = self.client(server.address)
        api.get_stats()
        api.get_stats()
        self.assertNotIn("If-None-Match", server.seen[1].headers)

    def test_304_that_nobody_asked_for(self):
        server = self.serve(lambda seen: wire.Reply(304))
        with self.assertRaises(acme_client.ProtocolError):
            self.client(server.address).get_stats()


@ddt.ddt
class UpdateTest(base.ClientTestCase):
    """A precondition that fails because the same call had succeeded."""

    def update(self, *, faults=(), **patch):
        def respond(seen: wire.Seen) -> wire.Behaviour:
            if seen.method == "PATCH":
                return wire.problem(412, "precondition.failed")
            return wire.reply(base.SHARE)

        server = self.serve(respond)
        api = self.client(server.address, faults=faults)
        share = api.update_share(base.SHARE_ID, if_match=6, **patch)
        self.assertEqual('"6"', server.seen[0].headers["If-Match"])
        return share

    @ddt.data(
        {"size_bytes": 1 << 30},
        {"name": "volume-1"},
        {"file_name": "volume"},
        {"labels": {"cinder.volume_id": "1", "absent": None}},
        {"name": "volume-1", "size_bytes": 1 << 30},
    )
    def test_as_wanted(self, patch):
        share = self.update(faults=[transports.ReplyLost()], **patch)
        self.assertEqual(7, share.generation)

    @ddt.data(
        {"size_bytes": 2 << 30},
        {"name": "volume-2"},
        {"file_name": "another"},
        {"labels": {"cinder.volume_id": None}},
        {"name": "volume-1", "size_bytes": 2 << 30},
        {"qos": acme_client.Qos(max_iops=500)},
    )
    def test_not_as_wanted(self, patch):
        with self.assertRaises(acme_client.PreconditionFailed):
            self.update(faults=[transports.ReplyLost()], **patch)

    def test_somebody_elses_change_is_told_even_if_it_looks_the_same(self):
        with self.assertRaises(acme_client.PreconditionFailed):
            self.update(name="volume-1")

    def test_patch_is_a_merge_patch(self):
        server = self.serve(lambda seen: wire.reply(base.SHARE))
        self.client(server.address).update_share(
            base.SHARE_ID, labels={"a": None}, file_name="f"
        )
        (seen,) = server.seen
        self.assertEqual(
            "application/merge-patch+json", seen.headers["Content-Type"]
        )
        self.assertEqual(
            b'{"labels": {"a": null}, "file": {"name": "f"}}', seen.body
        )


@ddt.ddt
class ArgumentsTest(base.ClientTestCase):
    @ddt.data(
        ("a/b", "a%2Fb"),
        ("a b?c#d%e", "a%20b%3Fc%23d%25e"),
        ("fe80::1", "fe80%3A%3A1"),
        ("zürich", "z%C3%BCrich"),
        ("..a", "..a"),
    )
    @ddt.unpack
    def test_ids_are_encoded_whole(self, holder, encoded):
        server = self.serve(lambda seen: wire.Reply(204))
        self.client(server.address).revoke_access(base.SHARE_ID, holder)
        self.assertEqual(
            f"/v1/shares/{base.SHARE_ID}/access/{encoded}",
            server.seen[0].path,
        )

    @ddt.data("", ".", "..", "\udc80", None, 7)
    def test_ids_that_would_name_something_else(self, share_id):
        server = self.serve(lambda seen: wire.Reply(204))
        api = self.client(server.address)
        with self.assertRaises(acme_client.InvalidArgument):
            api.delete_share(share_id)
        self.assertEqual((), server.seen)

    @ddt.data({"size_bytes": float("nan")}, {"name": object()})
    def test_bodies_that_are_no_json(self, patch):
        server = self.serve(lambda seen: wire.reply(base.SHARE))
        api = self.client(server.address)
        with self.assertRaises(acme_client.InvalidArgument):
            api.update_share(base.SHARE_ID, **patch)
        self.assertEqual((), server.seen)

    def test_gone_means_gone_only_for_what_was_asked(self):
        server = self.serve(lambda seen: wire.problem(404, "share.not_found"))
        api = self.client(server.address)
        api.delete_share(base.SHARE_ID)
        api.revoke_access(base.SHARE_ID, "cmp-1")
        self.assertIsNone(api.find_share(base.SHARE_ID))
        with self.assertRaises(acme_client.NotFound):
            api.delete_snapshot(base.SNAPSHOT_ID)

    @ddt.data(
        (wire.Reply(204), True),
        (wire.Reply(204, headers=(("was-absent", "true"),)), False),
        (wire.problem(404, "share.not_found"), False),
    )
    @ddt.unpack
    def test_whether_there_was_anything(self, answer, expected):
        server = self.serve(lambda seen: answer)
        api = self.client(server.address)
        self.assertIs(expected, api.delete_share(base.SHARE_ID))
