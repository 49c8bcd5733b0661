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

"""The operations and schemas of ``openapi.yaml``."""

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import functools
import importlib.resources
import re
from typing import Any
from typing import Final

import jsonschema
from jsonschema import protocols
from jsonschema import validators
import yaml

METHODS: Final = ("get", "put", "post", "patch", "delete")

#: Ten times as fast as the pure Python loader.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a schema's pattern with ECMA's meaning of a final ``$``.

    Python's also matches before a final newline and so allows ``"name\\n"``.
    """
    if pattern.endswith("$") and not pattern.endswith("\\$"):
        pattern = pattern[:-1] + r"\Z"
    return re.compile(pattern)


def _pattern(
    validator: Any, pattern: str, instance: Any, schema: Any
) -> Iterator[jsonschema.ValidationError]:
    if isinstance(instance, str) and not compile_pattern(pattern).search(
        instance
    ):
        yield jsonschema.ValidationError(f"does not match {pattern}")


def _unless_too_many(keyword: str) -> Any:
    """Check a keyword only if the array or object has an allowed size.

    Reporting errors for each of ten thousand entries would be costly and
    useless.
    """
    check: Any = jsonschema.Draft202012Validator.VALIDATORS[keyword]

    def check_unless_too_many(
        validator: Any, value: Any, instance: Any, schema: Any
    ) -> Iterator[jsonschema.ValidationError]:
        name = "maxItems" if isinstance(instance, list) else "maxProperties"
        most = schema.get(name)
        sized = isinstance(instance, list | dict)
        if most is None or not sized or len(instance) <= most:
            yield from check(validator, value, instance, schema) or ()

    return check_unless_too_many


def _is_integer(checker: Any, instance: Any) -> bool:
    # JSON Schema accepts 1.0 and 1e3; sizes in bytes must not be floats.
    return isinstance(instance, int) and not isinstance(instance, bool)


_extend: Final[Any] = validators.extend
_Validator: Final[Any] = _extend(
    jsonschema.Draft202012Validator,
    validators={
        "pattern": _pattern,
        **{
            keyword: _unless_too_many(keyword)
            for keyword in ("items", "propertyNames", "additionalProperties")
        },
    },
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", _is_integer
    ),
)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """``exploded``: an object whose members are separate parameters."""

    name: str
    where: str
    required: bool
    exploded: bool
    kind: str
    default: Any
    validator: protocols.Validator


@dataclasses.dataclass(frozen=True)
class Body:
    required: bool
    validators: Mapping[str, protocols.Validator]


@dataclasses.dataclass(frozen=True)
class Operation:
    """``scopes``: allowed scopes; empty: no token needed.

    ``basic``: HTTP Basic instead of a bearer token.
    """

    id: str
    method: str
    path: str
    scopes: frozenset[str]
    basic: bool
    parameters: tuple[Parameter, ...]
    body: Body | None

    def parameters_in(self, where: str) -> list[Parameter]:
        return [p for p in self.parameters if p.where == where]


class Contract:
    """The parsed document; immutable."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.document: dict[str, Any] = yaml.load(text, Loader=_LOADER)  # noqa: S506
        self.operations: dict[str, Operation] = {}
        for path, item in self.document["paths"].items():
            for method in METHODS:
                if method in item:
                    operation = self._operation(path, method)
                    self.operations[operation.id] = operation

    def validator(self, *pointer: str) -> protocols.Validator:
        """A validator for the schema at this pointer."""
        validator: protocols.Validator = _Validator(self._inlined(pointer))
        return validator

    def _inlined(
        self, place: tuple[str, ...], inside: tuple[str, ...] = ()
    ) -> Any:
        """The schema at a pointer, with its references inlined.

        Following references at run time took half of a create's time in the
        API.
        """
        node: Any = self.document
        for part in place:
            node = node[int(part) if isinstance(node, list) else part]
        return self._inline(node, inside)

    def _inline(self, node: Any, inside: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [self._inline(each, inside) for each in node]
        if not isinstance(node, dict):
            return node
        rest = {
            key: self._inline(value, inside)
            for key, value in node.items()
            if key != "$ref"
        }
        if "$ref" not in node:
            return rest
        target = node["$ref"]
        if target in inside:
            raise ValueError(f"{target} refers to itself")
        place = tuple(target.split("/")[1:])
        inlined = self._inlined(place, (*inside, target))
        # Keywords beside a reference apply as well.
        return {"allOf": [inlined, rest]} if rest else inlined

    def resolve(self, place: tuple[str, ...]) -> tuple[tuple[str, ...], Any]:
        """Follow the references at a pointer; return the target and its
        pointer."""
        node: Any = self.document
        for part in place:
            node = node[int(part) if isinstance(node, list) else part]
        if isinstance(node, dict) and "$ref" in node:
            return self.resolve(tuple(node["$ref"].split("/")[1:]))
        return place, node

    def _operation(self, path: str, method: str) -> Operation:
        item = self.document["paths"][path]
        node = item[method]
        security = node.get("security", self.document["security"])
        places: list[tuple[str, ...]] = [("paths", path, "parameters")] * (
            "parameters" in item
        )
        places += [("paths", path, method, "parameters")] * (
            "parameters" in node
        )
        parameters = [
            self._parameter((*place, str(index)))
            for place in places
            for index in range(len(self.resolve(place)[1]))
        ]
        body = None
        if "requestBody" in node:
            body = self._body(("paths", path, method, "requestBody"))
        return Operation(
            id=node["operationId"],
            method=method.upper(),
            path=path,
            scopes=frozenset(
                scope for each in security for scope in each.get("bearer", ())
            ),
            basic=any("basic" in each for each in security),
            parameters=tuple(parameters),
            body=body,
        )

    def _parameter(self, place: tuple[str, ...]) -> Parameter:
        place, node = self.resolve(place)
        place = (*place, "schema")
        _, schema = self.resolve(place)
        return Parameter(
            name=node["name"],
            where=node["in"],
            required=node.get("required", False),
            exploded=node.get("explode", False),
            kind=schema["type"],
            default=schema.get("default"),
            validator=self.validator(*place),
        )

    def _body(self, place: tuple[str, ...]) -> Body:
        _, node = self.resolve(place)
        return Body(
            required=node.get("required", False),
            validators={
                media_type: self.validator(
                    *place, "content", media_type, "schema"
                )
                for media_type in node["content"]
            },
        )


@functools.cache
def load() -> Contract:
    """The contract in this package."""
    package = importlib.resources.files("acme_appliance")
    return Contract(package.joinpath("openapi.yaml").read_text("utf-8"))
