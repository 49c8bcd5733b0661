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

import unittest

import ddt
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies

from acme_appliance import problems
from acme_appliance.api import contract
from acme_appliance.api import validation

SHARE_ID = "0d9e4a4e-7d0b-4a53-9a1c-0d7c7a2f9f11"
GOOD = {"name": "volume-1", "size_bytes": 1 << 30}

JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text(),
    lambda inner: (
        strategies.lists(inner)
        | strategies.dictionaries(strategies.text(), inner)
    ),
)


class Case(unittest.TestCase):
    def setUp(self) -> None:
        self.operations = contract.load().operations

    def refused(self, code, call, *args) -> problems.Problem:
        with self.assertRaises(problems.Problem) as caught:
            call(*args)
        self.assertEqual(code, caught.exception.code)
        self.assertTrue(caught.exception.detail)
        return caught.exception

    def body(self, operation_id, body) -> None:
        operation = self.operations[operation_id]
        for validator in operation.body.validators.values():
            validation.check_body(validator, body)


@ddt.ddt
class ParseJsonTest(Case):
    @ddt.data(
        b"",
        b"{",
        b"NaN",
        b'{"a": Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'"\xff"',
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b"[" * 60000,
        b"[" * 17 + b"]" * 17,
        b'{"a":' * 20000,
        b"1" * 5000,
        b'"a\nb"',
        b"{} {}",
        b"\xef\xbb\xbf{}",
    )
    def test_bad(self, data):
        self.refused("request.bad_json", validation.parse_json, data)

    @ddt.data(
        (
            b' {"a": [1, 1.5, null, true, "\\u00e4"]} ',
            {"a": [1, 1.5, None, True, "ä"]},
        ),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"[" * 15 + b"]" * 15, None),
    )
    @ddt.unpack
    def test_good(self, data, value):
        parsed = validation.parse_json(data)
        if value is not None:
            self.assertEqual(value, parsed)

    @settings(max_examples=200, deadline=None)
    @given(strategies.binary())
    def test_any_bytes_are_json_or_a_problem(self, data):
        try:
            validation.parse_json(data)
        except problems.Problem as problem:
            self.assertEqual("request.bad_json", problem.code)


