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

"""A client for the API's tests that holds every reply to the contract."""

from typing import Any
import unittest
import uuid

import jsonschema
import requests

from acme_appliance.api import contract
from tests.harness.inprocess import RunningAppliance


def _strict(node: Any) -> Any:
    """The schemas with every object closed: what we send is all in there."""
    if isinstance(node, list):
        return [_strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _strict(value) for key, value in node.items()}
    if "properties" in closed and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
    return closed


class _StrictContract(contract.Contract):
    """As the contract, but replies may hold nothing that is not in it."""

    def __init__(self) -> None:
        loaded = contract.load()
        super().__init__(loaded.text)
        components = self.document["components"]
        components["schemas"] = _strict(components["schemas"])


STRICT = _StrictContract()


class ApiClient:
    """Sends requests; fails where a reply is not as the contract says."""

    def __init__(self, appliance: RunningAppliance, token: str | None) -> None:
        self.appliance = appliance
        self.session = requests.Session()
        # Or an administrator's REQUESTS_CA_BUNDLE would win over verify.
        self.session.trust_env = False
        self.session.verify = appliance.ca_file
        if token is not None:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def close(self) -> None:
        self.session.close()

    def call(
        self, method: str, path: str, body: Any = None, **options: Any
    ) -> requests.Response:
        headers = options.pop("headers", {})
        reply = self.session.request(
            method,
            self.appliance.url + path,
            json=body,
            headers=headers,
            timeout=60,
            allow_redirects=False,
            **options,
        )
        check_reply(method, path, reply)
        return reply


def find_operation(method: str, path: str) -> contract.Operation | None:
    wanted = path.partition("?")[0].split("/")
    for operation in STRICT.operations.values():
        parts = operation.path.split("/")
        if operation.method == method and len(parts) == len(wanted):
            pairs = zip(parts, wanted, strict=True)
            if all(p == w or p.startswith("{") for p, w in pairs):
                return operation
    return None


def check_reply(method: str, path: str, reply: requests.Response) -> None:
    """:raises AssertionError: status, media type, headers or body."""
    assert reply.headers["X-Request-Id"]
    operation = find_operation("GET" if method == "HEAD" else method, path)
    problem = ("components", "responses", "Problem")
    if operation is None:
        place = problem
    else:
        at = ("paths", operation.path, operation.method.lower(), "responses")
        statuses = STRICT.resolve(at)[1]
        status = str(reply.status_code)
        if status not in statuses:
            assert reply.status_code >= 400, (method, path, status)
            status = "default"
        place = (*at, status)
    place, node = STRICT.resolve(place)
    check_headers(place, node, reply)
    if "content" not in node or method == "HEAD":
        assert reply.content == b"", reply.content
        return
    media_type = reply.headers["Content-Type"].partition(";")[0]
    assert media_type in node["content"], (media_type, reply.text)
    validator = STRICT.validator(*place, "content", media_type, "schema")
    if media_type in ("application/yaml", "text/plain"):
        return
    try:
        validator.validate(reply.json())
    except jsonschema.ValidationError as error:
        raise AssertionError(f"{method} {path}: {error}") from error
    if media_type == "application/problem+json":
        assert reply.json()["status"] == reply.status_code
        assert reply.json()["request_id"] == reply.headers["X-Request-Id"]


def check_headers(place: Any, node: Any, reply: requests.Response) -> None:
    for name in node.get("headers", {}):
        at, header = STRICT.resolve((*place, "headers", name))
        if name not in reply.headers:
            # The only ones that depend on what there is to say.
            optional = ("Link", "Retry-After", "Was-Absent")
            assert name in optional, (name, reply.headers)
            continue
        validator = STRICT.validator(*at, "schema")
        assert validator.is_valid(reply.headers[name]), reply.headers
        assert header


class ApiCase(unittest.TestCase):
    """One appliance for all tests of a class; each has its own shares."""

    options: dict[str, Any] = {}

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.appliance = RunningAppliance(**cls.options).start()
        cls.addClassCleanup(cls.appliance.stop)

    def setUp(self) -> None:
        super().setUp()
        self.client = self.client_of(self.appliance.token)
        self.admin = self.client_of(self.appliance.admin_token)
        self.anybody = self.client_of(None)

    def client_of(self, token: str | None) -> ApiClient:
        client = ApiClient(self.appliance, token)
        self.addCleanup(client.close)
        return client

    def expect(
        self,
        status: int,
        method: str,
        path: str,
        body: Any = None,
        **rest: Any,
    ) -> requests.Response:
        reply = self.client.call(method, path, body, **rest)
        self.assertEqual(status, reply.status_code, reply.text)
        return reply

    def refused(
        self, code: str, method: str, path: str, body: Any = None, **rest: Any
    ) -> dict[str, Any]:
        client = rest.pop("client", self.client)
        reply = client.call(method, path, body, **rest)
        problem = reply.json()
        self.assertEqual(code, problem.get("code"), problem)
        return problem

    def make_share(self, **members: Any) -> dict[str, Any]:
        body = {"name": "volume", "size_bytes": 1 << 20, **members}
        path = f"/v1/shares/{uuid.uuid4()}"
        return self.expect(201, "PUT", path, body).json()

    def make_snapshot(self, share_id: str, **members: Any) -> dict[str, Any]:
        body = {"share_id": share_id, "name": "snapshot", **members}
        path = f"/v1/snapshots/{uuid.uuid4()}"
        return self.expect(201, "PUT", path, body).json()
