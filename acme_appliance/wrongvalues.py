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

"""Find invalid values of options, and explain them to the operator."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from oslo_config import cfg
from oslo_config import types

from acme_appliance import plugins


def find(
    conf: cfg.ConfigOpts, groups: Mapping[str, Sequence[cfg.Opt]]
) -> list[str]:
    """One line per invalid value: section, option, value, valid values.

    oslo.config validates a value when it is first read. So this reads all,
    and no later read can fail.
    """
    written = _written(conf.config_file or ())
    wrong = []
    for group, options in groups.items():
        for option in options:
            try:
                getattr(
                    conf if group == "DEFAULT" else conf[group], option.dest
                )
            except (cfg.Error, ValueError):
                values = written.get(group, {})
                value = values.get(option.name, option.default or "")
                wrong.append(
                    f"[{group}] {option.name} = {value}:"
                    f" {_rule(option.type, value)}"
                )
    return wrong


def _written(files: Iterable[str]) -> dict[str, dict[str, str]]:
    """Values as written in the files; the last one wins."""
    found: dict[str, dict[str, str]] = {}
    for file in files:
        sections: dict[str, Any] = {}
        cfg.ConfigParser(file, sections).parse()
        for section, values in sections.items():
            found.setdefault(section, {}).update(
                {name: each[-1] for name, each in values.items()}
            )
    return found


def _rule(type_: Any, value: str) -> str:
    if isinstance(type_, plugins.Name) and value in type_.unusable:
        return type_.unusable[value]
    return f"it must be {_allowed(type_)}"


def _allowed(type_: Any) -> str:
    choices = getattr(type_, "choices", None)
    if choices:
        return f"one of {', '.join(choices)}"
    if isinstance(type_, types.Integer):
        return f"a whole number{_bounds(type_)}"
    if isinstance(type_, types.Boolean):
        return "true or false"
    if isinstance(type_, types.List):
        return (
            "a list with commas between its entries, each of them"
            f" {_allowed(type_.item_type)}"
        )
    if isinstance(type_, types.IPAddress):
        return "an IP address"
    regex = getattr(type_, "regex", None)
    if regex is not None:
        return f"text that matches {regex.pattern}"
    return "text"


def _bounds(type_: types.Integer) -> str:
    if type_.max is not None:
        return f" between {type_.min} and {type_.max}"
    return "" if type_.min is None else f" from {type_.min}"