@ddt.ddt
class BodyTest(Case):
    @ddt.data(
        GOOD,
        {"name": "v", "source": {"type": "share", "id": SHARE_ID}},
        {**GOOD, "labels": {"cinder.volume_id": ""}, "pool": "gold"},
        {**GOOD, "file": {}},
        {
            **GOOD,
            "file": {
                "name": "volume-1",
                "format": "raw",
                "allocation": "full",
                "uid": 0,
                "gid": 64061,
                "mode": "0660",
            },
        },
        # Of an earlier release: a share that is there may have it.
        {**GOOD, "file": {"mode": "0777"}},
        {**GOOD, "size_bytes": 1},
        {**GOOD, "size_bytes": 1 << 50},
        {**GOOD, "name": "Größe 😀"},
    )
    def test_good_share(self, body):
        self.body("put_share", body)

    @ddt.data(
        ({"name": "v"}, "request.invalid", "/size_bytes"),
        ({"size_bytes": 1}, "request.invalid", "/name"),
        ([], "request.invalid", ""),
        (None, "request.invalid", ""),
        ({**GOOD, "qos": {"max": 1}}, "request.unknown_field", "/qos/max"),
        ({**GOOD, "qos": {"max_iops": 0}}, "request.invalid", "/qos/max_iops"),
        ({**GOOD, "a/b~c": 1}, "request.unknown_field", "/a~1b~0c"),
        ({**GOOD, "file": {"x": 1}}, "request.unknown_field", "/file/x"),
        ({**GOOD, "size_bytes": "1"}, "request.invalid", "/size_bytes"),
        ({**GOOD, "size_bytes": 1.0}, "request.invalid", "/size_bytes"),
        ({**GOOD, "size_bytes": True}, "request.invalid", "/size_bytes"),
        ({**GOOD, "size_bytes": 0}, "request.invalid", "/size_bytes"),
        ({**GOOD, "size_bytes": 1 << 51}, "request.invalid", "/size_bytes"),
        ({**GOOD, "name": ""}, "request.invalid", "/name"),
        ({**GOOD, "name": "x" * 256}, "request.invalid", "/name"),
        ({**GOOD, "name": "a\n"}, "request.invalid", "/name"),
        ({**GOOD, "name": "a\x00"}, "request.invalid", "/name"),
        ({**GOOD, "pool": "../x"}, "request.invalid", "/pool"),
        (
            {**GOOD, "source": {"type": "share"}},
            "request.invalid",
            "/source/id",
        ),
        (
            {**GOOD, "source": {"type": "x", "id": SHARE_ID}},
            "request.invalid",
            "/source/type",
        ),
        (
            {**GOOD, "source": {"type": "share", "id": SHARE_ID.upper()}},
            "request.invalid",
            "/source/id",
        ),
        ({**GOOD, "file": {"name": ".."}}, "request.invalid", "/file/name"),
        ({**GOOD, "file": {"name": "a/b"}}, "request.invalid", "/file/name"),
        *(
            ({**GOOD, "file": {"mode": mode}}, "request.invalid", "/file/mode")
            for mode in ("4777", "0798", "660", "")
        ),
        ({**GOOD, "file": {"uid": -1}}, "request.invalid", "/file/uid"),
        ({**GOOD, "file": None}, "request.invalid", "/file"),
        ({**GOOD, "labels": {"a": 1}}, "request.invalid", "/labels/a"),
        ({**GOOD, "labels": {"a b": "1"}}, "request.invalid", "/labels/a b"),
        (
            {**GOOD, "labels": {f"k{n}": "" for n in range(33)}},
            "request.invalid",
            "/labels",
        ),
    )
    @ddt.unpack
    def test_bad_share(self, body, code, pointer):
        problem = self.refused(code, self.body, "put_share", body)
        self.assertEqual([pointer], [e["pointer"] for e in problem.errors])

    def test_all_faults_are_told_at_once(self):
        problem = self.refused(
            "request.invalid",
            self.body,
            "put_share",
            {"size_bytes": "x", "qos": 1, "nonsense": 2},
        )
        self.assertEqual(
            {
                ("/name", "request.invalid"),
                ("/size_bytes", "request.invalid"),
                ("/qos", "request.invalid"),
                ("/nonsense", "request.unknown_field"),
            },
            {(e["pointer"], e["code"]) for e in problem.errors},
        )

    def test_a_flood_of_faults_is_bounded(self):
        body = {f"x{n}" * 100: n for n in range(5000)}
        problem = self.refused("request.invalid", self.body, "put_share", body)
        self.assertLessEqual(len(problem.errors), 20)
        self.assertLess(len(str(problem.errors)), 10_000)

    @ddt.data(
        ("put_access", {"clients": [0] * 30_000, "level": "rw"}, "/clients"),
        (
            "put_share",
            {**GOOD, "labels": {f"!{n}": n for n in range(5000)}},
            "/labels",
        ),
        (
            "patch_share",
            {"labels": {f"!{n}": n for n in range(5000)}},
            "/labels",
        ),
    )
    @ddt.unpack
    def test_what_is_in_a_heap_is_not_looked_at(self, name, body, pointer):
        """Which would be a second of work for a body of 64 KiB."""
        problem = self.refused("request.invalid", self.body, name, body)
        self.assertEqual([pointer], [e["pointer"] for e in problem.errors])
        self.assertIn("Must have at most", problem.detail)

    @ddt.data(
        {},
        {"labels": {"a": None, "b": "x"}},
        {"size_bytes": 5, "name": "n", "file": {"name": "f"}},
        {"pool": "gold"},
    )
    def test_good_patch(self, body):
        self.body("patch_share", body)

    @ddt.data(
        {"size_bytes": None},
        {"name": None},
        {"labels": None},
        {"labels": {"a": 1}},
        {"file": {"uid": 1}},
        {"pool": "no pool"},
        {"id": SHARE_ID},
    )
    def test_bad_patch(self, body):
        with self.assertRaises(problems.Problem):
            self.body("patch_share", body)

    @ddt.data(
        {"clients": [], "level": "rw"},
        {"clients": ["*"], "level": "rw"},
        {"clients": ["host.example.org"], "level": "rw"},
        {"clients": ["192.0.2.1"], "level": "all"},
        {"clients": "192.0.2.1", "level": "rw"},
        {"clients": ["192.0.2.1 "], "level": "rw"},
        {"clients": ["192.0.2.1\n"], "level": "rw"},
        {"clients": ["192.0.2.1(rw)"], "level": "rw"},
        {"level": "rw"},
    )
    def test_bad_access_rule(self, body):
        self.refused("request.invalid", self.body, "put_access", body)

    @settings(max_examples=200, deadline=None)
    @given(JSON)
    def test_any_json_is_valid_or_a_problem(self, body):
        for operation in self.operations.values():
            if operation.body is None:
                continue
            for validator in operation.body.validators.values():
                try:
                    validation.check_body(validator, body)
                except problems.Problem as problem:
                    self.assertEqual(400, problem.http_status)
                    self.assertTrue(problem.errors)


