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

"""Validate requests against the contract, and describe errors."""

from collections.abc import Iterable
from collections.abc import Mapping
import itertools
import json
import re
from typing import Any
from typing import Final
import urllib.parse

from jsonschema import protocols

from acme_appliance import problems
from acme_appliance.api import contract

#: Maximum number of errors to report for a request.
_MAX_ERRORS: Final = 20
_MAX_DEPTH: Final = 16
_MAX_QUERY_FIELDS: Final = 64
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)

_NOUNS: Final = {
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "integer": "an integer, written without a point or exponent",
    "boolean": "true or false",
    "null": "null",
}


def parse_json(data: bytes) -> Any:
    """Parse strict JSON: no NaN, no duplicate keys, limited depth, UTF-8.

    :raises Problem: ``request.bad_json``; no other exception.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
        )
        _check_depth(value)
        if b"\\u" in data:
            # An escape can encode half a surrogate pair, which neither the
            # database nor a reply can store.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        reason = (
            "it nests too deeply"
            if isinstance(error, RecursionError)
            else _shorten(str(error))
        )
        raise problems.Problem(
            "request.bad_json", f"The body cannot be read as JSON: {reason}."
        ) from error
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same member twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = list(
            itertools.chain.from_iterable(
                node.values() if isinstance(node, dict) else node
                for node in level
                if isinstance(node, dict | list)
            )
        )
        if not level:
            return
    raise ValueError(f"it nests deeper than {_MAX_DEPTH} levels")


def check_body(validator: protocols.Validator, body: Any) -> None:
    """:raises Problem: with one entry in ``errors`` per error."""
    _check(validator, body, "")


def check_path(
    operation: contract.Operation, values: Mapping[str, str]
) -> None:
    for parameter in operation.parameters_in("path"):
        name = parameter.name
        _check(parameter.validator, values[name], f"/path/{name}")


def check_headers(
    operation: contract.Operation, values: Mapping[str, str]
) -> None:
    """:param values: the request's headers, by their names in the contract."""
    for parameter in operation.parameters_in("header"):
        name = parameter.name
        if name in values:
            _check(parameter.validator, values[name], f"/header/{name}")


def parse_query(
    operation: contract.Operation, query_string: str
) -> dict[str, Any]:
    """The query's parameters, typed and with their defaults.

    An exploded object is a dict under its own name. Absent parameters
    without a default are omitted.
    """
    given = _split_query(query_string)
    values: dict[str, Any] = {}
    for parameter in operation.parameters_in("query"):
        value = _take(parameter, given)
        if value is None:
            if parameter.default is not None:
                values[parameter.name] = parameter.default
            continue
        where = f"/query/{parameter.name}"
        if parameter.exploded:
            where = "/query"
        _check(parameter.validator, value, where)
        values[parameter.name] = value
    _refuse_unknown_parameters(operation, given)
    return values


def _split_query(query_string: str) -> dict[str, str]:
    if not query_string:
        return {}
    try:
        pairs = urllib.parse.parse_qsl(
            query_string.encode("ascii").decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_QUERY_FIELDS,
        )
    except ValueError as error:
        raise problems.Problem(
            "request.invalid",
            "The query cannot be read: it must be percent-encoded UTF-8"
            f" with at most {_MAX_QUERY_FIELDS} parameters.",
            pointer="/query",
        ) from error
    given: dict[str, str] = {}
    for name, value in pairs:
        if name in given:
            raise problems.Problem(
                "request.invalid",
                f"The parameter {_shorten(name)} is given twice.",
                pointer=_pointer("/query", [name]),
            )
        given[name] = value
    return given


def _take(parameter: contract.Parameter, given: dict[str, str]) -> Any:
    """Remove and return the parameter's value; None: absent."""
    if parameter.exploded:
        prefix = parameter.name.removesuffix("s") + "."
        names = [name for name in given if name.startswith(prefix)]
        return {name: given.pop(name) for name in names} or None
    value = given.pop(parameter.name, None)
    if (
        value is not None
        and parameter.kind == "integer"
        and _INTEGER.fullmatch(value)
    ):
        return int(value)
    return value


def _refuse_unknown_parameters(
    operation: contract.Operation, given: Iterable[str]
) -> None:
    errors = [
        {
            "pointer": _pointer("/query", [name]),
            "code": "request.unknown_field",
            "detail": "Unknown parameter.",
        }
        for name in given
    ]
    if errors:
        known = [p.name for p in operation.parameters_in("query")]
        raise problems.Problem(
            "request.unknown_field",
            f"{errors[0]['pointer']}: {errors[0]['detail']} Known:"
            f" {', '.join(known) or 'none'}.",
            errors=errors[:_MAX_ERRORS],
        )


def _check(validator: protocols.Validator, value: Any, where: str) -> None:
    if validator.is_valid(value):
        return
    # Report missing and wrong members before unknown ones.
    faults = sorted(
        validator.iter_errors(value),
        key=lambda error: error.validator == "additionalProperties",
    )
    errors = list(
        itertools.islice(
            itertools.chain.from_iterable(
                _describe(error, where) for error in faults
            ),
            _MAX_ERRORS,
        )
    )
    codes = {error["code"] for error in errors}
    code = codes.pop() if len(codes) == 1 else "request.invalid"
    first = errors[0]
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    raise problems.Problem(
        code,
        f"{first['pointer'] or 'The body'}: {first['detail']}{more}",
        errors=errors,
    )


def _describe(error: Any, where: str) -> Iterable[dict[str, str]]:
    path = list(error.absolute_path)
    if "propertyNames" in error.absolute_schema_path:
        path.append(error.instance)
    code, detail = "request.invalid", _message(error)
    names: list[str | None] = [None]
    if error.validator == "additionalProperties":
        code, detail = "request.unknown_field", "Unknown field."
        names = list(_unknown_members(error))
    elif error.validator == "required":
        detail = "This is required."
        names = [n for n in error.validator_value if n not in error.instance]
    for name in names:
        yield {
            "pointer": _pointer(where, path + ([name] if name else [])),
            "code": code,
            "detail": detail,
        }


def _unknown_members(error: Any) -> Iterable[str]:
    known = error.schema.get("properties", {})
    return (name for name in error.instance if name not in known)


def _message(error: Any) -> str:
    wanted = error.validator_value
    match error.validator:
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else wanted
            return f"Must be {' or '.join(_NOUNS[k] for k in kinds)}."
        case "enum":
            return f"Must be one of {', '.join(map(str, wanted))}."
        case "minimum":
            return f"Must be at least {wanted}."
        case "maximum":
            return f"Must be at most {wanted}."
        case "minItems" | "minProperties":
            return f"Must have at least {wanted}."
        case "maxItems" | "maxProperties":
            return f"Must have at most {wanted}."
        case "pattern":
            return f"Must match {wanted}"
        case "anyOf":
            return " Or: ".join(_message(each) for each in error.context or ())
    return _shorten(error.message)


def _pointer(where: str, path: Iterable[str | int | None]) -> str:
    parts = (
        _shorten(str(part)).replace("~", "~0").replace("/", "~1")
        for part in path
    )
    return "/".join([where, *parts])


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."
