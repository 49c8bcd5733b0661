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

"""The names that users of the client rely on; changing one breaks them."""

import ast
import dataclasses
import inspect
import unittest

import acme_client
from tests.unit import test_imports

NAMES = """
    AccessRule AlreadyExists ApiError AuthenticationFailed BadRequest
    BasicLogin BearerToken Busy Client ConfigurationError Conflict Degraded
    ExportLocation FieldError Forbidden GrantedAccess GrantedSnapshotAccess
    Group GroupShareSpec GroupSnapshot GroupSource HasSnapshots InUse
    InternalError InvalidArgument Job JobFailed JobUnfinished LimitReached
    Moment NoSpace NotFound NotSent OutcomeUnknown OwnToken Pool
    PreconditionFailed ProblemError Progress ProtocolError Qos RateLimited
    Share SharesLeft ShrinkRefused Snapshot SnapshotSpec Source Stats System
    TlsError TransportError Unavailable Unsupported Versions VolumeFile
    VolumeFileSpec WrongState
""".split()

FUNCTIONS = (
    "at_most",
    "check_verify",
    "limited",
    "limited_to_share",
    "parse_address",
)

METHODS = {
    "grant_snapshot_access": (
        "(self, snapshot_id: str, holder: str, clients: Sequence[str]) ->"
        " GrantedSnapshotAccess"
    ),
    "revoke_snapshot_access": (
        "(self, snapshot_id: str, holder: str) ->"
        " Mapping[str, AccessRule] | None"
    ),
    "cancel_job": "(self, job_id: str) -> Job",
    "close": "(self) -> None",
    "get_job": "(self, job_id: str) -> Job",
    "move_share": "(self, share_id: str, pool: str) -> Share",
    "create_share": (
        "(self, share_id: str, *, name: str, size_bytes: int | None = None,"
        " pool: str | None = None,"
        " file: VolumeFileSpec | None = None,"
        " source: Source | None = None,"
        " labels: Mapping[str, str] | None = None,"
        " qos: Qos | None = None,"
        " group_id: str | None = None) -> Share"
    ),
    "create_group": (
        "(self, group_id: str, *, name: str, pool: str | None = None,"
        " labels: Mapping[str, str] | None = None,"
        " source: GroupSource | None = None,"
        " shares: Mapping[str, GroupShareSpec] | None = None) -> Group"
    ),
    "create_group_snapshot": (
        "(self, group_snapshot_id: str,"
        " snapshots: Mapping[str, SnapshotSpec], *, name: str,"
        " group_id: str | None = None,"
        " labels: Mapping[str, str] | None = None) -> GroupSnapshot"
    ),
    "delete_group": (
        "(self, group_id: str, *, delete_shares: bool = False,"
        " cascade: bool = False, if_match: int | None = None) -> bool"
    ),
    "delete_group_snapshot": "(self, group_snapshot_id: str) -> bool",
    "get_group": "(self, group_id: str) -> Group",
    "update_group": (
        "(self, group_id: str, *, name: str | None = None,"
        " labels: Mapping[str, str | None] | None = None,"
        " add_share_ids: Sequence[str] = (),"
        " remove_share_ids: Sequence[str] = ()) -> Group"
    ),
    "create_snapshot": (
        "(self, snapshot_id: str, share_id: str, *,"
        " name: str | None = None,"
        " labels: Mapping[str, str] | None = None) -> Snapshot"
    ),
    "delete_share": "(self, share_id: str, *, cascade: bool = False) -> bool",
    "delete_snapshot": "(self, snapshot_id: str) -> bool",
    "find_share": "(self, share_id: str) -> Share | None",
    "find_snapshot": "(self, snapshot_id: str) -> Snapshot | None",
    "get_own_token": "(self) -> OwnToken",
    "get_share": "(self, share_id: str) -> Share",
    "get_snapshot": "(self, snapshot_id: str) -> Snapshot",
    "get_stats": "(self) -> Stats",
    "get_system": "(self) -> System",
    "get_versions": "(self) -> Versions",
    "grant_access": (
        "(self, share_id: str, holder: str, clients: Sequence[str],"
        " level: str) -> GrantedAccess"
    ),
    "list_shares": (
        "(self, *, name: str | None = None, pool: str | None = None,"
        " group_id: str | None = None, origin_id: str | None = None,"
        " state: str | None = None, holder: str | None = None,"
        " labels: Mapping[str, str] | None = None) -> Iterator[Share]"
    ),
    "list_snapshots": (
        "(self, *, share_id: str | None = None, name: str | None = None,"
        " state: str | None = None) -> Iterator[Snapshot]"
    ),
    "revert_share": (
        "(self, share_id: str, revert_id: str, snapshot_id: str) -> Share"
    ),
    "revoke_access": (
        "(self, share_id: str, holder: str) -> Mapping[str, AccessRule] | None"
    ),
    "update_share": (
        "(self, share_id: str, *, name: str | None = None,"
        " size_bytes: int | None = None,"
        " labels: Mapping[str, str | None] | None = None,"
        " file_name: str | None = None,"
        " qos: Qos | None = None,"
        " if_match: int | None = None) -> Share"
    ),
    "update_snapshot": (
        "(self, snapshot_id: str, *, name: str | None = None,"
        " labels: Mapping[str, str | None] | None = None,"
        " if_match: int | None = None) -> Snapshot"
    ),
    "with_deadline": "(self, deadline_seconds: float) -> Client",
}

