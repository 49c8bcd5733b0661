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

"""The contract, the routes and the problem codes say the same."""

import ast
import re
import unittest

import jsonschema

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.api import contract
from acme_appliance.api import routes
from tests.unit import test_imports

# What was released: a code never goes, and keeps its status and meaning.
RELEASED = {
    "request.invalid": (400, False),
    "request.unknown_field": (400, False),
    "request.bad_json": (400, False),
    "auth.invalid": (401, False),
    "auth.expired": (401, False),
    "auth.forbidden": (403, False),
    "route.not_found": (404, False),
    "share.not_found": (404, False),
    "snapshot.not_found": (404, False),
    "group.not_found": (404, False),
    "group_snapshot.not_found": (404, False),
    "pool.not_found": (404, False),
    "access.not_found": (404, False),
    "job.not_found": (404, False),
    "route.method_not_allowed": (405, False),
    "share.exists_mismatch": (409, False),
    "snapshot.exists_mismatch": (409, False),
    "revert.exists_mismatch": (409, False),
    "group.exists_mismatch": (409, False),
    "group_snapshot.exists_mismatch": (409, False),
    "share.has_snapshots": (409, False),
    "share.in_group": (409, False),
    "group.other_pool": (409, False),
    "group.shares_left": (409, False),
    "group.wrong_state": (409, False),
    "group_snapshot.wrong_state": (409, False),
    "moment.unavailable": (503, True),
    "limit.groups": (507, False),
    "limit.group_shares": (507, False),
    "share.in_use": (409, False),
    "share.shrink_refused": (409, False),
    "share.wrong_state": (409, False),
    "snapshot.in_use": (409, False),
    "snapshot.wrong_state": (409, False),
    "share.degraded": (409, False),
    "pool.unsupported": (409, False),
    "job.not_cancellable": (409, False),
    "job.cancelled": (409, False),
    "job.unreadable": (409, False),
    "share.busy": (409, True),
    "precondition.failed": (412, False),
    "request.too_large": (413, False),
    "request.media_type": (415, False),
    "rate.limited": (429, True),
    "internal": (500, False),
    "system.starting": (503, True),
    "system.readonly": (503, True),
    "engine.unavailable": (503, True),
    "pool.no_space": (507, False),
    "limit.bytes": (507, False),
    "limit.shares": (507, False),
    "limit.snapshots": (507, False),
    "limit.access_rules": (507, False),
}

# What the contract has for other appliances, and this one never answers.
OF_OTHERS = {
    "name.taken",
    "job.in_progress",
    "idempotency.key_reused",
    "precondition.required",
}


class ContractTest(unittest.TestCase):
    def setUp(self) -> None:
        self.contract = contract.load()

    def test_every_route_is_in_the_contract_and_the_other_way_round(self):
        routed = {
            (route.handler.__name__, route.method, route.path)
            for route in routes.ROUTES
        }
        promised = {
            (operation.id, operation.method, operation.path)
            for operation in self.contract.operations.values()
        }
        self.assertEqual(promised, routed)
        self.assertEqual(len(routes.ROUTES), len(routed))

    def test_the_codes_are_those_of_the_table_and_none_was_changed(self):
        _, schema = self.contract.resolve(
            ("components", "schemas", "ProblemCode")
        )
        self.assertEqual(
            list(problems.CODES),
            [code for code in schema["enum"] if code not in OF_OTHERS],
        )
        self.assertLess(OF_OTHERS, set(schema["enum"]))
        self.assertEqual(
            RELEASED,
            {
                c: (row.http, row.retryable)
                for c, row in problems.CODES.items()
            },
        )

    def test_every_code_of_the_table_is_used(self):
        used = {
            node.value
            for name, tree in test_imports.modules("acme_appliance")
            if name != "acme_appliance.problems"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
        }
        self.assertEqual(set(), problems.CODES.keys() - used)

    def test_every_schema_is_valid_and_every_reference_leads_somewhere(self):
        for name, schema in self.contract.document["components"][
            "schemas"
        ].items():
            with self.subTest(schema=name):
                jsonschema.Draft202012Validator.check_schema(schema)
        references = set(re.findall(r"'#/([^']+)'", self.contract.text))
        self.assertGreater(len(references), 40)
        for reference in references:
            with self.subTest(reference=reference):
                self.contract.resolve(tuple(reference.split("/")))

    def test_every_component_is_used(self):
        used = set(re.findall(r"'#/components/([^']+)'", self.contract.text))
        components = self.contract.document["components"]
        made = {
            f"{kind}/{name}"
            for kind in ("schemas", "parameters", "responses", "headers")
            for name in components[kind]
        }
        self.assertEqual(made, used)

    def test_objects_in_requests_refuse_unknown_members(self):
        for operation in self.contract.operations.values():
            if operation.body is None:
                continue
            for validator in operation.body.validators.values():
                with self.subTest(operation=operation.id):
                    self.assertFalse(validator.is_valid({"no_such": 1}))

    def test_path_parameters_are_those_of_the_path(self):
        for operation in self.contract.operations.values():
            with self.subTest(operation=operation.id):
                self.assertEqual(
                    re.findall(r"{(\w+)}", operation.path),
                    [p.name for p in operation.parameters_in("path")],
                )

    def test_only_these_need_no_credential(self):
        open_to_all = {
            operation.id
            for operation in self.contract.operations.values()
            if not operation.scopes and not operation.basic
        }
        self.assertEqual(
            {"list_versions", "get_liveness", "get_readiness", "get_openapi"},
            open_to_all,
        )

    def test_every_change_can_be_waited_for_and_be_a_job(self):
        for operation in self.contract.operations.values():
            node = self.contract.document["paths"][operation.path][
                operation.method.lower()
            ]
            changes = operation.method != "GET" and not re.search(
                "token|job", operation.id
            )
            with self.subTest(operation=operation.id):
                self.assertEqual(
                    changes,
                    any(p.name == "Prefer" for p in operation.parameters),
                )
                self.assertEqual(changes, "202" in node["responses"])

    def test_published_limits_are_those_that_requests_are_held_to(self):
        components = self.contract.document["components"]
        limits, page = types.Limits(), components["parameters"]["Limit"]
        self.assertEqual(
            (limits.default_page, limits.max_page),
            (page["schema"]["default"], page["schema"]["maximum"]),
        )
        schemas = components["schemas"]
        self.assertEqual(types.MAX_LABELS, schemas["Labels"]["maxProperties"])
        self.assertEqual(
            limits.max_clients_per_rule, schemas["Clients"]["maxItems"]
        )
        for name, member in (
            ("GroupCreate", "shares"),
            ("GroupSnapshotCreate", "snapshots"),
        ):
            schema = schemas[name]["properties"][member]
            self.assertEqual(
                limits.max_shares_per_group, schema["maxProperties"]
            )
        self.assertEqual(
            limits.max_shares_per_group, schemas["ShareIds"]["maxItems"]
        )

    def test_no_keyword_compares_everything_with_everything(self):
        """What cannot be sorted is compared in pairs, before the length
        is looked at: a small body would cost seconds."""
        self.assertNotIn("uniqueItems", str(self.contract.document))

    def test_metrics_may_only_read_figures(self):
        allowed = {
            operation.id
            for operation in self.contract.operations.values()
            if "metrics" in operation.scopes
        }
        self.assertEqual(
            {
                "get_system",
                "get_stats",
                "get_metrics",
                "list_pools",
                "get_pool",
                "get_own_token",
                "delete_own_token",
            },
            allowed,
        )
