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

"""Every model of the client against the contract, by machine.

A model may leave out what the client does not need. What it has must be in
the contract, by the same name, of the same type, and be None where the
contract allows null, and only there.
"""

import dataclasses
import datetime
import importlib.resources
import inspect
import types
import typing
from typing import Any
import unittest

import ddt
import jsonschema
import yaml

from acme_client import groupmodels
from acme_client import models

_DOCUMENT = yaml.safe_load(
    importlib.resources.files("acme_appliance")
    .joinpath("openapi.yaml")
    .read_text()
)
_SCHEMAS = _DOCUMENT["components"]["schemas"]

#: What the server sends: model to schema.
_REPLIES = {
    models.ExportLocation: "ExportLocation",
    models.GrantedAccess: "AccessRule",
    models.GrantedSnapshotAccess: "SnapshotAccessRule",
    groupmodels.Group: "Group",
    groupmodels.GroupSnapshot: "GroupSnapshot",
    groupmodels.Moment: "Moment",
    models.Job: "Job",
    models.OwnToken: "OwnToken",
    models.Pool: "Pool",
    models.Progress: "Progress",
    models.Share: "Share",
    models.Snapshot: "Snapshot",
    models.Source: "Source",
    models.Stats: "Stats",
    models.VolumeFile: "File",
}
#: What the client sends.
_REQUESTS = {
    groupmodels.GroupShareSpec: "GroupShareCreate",
    groupmodels.GroupSource: "GroupSource",
    groupmodels.SnapshotSpec: "GroupMember",
    models.Qos: "Qos",
    models.Source: "Source",
    models.VolumeFileSpec: "FileCreate",
}
#: Members of those that are such models, too.
_NESTED = {"file": models.VolumeFileSpec, "qos": models.Qos}
#: Not an object of the contract: its holder is the key that it stands under.
_PARTS = {models.AccessRule}

_UUID = "0d9e2a54-58d2-4f0f-9d3c-1f4f9a1c2b3d"
#: Values for what a schema describes by a pattern.
_TEXTS = (
    _UUID,
    "2026-11-20T10:00:00.25Z",
    "0660",
    "4.2",
    "/shares/x",
    "share.create",
    "192.0.2.51",
    "gold",
)


def is_valid(value: Any, schema: Any) -> bool:
    """As the contract's JSON Schema says."""
    whole = {
        "components": _DOCUMENT["components"],
        "allOf": [schema],
    }
    return jsonschema.Draft202012Validator(whole).is_valid(value)