PARENTS = {
    "NotSent": "TransportError",
    "TlsError": "NotSent",
    "OutcomeUnknown": "TransportError",
    "JobUnfinished": "OutcomeUnknown",
    "TransportError": "ApiError",
    "ProtocolError": "ApiError",
    "ProblemError": "ApiError",
    "BadRequest": "ProblemError",
    "AuthenticationFailed": "ProblemError",
    "Forbidden": "ProblemError",
    "NotFound": "ProblemError",
    "Conflict": "ProblemError",
    "AlreadyExists": "Conflict",
    "HasSnapshots": "Conflict",
    "InUse": "Conflict",
    "SharesLeft": "Conflict",
    "ShrinkRefused": "Conflict",
    "WrongState": "Conflict",
    "Degraded": "Conflict",
    "Unsupported": "Conflict",
    "Busy": "Conflict",
    "PreconditionFailed": "ProblemError",
    "NoSpace": "ProblemError",
    "LimitReached": "ProblemError",
    "RateLimited": "ProblemError",
    "Unavailable": "ProblemError",
    "InternalError": "ProblemError",
    "JobFailed": "ProblemError",
    "InvalidArgument": "ApiError",
    "ConfigurationError": "ApiError",
}


def plain(signature: inspect.Signature) -> str:
    """Without the modules that the names come from."""
    text = str(signature).replace("'", "")
    for module in (
        "collections.abc.",
        "acme_client.about.",
        "acme_client.models.",
        "acme_client.client.",
        "acme_client.groupmodels.",
    ):
        text = text.replace(module, "")
    return text


class PublicNamesTest(unittest.TestCase):
    def test_names(self):
        self.assertEqual(
            sorted([*NAMES, *FUNCTIONS]), sorted(acme_client.__all__)
        )
        for name in FUNCTIONS:
            self.assertTrue(
                inspect.isfunction(getattr(acme_client, name)), name
            )
        for name in NAMES:
            self.assertTrue(inspect.isclass(getattr(acme_client, name)), name)

    def test_methods(self):
        found = {
            name: plain(inspect.signature(member))
            for name, member in inspect.getmembers(acme_client.Client)
            if inspect.isfunction(member) and not name.startswith("_")
        }
        self.assertEqual(METHODS, found)

    def test_constructor(self):
        self.assertEqual(
            [
                "self",
                "addresses",
                "credentials",
                "verify",
                "connect_timeout_seconds",
                "read_timeout_seconds",
                "deadline_seconds",
                "request_id",
                "pool_size",
                "max_reply_bytes",
                "ca_option",
                "adapter_factory",
                "sleep",
                "clock",
                "new_backoff",
            ],
            list(inspect.signature(acme_client.Client.__init__).parameters),
        )

    def test_tree_of_errors(self):
        found = {
            name: getattr(acme_client, name).__bases__[0].__name__
            for name in NAMES
            if issubclass(getattr(acme_client, name), acme_client.ApiError)
            and name != "ApiError"
        }
        self.assertEqual(PARENTS, found)

    def test_models_cannot_be_changed(self):
        for name in NAMES:
            member = getattr(acme_client, name)
            if not issubclass(member, Exception) and name != "Client":
                self.assertTrue(dataclasses.is_dataclass(member), name)
                self.assertTrue(member.__dataclass_params__.frozen, name)

    def test_every_public_method_is_documented(self):
        undocumented = [
            name
            for name in METHODS
            if not inspect.getdoc(getattr(acme_client.Client, name))
        ]
        # Their names and types say it all.
        self.assertEqual(["find_share"], undocumented)

    def test_every_public_method_is_called(self):
        """By the driver: what nothing calls nobody needs."""
        called = {
            node.func.attr
            for _, tree in test_imports.modules("acme_cinder")
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
        }
        self.assertEqual([], sorted(METHODS.keys() - called - {"close"}))