@ddt.ddt
class QueryTest(Case):
    def query(self, operation_id, text):
        return validation.parse_query(self.operations[operation_id], text)

    def test_defaults_and_types(self):
        self.assertEqual({"limit": 200}, self.query("list_shares", ""))
        self.assertEqual(
            {"after": 7, "wait": 30, "limit": 200},
            self.query("list_events", "after=7&wait=30"),
        )

    def test_labels(self):
        self.assertEqual(
            {"limit": 5, "labels": {"label.a.b": "x=1", "label.c": "ä"}},
            self.query(
                "list_shares", "label.a.b=x%3D1&limit=5&label.c=%C3%A4"
            ),
        )

    @ddt.data(
        ("limit=0", "/query/limit"),
        ("limit=1001", "/query/limit"),
        ("limit=", "/query/limit"),
        ("limit=+1", "/query/limit"),
        ("limit=1e2", "/query/limit"),
        ("limit=%D9%A1", "/query/limit"),
        ("limit=" + "9" * 5000, "/query/limit"),
        ("limit=1&limit=2", "/query/limit"),
        ("state=gone", "/query/state"),
        ("name=%00", "/query/name"),
        ("name=a%0A", "/query/name"),
        ("name=%ff", "/query"),
        ("name=\xff", "/query"),
        ("marker=%20", "/query/marker"),
        ("label.=1", "/query/label."),
        ("label.a%20b=1", "/query/label.a b"),
        ("label.a=%01", "/query/label.a"),
        ("&".join(f"label.k{n}=1" for n in range(17)), "/query"),
        ("&".join(f"x{n}=1" for n in range(65)), "/query"),
    )
    @ddt.unpack
    def test_bad(self, text, pointer):
        problem = self.refused(
            "request.invalid", self.query, "list_shares", text
        )
        self.assertEqual(pointer, problem.errors[0]["pointer"])

    @ddt.data("all=1", "Limit=1", "label=1", "label", "=1")
    def test_unknown(self, text):
        self.refused("request.unknown_field", self.query, "list_shares", text)

    @settings(max_examples=200, deadline=None)
    @given(strategies.text())
    def test_any_text_is_a_query_or_a_problem(self, text):
        for operation in self.operations.values():
            try:
                validation.parse_query(operation, text)
            except problems.Problem as problem:
                self.assertEqual(400, problem.http_status)


@ddt.ddt
class HeaderTest(Case):
    @ddt.data('"7"', '"0"')
    def test_good_if_match(self, value):
        validation.check_headers(
            self.operations["put_share"], {"If-Match": value}
        )

    @ddt.data("7", "", '"7', '"7", "8"', 'W/"7"', "*", '"x"', '"7"\n')
    def test_bad_if_match(self, value):
        problem = self.refused(
            "request.invalid",
            validation.check_headers,
            self.operations["put_share"],
            {"If-Match": value},
        )
        self.assertEqual("/header/If-Match", problem.errors[0]["pointer"])
