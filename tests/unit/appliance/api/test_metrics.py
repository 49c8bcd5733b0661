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

"""What Prometheus is told, and what alerts and dashboard make of it."""

import json
import pathlib
import re
from unittest import mock
import uuid

from prometheus_client import parser
import yaml

from acme_appliance.api import contract
from acme_appliance.engines import base as engines
from tests.unit.appliance.api import base

_ETC = pathlib.Path(__file__).parents[4] / "etc"
_NAME = re.compile(r"\b(?:acme|up)\w*(?=[{\[ )]|$)")
#: What Prometheus makes by itself of every target.
_OF_PROMETHEUS = {"up"}


class MetricsTest(base.ApiCase):
    def samples(self):
        """name, then labels, to value."""
        reply = self.admin.call("GET", "/v1/metrics")
        self.assertEqual(200, reply.status_code, reply.text)
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in parser.text_string_to_metric_families(reply.text)
            for sample in family.samples
        }

    def test_pools_jobs_and_health(self):
        before = self.samples()
        self.make_share()
        after = self.samples()
        pool = ("pool", "gold")
        self.assertEqual(1, after["acme_ready",])
        self.assertEqual(1, after["acme_pool_up", pool])
        self.assertEqual(0, after["acme_open_jobs", ("stuck", "true")])
        self.assertEqual(0, after["acme_unexplained_exports",])
        for name, more in (
            ("acme_pool_shares", 1),
            ("acme_pool_provisioned_bytes", 1 << 20),
        ):
            self.assertEqual(before[name, pool] + more, after[name, pool])

    def test_exports_of_shares_and_of_snapshots(self):
        before = self.samples()
        share_id = self.make_share()["id"]
        snapshot_id = self.make_snapshot(share_id)["id"]
        body = {"clients": ["192.0.2.61"], "level": "ro"}
        self.expect(201, "PUT", f"/v1/snapshots/{snapshot_id}/access/a", body)
        after = self.samples()
        for name, more in (
            ("acme_exported_shares", 0),
            ("acme_exported_snapshots", 1),
        ):
            self.assertEqual(before[name,] + more, after[name,])

    def test_requests_and_changes_are_counted_by_their_kind(self):
        def count(samples, *name):
            return samples.get(name, 0)

        put = (
            "acme_http_request_duration_seconds_count",
            ("operation", "put_share"),
            ("status", "201"),
        )
        changed = (
            "acme_changes_total",
            ("change", "share.create"),
            ("outcome", "succeeded"),
        )
        before = self.samples()
        self.make_share()
        after = self.samples()
        for name in (put, changed):
            self.assertEqual(count(before, *name) + 1, count(after, *name))

    def test_a_step_that_fails(self):
        engine = self.appliance.engines["gold"]
        with mock.patch.object(
            type(engine),
            "create_share",
            autospec=True,
            side_effect=engines.NoSpace("full"),
        ):
            path = f"/v1/shares/{uuid.uuid4()}"
            body = {"name": "volume", "size_bytes": 1 << 20}
            self.refused("pool.no_space", "PUT", path, body)
        found = self.samples()
        failed = ("change", "share.create"), ("outcome", "failed")
        self.assertLess(0, found["acme_changes_total", *failed])
        self.assertTrue(
            any(n == "acme_change_step_failures_total" for n, *_ in found)
        )

    def test_paths_make_no_series(self):
        self.client.call("GET", f"/v1/nothing/{uuid.uuid4()}")
        names = {key for key in self.samples() if key[0].startswith("acme_h")}
        operations = {dict(labels)["operation"] for _, *labels in names}
        self.assertLessEqual(operations, {*contract.load().operations, "none"})

    def test_a_pool_that_hangs(self):
        engine = self.appliance.engines["gold"]
        self.addCleanup(engine.reasons.clear)
        engine.reasons.append("it is not mounted")
        found = self.samples()
        self.assertEqual(0, found["acme_pool_up", ("pool", "gold")])
        self.assertEqual(0, found["acme_ready",])

    def test_drivers_may_not(self):
        self.refused("auth.forbidden", "GET", "/v1/metrics")

    def test_alerts_and_dashboard_name_what_there_is(self):
        self.make_share()
        there = {name for name, *_ in self.samples()} | _OF_PROMETHEUS
        rules = yaml.safe_load(
            (_ETC / "prometheus" / "acme-appliance.rules.yaml").read_text()
        )
        expressions = [
            rule["expr"]
            for group in rules["groups"]
            for rule in group["rules"]
        ]
        board = json.loads(
            (_ETC / "grafana" / "acme-appliance.json").read_text()
        )
        expressions += [
            target["expr"]
            for panel in board["panels"]
            for target in panel["targets"]
        ]
        named = {name for text in expressions for name in _NAME.findall(text)}
        self.assertLess(10, len(named))
        self.assertLessEqual(named, there)