def resolved(schema: Any) -> Any:
    """The schema behind references, and the one that is not null."""
    while "$ref" in schema:
        schema = _SCHEMAS[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return resolved(schema["anyOf"][0])
    return schema


def kind_of(schema: Any) -> str:
    kind = resolved(schema)["type"]
    return kind if isinstance(kind, str) else kind[0]


def sample(schema: Any) -> Any:
    """A value that the schema allows, with something in everything."""
    found = resolved(schema)
    if "enum" in found:
        return found["enum"][0]
    kind = kind_of(found)
    if kind == "object":
        return _sample_object(found)
    if kind == "array":
        return [sample(found["items"])]
    if kind == "string":
        return next(text for text in _TEXTS if is_valid(text, found))
    return True if kind == "boolean" else max(7, found.get("minimum", 0))


def _sample_object(schema: Any) -> dict[str, Any]:
    made = {
        name: sample(member)
        for name, member in schema.get("properties", {}).items()
    }
    others = schema.get("additionalProperties")
    if others:
        key = sample({"type": "string", **schema.get("propertyNames", {})})
        made[key] = sample(others)
    return made


def plain(value: Any) -> Any:
    """A model's value as JSON has it."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, datetime.datetime):
        return value.timestamp()
    if isinstance(value, tuple | frozenset | list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def is_same(found: Any, sent: Any) -> bool:
    """Whether all that a model has is what was sent."""
    if isinstance(sent, dict) and isinstance(found, dict):
        return bool(found) and all(
            is_same(found[name], sent[name])
            for name in found.keys() & sent.keys()
        )
    if isinstance(sent, list):
        return len(found) == len(sent) and all(map(is_same, found, sent))
    if isinstance(found, float):
        moment = datetime.datetime.fromisoformat(sent)
        return found == moment.timestamp()
    return bool(found == sent)


def takes_none(hint: Any) -> bool:
    return types.NoneType in typing.get_args(hint)


def in_contract(hint: Any) -> str:
    """The JSON type of a field's type."""
    inner = [arg for arg in typing.get_args(hint) if arg is not types.NoneType]
    if takes_none(hint):
        return in_contract(inner[0])
    origin = typing.get_origin(hint) or hint
    if origin is bool:
        return "boolean"
    for kinds, name in (
        ((str, datetime.datetime), "string"),
        ((int,), "integer"),
        ((tuple, frozenset), "array"),
    ):
        if issubclass(origin, kinds):
            return name
    return "object"


def fields(model: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(model)
    return [(each, hints[each.name]) for each in dataclasses.fields(model)]


class ModelsTest(unittest.TestCase):
    def test_every_model_is_compared(self):
        found = {
            member
            for module in (models, groupmodels)
            for _, member in inspect.getmembers(module, inspect.isclass)
            if dataclasses.is_dataclass(member)
        }
        self.assertEqual(found, {*_REPLIES, *_REQUESTS, *_PARTS})

    def test_names_and_types(self):
        for model, name in (*_REPLIES.items(), *_REQUESTS.items()):
            properties = _SCHEMAS[name]["properties"]
            for field, hint in fields(model):
                with self.subTest(model=model.__name__, field=field.name):
                    self.assertIn(field.name, properties)
                    self.assertEqual(
                        kind_of(properties[field.name]), in_contract(hint)
                    )

    def test_none_stands_for_null(self):
        for model, name in _REPLIES.items():
            schema = _SCHEMAS[name]
            for field, hint in fields(model):
                with self.subTest(model=model.__name__, field=field.name):
                    self.assertIn(field.name, schema["required"])
                    null = is_valid(None, schema["properties"][field.name])
                    self.assertEqual(null, takes_none(hint))
                    self.assertIs(dataclasses.MISSING, field.default)

    def test_none_stands_for_what_is_not_sent(self):
        for model, name in _REQUESTS.items():
            required = _SCHEMAS[name].get("required", ())
            for field, hint in fields(model):
                with self.subTest(model=model.__name__, field=field.name):
                    optional = field.name not in required
                    self.assertEqual(optional, takes_none(hint))
                    default = None if optional else dataclasses.MISSING
                    self.assertIs(default, field.default)

    def test_what_is_sent_is_what_is_read(self):
        for model, name in _REPLIES.items():
            sent = sample(_SCHEMAS[name])
            self.assertTrue(is_valid(sent, _SCHEMAS[name]), sent)
            found = plain(model.from_json(sent))
            with self.subTest(model=model.__name__):
                self.assertTrue(is_same(found, sent), (found, sent))
                self.assertTrue(all(found.values()), found)

    def test_null_is_read_where_it_is_allowed_only(self):
        for model, name in _REPLIES.items():
            sent = sample(_SCHEMAS[name])
            for field, hint in fields(model):
                with self.subTest(model=model.__name__, field=field.name):
                    body = {**sent, field.name: None}
                    if takes_none(hint):
                        found = model.from_json(body)
                        self.assertIsNone(getattr(found, field.name))
                    else:
                        with self.assertRaises((TypeError, ValueError)):
                            model.from_json(body)

    def test_what_is_required_must_be_there(self):
        for model, name in _REPLIES.items():
            sent = sample(_SCHEMAS[name])
            for field in dataclasses.fields(model):
                body = {k: v for k, v in sent.items() if k != field.name}
                with (
                    self.subTest(model=model.__name__, field=field.name),
                    self.assertRaises(KeyError),
                ):
                    model.from_json(body)

    def test_requests_are_what_the_contract_takes(self):
        for model, name in _REQUESTS.items():
            body = sample(_SCHEMAS[name])
            members = {
                key: _NESTED[key](**value) if key in _NESTED else value
                for key, value in body.items()
            }
            sent = model(**members).to_json()
            self.assertEqual(body, sent)
            self.assertTrue(is_valid(sent, _SCHEMAS[name]), sent)


@ddt.ddt
class ComparisonTest(unittest.TestCase):
    """The comparison itself notices what it is there for."""

    @ddt.data(
        ({"detail": {}}, {"detail": {"x": 1}}),
        ({"detail": []}, {"detail": ["x"]}),
        ({"size": None}, {"size": 7}),
        ({"size": 8}, {"size": 7}),
    )
    @ddt.unpack
    def test_difference(self, found, sent):
        self.assertFalse(is_same(found, sent))
